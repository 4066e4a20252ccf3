"""Texts as numbers: every word becomes the number of a bucket that its hash falls into.

A tokeniser that is learnt (words seen often enough, pairs of letters) is learnt from somebody: whether a rare word has
a number of its own then tells who was among the patients, and forgetting them would mean to make it anew. Here nothing
is learnt. Which number a word has depends on its letters alone, the same at every hospital and on every machine; words
that nobody has written yet have one too. The price is that two words may share a bucket.

Reference:
    Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", ICML 2009, arXiv 0902.2206. Its second
    hash, of signs, is for sums of words; here words keep their order, and a network embeds each bucket.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fedunlearn.core import TOKENS

BUCKETS = TOKENS - 1
"""Numbers that a word can have, 1 to this; 0 is no word."""

LENGTH = 48
"""Words that are kept of a text, where nobody says otherwise."""

_WORD = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+(?:['’][^\W\d_]+)*|\?")


def words(text: str) -> list[str]:
    """The words of a text in their order, in small letters.

    A number is a word, decimals and all (``4,5`` is ``4.5``), and is parted from letters (``4mm``). Hyphens and
    slashes part words. Of the signs only the question mark is kept: a report that has one is not sure.
    """
    plain = unicodedata.normalize("NFKC", text).lower()
    return [word.replace(",", ".").replace("’", "'") for word in _WORD.findall(plain)]


def bucket(word: str, buckets: int = BUCKETS) -> int:
    """The number of a word, 1 to ``buckets``: from its hash, which is the same on every machine."""
    digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
    return 1 + int.from_bytes(digest, "big") % buckets


def tokens(texts: Sequence[str], length: int = LENGTH, buckets: int = BUCKETS) -> npt.NDArray[np.int64]:
    """Texts as numbers of their words, (N, length) int64: what is longer is cut, the rest is filled up with 0.

    Args:
        texts: N of them; an empty one is all 0.
        length: words kept of each.
        buckets: how many numbers there are beside 0.
    """
    found = np.zeros((len(texts), length), np.int64)
    known = dict[str, int]()
    for row, text in enumerate(texts):
        for place, word in enumerate(words(text)[:length]):
            if word not in known:
                known[word] = bucket(word, buckets)
            found[row, place] = known[word]
    return found


def longest(texts: Sequence[str]) -> int:
    """The number of words in the longest text, at least 1: the length at which nothing is cut."""
    return max([1, *(len(words(text)) for text in texts)])
