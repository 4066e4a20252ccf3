"""Is everything found that a purge should have removed? Residue of 64 kinds, planted one at a time in a purged run.

    python benchmarks/residue.py [--seed 0] [--out FOLDER] [--kills 0]

A small run is made and purged for one request. Then something of what went is put back into the folder in every way
that `KINDS` knows, each time something else drawn at random: an image, an id, a model, an answer of one. Its images
have colours; what is planted of gray ones is the red of one of them, as if another run had been purged of that. The
scan of `fedunlearn verify` must find it, and nothing where nothing was planted. With ``--kills N``, N purges are killed
(SIGKILL) at moments drawn at random; the next try must come to the same files, but for what has the time in it.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import gzip
import io
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image
from rich.console import Console
from safetensors.numpy import load, save

from fedunlearn import files, scenario as scenarios
from fedunlearn.erasure import keys, purge, residue, tombstones
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.story import simulate

Array = npt.NDArray[Any]

SCENARIO = """\
name: planted
seeds: [1]
engine: {name: inline, workers: 2}
data: {name: phantom_cells, images: 240}
sites: {names: [north, east, west], partition: {name: iid}}
model: {name: small_cnn}
training: {rounds: 2, local_epochs: 1, batch_size: 32, optimizer: adam, lr: 0.002}
requests:
- {id: some, site: north, patients: {count: 2, pick: random}}
- {id: others, site: east, patients: {count: 2, pick: random}}
strategies:
- {name: fine_tune, rounds: 1, requests: [some]}
evaluation: {pictures: true}
"""


@dataclass(frozen=True)
class Before:
    """A run before it was purged, and what went.

    Attributes:
        run: its folder.
        pixels: (N, C, H, W) the images that are forgotten.
        images: their ids.
        patients: whose they are.
    """

    run: Path
    pixels: Array
    images: tuple[str, ...]
    patients: tuple[str, ...]


Plant = Callable[[Before, Path, random.Random], None]
"""Puts something of what went into a folder."""


def _image(before: Before, rng: random.Random) -> Array:
    picture: Array = before.pixels[rng.randrange(len(before.pixels))]
    return picture


def _gray(before: Before, rng: random.Random) -> Array:
    """(H, W) a gray image."""
    red: Array = _image(before, rng)[0]
    return red


def _pages(kind: str, *pages: Array, mode: str = "L", **options: Any) -> bytes:
    """Gray images as a picture."""
    first, *rest = (Image.fromarray(page).convert(mode) for page in pages)
    buffer = io.BytesIO()
    first.save(buffer, kind, **({"save_all": True, "append_images": rest} if rest else {}), **options)
    return buffer.getvalue()


def _labelled(before: Before, rng: random.Random) -> Array:
    """(6, 1 + pixels) images as rows, each with a label in front."""
    rows = _others(rng, _image(before, rng)).reshape(6, -1)
    return np.hstack([np.arange(6, dtype=np.uint8)[:, None], rows])


def _mime(content: bytes) -> bytes:
    """Base64 in lines of 76, ended as e-mail ends them."""
    return base64.encodebytes(content).replace(b"\n", b"\r\n")


def _hwc(picture: Array) -> Array:
    return np.ascontiguousarray(np.moveaxis(picture, 0, -1))


def _png(picture: Array, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(_hwc(picture)).save(buffer, kind)
    return buffer.getvalue()


def _others(rng: random.Random, picture: Array, count: int = 5) -> Array:
    """An image among noise."""
    noise = np.random.default_rng(rng.random().hex().encode()[0]).integers(
        0, 256, (count, *picture.shape), np.uint8
    )
    return np.concatenate([noise, picture[None]])


def _npy(array: Array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _npz(**arrays: Array) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _zip(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _parquet(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()


def _file(name: str, make: Callable[[Before, random.Random], bytes]) -> Plant:
    """A new file."""

    def plant(before: Before, folder: Path, rng: random.Random) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make(before, rng))

    return plant


def _added(name: str, make: Callable[[Before, random.Random], str]) -> Plant:
    """A text added to a file that belongs there."""

    def plant(before: Before, folder: Path, rng: random.Random) -> None:
        path = folder / name
        path.write_bytes(path.read_bytes() + make(before, rng).encode())

    return plant


def _put_back(pattern: str, name: str = "") -> Plant:
    """A file that went, at its place or under another name."""

    def plant(before: Before, folder: Path, rng: random.Random) -> None:
        gone = [
            one
            for one in sorted(before.run.glob(pattern))
            if not (folder / one.relative_to(before.run)).exists()
        ]
        file = rng.choice(gone)
        place = folder / (name or file.relative_to(before.run))
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)

    return plant


def _table(name: str, change: Callable[[pd.DataFrame, Before, random.Random], pd.DataFrame]) -> Plant:
    """A table that belongs there, changed."""

    def plant(before: Before, folder: Path, rng: random.Random) -> None:
        path = folder / name
        path.write_bytes(_parquet(change(pd.read_parquet(path), before, rng)))

    return plant


def _answer(before: Before, rng: random.Random, model: str = "original-1") -> Array:
    """What a model that went answered about a forgotten image."""
    table = pd.read_parquet(before.run / "signals" / f"{model}.parquet")
    ids = pd.read_parquet(before.run / "sites.parquet")["image"].astype(str)
    row: Array = table[ids.isin(before.images).to_numpy()].to_numpy()[rng.randrange(len(before.images))]
    return row


def _weights(before: Before, name: str = "original-1") -> dict[str, Array]:
    return dict(load((before.run / "weights" / f"{name}.safetensors").read_bytes()))


def _update(before: Before, scale: float = 1e-3) -> dict[str, Array]:
    """An update of a hospital: of the shapes of a model, its numbers nowhere else."""
    rng = np.random.default_rng(7)
    return {
        name: (scale * rng.normal(size=w.shape)).astype(np.float32) for name, w in _weights(before).items()
    }


def _flat(tensors: dict[str, Array]) -> Array:
    return np.concatenate([one.ravel() for one in tensors.values()]).astype(np.float32)


def _row(table: pd.DataFrame, values: dict[str, Any]) -> pd.DataFrame:
    """A table with a row more, like its first, if it has one, but for some values."""
    first = table.iloc[0].to_dict() if len(table) else {}
    return pd.concat([table, pd.DataFrame([{**first, **values}])], ignore_index=True)


def _signals(table: pd.DataFrame, before: Before, rng: random.Random) -> pd.DataFrame:
    row = pd.DataFrame([_answer(before, rng)], columns=table.columns).astype(table.dtypes.to_dict())
    return pd.concat([table, row], ignore_index=True)


def _history(before: Before, folder: Path, rng: random.Random) -> None:
    """An update as the server stores it."""
    import torch

    from fedunlearn.federation.rows import Form, writing

    update = {name: torch.from_numpy(one.copy()) for name, one in _update(before).items()}
    place = folder / "work" / "history" / "update-0"
    place.parent.mkdir(parents=True)
    with writing(place, Form.of(["north"], update)) as write:
        write("north", update)


KINDS: dict[str, Plant] = {
    # images
    "NPY of an image": _file("curves/a.npy", lambda b, r: _npy(_image(b, r))),
    "NPY of images, one of them": _file("b.npy", lambda b, r: _npy(_others(r, _image(b, r)))),
    "NPY of floats up to 1": _file("c.npy", lambda b, r: _npy(_image(b, r).astype(np.float32) / 255)),
    "NPY of floats from -1 to 1": _file(
        "c2.npy", lambda b, r: _npy(_image(b, r).astype(np.float32) / 127.5 - 1)
    ),
    "NPY of float64": _file("d.npy", lambda b, r: _npy(_image(b, r).astype(np.float64))),
    "NPY, channels last": _file("e.npy", lambda b, r: _npy(_hwc(_image(b, r)))),
    "NPY, flat rows": _file("f.npy", lambda b, r: _npy(_others(r, _image(b, r)).reshape(6, -1))),
    "NPZ": _file("pictures/g.npz", lambda b, r: _npz(pixels=_others(r, _image(b, r)), labels=np.arange(6))),
    "NPZ of int64": _file("h.npz", lambda b, r: _npz(x=_image(b, r).astype(np.int64))),
    "raw bytes": _file("i.bin", lambda b, r: _image(b, r).tobytes()),
    "raw bytes, several images": _file("j", lambda b, r: _others(r, _image(b, r)).tobytes()),
    "raw float32": _file("k.raw", lambda b, r: (_image(b, r).astype(np.float32) / 255).tobytes()),
    "PNG": _file("pictures/l.png", lambda b, r: _png(_image(b, r))),
    "BMP": _file("m.bmp", lambda b, r: _png(_image(b, r), "BMP")),
    "TIFF": _file("n.tiff", lambda b, r: _png(_image(b, r), "TIFF")),
    "PNG without ending": _file("logs/o", lambda b, r: _png(_image(b, r))),
    "PNG in the report": _added(
        "report.html",
        lambda b, r: f'<img src="data:image/png;base64,{base64.b64encode(_png(_image(b, r))).decode()}">',
    ),
    "raw bytes in base64 in JSON": _file(
        "p.json", lambda b, r: json.dumps({"x": base64.b64encode(_image(b, r).tobytes()).decode()}).encode()
    ),
    "lists in JSON": _file("q.json", lambda b, r: json.dumps({"pixels": _image(b, r).tolist()}).encode()),
    "a line of a CSV": _file(
        "r.csv", lambda b, r: ",".join(map(str, _image(b, r).ravel().tolist())).encode()
    ),
    "a row of Parquet": _file(
        "s.parquet",
        lambda b, r: _parquet(pd.DataFrame(_others(r, _image(b, r)).reshape(6, -1)).rename(columns=str)),
    ),
    "a list in Parquet": _file(
        "t.parquet", lambda b, r: _parquet(pd.DataFrame({"x": [_image(b, r).ravel().tolist()]}))
    ),
    "bytes in Parquet": _file(
        "u.parquet", lambda b, r: _parquet(pd.DataFrame({"x": [_image(b, r).tobytes()]}))
    ),
    "a PNG in Parquet": _file("v.parquet", lambda b, r: _parquet(pd.DataFrame({"x": [_png(_image(b, r))]}))),
    "a tensor": _file("w.safetensors", lambda b, r: save({"x": _image(b, r).astype(np.float32) / 255})),
    "a gray image as PNG in colours": _file(
        "gray/a.png", lambda b, r: _pages("PNG", _gray(b, r), mode="RGB")
    ),
    "a gray image as PNG with alpha": _file(
        "gray/b.png", lambda b, r: _pages("PNG", _gray(b, r), mode="RGBA")
    ),
    "a gray image as GIF": _file("gray/c.gif", lambda b, r: _pages("GIF", _gray(b, r))),
    "a gray image as WebP": _file("gray/d.webp", lambda b, r: _pages("WEBP", _gray(b, r), lossless=True)),
    "a gray image on the second page": _file(
        "gray/e.tiff", lambda b, r: _pages("TIFF", np.zeros_like(_gray(b, r)), _gray(b, r))
    ),
    "labelled rows of CSV": _file(
        "rows/a.csv", lambda b, r: pd.DataFrame(_labelled(b, r)).to_csv(index=False).encode()
    ),
    "rows of CSV as pandas writes them": _file(
        "rows/b.csv", lambda b, r: pd.DataFrame(_labelled(b, r)[:, 1:]).to_csv().encode()
    ),
    "labelled rows of Parquet": _file(
        "rows/c.parquet", lambda b, r: _parquet(pd.DataFrame(_labelled(b, r)).rename(columns=str))
    ),
    "labelled rows of NPZ": _file("rows/d.npz", lambda b, r: _npz(data=_labelled(b, r))),
    "labelled rows of JSON": _file("rows/e.json", lambda b, r: json.dumps(_labelled(b, r).tolist()).encode()),
    "labelled raw bytes": _file("rows/f.bin", lambda b, r: _labelled(b, r).tobytes()),
    "base64 in lines": _file("mail.txt", lambda b, r: _mime(_png(_image(b, r)))),
    "base64 after a word": _file(
        "word.txt", lambda b, r: b"picture\n" + base64.b64encode(_image(b, r).tobytes())
    ),
    "raw float64": _file("k.f64", lambda b, r: (_image(b, r) / 255).tobytes()),
    "in a ZIP": _file("x.zip", lambda b, r: _zip(**{"a/b.png": _png(_image(b, r))})),
    "in gzip": _file("y.npy.gz", lambda b, r: gzip.compress(_npy(_image(b, r)))),
    # ids
    "a patient in a log": _file("run.log", lambda b, r: f"12:00 read {r.choice(b.patients)}, ok\n".encode()),
    "an image in a log": _file("logs/z.txt", lambda b, r: f"reading {r.choice(b.images)}.png\n".encode()),
    "a patient in the report": _added("report.html", lambda b, r: f"<td>{r.choice(b.patients)}</td>"),
    "a patient in the scenario": _added(
        "scenario.yaml", lambda b, r: f'# patients: ["{r.choice(b.patients)}"]\n'
    ),
    "a patient in the audit log": _added(
        "audit.jsonl", lambda b, r: json.dumps({"patients": [r.choice(b.patients)]})
    ),
    "a patient in JSON": _file(
        "aa.json", lambda b, r: json.dumps({"by": {r.choice(b.patients): 1}}).encode()
    ),
    "an image in NPZ": _file("bb.npz", lambda b, r: _npz(whose=np.array(["x", r.choice(b.images)]))),
    "an image in a tensor's name": _file(
        "cc.safetensors", lambda b, r: save({"x": np.zeros(2, np.float32)}, {"of": r.choice(b.images)})
    ),
    "a row of sites": _table("sites.parquet", lambda t, b, r: _row(t, {"image": r.choice(b.images)})),
    "a row of patients": _table(
        "patients.parquet", lambda t, b, r: _row(t, {"patient": r.choice(b.patients)})
    ),
    "a patient in a reason": _table(
        "verdicts.parquet",
        lambda t, b, r: t.assign(
            reasons=[[f"1 of 2 patients ({r.choice(b.patients)} 80 %) is"] for _ in range(len(t))]
        ),
    ),
    # answers
    "a row of signals": _table("signals/retrained-some-1.parquet", _signals),
    "answers in NPY": _file("ee.npy", lambda b, r: _npy(_answer(b, r)[None])),
    "signals that went": _put_back("signals/original-*.parquet", "signals/gg.parquet"),
    "a table as it was": _put_back("pictures/some.npz", "hh.backup"),
    # models
    "a model that went": _put_back("weights/*.safetensors"),
    "a model under another name": _put_back(
        "weights/original-*.safetensors", "weights/retrained-some-9.safetensors"
    ),
    "a model as NPZ": _file("ii.npz", lambda b, r: _npz(**_weights(b))),
    "a layer of a model": _file("jj.npy", lambda b, r: _npy(max(_weights(b).values(), key=np.size))),
    "an update": _file("kk.safetensors", lambda b, r: save(_update(b))),
    "an update in a row": _file("ll.npy", lambda b, r: _npy(_flat(_update(b)))),
    "an update as stored": _history,
}


def _called(before: Before, folder: Path, rng: random.Random) -> None:
    (folder / f"{rng.choice(before.images)}.txt").write_text("")


KINDS["a file called after an image"] = _called


def purged(folder: Path) -> tuple[Before, RunFolder, Path]:
    """A run as it was, the same purged of its first request, and the hospital's tombstone."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "scenario.yaml"
    file.write_text(SCENARIO, encoding="utf-8")
    scenario = scenarios.read(file)
    run = simulate(scenario, folder / "run", folder, Console(), quiet=True)
    shutil.copytree(run.path, folder / "before")
    table = run.read_table("sites.parquet")
    own = table[["some" in names for names in table["forgotten_by"]]]
    pixels = scenario.data.load(folder).pixels[own.index.to_numpy()]
    patients = tuple(sorted(set(map(str, own["patient"]))))
    before = Before(folder / "before", pixels, tuple(map(str, own["image"])), patients)
    pair = keys.make(folder / "keys")
    purge.purge(run.path, purge.Order(("some",), keys=pair.folder, data_root=folder))
    stone = next((pair.folder / tombstones.FOLDER).iterdir())
    return before, run, stone


