"""What is wrong with one file, in the words of whoever has it."""

from __future__ import annotations

import errno
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_REMEDIES = {
    errno.EACCES: "let the user who runs this read it (chmod u+r, or ask who owns it)",
    errno.EPERM: "let the user who runs this read it (chmod u+r, or ask who owns it)",
    errno.ENOENT: "put it there, or take it off the list",
    errno.EIO: "its disk may be broken: copy it from where it came",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}


class Unreadable(ValueError):
    """A file that is no image, or a damaged one.

    Attributes:
        kind: in a few words, equal for what is alike, so that files can be counted by it.
    """

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)


@contextmanager
def blaming(what: str, *errors: type[Exception]) -> Iterator[None]:
    """Turn what a library says of a file into `Unreadable`, and what the system says into its own words.

    Only reading stands inside, never an import: what is wrong with an installation is no file's fault. Warnings are
    about what the libraries read all the same.

    Args:
        what: the format, with its article.
        errors: what the library raises for damaged files, beside `ValueError`, `EOFError` and errors of files.

    Raises:
        Unreadable: one of them was raised.
    """
    blamed: tuple[type[Exception], ...] = (OSError, ValueError, EOFError, *errors)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Unreadable:
        raise
    except blamed as error:
        if isinstance(error, OSError) and error.errno is not None and error.strerror:
            advice = _REMEDIES.get(error.errno, "see that the file can be opened at all")
            message = f"cannot be opened ({error.strerror}): {advice}"
            raise Unreadable("cannot be opened", message) from error
        said = (str(error).strip().splitlines() or [""])[0][:160]
        reason = f"{type(error).__name__}: {said}" if said else type(error).__name__
        message = (
            f"is {what} that is damaged, cut off or of a rare kind ({reason}): get it again, or save it anew"
        )
        raise Unreadable("damaged", message) from error


@contextmanager
def named(name: str) -> Iterator[None]:
    """Say which of several files is `Unreadable`."""
    try:
        yield
    except Unreadable as error:
        raise Unreadable(error.kind, f"{name} {error}") from error
