"""The pair of keys that signs records, in a folder outside of every run (Ed25519, RFC 8032)."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedunlearn import files
from fedunlearn.core import InputError

SECRET, PUBLIC = "signing.pem", "signing.pub"
SLIPS = "slips"
"""Where the slips of hospitals are, beside the keys: in a simulation, one folder stands for all of them."""
ALGORITHM = "Ed25519"


@dataclass(frozen=True)
class Keys:
    """A pair of keys that is at hand.

    Attributes:
        folder: where they are.
    """

    folder: Path
    _secret: Ed25519PrivateKey

    @property
    def public(self) -> str:
        """The public key, 32 bytes as hexadecimal digits."""
        return _hexadecimal(self._secret.public_key())

    def sign(self, content: bytes) -> str:
        """A signature of 64 bytes, as hexadecimal digits."""
        return self._secret.sign(content).hex()


def make(folder: Path) -> Keys:
    """Make a pair in a folder of its own, which nobody else may read.

    Raises:
        InputError: there is something at its place, or it cannot be made.
    """
    secret = Ed25519PrivateKey.generate()
    private = secret.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = secret.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    try:
        folder.mkdir(mode=0o700, parents=True)
        (folder / SLIPS).mkdir(mode=0o700)
        write_secret(folder / SECRET, private)
        (folder / PUBLIC).write_bytes(public)
    except FileExistsError as error:
        raise InputError(
            f"{folder} exists, expected a new folder: keys that are there already are never overwritten"
        ) from error
    except OSError as error:
        raise InputError(f"cannot make {folder}: {error.strerror or error}") from error
    return Keys(folder, secret)


def read(folder: Path) -> Keys:
    """The pair in a folder.

    Raises:
        InputError: there is none, it cannot be read, or others can read its secret.
    """
    file = folder / SECRET
    try:
        content, mode = file.read_bytes(), file.stat().st_mode
    except OSError as error:
        raise InputError(
            f"cannot read {file}: {error.strerror or error}; `fedunlearn keys {folder}` makes a pair of keys"
        ) from error
    if mode & 0o077:
        raise InputError(
            f"{file} can be read by others, expected a file that only its owner reads: chmod 600 {file}"
        )
    try:
        secret = serialization.load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InputError(f"{file} is no secret key in PEM without a password: {error}") from error
    if not isinstance(secret, Ed25519PrivateKey):
        raise InputError(f"{file} is a key of another kind, expected {ALGORITHM}")
    return Keys(folder, secret)


def public(file: Path) -> str:
    """The public key in a file, as hexadecimal digits.

    Raises:
        InputError: it cannot be read, or is none of this kind.
    """
    try:
        found = serialization.load_pem_public_key(file.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror or error}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InputError(
            f"{file} is no public key in PEM, expected a {PUBLIC} of `fedunlearn keys`"
        ) from error
    if not isinstance(found, Ed25519PublicKey):
        raise InputError(f"{file} is a key of another kind, expected {ALGORITHM}")
    return _hexadecimal(found)


def signed(content: bytes, signature: str, by: str) -> bool:
    """Whether a signature of ``content`` is by the public key ``by``; both as hexadecimal digits, letters small."""
    if signature != signature.lower() or by != by.lower():
        return False  # the same bytes, but not what was written
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(by)).verify(bytes.fromhex(signature), content)
    except (InvalidSignature, ValueError):
        return False
    return True


def fingerprint(key: str) -> str:
    """A public key in short, for people to compare: 16 digits of its sha256."""
    return hashlib.sha256(bytes.fromhex(key)).hexdigest()[:16]


def write_secret(file: Path, content: bytes, durable: bool = True) -> None:
    """Make a file that only its owner may read.

    Args:
        file: its place.
        content: of it.
        durable: wait until it is on the disk.

    Raises:
        OSError: it exists, or cannot be written.
    """
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as opened:
        opened.write(content)
        if durable:
            opened.flush()
            os.fsync(opened.fileno())


def write_secrets(contents: Mapping[Path, bytes]) -> None:
    """Make files that only their owner may read, in one folder, and wait once for all of them to be on the disk.

    A file comes to its place once it is whole, so what is there can be read, whatever stops this.

    Raises:
        InputError: one exists, or cannot be written; some may be there.
    """
    parts, mark = dict[Path, Path](), secrets.token_hex(8)
    try:
        for file, content in contents.items():
            file.parent.mkdir(mode=0o700, exist_ok=True)
            parts[file] = file.with_name(f"{file.name}.{mark}{files.PART}")
            write_secret(parts[file], content, durable=False)
        files.flush(parts.values())
        for file, part in parts.items():
            _put(part, file)
        files.flush(dict.fromkeys(file.parent for file in contents))
    except OSError as error:
        raise InputError(files.unwritten(Path(error.filename2 or error.filename or file), error)) from error
    finally:
        for part in parts.values():
            with suppress(OSError):
                part.unlink(missing_ok=True)


def _put(part: Path, file: Path) -> None:
    """Move a file to a place where there must be none.

    Raises:
        FileExistsError: there is one.
        OSError: it cannot be moved.
    """
    try:
        os.link(part, file)
    except FileExistsError:
        raise
    except OSError:  # a file system that gives a file one name only
        if file.exists():
            raise FileExistsError(
                errno.EEXIST, os.strerror(errno.EEXIST), str(part), None, str(file)
            ) from None
        part.rename(file)


def _hexadecimal(key: Ed25519PublicKey) -> str:
    return key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw).hex()
