"""What is wrong with the arrays of an `.npz` file, as far as their names, shapes and types tell."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from sites.formats.sizes import Claim
from sites.parts import PART_OF

SPLITS = ("train", "val", "test")
COLUMN = {"patient_id": "patient", "names": "image", "ids": "image"}
"""Columns that are called otherwise in a file."""

THIN = 4
"""An edge of so many pixels or fewer may be colours, or nothing; volumes have larger ones."""

_KINDS = {
    **dict.fromkeys(("images", "image", "imgs", "x", "data", "arr_0"), "images"),
    **dict.fromkeys(("labels", "label", "y", "target", "targets", "arr_1"), "labels"),
}
_MOST = 20  # array names that a sentence tells
_PEOPLE = frozenset(
    f"{who}{what}"
    for who in ("patient", "subject", "participant", "person", "case", "p", "mrn")
    for what in ("", "s", "id", "ids", "no", "number", "name")
) - {"p", "ps", "pno"}
_OF_IMAGES = frozenset(("site", "sites", "hospital", "sex", "age", "names", "ids"))


def wrong(headers: Mapping[str, Claim], label: str | None = "labels") -> list[str]:
    """What is wrong with the arrays, as far as headers tell.

    Args:
        headers: of all arrays.
        label: the array with the labels, as it is called after a part's name; None where a table tells them.
    """
    splits = splits_of(headers)
    if not splits:
        return [_no_splits(headers)]
    if objects := sorted(key for key, header in headers.items() if header.dtype.hasobject):
        calls = ", ".join(
            f"{key}.astype({'np.uint8' if key.endswith('_images') else 'str'})" for key in objects[:3]
        )
        return [
            f"{', '.join(objects[:_MOST])} has Python objects, which would have to be unpickled: save numbers or text, "
            f"such as {calls}"
        ]
    names = columns_of(headers, splits)
    messages = [*_beside(headers, splits), *_twice(names)]
    for name in names:
        if missing := [f"{s}_{name}" for s in splits if f"{s}_{name}" not in headers]:
            messages.append(f"found no array {', '.join(missing)}, expected one for every split: add it")
        elif len({(headers[f"{s}_{name}"].shape[1:], _family(headers[f"{s}_{name}"])) for s in splits}) > 1:
            alike = ", ".join(f"{s}_{name} {headers[f'{s}_{name}']}" for s in splits)
            messages.append(f"found {alike}, expected the same kind and shape in every split: convert them")
    for split in splits:
        messages += _wrong_split(
            split, {n: headers[f"{split}_{n}"] for n in names if f"{split}_{n}" in headers}, label
        )
    return messages


def splits_of(names: Mapping[str, object]) -> list[str]:
    """The parts that a file has."""
    return [s for s in SPLITS if f"{s}_images" in names or f"{s}_labels" in names]


def tells_people(name: str) -> bool:
    """Whether an array is called as if it told patients, in whatever spelling."""
    return _plain(name) in _PEOPLE


def strays(names: Iterable[str]) -> list[str]:
    """The arrays that belong to no part, sorted; nothing is read from them."""
    return sorted(key for key in names if not key.startswith(tuple(f"{s}_" for s in SPLITS)))


def columns_of(names: Mapping[str, object], splits: Sequence[str]) -> list[str]:
    """The names that follow a part's, sorted."""
    return sorted({key.removeprefix(f"{s}_") for s in splits for key in names if key.startswith(f"{s}_")})


def channels_in_front(shape: tuple[int, ...]) -> bool:
    """Whether images (N, C, H, W) have their colours first, as torch has them, told by their shape."""
    return len(shape) == 4 and shape[1] in (1, 3) and shape[3] not in (1, 3) and min(shape[2:]) > THIN


def _beside(headers: Mapping[str, Claim], splits: Sequence[str]) -> Iterator[str]:
    """Arrays beside the parts that hold images, labels or what is told of each: they may not be left out unsaid."""
    words = {key: _plain(key) for key in strays(headers)}
    telling = [
        key
        for key, word in words.items()
        if _renamed(key) or word.endswith(("images", "labels")) or word in _PEOPLE | _OF_IMAGES
    ]
    if not telling:
        return
    names = {key: _renamed(key) for key in telling}
    renames = [f"{key} to {name}" for key, name in names.items() if name and name not in headers]
    advice = f"rename {', '.join(renames[:_MOST])}, or leave them out" if renames else "leave them out"
    if len(splits) > 1 and any(words[key] in _PEOPLE | _OF_IMAGES for key in telling):
        advice = f"give each part its own, such as {' and '.join(f'{s}_{telling[0]}' for s in splits)}"
    yield (
        f"found {', '.join(telling[:_MOST])} beside {', '.join(f'{s}_images' for s in splits)}, which would not be "
        f"read, since their names start with none of train_, val_ and test_: {advice}"
    )


