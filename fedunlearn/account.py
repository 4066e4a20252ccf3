"""The account that the process runs under: in containers often a number without a name."""

from __future__ import annotations

import getpass
import os
import tempfile
from collections.abc import MutableMapping


def name_the_user(environment: MutableMapping[str, str]) -> None:
    """Give the user a name and a home where the system knows none, before libraries ask for them.

    torch's compiler and MONAI ask for the user's name while they are imported, and fail without one, wherever that
    import happens to be. Workers of Ray inherit what is set here.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError, ImportError):  # which of them depends on Python's version
        environment["USER"] = f"uid-{os.getuid()}"
    home = os.path.expanduser("~")
    if home == "~":  # no name, no HOME
        environment["HOME"] = tempfile.gettempdir()
