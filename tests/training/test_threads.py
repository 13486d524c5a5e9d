"""On several threads of a CPU the same training leaves the same weights, to the bit; so does one that was killed and resumed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from aligndistill.models.groups import collate
from aligndistill.models.logprobs import places
from tests.tiny_models import random_groups
from tests.training.threaded import STEPS

pytestmark = pytest.mark.process

REPOSITORY = Path(__file__).parents[2]
THREADS = 2


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All runs, made by one process and its children."""
    folder = tmp_path_factory.mktemp("threaded")
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": str(THREADS), "PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, "-m", "tests.training.threaded", str(folder)], cwd=REPOSITORY, env=environment, check=True)
    return folder


def result(runs: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((runs / name / "result.json").read_text())
    assert (found["steps"], found["threads"]) == (STEPS, THREADS)
    return found


@pytest.mark.timeout(600)
@pytest.mark.parametrize("what", ["rrhf", "ppo"])
def test_the_same_training_twice_leaves_the_same_weights(runs: Path, what: str) -> None:
    assert result(runs, f"{what}/first")["weights"] == result(runs, f"{what}/again")["weights"]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("what", ["rrhf", "ppo"])
def test_a_killed_run_ends_where_an_uninterrupted_one_does(runs: Path, what: str) -> None:
    assert json.loads((runs / "codes.json").read_text())[f"{what} killed"] == [-signal.SIGKILL, 0]
    assert result(runs, f"{what}/killed")["weights"] == result(runs, f"{what}/first")["weights"]


def test_the_gradient_of_tokens_that_are_read_often_is_the_same_every_time() -> None:
    """An index's own gradient differed in a third of all passes at these sizes, on two idle cores."""
    batch = collate(random_groups([(14, [8] * 100)]), 0, share=True)
    generator = torch.Generator().manual_seed(0)
    hidden_NTH = torch.randn(*batch.input_ids_NT.shape, 96, generator=generator, requires_grad=True)
    gradient_SH = torch.randn(len(batch.predictors_S), 96, generator=generator)
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        found = [torch.autograd.grad(places(hidden_NTH, batch.predictors_S), hidden_NTH, gradient_SH)[0] for _ in range(100)]
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, found[0]) for one in found)
    by_hand = torch.zeros_like(hidden_NTH).flatten(0, 1).index_put((batch.predictors_S,), gradient_SH, accumulate=True)
    torch.testing.assert_close(found[0].flatten(0, 1), by_hand)
