"""``fedunlearn`` and ``python -m fedunlearn``: the command line as a process."""

from __future__ import annotations

import sys
from pathlib import Path

from fedunlearn.commands import rim
from fedunlearn.commands.application import app, command

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line and end the process."""
    rim.run(command())


if __name__ == "__main__":
    # `python -m` has put the current folder first. Unless that is where we are ourselves, what lies in it, such as a
    # user's own package `sites`, must not be taken for ours: look there last, as the command `fedunlearn` never does.
    if not sys.flags.safe_path and Path(sys.path[0]).resolve() != Path(__file__).resolve().parents[1]:
        sys.path.append(sys.path.pop(0))
    main()
