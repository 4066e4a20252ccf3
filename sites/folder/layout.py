"""Folders without a manifest, in one of the usual layouts: rows made from the tree, or written as a manifest."""

from __future__ import annotations

import csv
import io
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from fedunlearn.core import InputError, Problem
from sites.folder.trees import Tree, stem, suffix, tree_of
from sites.identity import listed, tidied
from sites.parts import PART_OF
from sites.rows import Fault, Row, Table, grouped

Layout = Literal["class/patient", "site/patient", "site/class/patient"]
"""What the folders are, from the outermost on; below them, files may lie as they like."""


def rows_of(folder: Path, layout: Layout) -> Table:
    """One row per image below ``folder``, as a manifest would have them.

    In ``site/patient`` label maps are told by names that end in seg, segm, mask, label and the like.

    Raises:
        InputError: there is no such folder, or no image in it, files lie at other places, or nothing tells their
            labels; all problems together.
    """
    tree = tree_of(folder)
    faults = [*_misplaced(folder, tree, layout)]
    if "class" not in layout.split("/"):
        faults += _without_map(folder, tree)
    if faults:
        raise InputError(grouped(faults))
    return _table(folder, tree, layout)


def write(folder: Path, to: Path | None, layout: Layout | None = None) -> list[str]:
    """Write a manifest of the images below ``folder`` to a new file, to be checked by a person.

    Args:
        folder: where the images are.
        to: the file; None for ``manifest.csv`` in the folder.
        layout: what the folders are; without it, an image's own folder is taken for its patient, labels stay empty.

    Returns:
        What was written and what to do next, line by line.

    Raises:
        InputError: there are no images, they lie at other places than the layout says, or the file is there already.
    """
    to = to or folder / "manifest.csv"
    tree = tree_of(folder)
    if faults := [*_misplaced(folder, tree, layout)] if layout else []:
        raise InputError(grouped(faults))
    table = _table(folder, tree, layout)
    cells = [{**row.cells, "file": _from(folder, row.cells["file"], to)} for row in table.rows]
    for row in cells:
        if row.get("label_map"):
            row["label_map"] = _from(folder, row["label_map"], to)
    label = "label_map" if "label_map" in cells[0] else "label"
    text = io.StringIO()
    writer = csv.DictWriter(text, ["file", label, "patient", "site"], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(cells)
    try:
        with to.open("x", encoding="utf-8", newline="") as opened:
            opened.write(text.getvalue())
    except FileExistsError as error:
        raise InputError(f"{to} is there already; expected a new file: name another with --to") from error
    except OSError as error:
        raise InputError(
            f"cannot write {to}: {error.strerror}; expected a file in a folder of yours"
        ) from error
    return [*table.notes, *_at_several(table.rows, "site"), *_next(cells, label, to, layout)]


# ---------------------------------------------------------------------------------------------------- reading


def _table(folder: Path, tree: Tree, layout: Layout | None) -> Table:
    """The rows, as far as names of folders and files tell; what they do not tell stays empty."""
    names, rows = layout.split("/") if layout else [], list[Row]()
    with_maps = "class" not in names and bool(tree.maps)
    for number, file in enumerate(tree.files, start=1):
        known = dict(zip(names, file.parts, strict=False))
        label = (
            {"label_map": str(tree.maps.get(file, ""))} if with_maps else {"label": known.get("class", "")}
        )
        patient = known.get("patient", ["", *file.parts][-2])
        site = {"site": known["site"]} if "site" in known else {}
        cells = {"file": str(file), **label, "patient": patient, **site}
        rows.append(Row(cells, str(folder), number, None))
    notes, left = list(tree.notes), [*([] if with_maps else tree.maps.values()), *tree.loose]
    if left:
        notes.append(f"{len(left):,} files called like label maps, such as {str(left[0])!r}, are left out")
    if "class" in names:
        notes += _at_several(rows, "label")
    return Table(tuple(rows), tuple(notes))


def _misplaced(folder: Path, tree: Tree, layout: Layout) -> Iterator[Fault]:
    """Images that do not lie below the folders of the layout."""
    top = sorted({file.parts[0] for file in tree.files if len(file.parts) > 1})
    if len(top) > 1 and all(name.casefold() in PART_OF for name in top):
        message = (
            f"the folders {listed(top)} are the parts of an official split, and no {layout.split('/')[0]}: write a "
            "manifest with a column split (`fedunlearn manifest FOLDER` starts one), or give one of them as path"
        )
        yield Fault(Problem(message, str(folder)), "the parts of a split")
        return
    for file in tree.files:
        if (found := len(file.parts) - (file not in tree.series)) < len(layout.split("/")):
            message = f"found {found} folders above it, expected {layout}: move it, choose another layout, or write a"
            yield Fault(
                Problem(f"{file}: {message} manifest", str(folder)), "not below the folders of the layout"
            )


def _without_map(folder: Path, tree: Tree) -> Iterator[Fault]:
    """Images and label maps that have no other half."""
    if not tree.maps:
        advice = "write a manifest with labels (`fedunlearn manifest FOLDER` starts one)"
        message = (
            "nothing tells the labels of these images: no file has a name that ends in seg, mask or label"
        )
        yield Fault(Problem(f"{message}; {advice}", str(folder)), "no labels")
        return
    for file in tree.files:
        if file not in tree.maps:
            usual = f"{stem(file)}_seg{suffix(file.name)}"
            message = f"found no label map beside it, such as {usual}: add it, or write a manifest"
            yield Fault(Problem(f"{file}: {message}", str(folder)), "no label map")
    for file in tree.loose:
        message = "is called like a label map, but it is not clear of which image: write a manifest"
        yield Fault(Problem(f"{file}: {message}", str(folder)), "of no image")


def _at_several(rows: Sequence[Row], above: Literal["site", "label"]) -> list[str]:
    """A note of patients whose folders lie below several sites or classes."""
    found = defaultdict[str, set[str]](set)
    for row in rows:
        found[tidied(row.cells["patient"])].add(row.cells.get(above, ""))
    several = sorted(patient for patient, names in found.items() if len(names) > 1)
    if not several:
        return []
    what = "sites" if above == "site" else "classes"
    return [
        f"{listed(several)} {'has a folder' if len(several) == 1 else 'have folders'} at several {what}, and each is "
        f"taken for one person: rename the folders if they are different people, numbered anew in each of the {what}"
    ]


# ---------------------------------------------------------------------------------------------------- writing


def _from(folder: Path, file: str, to: Path) -> str:
    """A file's path as the manifest must have it."""
    path = PurePosixPath(os.path.relpath(folder / file, to.parent)).as_posix()
    return path if path == path.lstrip() else f"./{path}"  # else no space in front would be read


def _next(cells: Sequence[dict[str, str]], label: str, to: Path, layout: Layout | None) -> list[str]:
    patients = {row["patient"] for row in cells} - {""}
    empty = [name for name in (label, "patient") if not all(row.get(name) for row in cells)]
    people = f" of {len(patients):,} {'patient' if len(patients) == 1 else 'patients'}" if patients else ""
    lines = [f"{to}: {len(cells):,} images{people}; read it, and correct what is wrong"]
    if layout is None:
        lines.append(
            "patients are the folders that images lie in; if your folders tell more, remove the file and give --layout "
            "class/patient, site/patient or site/class/patient"
        )
    if empty:
        lines.append(f"fill in {' and '.join(empty)}")
    if not all(row.get("site") for row in cells):
        lines.append("fill in site, the hospital of each image, or remove that column")
    outside = any(row["file"].startswith("..") for row in cells)
    data = f"{{name: folder, manifest: {to.name}{', outside: true' if outside else ''}}}"
    lines.append(
        f"then write data: {data} in a scenario, and try: fedunlearn check SCENARIO --data-root {to.parent}"
    )
    return lines
