"""A first scenario for the data at hand passes `check` at once, whatever lies there; nothing is ever replaced."""

from __future__ import annotations

import csv
from itertools import product
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from fedunlearn import scenario as scenarios
from fedunlearn.__main__ import app
from fedunlearn.beginning import Found, columns, data, find, text, wishes
from fedunlearn.campaign.gathering import gather
from fedunlearn.core import InputError
from fedunlearn.scenario import json_schema
from sites.chexpert import FINDINGS
from sites.collection import Collection
from sites.watching import unwatched

PATIENTS, IMAGES = 24, 2


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


def init(*words: object, hospitals: object = 3, forget: str = "both", time: str = "quick") -> Result:
    return call("init", *words, "--hospitals", hospitals, "--forget", forget, "--time", time)


def passes_check(folder: Path, result: Result, name: str) -> scenarios.Scenario:
    """The scenario that was written, after `check` as the command said it."""
    assert result.exit_code == 0, result.output
    assert f"fedunlearn simulate {folder / name}" in result.output
    checked = call("check", folder / name, "--data-root", folder)
    assert checked.exit_code == 0, checked.output
    assert "no problems" in checked.stdout
    return scenarios.read(folder / name)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of PNGs of two classes, by class and patient."""
    for patient in range(PATIENTS):
        for number in range(IMAGES):
            picture(
                tmp_path / "set" / ("ill", "well")[patient % 2] / f"p{patient:02}" / f"{number}.png", patient
            )
    return tmp_path


def picture(file: Path, patient: int, edge: int = 40, mode: str = "L") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng([patient, *file.name.encode()]).integers(
        0, 255, (edge, edge), dtype=np.uint8
    )
    Image.fromarray(noise).convert(mode).save(file)


def test_a_folder_of_pictures_by_class_and_patient(pictures: Path) -> None:
    result = init(pictures / "set", "--to", pictures / "mine.yaml")
    scenario = passes_check(pictures, result, "mine.yaml")
    assert [request.whole_site for request in scenario.requests] == [False, True]
    assert (scenario.name, scenario.data.name, len(scenario.sites.names)) == ("mine", "folder", 3)
    said = (pictures / "mine.yaml").read_text()
    assert said.startswith(f"# {PATIENTS * IMAGES} images of 2 classes, of {PATIENTS} patients.\n")
    assert max(len(row) for row in said.splitlines() if str(pictures) not in row) <= 120


@pytest.mark.parametrize(("edge", "size"), [(28, None), (30, None), (20, 28), (64, None), (90, 64)])
def test_pictures_are_not_made_larger_than_they_are(tmp_path: Path, edge: int, size: int | None) -> None:
    for patient in range(8):
        picture(tmp_path / "set" / ("ill", "well")[patient % 2] / f"p{patient}" / "1.png", patient, edge)
    found = find(str(tmp_path / "set"), "normal", tmp_path, unwatched)
    assert found.settings.get("size") == (64 if edge == 64 else size)
    assert found.collection.pixels.shape[2:] == (size or edge, size or edge)


def test_an_editor_is_told_of_a_schema_that_lies_beside(pictures: Path) -> None:
    (pictures / json_schema.FILE).write_text("{}")
    passes_check(pictures, init(pictures / "set", "--to", pictures / "mine.yaml"), "mine.yaml")
    assert (
        (pictures / "mine.yaml").read_text().startswith(f"{json_schema.hint()}\n# {PATIENTS * IMAGES} images")
    )


def test_hospitals_that_the_folders_tell(tmp_path: Path) -> None:
    for site in ("a town", "b/c".replace("/", "-")):
        for patient in range(16):
            where = tmp_path / "set" / site / ("ill", "well")[patient % 2] / f"{site[0]}{patient}"
            picture(where / "1.png", patient)
    result = init(
        tmp_path / "set", "--to", tmp_path / "s.yaml", hospitals="site", forget="hospital", time="normal"
    )
    scenario = passes_check(tmp_path, result, "s.yaml")
    assert scenario.sites.names == ("a town", "b-c")
    assert "federaser" in {plan.label for plan in scenario.strategies}


@pytest.mark.parametrize("lacking", [(), ("a/c",)], ids=["equal", "one lacks a class"])
@pytest.mark.parametrize("inner", [("b", "c", "d"), ("1", "2", "3")], ids=["names", "numbers"])
def test_folders_that_may_be_classes_or_patients_are_refused_with_both_readings(
    tmp_path: Path, inner: tuple[str, ...], lacking: tuple[str, ...]
) -> None:
    for number, (outer, name) in enumerate(product(("a", "b"), inner)):
        if f"{outer}/{name}" not in lacking:
            picture(tmp_path / "set" / outer / name / "1.png", number)
    result = init(tmp_path / "set", "--to", tmp_path / "s.yaml")
    assert result.exit_code == 2 and not (tmp_path / "s.yaml").exists()
    for part in (
        "HOSPITAL/CLASS",
        "--layout class/patient if 'a', 'b' are classes",
        "--layout site/patient if",
    ):
        assert part in " ".join(result.stderr.split())


def test_a_class_that_a_hospital_lacks_makes_no_hospitals_of_classes(tmp_path: Path) -> None:
    for site, label, patient in product("ab", ("ill", "well"), range(8)):
        if (site, label) != ("b", "well"):
            picture(tmp_path / "set" / site / label / f"{site}{label}{patient}" / "1.png", patient)
    assert (
        find(str(tmp_path / "set"), "quick", tmp_path, unwatched).settings["layout"] == "site/class/patient"
    )


def test_patients_of_several_classes_are_read_and_told(pictures: Path) -> None:
    """Few of them: else nothing would tell them from classes."""
    for label in ("ill", "well"):
        picture(pictures / "set" / label / "p00" / "9.png", 50)
    result = init(pictures / "set", "--to", pictures / "mine.yaml")
    passes_check(pictures, result, "mine.yaml")
    assert "note: 'p00' has a folder at several classes" in " ".join(result.stdout.split())


def test_a_table_of_images_of_unlike_sizes_and_colours_and_patients_by_name(tmp_path: Path) -> None:
    rows = []
    for patient in range(PATIENTS):
        for number in range(IMAGES):
            file = tmp_path / "set" / f"{patient}-{number}.png"
            picture(file, patient, 40 + patient % 2, "RGB" if patient % 3 else "L")
            label, site = ("ill", "well")[patient % 2], ("north", "south")[patient // 12]
            rows.append({"file": file.name, "label": label, "patient": f"{patient:03}", "site": site})
    with (tmp_path / "set" / "images.csv").open("w", newline="") as opened:
        writer = csv.DictWriter(opened, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    words = (tmp_path / "set", "--to", tmp_path / "s.yaml")
    scenario = passes_check(tmp_path, init(*words, hospitals="site", forget="patients"), "s.yaml")
    assert scenario.sites.names == ("north", "south")
    refused = init(*words[:2], tmp_path / "t.yaml", hospitals="age", forget="999", time="quick")
    assert refused.exit_code == 2 and not (tmp_path / "t.yaml").exists()
    assert "found the columns site" in refused.stderr and "'999'" in refused.stderr


@pytest.mark.parametrize("given", ["set", "set/MANIFEST.CSV"])
def test_a_table_whose_name_is_in_capitals(tmp_path: Path, given: str) -> None:
    rows = ["file,label,patient"]
    for patient in range(8):
        picture(tmp_path / "set" / "images" / f"{patient}.png", patient)
        rows.append(f"images/{patient}.png,{patient % 2},p{patient}")
    (tmp_path / "set" / "MANIFEST.CSV").write_text("\n".join(rows))
    (tmp_path / "set" / "scanners.Csv").write_text("scanner\n1\n")
    found = find(str(tmp_path / given), "quick", tmp_path, unwatched)
    assert Path(found.settings["manifest"]).name == "MANIFEST.CSV" and len(found.collection.table) == 8


def test_a_numpy_file(tmp_path: Path) -> None:
    rng, ids = np.random.default_rng(0), np.array([f"{i // 2:03}" for i in range(80)])
    pixels = rng.integers(0, 255, (80, 70, 70), dtype=np.uint8)
    np.savez(tmp_path / "d.npz", train_images=pixels, train_labels=np.arange(80) % 3, train_patient_id=ids)
    scenario = passes_check(tmp_path, init(tmp_path / "d.npz", "--to", tmp_path / "s.yaml"), "s.yaml")
    assert scenario.data == scenarios.read(tmp_path / "s.yaml").data
    assert "size: 64" in (tmp_path / "s.yaml").read_text()


@pytest.mark.gate
def test_volumes_with_label_maps(tmp_path: Path) -> None:
    for site in ("one", "two"):
        for patient in range(8):
            folder = tmp_path / "set" / site / f"{site}{patient}"
            folder.mkdir(parents=True)
            rng = np.random.default_rng([patient, len(site), ord(site[0])])
            image = rng.normal(size=(20, 20, 20)).astype(np.float32)
            nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), folder / "t1.nii.gz")
            nibabel.save(
                nibabel.Nifti1Image((image > 1).astype(np.uint8), np.eye(4)), folder / "t1_seg.nii.gz"
            )
    result = init(tmp_path / "set", "--to", tmp_path / "s.yaml", hospitals="site", forget="patients")
    scenario = passes_check(tmp_path, result, "s.yaml")
    assert (scenario.model.kind, scenario.sites.names) == ("segmentation", ("one", "two"))


def test_cells_that_name_several_findings(tmp_path: Path) -> None:
    rows = ["file,label,patient"]
    for patient in range(PATIENTS):
        picture(tmp_path / "set" / f"{patient}.png", patient)
        cell = ("Effusion|Mass", "No Finding", "Mass")[patient % 3]
        rows.append(f"{patient}.png,{cell},p{patient:02}")
    (tmp_path / "set" / "m.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    result = init(tmp_path / "set" / "m.csv", "--to", tmp_path / "set" / "s.yaml", forget="patients")
    scenario = passes_check(tmp_path / "set", result, "s.yaml")
    assert (scenario.model.name, scenario.model.kind) == ("small_cnn", "multilabel")
    text = (tmp_path / "set" / "s.yaml").read_text(encoding="utf-8")
    assert "findings: all" in text and f"# {PATIENTS} images with 2 findings" in text
    assert "labels: uniform" in text  # of two classes, any other is the opposite one


@pytest.mark.parametrize(("time", "edge", "patients"), [("quick", 32, 500), ("normal", 64, 2000)])
def test_chexpert_as_it_is_distributed(tmp_path: Path, time: str, edge: int, patients: int) -> None:
    folder = tmp_path / "CheXpert-v1.0-small"
    rows = [",".join(("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *FINDINGS))]
    for patient in range(PATIENTS):
        name = f"train/patient{patient:05}/study1/view1_frontal.jpg"
        picture(folder / name, patient)
        cells = ",".join("1.0" if (patient + n) % 3 == 0 else "" for n in range(len(FINDINGS)))
        rows.append(f"{folder.name}/{name},Female,60,Frontal,AP,{cells}")
    (folder / "train.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    few = list(data._readings(folder, time))
    assert few[0][0] == {"name": "chexpert", "path": folder.name, "size": edge, "patients": patients}
    found = data.find(str(folder), time, tmp_path, unwatched)
    assert found.settings == {
        "name": "chexpert",
        "path": folder.name,
        "size": edge,
    }  # there are not so many patients
    assert found.several and found.collection.table["patient"].nunique() == PATIENTS


@pytest.mark.gate
@pytest.mark.parametrize(
    ("name", "model"),
    [("phantom_cells", "small_cnn"), ("phantom_chest", "late_fusion"), ("breast_table", "mlp")],
)
def test_data_that_is_at_hand_needs_no_folder(name: str, model: str, tmp_path: Path) -> None:
    passes_check(tmp_path, init(name, "--to", tmp_path / "s.yaml"), "s.yaml")
    assert f"model: {{name: {model}}}" in (tmp_path / "s.yaml").read_text(encoding="utf-8")


def test_a_file_that_is_there_is_not_touched(pictures: Path) -> None:
    (pictures / "mine.yaml").write_text("mine")
    result = init(pictures / "set", "--to", pictures / "mine.yaml")
    assert (result.exit_code, (pictures / "mine.yaml").read_text()) == (2, "mine")
    assert "is there already" in result.stderr


def test_without_a_terminal_it_says_what_to_give(pictures: Path) -> None:
    result = call("init", pictures / "set", "--to", pictures / "mine.yaml")
    assert result.exit_code == 2 and not (pictures / "mine.yaml").exists()
    assert "give --hospitals, --forget, --time" in result.stderr


def test_on_a_terminal_it_asks_and_enter_takes_what_is_usual(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedunlearn.commands.asking.present", lambda: True)
    words = ["init", "--to", str(pictures / "mine.yaml")]
    result = CliRunner().invoke(app, words, input=f"{pictures / 'set'}\n\n\nhospital\n")
    assert result.exit_code == 0, result.output
    assert [request.whole_site for request in scenarios.read(pictures / "mine.yaml").requests] == [True]


def test_what_is_no_choice_is_asked_for_again(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedunlearn.commands.asking.present", lambda: True)
    words = ["init", str(pictures / "set"), "--to", str(pictures / "mine.yaml")]
    result = CliRunner().invoke(app, words, input="soon\nquick\n\nboth\n")
    assert result.exit_code == 0, result.output
    assert "found soon; expected quick or normal" in result.output
    assert result.output.index("found: ") < result.output.index("How much time?")  # it is looked at first


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_without_a_terminal_the_folder_is_looked_at_before_options_are_asked_for(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "empty").mkdir()
    result = call("init", tmp_path / name, "--to", tmp_path / "s.yaml")
    assert result.exit_code == 2 and name in result.stderr and "--hospitals" not in result.stderr


def test_where_no_column_names_hospitals_a_number_is_expected(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "d.npz", train_images=np.zeros((80, 28, 28), np.uint8), train_labels=np.arange(80) % 3
    )
    result = init(tmp_path / "d.npz", "--to", tmp_path / "s.yaml", hospitals="site")
    assert "no column that could name hospitals; expected a number" in result.stderr


@pytest.mark.parametrize("ids", [False, True])
def test_hospitals_and_patients_that_the_data_does_not_tell_are_called_invented(
    tmp_path: Path, ids: bool
) -> None:
    """On the terminal and in the scenario; of patients only where they are."""
    pixels = np.random.default_rng(0).integers(0, 255, (80, 28, 28), dtype=np.uint8)
    arrays = {"train_images": pixels, "train_labels": np.arange(80) % 3}
    if ids:
        arrays["train_patient_id"] = np.array([f"p{i // 2}" for i in range(80)])
    np.savez(tmp_path / "d.npz", **arrays)  # type: ignore[arg-type]  # it takes them, and a flag
    result = init(tmp_path / "d.npz", "--to", tmp_path / "s.yaml")
    written = (tmp_path / "s.yaml").read_text()
    people = 40 if ids else 80
    assert (
        f"hospitals: invented, since the data tells of none: {people} patients are dealt at random to north, east, west"
        in result.stdout
    )
    assert "# These hospitals are invented: patients are dealt to them at random" in written
    assert ("patients: invented: 80 images in d.npz; it tells no patients" in result.stdout) == (not ids)
    assert ("80 patients, invented ones: each image is taken for one." in written) == (not ids)
    passes_check(tmp_path, result, "s.yaml")


@pytest.mark.gate
def test_hospitals_of_the_data_are_not_called_invented(pictures: Path) -> None:
    for patient in range(PATIENTS):
        place = pictures / "real" / ("north", "south")[patient % 2] / ("ill", "well")[patient // 2 % 2]
        picture(place / f"p{patient:02}" / "0.png", patient)
    result = init(pictures / "real", "--to", pictures / "s.yaml", hospitals="site")
    assert "invented" not in result.stdout + (pictures / "s.yaml").read_text()
    dealt = init(pictures / "real", "--to", pictures / "t.yaml", hospitals=2)
    assert "hospitals: invented, not as the data's column site may tell: 24 patients" in dealt.stdout


def test_what_it_says_to_do_is_what_the_readme_says(pictures: Path) -> None:
    result = init(pictures / "set", "--to", pictures / "mine.yaml")
    assert "--pictures sheet.png\n" in result.stdout and "--out runs/first\n" in result.stdout
    assert '# or patients: ["012", "013"]' in (pictures / "mine.yaml").read_text()


@pytest.mark.gate
@pytest.mark.parametrize(("north", "south", "count"), [(16, 24, 6), (8, 10, 2), (16, 60, 9)])
def test_enough_patients_are_picked_where_most_are(
    tmp_path: Path, north: int, south: int, count: int
) -> None:
    for site, people in (("north", north), ("south", south)):
        for patient in range(people):
            where = tmp_path / "set" / site / ("ill", "well")[patient % 2] / f"{site[0]}{patient}"
            picture(where / "1.png", patient)
    result = init(tmp_path / "set", "--to", tmp_path / "s.yaml", hospitals="site", forget="patients")
    (request,) = passes_check(tmp_path, result, "s.yaml").requests
    assert request.site == "south" and request.patients == scenarios.Pick(count=count)
    told = f"some-patients: {count} patients to forget: of so few a run tells coarsely, if at all;"
    checked = call("check", tmp_path / "s.yaml", "--data-root", tmp_path).stdout
    assert (told in result.stdout) == (told in checked) == (count < 6)


def test_pictures_that_nothing_tells_the_patients_of_are_refused_with_what_to_do(tmp_path: Path) -> None:
    picture(tmp_path / "set" / "ill" / "1.png", 1)
    result = init(tmp_path / "set", "--to", tmp_path / "s.yaml")
    assert result.exit_code == 2 and "fedunlearn manifest FOLDER" in result.stderr
    assert not (tmp_path / "s.yaml").exists()


def test_text_from_data_is_quoted() -> None:
    assert text.flow({"path": 'a"b: #c', "size": 3}) == '{path: "a\\"b: #c", size: 3}'
    assert text.flow({"path": "no", "layout": "class/patient"}) == '{path: "no", layout: class/patient}'


@pytest.mark.parametrize("here", [".", "", "../set"])
@pytest.mark.parametrize("table", [True, pytest.param(False, marks=pytest.mark.gate)])
def test_the_folder_one_is_in(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, here: str, table: bool
) -> None:
    if table:
        files = sorted((pictures / "set").rglob("*.png"))
        rows = [[f.relative_to(pictures / "set"), f.parent.parent.name, f.parent.name] for f in files]
        with (pictures / "set" / "manifest.csv").open("w", newline="") as opened:
            csv.writer(opened).writerows([["file", "label", "patient"], *rows])
    monkeypatch.chdir(pictures / "set")
    result = init(here or pictures / "set" / ".." / "set" / ".", "--to", pictures / "mine.yaml")
    passes_check(pictures, result, "mine.yaml")
    said = (pictures / "mine.yaml").read_text()
    assert ("manifest: set/manifest.csv" if table else "path: set") in said.replace('"', "")
    words = next(row for row in result.stdout.splitlines() if "fedunlearn check" in row).split()
    root = words[words.index("--data-root") + 1]
    assert call("check", pictures / "mine.yaml", "--data-root", root).exit_code == 0


@pytest.mark.gate
def test_patients_by_name_are_looked_for_where_they_are(pictures: Path) -> None:
    for number, ids in enumerate([("p00",), ("p01",), ("p02", "p13"), ("p04", "p09", "p20", "p23")]):
        name = f"{number}.yaml"
        result = init(pictures / "set", "--to", pictures / name, forget=",".join(ids))
        scenario = passes_check(pictures, result, name)
        assert sorted(p for request in scenario.requests for p in request.patients) == sorted(ids)  # type: ignore[union-attr]
        assert len({request.site for request in scenario.requests}) == len(scenario.requests)
        cohort = gather(scenario, pictures)
        named = cohort.table[cohort.table["patient"].isin(ids)]
        assert set(named["split"]) == {"train"} and len(named) == IMAGES * len(ids)
        assert all(len(asked) == 1 for asked in named["forgotten_by"])


def test_patients_by_name_at_hospitals_that_the_data_has(tmp_path: Path) -> None:
    for site in ("north", "south"):
        for patient in range(16):
            picture(
                tmp_path / "set" / site / ("ill", "well")[patient % 2] / f"{site[0]}{patient}" / "1.png",
                patient,
            )
    result = init(tmp_path / "set", "--to", tmp_path / "s.yaml", hospitals="site", forget="n1, s2,s3")
    scenario = passes_check(tmp_path, result, "s.yaml")
    assert {request.site: request.patients for request in scenario.requests} == {
        "north": ("n1",),
        "south": ("s2", "s3"),
    }


def test_a_column_of_hospitals_with_blanks_is_named_with_one_of_its_images(tmp_path: Path) -> None:
    rows = ["file,label,patient,hospital"]
    for patient in range(16):
        picture(tmp_path / "set" / f"{patient}.png", patient)
        rows.append(
            f"{patient}.png,{patient % 2},p{patient},{'' if patient in (3, 4) else 'ab'[patient % 2]}"
        )
    (tmp_path / "set" / "manifest.csv").write_text("\n".join(rows))
    result = init(tmp_path / "set", "--to", tmp_path / "s.yaml", hospitals="hospital")
    assert result.exit_code == 2 and not (tmp_path / "s.yaml").exists()
    assert "column hospital is empty for 2 images, such as 3.png" in result.stderr
    assert "s.yaml:" not in result.stderr and "nothing was written" in result.stderr


@pytest.mark.parametrize("people", [1, 3, 7])
def test_too_few_patients_for_any_hospitals_are_counted(tmp_path: Path, people: int) -> None:
    for patient in range(people):
        picture(tmp_path / "set" / ("ill", "well")[patient % 2] / f"p{patient}" / "1.png", patient)
    result = init(tmp_path / "set", "--to", tmp_path / "s.yaml", hospitals=3)
    said = f"found {people} patient{'' if people == 1 else 's'}; expected at least 8"
    assert result.exit_code == 2 and said in " ".join(result.stderr.split())


def test_more_patients_by_name_than_are_trained_on_are_refused(pictures: Path) -> None:
    ids = ",".join(f"p{patient:02}" for patient in range(PATIENTS))
    result = init(pictures / "set", "--to", pictures / "mine.yaml", forget=ids)
    assert result.exit_code == 2 and not (pictures / "mine.yaml").exists()
    assert f"train on all {PATIENTS} named ones" in result.stderr


def test_only_columns_that_may_name_hospitals_are_offered() -> None:
    rows = range(400)
    table = pd.DataFrame({"image": map(str, rows), "patient": map(str, rows)})
    offered = {"scanner": 3, "ward": 5, "clinic": 15, "device_id": 4}
    other = {"age": 3, "patientAge": 4, "sex": 2, "class_name": 2, "fold": 5, "admitted": 15, "split_2": 3}
    for name, count in {**offered, **other}.items():
        text = "v" if name in ("ward", "clinic", "sex", "class_name") else ""
        table[name] = [f"{text}{row % count}" for row in rows]
    table["dose"] = [row % 3 / 2 for row in rows]
    pixels, targets = np.zeros((400, 1, 4, 4), dtype=np.uint8), np.arange(400) % 2
    found = Found({"name": "folder"}, None, Collection(pixels, targets, table, 2, False), "")
    assert columns(found) == ["scanner", "ward", "clinic", "device_id"]
    assert wishes("age", "both", "quick", found).hospitals == "age"  # whoever names it means it
    with pytest.raises(InputError, match="found the columns scanner, ward, clinic, device_id;"):
        wishes("label", "both", "quick", found)
