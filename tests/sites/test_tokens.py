"""Texts as numbers: the same everywhere, in order, and nothing learnt from anybody."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from sites.tokens import bucket, longest, tokens, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Lungs are clear.", ["lungs", "are", "clear"]),
        ("Nodule, 4,5mm; ?old", ["nodule", "4.5", "mm", "?", "old"]),
        ("semi-upright/AP 12.10.2020", ["semi", "upright", "ap", "12.10.2020"]),
        ("patient’s  ÖDEM\n_x_", ["patient's", "ödem", "x"]),
        ("O\u0308dem", ["ödem"]),  # two signs or one: the same letter
        ("(--)", []),
        ("", []),
    ],
)
def test_words(text, expected):
    assert words(text) == expected


def test_the_numbers_of_words_are_the_same_on_every_machine():
    """The first eight bytes of BLAKE2b as a number, by the standard library of whoever runs this; and frozen."""
    assert [bucket(w) for w in ("heart", "normal", "?")] == [651, 204, 129]
    by_hand = int(hashlib.blake2b(b"heart", digest_size=8).hexdigest(), 16) % 1023 + 1
    assert bucket("heart") == by_hand


@pytest.mark.gate
def test_the_numbers_do_not_depend_on_the_process():
    """Python's own hash of a text differs from process to process."""
    code = "from sites.tokens import tokens; print(tokens(['The heart is normal.'], 6).tolist())"
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": s},
        ).stdout
        for s in ("1", "2")
    }
    assert len(seen) == 1


def test_order_is_kept_and_texts_are_cut_and_filled_up():
    found = tokens(["heart normal", "normal heart heart normal", ""], length=3)
    heart, normal = bucket("heart"), bucket("normal")
    assert found.dtype == np.int64 and found.shape == (3, 3)
    assert found.tolist() == [[heart, normal, 0], [normal, heart, heart], [0, 0, 0]]


def test_a_text_has_the_same_numbers_whoever_else_is_there():
    assert (tokens(["heart normal", "a rare word"], 4)[0] == tokens(["heart normal"], 4)[0]).all()


def test_all_buckets_are_used_and_0_is_none():
    many = [bucket(f"word{k}", 16) for k in range(400)]
    assert set(many) == set(range(1, 17))


def test_the_longest_text():
    assert longest(["one two three.", "one?"]) == 3
    assert longest([]) == longest([""]) == 1
