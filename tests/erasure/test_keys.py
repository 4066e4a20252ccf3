"""Keys that sign, and slips that say who somebody is."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, x25519

from fedunlearn import files
from fedunlearn.core import InputError
from fedunlearn.erasure import keys
from fedunlearn.erasure.slips import Slip, Slips, place


def test_a_pair_signs_and_others_do_not(tmp_path: Path) -> None:
    one, other = keys.make(tmp_path / "one"), keys.make(tmp_path / "other")
    again, content = keys.read(tmp_path / "one"), b"what was done"
    assert again.public == one.public == keys.public(tmp_path / "one" / keys.PUBLIC) != other.public
    assert keys.signed(content, again.sign(content), one.public)
    assert not keys.signed(content, other.sign(content), one.public)
    assert not keys.signed(b"what was not done", one.sign(content), one.public)
    assert not keys.signed(content, "not hexadecimal", one.public)
    assert not keys.signed(content, one.sign(content).upper(), one.public)


def test_the_signature_is_that_of_the_standard(tmp_path: Path) -> None:
    """RFC 8032, section 7.1, test 2."""
    secret = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"
    public = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    signature = (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    made = keys.Keys(tmp_path, ed25519.Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret)))
    assert made.public == public and made.sign(bytes([0x72])) == signature


def test_nobody_else_can_read_the_secret(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    keys.make(folder)
    assert folder.stat().st_mode & 0o777 == 0o700 and (folder / keys.SECRET).stat().st_mode & 0o777 == 0o600
    (folder / keys.SECRET).chmod(0o640)
    with pytest.raises(InputError, match=r"can be read by others.*chmod 600"):
        keys.read(folder)


def test_keys_are_never_overwritten(tmp_path: Path) -> None:
    keys.make(tmp_path / "keys")
    before = (tmp_path / "keys" / keys.SECRET).read_bytes()
    with pytest.raises(InputError, match="never overwritten"):
        keys.make(tmp_path / "keys")
    assert (tmp_path / "keys" / keys.SECRET).read_bytes() == before


def test_what_is_no_key_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="makes a pair of keys"):
        keys.read(tmp_path)
    (tmp_path / keys.SECRET).write_text("no key")
    (tmp_path / keys.SECRET).chmod(0o600)
    with pytest.raises(InputError, match="no secret key in PEM"):
        keys.read(tmp_path)
    with pytest.raises(InputError, match="cannot read"):
        keys.public(tmp_path / keys.PUBLIC)
    (tmp_path / keys.PUBLIC).write_text("no key")
    with pytest.raises(InputError, match="no public key in PEM"):
        keys.public(tmp_path / keys.PUBLIC)


def test_keys_of_other_kinds_are_refused(tmp_path: Path) -> None:
    other = x25519.X25519PrivateKey.generate()
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (tmp_path / keys.SECRET).write_bytes(
        other.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain)
    )
    (tmp_path / keys.SECRET).chmod(0o600)
    (tmp_path / keys.PUBLIC).write_bytes(
        other.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    with pytest.raises(InputError, match="another kind, expected Ed25519"):
        keys.read(tmp_path)
    with pytest.raises(InputError, match="another kind, expected Ed25519"):
        keys.public(tmp_path / keys.PUBLIC)


# ----------------------------------------------------------------------------------------------------- slips


def slip(folder: Path, record: str, site: str, patients: Sequence[str]) -> Slip:
    slips = Slips(folder)
    found = slips.of(record, site, patients)
    slips.keep()
    return found


def test_a_reference_is_an_hmac_of_hospital_and_patient() -> None:
    """RFC 4231 has no such message, so the expected digits are those of `openssl mac`.

    printf '["north", "p-1"]' | openssl mac -digest SHA256 -macopt hexkey:$(printf '0b%.0s' $(seq 32)) HMAC
    """
    expected = "4a2ca4147be8433a857d92c4a4b2136978952d8524389f435e6f98ffb095277b"
    assert Slip(bytes([0x0B] * 32), "north").reference("p-1") == expected


def test_who_asks_again_gets_the_same_references(tmp_path: Path) -> None:
    keys.make(tmp_path / "keys")
    first = slip(tmp_path / "keys", "run-some", "north", ["p-1", "p-2"])
    again = slip(tmp_path / "keys", "run-some", "north", ["p-1", "p-2"])
    elsewhere = slip(tmp_path / "keys", "run-some", "east", ["p-1"])
    later = slip(tmp_path / "keys", "run-other", "north", ["p-1"])
    references = [one.reference("p-1") for one in (first, again, elsewhere, later)]
    assert references[0] == references[1] and len(set(references)) == 3


def test_a_slip_says_who_is_meant_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    keys.make(tmp_path / "keys")
    made = slip(tmp_path / "keys", "run-some", "north", ["p-1", "p-2"])
    file = place(tmp_path / "keys", "run-some", "north")
    assert file.stat().st_mode & 0o777 == 0o600
    assert json.loads(file.read_text())["patients"] == {made.reference(one): one for one in ("p-1", "p-2")}


def test_a_damaged_slip_is_told(tmp_path: Path) -> None:
    keys.make(tmp_path / "keys")
    slip(tmp_path / "keys", "run-some", "north", ["p-1"])
    file = place(tmp_path / "keys", "run-some", "north")
    file.write_text(file.read_text().replace("p-1", "p-2"))
    with pytest.raises(InputError, match=r"damaged.*expected the slip of run-some at hospital north"):
        slip(tmp_path / "keys", "run-some", "north", ["p-1"])


def test_requests_and_hospitals_whose_names_meet_have_slips_of_their_own(tmp_path: Path) -> None:
    keys.make(tmp_path / "keys")
    one = slip(tmp_path / "keys", "run-r", "x-y", ["p-1"])
    other = slip(tmp_path / "keys", "run-r-x", "y", ["p-2"])
    assert one.key != other.key and len(list((tmp_path / "keys" / keys.SLIPS).iterdir())) == 2


def test_another_slip_in_its_place_is_told(tmp_path: Path) -> None:
    keys.make(tmp_path / "keys")
    slip(tmp_path / "keys", "run-some", "north", ["p-1"])
    place(tmp_path / "keys", "run-some", "north").rename(place(tmp_path / "keys", "run-some", "east"))
    with pytest.raises(InputError, match=r"that of run-some at hospital north, expected the slip of .* east"):
        slip(tmp_path / "keys", "run-some", "east", ["p-1"])


def test_slips_of_many_records_wait_for_the_disk_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before any has its name all are on the disk, and their names are once they have them."""
    keys.make(tmp_path / "keys")
    slips, events = Slips(tmp_path / "keys"), list[str]()
    folder = tmp_path / "keys" / keys.SLIPS
    made = {name: slips.of(name, "north", ["p-1"]) for name in ("run-a", "run-b", "run-c")}
    assert slips.of("run-a", "north", ["p-1"]) is made["run-a"] and not list(folder.iterdir())

    def flushed(path: Path) -> None:
        events.append(f"{path.name.split('@')[0]}: {len(list(folder.glob('*.json')))}")

    monkeypatch.setattr(files, "_flush", flushed)
    slips.keep()
    assert events == ["run-a: 0", "run-b: 0", "run-c: 0", "slips: 3"]
    assert sorted(folder.iterdir()) == [place(tmp_path / "keys", name, "north") for name in made]
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in folder.iterdir())
    again = Slips(tmp_path / "keys")
    assert {name: again.of(name, "north", ["p-1"]) for name in made} == made


@pytest.mark.parametrize("links", [True, False])
def test_a_slip_that_somebody_else_made_meanwhile_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    """Its key may be in records already; some file systems give a file one name only."""
    keys.make(tmp_path / "keys")
    if not links:
        monkeypatch.setattr("os.link", refused)
    late = Slips(tmp_path / "keys")
    late.of("run-some", "north", ["p-1"])
    first = slip(tmp_path / "keys", "run-some", "north", ["p-1"])
    with pytest.raises(InputError, match=r"cannot write .*run-some@north\.json: File exists"):
        late.keep()
    assert slip(tmp_path / "keys", "run-some", "north", ["p-1"]) == first
    assert len(list((tmp_path / "keys" / keys.SLIPS).iterdir())) == 1


def refused(source: Path, target: Path) -> None:
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(source), None, str(target))
