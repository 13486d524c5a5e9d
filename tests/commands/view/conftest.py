"""One run and one viewer for all tests that do not write; indexes go to a folder of the tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands.view.fake_run import FakeRun, write_run
from tests.commands.view.serving import Client, served


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where indexes are."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def fake(tmp_path_factory: pytest.TempPathFactory) -> FakeRun:
    return write_run(tmp_path_factory.mktemp("view"))


@pytest.fixture(scope="session")
def client(fake: FakeRun) -> Iterator[Client]:
    with served(fake.folder.parent) as found:
        yield found
