"""Fixtures that several rooms' tests share. Imports are inside, so that light tests stay light."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.judges.transformers_server import TransformersServer


@pytest.fixture(scope="session")
def transformers_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TransformersServer]:
    """`transformers serve` with the tiny judge, started once."""
    from tests.judges.transformers_server import tiny_judge_server

    with tiny_judge_server(tmp_path_factory.mktemp("transformers_server")) as server:
        yield server
