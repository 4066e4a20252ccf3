"""Cards of models and of data: what has to be in them, and what must not."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from ruamel.yaml import YAML

from fedunlearn.exports.cards import models
from fedunlearn.exports.croissant import croissant
from fedunlearn.exports.holdings import holdings, note
from fedunlearn.exports.papers import tidy
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.results.sentences import percent
from tests.exports.conftest import SCENARIO
from tests.scoring.made import MODELS, change_manifest

FORBIDDEN = ("erased", "certified", "guarantee", "GDPR compliant", "anonymi", "✓", "✅", "secret")


@pytest.fixture(scope="module")
def cards(made: RunFolder) -> dict[str, str]:
    return models(made)


def test_every_kept_model_has_a_card(made: RunFolder, cards: dict[str, str]) -> None:
    kept = {f"models/{file.stem}.md" for file in (made.path / "weights").iterdir()}
    assert set(cards) == kept and len(cards) == 2 * 3 * len(MODELS)


def test_no_patient_image_folder_or_machine_is_named(made: RunFolder, cards: dict[str, str]) -> None:
    table = made.read_table("sites.parquet")
    for text in (*cards.values(), croissant(made)):
        words = set(re.findall(r"[\w-]+", text))
        assert not words & {*table["patient"], *table["image"]}
        assert not [word for word in FORBIDDEN if word in text]
    assert note(made) == "64 images of list.csv; made up."


def test_a_card_says_what_was_found_in_words_of_what_was_seen(made: RunFolder, cards: dict[str, str]) -> None:
    own = tidy(made).query("request == 'some'").set_index("strategy").to_dict("index")
    good, lazy = own["good"], own["lazy"]
    most = percent(abs(good["memory_left"]) + good["memory_left_half"])
    text = cards["models/good-some-7.md"]
    assert "forget 3 patients of north" in text and "mean over 3 seeds, not of this file alone" in text
    assert f"no difference from retraining larger than {most} % of what the original knew was seen" in text
    assert "within the declared margins" in text
    assert (
        f"memory is still there: what is left was measured as {percent(lazy['memory_left'])} %"
        in (cards["models/lazy-some-7.md"])
    )
    assert "3 of 3 patients are still known" in cards["models/lazy-some-7.md"]
    assert "trained again without the data" in cards["models/retrained-some-7.md"]
    assert "all of that data is in its training" in cards["models/original-some-7.md"]
    for text in cards.values():
        assert "is no proof" in text and "no legal advice" in text and "licence: unknown" in text


def test_a_card_does_not_call_margins_declared_that_were_changed(made: RunFolder, tmp_path: Path) -> None:
    run = RunFolder(Path(shutil.copytree(made.path, tmp_path / "run")))
    change_manifest(run.path, verdict={"margins": {"memory_left": 0.9}})
    text = models(run)["models/good-some-7.md"]
    assert "within margins that were changed since" in text and "declared margins" not in text
    assert "judged with memory_left 0.9 instead of the scenario's memory_left 0.25" in text


def test_numbers_of_a_card_are_of_its_own_file(made: RunFolder, cards: dict[str, str]) -> None:
    scores = made.read_table("scores.parquet")
    own = scores.query(
        "request == 'some' and strategy == 'lazy' and seed == 8 and measure == 'test_accuracy'"
    )
    (value,) = own[own["group"] == "all"]["value"]
    front = YAML(typ="safe").load(cards["models/lazy-some-8.md"].split("---")[1])
    assert front["model-index"][0]["results"][0]["metrics"][0]["value"] == value
    assert front["license"] == "unknown" and front["pipeline_tag"] == "image-classification"
    digest = made.read_manifest()["sha256"]["weights/lazy-some-8.safetensors"]
    assert digest in cards["models/lazy-some-8.md"]


def test_what_is_counted_is_what_there_is(made: RunFolder, cards: dict[str, str]) -> None:
    """Ten patients at each hospital, 7 images each, 6 to train on; 3 of north ask (see `images`)."""
    (north,) = (one for one in holdings(made) if (one.site, one.split) == ("north", "train"))
    assert (north.images, north.patients) == (42, 6)
    assert {(wish.request, wish.images, wish.patients) for wish in north.asked} == {("some", 21, 3)}
    assert "| north | 42 | 6 | 28 |" in cards["models/original-some-7.md"]
    assert "| north | 21 | 3 | 28 |" in cards["models/retrained-some-7.md"]
    assert "| east | 0 | 0 | 28 |" in cards["models/retrained-east-leaves-7.md"]


@pytest.mark.gate
def test_what_was_honoured_before_is_not_counted_either(made: RunFolder, tmp_path: Path) -> None:
    """North's patients go first; then east, of which one patient has asked before: her images are subtracted once."""
    shutil.copytree(made.path, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    table = pd.read_parquet(run.path / "sites.parquet")
    table["forgotten_by"] = [
        ["some", "east-leaves"] if patient == "east-000" else list(asked)
        for patient, asked in zip(table["patient"], table["forgotten_by"], strict=True)
    ]
    table.to_parquet(run.path / "sites.parquet", index=False)
    first, second = run.read_manifest()["moments"]
    change_manifest(run.path, moments=[first, {**second, "earlier": ["some"]}])
    cards = models(run)
    assert "| east | 35 | 5 | 28 |" in cards["models/retrained-some-7.md"]
    text = cards["models/retrained-east-leaves-7.md"]
    assert "| north | 21 | 3 | 28 |" in text and "| east | 0 | 0 | 28 |" in text
    for card in (text, cards["models/good-east-leaves-7.md"]):
        assert "- some: forget 3 patients of north\n- east-leaves: forget all of east\n" in card
        assert "the others had been honoured before it" in card
    assert (
        "east-leaves" not in cards["models/good-some-7.md"].split("## What was asked")[1].split("## How")[0]
    )


@pytest.mark.gate
def test_no_setting_tells_of_a_folder_even_with_spaces(made: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(made.path, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    scenario = SCENARIO.replace("hidden: 64", "hidden: 64, weights: /home/some body/secret/start.pt")
    scenario = scenario.replace("manifest: list.csv", "manifest: 'secret, too/list.csv'")
    scenario = scenario.replace("fine_tune, as", "fine_tune, file: my secret/mine.py, as")
    (run.path / "scenario.yaml").write_text(scenario, encoding="utf-8")
    said = "64 images of {}list.csv; made up. Read from /mnt/a b/secret/x and D:\\sec ret\\y."
    change_manifest(
        run.path,
        data={"digest": "ab" * 32, "note": said.format("secret, too/")},
        pretrained="12 of 14 arrays of /home/some body/secret/start.pt",
    )
    assert note(run) == "64 images of list.csv; made up. Read from x and y."
    text = models(run)["models/lazy-some-7.md"]
    assert (
        "secret" not in text
        and "some body" not in text
        and "Training began from 12 of 14 arrays of start.pt" in text
    )
    assert "hidden 64" in text and "rounds 1" in text


@pytest.mark.gate
def test_models_at_a_horizon_have_their_strategys_settings(made: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(made.path, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    scored = [dict(entry) for entry in run.read_manifest()["scored"]]
    scored[0]["strategies"] = {**scored[0]["strategies"], "lazy@20": "lazy-some-7-20"}
    (run.path / "weights" / "lazy-some-7-20.safetensors").write_bytes(b"20")
    change_manifest(run.path, scored=scored)
    assert "Settings: name fine\\_tune, rounds 1." in models(run)["models/lazy-some-7-20.md"].replace(
        "fine_", "fine\\_"
    )


@pytest.mark.gate
def test_code_is_shown_as_it_is(made: RunFolder, tmp_path: Path) -> None:
    """Within backticks a backslash would be seen, and a backtick would end them."""
    shutil.copytree(made.path, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    scored = [dict(entry) for entry in run.read_manifest()["scored"]]
    scored[0]["strategies"] = {**scored[0]["strategies"], "*neg`": "neg-some-7"}
    (run.path / "weights" / "neg-some-7.safetensors").write_bytes(b"neg")
    change_manifest(run.path, scored=scored)
    assert "the unlearning strategy `` *neg` `` made of" in models(run)["models/neg-some-7.md"]


@pytest.mark.gate
def test_phantoms_are_said_to_be_phantoms(made: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(made.path, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    change_manifest(run.path, data={"digest": "0" * 64, "note": "Phantom cells, drawn by a program."})
    text = models(run)["models/good-some-7.md"]
    assert "These are phantoms" in text and '"phantom-data"' in text
    assert "drawn by a program" in json.loads(croissant(run))["rai:personalSensitiveInformation"]


def test_hostile_names_are_text(made: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(made.path, tmp_path / "run")
    run, evil = RunFolder(tmp_path / "run"), '<script>|\n# x"---'
    table = pd.read_parquet(run.path / "sites.parquet")
    table.assign(site=table["site"].replace("west", evil)).to_parquet(run.path / "sites.parquet", index=False)
    change_manifest(run.path, name=evil)
    text = models(run)["models/good-some-7.md"]
    assert "<script>" not in text.split("---\n", 2)[2].replace("\\<script", "") and "\n# x" not in text
    YAML(typ="safe").load(text.split("\n---\n")[0].removeprefix("---\n"))
    assert json.loads(croissant(run))["name"].startswith("<script>|\\n")


def test_the_data_is_described_as_croissant_asks(made: RunFolder) -> None:
    """Required and recommended keys of Croissant 1.0; `mlcroissant validate` was seen to accept such a file."""
    content = json.loads(croissant(made))
    required = {
        "@context",
        "@type",
        "conformsTo",
        "name",
        "description",
        "license",
        "url",
        "distribution",
        "recordSet",
    }
    assert required | {"version", "datePublished", "citeAs"} <= set(content)
    assert content["@type"] == "sc:Dataset" and content["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    assert content["@context"]["@vocab"] == "https://schema.org/" and content["@context"]["cr"].endswith(
        "/croissant/"
    )
    (records,) = content["recordSet"]
    names = {field["@id"] for field in records["field"]}
    assert all(set(row) == names for row in records["data"])
    assert sum(row["holdings/images"] for row in records["data"]) == len(made.read_table("sites.parquet"))
