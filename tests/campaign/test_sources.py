"""Which source files work rests on: those that it imports, wherever it does so, and no library."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedunlearn.campaign import sources
from fedunlearn.campaign.origins import curve_modules, training_modules
from fedunlearn.campaign.sources import closure, digest, digests
from fedunlearn.core.kinds import kinds
from fedunlearn.learning.kinds import learnt
from fedunlearn.scoring.kinds import scored


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of its own, which counts as one of ours here."""
    folder = tmp_path / "ours_for_a_test"
    folder.mkdir()
    for cached in (sources._file, sources._sha256, sources._imported):
        cached.cache_clear()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sources, "PACKAGES", (folder.name,))
    importlib.invalidate_caches()
    yield folder
    for cached in (sources._file, sources._sha256, sources._imported):
        cached.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == folder.name]:
        del sys.modules[name]  # a package is imported to find what is in it


def write(package: Path, **modules: str) -> None:
    (package / "__init__.py").touch()
    for name, text in modules.items():
        (package / f"{name}.py").write_text(text, encoding="utf-8")


def names(package: Path, *modules: str) -> set[str]:
    return {name.partition(".")[2] for name in closure(f"{package.name}.{module}" for module in modules)}


def test_what_is_imported_is_found_wherever_that_is_and_on_from_there(package: Path) -> None:
    own = package.name
    write(
        package,
        start=f"import os, numpy\nimport {own}.plain\nfrom {own} import module\nfrom {own}.named import name as n\n",
        plain=f"def late():\n    from {own} import inside\n",
        module=f"class X:\n    def late(self):\n        import {own}.deeper as d\n",
        named="name = 3\n",
        inside="",
        deeper=f"if False:\n    from {own}.never import x\nimport {own}.start\n",
        never="x = 1\n",
        unused="",
    )
    expected = {"start", "plain", "module", "named", "inside", "deeper", "never"}
    assert names(package, "start") - {""} == expected
    assert names(package, "named") == {"named"}
    assert names(package, "unused", "named") == {"unused", "named"}


def test_files_are_those_of_the_modules_and_come_in_the_order_of_their_names(package: Path) -> None:
    own = package.name
    write(package, b="", a=f"import {own}.b\n")
    found = closure([f"{own}.a"])
    assert list(found) == [f"{own}.a", f"{own}.b"]
    assert found[f"{own}.b"] == package / "b.py"


def test_libraries_and_what_is_no_module_do_not_count(package: Path) -> None:
    write(package, a="import torch\nfrom collections import abc\nimport nowhere_at_all\n")
    assert names(package, "a", "nowhere") == {"a"}
    assert closure(["torch", "json", "nowhere_at_all"]) == {}


def test_an_edit_of_any_file_changes_the_digest_and_of_no_other(package: Path) -> None:
    own = package.name
    write(package, a=f"import {own}.b\n", b="", c="")
    modules = [f"{own}.a"]
    before = digest(modules), digest(modules, [f"{own}.c"])
    assert before[0] != before[1]
    for name, changed in (("a", (True, True)), ("b", (True, True)), ("c", (False, True))):
        text = (package / f"{name}.py").read_text()
        (package / f"{name}.py").write_text(text + "# edited\n")
        sources._sha256.cache_clear()
        assert (
            tuple(
                x != y for x, y in zip((digest(modules), digest(modules, [f"{own}.c"])), before, strict=True)
            )
            == changed
        )
        (package / f"{name}.py").write_text(text)
    sources._sha256.cache_clear()
    assert digest(modules) == before[0]
    assert digest([f"{own}.c"], modules) != digest([f"{own}.c", f"{own}.a"]), "alone, without what it imports"


def imports(tree: ast.Module) -> set[str]:
    """Our modules that a file names, by another way than the one under test."""
    found = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in sources.PACKAGES:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] in sources.PACKAGES:
            found.add(str(node.module))
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.partition(".")[0] in sources.PACKAGES}
    return {name for name in found if importlib.util.find_spec(name) is not None}


@pytest.mark.parametrize("kind", kinds())
def test_the_sources_of_training_are_all_that_it_imports(kind: str) -> None:
    """Whatever these files use of this project is among them; a forgotten one would leave stale work."""
    found = closure(training_modules(kind))
    assert {"fedunlearn.learning.local", "fedunlearn.core.exchange", "sites.hospital"} <= found.keys()
    for name, file in found.items():
        assert file.name.endswith(".py") and file.is_file()
        used = imports(ast.parse(file.read_text(encoding="utf-8")))
        assert used <= found.keys(), f"{name} uses {used - found.keys()}"
    assert digests(training_modules(kind)).keys() == found.keys()


@pytest.mark.parametrize("kind", kinds())
def test_a_kinds_loss_is_among_the_sources_of_training_though_it_is_found_by_a_name(kind: str) -> None:
    """So is whatever else it brings to training; what other kinds bring is not."""
    found, own = closure(training_modules(kind)), learnt(kind)
    brought = (own.objective, own.signal, own.brief, own.glance)
    homes = {getattr(one, "func", one).__module__ for one in brought}  # some have arguments already
    assert homes <= found.keys(), homes - found.keys()
    assert {name for name in found if "kinds." in name and "fedunlearn.kinds" in name} == {
        f"fedunlearn.kinds.{kind}",
        f"fedunlearn.kinds.{kind}.learnt",
    }


@pytest.mark.parametrize("kind", kinds())
def test_a_kinds_quality_is_among_the_sources_of_curves_and_no_attack_is(kind: str) -> None:
    """Models on the way are gone once a run is over: an edited attack must not cost it their curves."""
    found = closure(curve_modules(kind))
    assert scored(kind).glanced.__module__ in found
    assert closure(training_modules(kind)).keys() < found.keys()
    assert not [
        name for name in found if ".attacks" in name or ".measures" in name or name.endswith(".scored")
    ]


def test_training_does_not_rest_on_what_only_strategies_scores_or_pictures_need() -> None:
    """An edit there must not throw finished training away."""
    found = " ".join(closure(training_modules("classification")))
    for other in ("strategies.", ".scoring", ".results", ".campaign", ".scenario", "simulate", "flower"):
        assert other not in found


def test_a_strategy_rests_on_its_own_file_and_on_no_other_strategys() -> None:
    found = closure(["strategies.negation"])
    assert {name for name in found if name.startswith("strategies.")} == {"strategies.negation"}
    assert "fedunlearn.federation.procedures" in found
