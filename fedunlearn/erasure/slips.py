"""A hospital's slip: who the references of a record are, under a key that only this hospital has.

A reference is an HMAC (RFC 2104, with SHA-256) of hospital and patient under a key of 32 random bytes. Who has the slip
can tell whom a reference is about. Who has not can neither tell nor try all ids, since the key is nowhere else.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from fedunlearn import files
from fedunlearn.core import InputError, RunError
from fedunlearn.erasure.keys import SLIPS, write_secrets


@dataclass(frozen=True)
class Slip:
    """Of one request at one hospital.

    Attributes:
        key: 32 bytes.
        site: the hospital.
    """

    key: bytes
    site: str

    def reference(self, patient: str) -> str:
        """How a record calls a patient: 64 hexadecimal digits."""
        message = json.dumps([self.site, patient]).encode()
        return hmac.new(self.key, message, hashlib.sha256).hexdigest()


@dataclass
class Slips:
    """The slips of many records: those that are new are written together, and nothing may name them before that.

    Attributes:
        keys: the folder of keys.
    """

    keys: Path
    _new: dict[Path, tuple[Slip, bytes]] = field(default_factory=dict, init=False, repr=False)

    def of(self, record: str, site: str, patients: Sequence[str]) -> Slip:
        """A hospital's slip for a record, made if there is none: who asks again gets the same references.

        Args:
            record: the record's id, which is part of the slip's name.
            site: the hospital.
            patients: their ids.

        Raises:
            InputError: it is damaged.
        """
        file = place(self.keys, record, site)
        if file in self._new:
            return self._new[file][0]
        with suppress(FileNotFoundError):
            return _read(file, record, site)
        made = Slip(secrets.token_bytes(32), site)
        content = {
            "record": record,
            "hospital": site,
            "key": made.key.hex(),
            "patients": {made.reference(patient): patient for patient in patients},
        }
        self._new[file] = made, files.sealed(content)
        return made

    def keep(self) -> None:
        """Write what is new; after this it is on the disk. Every slip is whole or not there, whatever stops this.

        Raises:
            InputError: one cannot be written, or somebody else made it meanwhile; others may be there already.
        """
        write_secrets({file: content for file, (_, content) in self._new.items()})
        self._new.clear()


def known(keys: Path, record: str, site: str) -> dict[str, str]:
    """A hospital's patients by how a record calls them, as the slip says that is there; empty if there is none.

    Raises:
        InputError: it is damaged.
    """
    file = place(keys, record, site)
    if not file.is_file():
        return {}
    _read(file, record, site)
    return dict(files.unsealed(file)["patients"])


def place(keys: Path, record: str, site: str) -> Path:
    """Where a slip is; destroying this file is what breaks the link to persons."""
    return keys / SLIPS / f"{record}@{site}.json"  # no id has an @ in it


def _read(file: Path, record: str, site: str) -> Slip:
    """A slip that is there.

    Raises:
        FileNotFoundError: it is not.
        InputError: it is not what was written.
    """
    file.stat()
    try:
        content = files.unsealed(file)
    except RunError as error:
        raise InputError(f"{error}; expected the slip of {record} at hospital {site}") from error
    if (content["record"], content["hospital"]) != (record, site):
        told = f"it is that of {content['record']} at hospital {content['hospital']}"
        raise InputError(f"{file}: {told}, expected the slip of {record} at hospital {site}")
    return Slip(bytes.fromhex(content["key"]), site)
