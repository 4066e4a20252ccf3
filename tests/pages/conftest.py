from __future__ import annotations

import inspect
from collections.abc import Iterator

import pytest

from fedunlearn import pages
from fedunlearn.results.runfolder import RunFolder
from tests.pages import made


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of two requests, two of whose patients can be told; not to be changed."""
    return made.folder(tmp_path_factory.mktemp("made") / "run")


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The same with names that no page may obey."""
    place = tmp_path_factory.mktemp("hostile") / "run"
    skipped = [{"strategy": made.SCRIPT, "request": "some", "reason": made.LONG + made.TURNED}]
    data = {"note": made.SCRIPT + made.TURNED, "notes": list(made.HOSTILE), "digest": made.BROKEN}
    return made.folder(place, made.names(), name=made.SCRIPT + made.LONG, skipped=skipped, data=data)


@pytest.fixture
def real_pages() -> Iterator[None]:
    """Pages are drawn as for users, also by `simulate` and `score`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "report", inspect.unwrap(pages.report))
        yield
