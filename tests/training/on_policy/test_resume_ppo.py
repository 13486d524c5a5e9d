import json
import signal
from pathlib import Path

import pytest

from tests.e2e.command import ForkServer
from tests.training.killing import result
from tests.training.on_policy.interrupted_ppo import KILLS, KINDS, STEPS_PER_UPDATE, UPDATES

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def runs(forked: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All runs, made by one process and its children."""
    folder = tmp_path_factory.mktemp("interrupted")
    forked.run_module("tests.training.on_policy.interrupted_ppo", str(folder))
    return folder


@pytest.mark.parametrize(
    ("kind", "interruption"),
    [*(("shared", name) for name in KILLS), ("separate", "in_the_second_update"), ("lora", "in_the_second_update")],
)
def test_a_killed_run_ends_where_an_uninterrupted_one_does(runs: Path, kind: str, interruption: str) -> None:
    codes = json.loads((runs / "codes.json").read_text())
    assert codes[f"{kind} uninterrupted"] == [0]
    assert codes[f"{kind} {interruption}"] == [-signal.SIGKILL, 0]
    whole, resumed = result(runs / kind / "uninterrupted"), result(runs / kind / interruption)
    assert resumed["steps"] == whole["steps"] == UPDATES * STEPS_PER_UPDATE
    assert resumed["weights"] == whole["weights"]  # to the bit
    assert resumed["log"] == whole["log"]
    assert resumed["state"] == whole["state"]
    assert resumed["last_answers"] == whole["last_answers"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_state_to_be_resumed_had_changed(runs: Path, kind: str) -> None:
    """Else the test above could not fail."""
    whole = result(runs / kind / "uninterrupted")
    assert [entry["update"] for entry in whole["log"]] == [1, 2, 3]
    assert len({entry["kl_coefficient"] for entry in whole["log"]}) == len({entry["learning_rate"] for entry in whole["log"]}) == 3
    assert whole["state"]["moments"]["count"] == UPDATES * 8 * 3
    assert whole["state"]["keeps_logprobs"] is True
    assert whole["log"][-1]["kl_k3_nats"] > 0.01
