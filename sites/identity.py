"""When two spellings are one id, when they only look alike, what stands for none, and what other programs spoilt."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from fedunlearn.core.blanks import MISSING, NOBODY

SHOWN = 3
"""Ids, or groups of them, that a sentence names."""

_SHORTENED = re.compile(r"\d([.,]\d+)?[eE]\+\d+")
_MONTH = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|mär|mai|okt|dez"
_DATE = re.compile(rf"\d{{1,2}}[-.] ?({_MONTH})|({_MONTH})[- ]\d{{1,2}}", re.IGNORECASE)
_QUOTES = ("''", "‘’", "“”", "„“", "``", "«»", "´´")
_LONG = 80  # letters
_REMEMBERED = 2**16  # answers about texts: many rows have the same
_JOINERS = "\u200c\u200d"  # between the letters of some scripts they belong to the spelling


@dataclass(frozen=True)
class Ids:
    """A column of ids as they are compared.

    Attributes:
        ids: (N,) tidied.
        notes: what its owner should know of them, a sentence each.
    """

    ids: tuple[str, ...]
    notes: tuple[str, ...] = ()


def tidied(text: str) -> str:
    """An id as it is compared: Unicode NFC, without characters that nobody sees and white space around it."""
    if text.isascii():
        return text.strip()
    kept = "".join(c for c in text if c in _JOINERS or unicodedata.category(c) != "Cf")
    before: str | None = None
    while before != kept:  # white space and joiners may alternate
        before, kept = kept, kept.strip().strip(_JOINERS)
    return unicodedata.normalize("NFC", kept)


@lru_cache(_REMEMBERED)
def is_missing(text: str) -> bool:
    """Whether a cell has nothing in it, or a word for nothing."""
    return tidied(text).casefold() in MISSING


def alike(text: str) -> str:
    """What near-twins have in common.

    They differ only in case, Unicode's compatibility forms (full-width letters), joiners, leading zeros of numbers, a
    ``.0`` at the end, or in what joins their parts: white space, a dash, an underscore or, between others than numbers,
    nothing.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", tidied(text)).casefold())
    plain = "".join(_plain(c) for c in folded if c not in _JOINERS)
    joined = re.sub(r"(?<=[^\W_])[\s_-]+(?=[^\W_])", _joint, plain)
    close = re.sub(r"\s+", "", joined)
    close = re.sub(r"^(\d+)\.0+$", r"\1", close)
    return re.sub(r"\d+", lambda number: number[0].lstrip("0") or "0", close)


def _joint(between: re.Match[str]) -> str:
    """What stands for white space, dashes and underscores: two numbers must be kept apart."""
    text = between.string
    return "-" if text[between.start() - 1].isdigit() and text[between.end()].isdigit() else ""


def _plain(character: str) -> str:
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    return "-" if unicodedata.category(character) == "Pd" else character


def twins(ids: Iterable[str]) -> list[tuple[str, ...]]:
    """Groups of different ids that are near-twins, sorted."""
    groups = defaultdict[str, list[str]](list)
    for one in sorted(set(ids)):
        groups[alike(one)].append(one)
    return sorted(tuple(group) for group in groups.values() if len(group) > 1)


def settled(noun: str, given: Sequence[str]) -> Ids:
    """Ids as they are compared, and what is to be said of their spelling.

    Args:
        noun: what they are the ids of, such as patient.
        given: (N,) as written.
    """
    shape = {text: tidied(text) for text in set(given)}
    ids = tuple(shape[text] for text in given)
    notes = [*_merged(noun, shape), *_near(noun, ids), *_nobodies(noun, ids), *_spoilt(noun, ids)]
    return Ids(ids, tuple(notes))


def _merged(noun: str, shape: Mapping[str, str]) -> Iterable[str]:
    spellings = Counter(shape.values())
    several = sorted(one for one, count in spellings.items() if count > 1)
    if several:
        yield (
            f"{noun}: {listed(several)} {'is' if len(several) == 1 else 'are'} written in several ways that look the "
            "same (Unicode form, white space around them, characters that nobody sees); each is taken as one"
        )


