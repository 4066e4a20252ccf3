from __future__ import annotations

import pytest

from tests.cluster.machines import unable
from tests.cluster.running import reference


@pytest.fixture(scope="session", autouse=True)
def able() -> None:
    if (reason := unable()) is not None:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def models(able: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the short scenario comes to with engine inline."""
    return reference(tmp_path_factory.mktemp("inline"))