def found(before: Before, run: RunFolder, stone: Path, kind: str, rng: random.Random) -> list[residue.Hit]:
    """What is found once something was planted in a copy of the run; what a copy has besides is not looked at."""
    with tempfile.TemporaryDirectory(prefix="fedunlearn-residue-") as name:
        folder = Path(name) / "run"
        shutil.copytree(run.path, folder)
        if kind:
            KINDS[kind](before, folder, rng)
        own = tombstones.of_run(folder)
        assert own is not None
        gray = tombstones.with_images(tombstones.salted(["some"]), before.pixels[:, :1])
        return residue.scan(
            folder, [own, tombstones.read(stone), gray], files.unsealed(folder / "manifest.json")["sha256"]
        )


def killed(folder: Path, count: int, rng: random.Random) -> tuple[int, int]:
    """How many purges were killed in mid-run, and after how many of all the next try came to the same."""
    whole, again = files_of(folder / "run"), 0
    order = ["--request", "some", "--keys", str(folder / "keys"), "--data-root", str(folder)]
    ended = list[float]()
    in_time = 0
    for _ in range(count):
        path = folder / "killed"
        shutil.copytree(folder / "before", path)
        command = [sys.executable, "-m", "fedunlearn", "purge", str(path), *order]
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if ended:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(rng.uniform(0.3, 1.05) * min(ended))
            in_time += process.poll() is None
            process.kill()
            process.wait()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        else:
            process.wait()
            ended.append(time.monotonic() - began)
        again += files_of(path) == whole
        shutil.rmtree(path)
    return in_time, again