def _near(noun: str, ids: Sequence[str]) -> Iterable[str]:
    if groups := twins(ids):
        counts = Counter(ids)
        shown = [" and ".join(f"{one!r} ({counts[one]:,})" for one in group) for group in groups[:SHOWN]]
        more = f", and {len(groups) - SHOWN:,} more such groups" if len(groups) > SHOWN else ""
        yield (
            f"{noun}: {'; '.join(shown)}{more} (with the numbers of their images) are written almost alike but are "
            "different ids here: forgetting one leaves the other; write them alike if they are one"
        )


def listed(values: Sequence[str], shown: int = SHOWN) -> str:
    """The first few values, and how many more there are."""
    more = f" and {len(values) - shown:,} more" if len(values) > shown else ""
    return ", ".join(map(quoted, values[:shown])) + more


def _nobodies(noun: str, ids: Sequence[str]) -> Iterable[str]:
    counts = Counter(one for one in ids if one.casefold() in NOBODY)
    if counts:
        shown = ", ".join(f"{one!r} ({count:,} images)" for one, count in sorted(counts.items())[:SHOWN])
        yield (
            f"{noun}: {shown} seems to be no name, yet all images with it count as one {noun}'s: if they are of "
            "several, give each an id, or remove the rows"
        )


def _spoilt(noun: str, ids: Sequence[str]) -> Iterable[str]:
    """Of ids that another program may have changed, since what they were cannot be known."""
    different = sorted(set(ids))
    if dates := [one for one in different if _DATE.fullmatch(one)]:
        yield (
            f"{noun}: {listed(dates)} may be what Excel made of ids such as 1-3, and several may so have become one: "
            "see where they are from, and make the column text"
        )
    if garbled := [one for one in different if not one.isascii() and _decoded(one) != one]:
        yield (
            f"{noun}: {listed(garbled)} may be letters that were read in a wrong encoding "
            f"({quoted(_decoded(garbled[0]))}?): elsewhere the same {noun} may be written right; save the table anew "
            "as UTF-8"
        )


def _decoded(text: str) -> str:
    """What UTF-8 that was read as Windows-1252 was; any other text as it is."""
    try:
        return text.encode("cp1252").decode("utf-8")
    except UnicodeError:
        return text


def in_words(names: Sequence[str]) -> str:
    """Classes with their numbers, at most twenty."""
    more = f" and {len(names) - 20:,} more" if len(names) > 20 else ""
    return ", ".join(f"{number} {name}" for number, name in enumerate(names[:20])) + more


def quoted(text: str) -> str:
    """A value as a message shows it; of a long one the start."""
    return repr(text) if len(text) <= _LONG else f"{text[:_LONG]!r}…"


@lru_cache(_REMEMBERED)
def damaged(text: str) -> tuple[str, str] | None:
    """Of an id that other programs, or quotes at the wrong place, have changed: the kind, and what to do; else None."""
    if any(c in text for c in "\r\n"):
        return "a line break", "which has a line break in it: is a quote missing, or one too many?"
    if re.fullmatch("#{3,}", text):
        return (
            "a narrow column",
            "as Excel writes where a column is too narrow: widen it there and save it anew",
        )
    if any(unicodedata.category(c) == "Cc" for c in text):
        return "control characters", "which has control characters in it: remove them"
    if '"' in text or (len(text) > 1 and text[0] + text[-1] in _QUOTES):
        return "quotes", 'which has quotes in it: write them as "…", or leave them out'
    if "\N{REPLACEMENT CHARACTER}" in text:
        return (
            "lost letters",
            "which lost letters when the file was converted: save it anew from its source, as UTF-8",
        )
    if _SHORTENED.fullmatch(text):
        return (
            "a shortened number",
            "a number that Excel shortened, so that several may be one: make the column text",
        )
    return None