def _plain(key: str) -> str:
    return re.sub(r"[\W_]+", "", key).casefold()


def _no_splits(headers: Mapping[str, Claim]) -> str:
    found = ", ".join(sorted(headers)[:_MOST]) or "none"
    renames = [f"{key} to {name}" for key in sorted(headers) if (name := _renamed(key)) and name != key]
    advice = f": rename {', '.join(renames[:_MOST])}" if renames else ""
    return (
        f"found the arrays {found}, expected train_images and train_labels, and the same for val and test if there are "
        f"such{advice}"
    )


def _renamed(key: str) -> str | None:
    """How an array should be called, if its name tells what it holds."""
    if key.casefold() in _KINDS:
        return f"train_{_KINDS[key.casefold()]}"
    words = [word.casefold() for word in re.split(r"[_\s.-]+|(?<=[a-z])(?=[A-Z])", key) if word]
    parts = [PART_OF[word] for word in words if word in PART_OF]
    kinds = [_KINDS[word] for word in words if word in _KINDS]
    if not kinds or len(words) > len(parts) + len(kinds):
        if tells_people(key):
            return "train_patient_id"
        return f"train_{key.casefold()}" if _plain(key) in _OF_IMAGES else None
    return f"{parts[0] if parts else 'train'}_{kinds[0]}"


def _twice(names: Sequence[str]) -> Iterator[str]:
    """Two arrays for one column."""
    groups = defaultdict[str, list[str]](list)
    for name in names:
        groups[COLUMN.get(name, name)].append(name)
    for column, several in groups.items():
        if len(several) > 1:
            yield f"found train_{' and train_'.join(several)}, expected one array of {column} ids: leave one out"


def _family(header: Claim) -> str:
    """Dtypes of one family can be pooled."""
    return "integer" if header.dtype.kind in "iu" else header.dtype.kind


def _wrong_split(split: str, columns: Mapping[str, Claim], label: str | None) -> list[str]:
    images, labels = columns.get("images"), columns.get("labels")
    if images is None or labels is None:
        return []
    messages, read = _wrong_images(f"{split}_images", images), [n for n in columns if n in ("labels", label)]
    if not messages:
        messages = [one for n in read for one in _wrong_labels(f"{split}_{n}", columns[n], images)]
    for name, header in columns.items():
        if name not in read and header.shape[:1] != images.shape[:1]:
            count = header.shape[0] if header.shape else 0
            messages.append(
                f"found {count} entries in {split}_{name}, expected {images.shape[0]}, one per image"
            )
    return messages


def _wrong_images(key: str, images: Claim) -> list[str]:
    shape = images.shape
    if len(shape) not in (3, 4) and not (len(shape) == 5 and shape[-1] == 1):
        front = f": leave the channel out ({key}[:, 0])" if len(shape) == 5 and shape[1] == 1 else ""
        return [f"{key} has shape {shape}, expected (N, H, W), (N, H, W, 3) or (N, D, H, W){front}"]
    if (
        len(shape) == 4
        and shape[-1] not in (1, 3)
        and not channels_in_front(shape)
        and min(shape[1:]) <= THIN
    ):
        advice = (
            f"leave transparency out ({key}[..., :3])"
            if shape[-1] == 4
            else "choose channels, or more slices"
        )
        return [
            f"{key} has shape {shape}, which is neither (N, H, W, 3) nor volumes of more than {THIN} slices: {advice}"
        ]
    return []


def _wrong_labels(key: str, labels: Claim, images: Claim) -> list[str]:
    count, shape = images.shape[:1], images.shape
    if len(labels.shape) == 2 and labels.shape[:1] == count and labels.shape[1] > 1:
        return []  # their values tell what they are
    if channels_in_front(shape):
        maps = (*count, *shape[2:])
    else:
        maps = shape[:-1] if shape[-1:] in ((1,), (3,)) and len(shape) > 3 else shape
    if labels.shape not in (count, (*count, 1), maps):
        advice = next(
            (f": try {key}{call}" for call, to in _reshaped(labels.shape) if to in (count, maps)), ""
        )
        return [
            f"{key} has shape {labels.shape}, expected {(*count, 1)}, or label maps of shape {maps}{advice}"
        ]
    kinds, expected = (
        ("biuf", "whole numbers") if labels.shape == maps else ("biufUS", "whole numbers or names")
    )
    if labels.dtype.kind not in kinds:
        return [f"{key} has dtype {labels.dtype}, expected {expected}: number the classes from 0"]
    return []


def _reshaped(shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """What leaves an edge of 1 out, and the shape then: of channels, first or last, or of a table in one row."""
    if shape[-1:] == (1,):
        yield "[..., 0]", shape[:-1]
    if shape[1:2] == (1,):
        yield "[:, 0]", (shape[0], *shape[2:])
    if shape[:1] == (1,):
        yield "[0]", shape[1:]