def files_of(folder: Path) -> dict[str, str]:
    """By path the sha256 of a run's files, but for those that have the time in them."""
    timed = ("audit.jsonl", "manifest.json", "report.html", ".lock")  # the page shows the end of the log
    names = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: files.sha256(path) for name, path in sorted(names.items()) if name not in timed}


def main(arguments: Sequence[str] | None = None) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, default=None, help="where the run goes (default: nowhere that stays)"
    )
    parser.add_argument("--kills", type=int, default=0, help="purges to kill instead")
    given = parser.parse_args(arguments)
    rng = random.Random(given.seed)
    with tempfile.TemporaryDirectory(prefix="fedunlearn-residue-") as name:
        made = purged(given.out or Path(name))
        if given.kills:
            stopped, same = killed(given.out or Path(name), given.kills, rng)
            print(
                f"{given.kills} purges, {stopped} killed in mid-run: {same}/{given.kills} came to the same files"
            )
            return 0 if same == given.kills else 1
        clean = found(*made, "", rng)
        print(f"nothing planted: {len(clean)} hits")
        missed = []
        for kind in KINDS:
            hits = found(*made, kind, rng)
            missed += [kind] if not hits else []
            print(f"{kind}: {hits[0].file}: {hits[0].what}" if hits else f"{kind}: NOT FOUND")
    print(f"planted residue found {len(KINDS) - len(missed)}/{len(KINDS)}")
    return 1 if missed or clean else 0


if __name__ == "__main__":
    sys.exit(main())
