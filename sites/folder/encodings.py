"""What a file of text really is, told by its first bytes: UTF-8, or named for what it is and refused."""

from __future__ import annotations

import io
from pathlib import Path

from fedunlearn.core import InputError, Problem

PARQUET = b"PAR1"

_EXCEL = 'open it there and save it as "CSV UTF-8 (comma delimited)", or write it with to_csv(…, index=False)'
_OTHERS = (
    (b"\xd0\xcf\x11\xe0", f"an Excel workbook (.xls): {_EXCEL}"),
    (b"%PDF", "a PDF document: export the table as CSV"),
    (b"\x1f\x8b", "compressed (gzip): unpack it first"),
    (b"BZh", "compressed (bzip2): unpack it first"),
    (b"\xfd7zXZ", "compressed (xz): unpack it first"),
    (b"SQLite format 3", "an SQLite database: export the table as CSV"),
    (b"\x89HDF", "an HDF5 file: export the table as CSV"),
    (b"{\\rtf", "a document (RTF): save the table as CSV"),
)
_WIDE = 'as Excel\'s "Unicode text" and PowerShell write it: save it as UTF-8 ("CSV UTF-8", Out-File -Encoding utf8)'


def text_of(file: Path) -> str:
    """A file's text, without a byte order mark.

    Raises:
        InputError: it is no text in UTF-8; says what it is instead.
    """
    content = file.read_bytes()
    if what := _no_text(content):
        raise InputError([Problem(f"is no CSV file in UTF-8 but {what}", str(file))])
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError([_other_encoding(file, content, error)]) from error
    if "\0" in next(iter(lines_of(text)), ""):
        message = "is no CSV file in UTF-8: it has zero bytes, as files have that are no text: save it as one"
        raise InputError([Problem(message, str(file), 1)])
    return text


def lines_of(text: str) -> list[str]:
    """Its lines with their ends, which may be those of Windows, Unix or old Macs; no other character ends one."""
    return list(io.StringIO(text, newline=""))


def _no_text(content: bytes) -> str | None:
    """What the content is instead of text in UTF-8, with the remedy; None if nothing tells."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or _alternates(content):
        return f"in UTF-16, {_WIDE}"
    if content.startswith(b"PK"):
        return _archive(content)
    start = content[:512].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<table", b"<head")):
        return "a web page or XML (HTML), perhaps of a login: open it in a browser, and save the table as CSV"
    if start.startswith((b"{", b"[")):
        by_line = ", lines=True" if start.startswith(b"{") else ""
        return f"JSON: write the table as CSV, for example pandas.read_json(FILE{by_line}).to_csv(…, index=False)"
    return next((what for magic, what in _OTHERS if content.startswith(magic)), None)


def _alternates(content: bytes) -> bool:
    """Whether every other byte is zero, as where Latin letters are in UTF-16 without a mark."""
    start = content[:200]
    return len(start) > 3 and (not any(start[1::2]) or not any(start[0::2])) and any(start)


def _archive(content: bytes) -> str:
    if b"xl/" in content or b"[Content_Types].xml" in content[:4096]:
        return f"an Excel workbook (.xlsx): {_EXCEL}"
    if b"opendocument" in content[:4096]:
        return f"a LibreOffice spreadsheet (.ods): {_EXCEL}"
    return f"a ZIP archive, as Excel workbooks (.xlsx) are: unpack it; if it is one, {_EXCEL}"


def _other_encoding(file: Path, content: bytes, error: UnicodeDecodeError) -> Problem:
    line = lines_of(content[: error.start + 1].decode("latin-1"))
    column = len(line[-1].encode("latin-1").decode("utf-8", errors="replace"))
    byte = content[error.start]
    letter = bytes([byte]).decode("cp1252", errors="replace")
    guess = (
        f"there it would be {letter!r}; save it as UTF-8, or convert it: iconv -f WINDOWS-1252 -t UTF-8"
        if letter.isalpha() or letter in "´`’‘“”€–°"
        else "save it as UTF-8"
    )
    message = (
        f"is no CSV file in UTF-8 (byte 0x{byte:02X}), but probably in Windows-1252 or Latin-1, as Excel saves it: "
        f"{guess}"
    )
    return Problem(message, str(file), len(line), column)
