"""Fixtures that several rooms' tests share. Imports are inside, so that light tests stay light."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

# Before torch is imported, here and in every process that a test starts: tiny models gain nothing from threads, and threads that
# spin while they wait slow down whatever runs beside them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from tests.judges.transformers_server import TransformersServer


@pytest.fixture(scope="session")
def transformers_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TransformersServer]:
    """`transformers serve` with the tiny judge, started once."""
    from tests.judges.transformers_server import tiny_judge_server

    with tiny_judge_server(tmp_path_factory.mktemp("transformers_server")) as server:
        yield server
