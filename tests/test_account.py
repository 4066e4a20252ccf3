"""An account without a name: libraries ask for one while they are imported."""

from __future__ import annotations

import getpass
import os
import pwd
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fedunlearn import account

pytestmark = pytest.mark.gate


NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")  # where Python looks before it asks the system


@pytest.fixture
def nameless(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> pwd.struct_passwd:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in (*NAMES, "HOME"):
        monkeypatch.setenv(name, "")  # so that whatever is set is undone
        monkeypatch.delenv(name)
    monkeypatch.setattr("pwd.getpwuid", unknown)


@pytest.mark.usefixtures("nameless")
def test_who_has_no_name_is_given_one_and_a_home() -> None:
    account.name_the_user(os.environ)
    assert getpass.getuser() == f"uid-{os.getuid()}"
    assert Path.home() == Path(tempfile.gettempdir())


@pytest.mark.usefixtures("nameless")
def test_a_home_that_is_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    account.name_the_user(os.environ)
    assert os.environ["HOME"] == "/somewhere"


def test_who_has_a_name_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "somebody")
    before = dict(os.environ)
    account.name_the_user(os.environ)
    assert dict(os.environ) == before


def test_libraries_that_ask_for_a_name_can_be_imported() -> None:
    code = """
import os, pwd
def unknown(uid): raise KeyError(uid)
pwd.getpwuid = unknown
from fedunlearn import account
account.name_the_user(os.environ)
import torch._dynamo, monai.config
"""
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
