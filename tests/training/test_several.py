"""One process, two, and two under every ZeRO stage learn the same; and each can be stopped and resumed.

All training runs of this file are made by two launches, of two processes and of one: starting a process costs more than training.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.e2e.command import ForkServer, ranks
from tests.tiny_models import assert_same_steps, write_tiny_model
from tests.training.on_policy.policy_server import PolicyServer

pytestmark = pytest.mark.process

OBJECTIVES = ("supervised", "reward_model", "dpo", "rrhf", "pro", "kto", "distil", "distil_hidden", "on_policy_distil", "ppo")
SHARDED = [(what, f"zero{stage}") for what in OBJECTIVES for stage in range(4) if what != "distil_hidden" or stage > 1]
SHARDED_LORA = [
    *(("dpo", f"zero{stage}") for stage in range(4)),
    *(
        ("reward_model", "zero2"),
        ("distil", "zero2"),
        ("distil", "zero3"),
        ("distil_hidden", "zero3"),
        ("on_policy_distil", "zero3"),
        ("ppo", "zero3"),
    ),
]
STOPPED_SHARDED = [("dpo", "zero2"), ("ppo", "zero3")]
ELASTIC = [("dpo", "zero2"), ("dpo", "zero3"), ("ppo", "zero2")]
"""Stopped on two processes, and resumed on one and on four."""
SHARED_CRITIC = ("zero2", "zero3")
UNEVEN = ("dpo", "distil", "on_policy_distil")
RAGGED = [
    ("supervised", None, 4),
    ("supervised", "zero3", 1),
    ("dpo", None, 1),
    ("dpo", "zero3", 4),
    ("kto", None, 4),
    ("kto", "zero3", 1),
    ("on_policy_distil", None, 1),
    ("on_policy_distil", "zero3", 4),
]
"""Eleven rows in steps of 8. Of the last 3 the second process has none in micro-batches of 4, and one in two passes of 1."""
SERVED = [(zero, lora) for zero in (None, "zero2", "zero3") for lora in (False, True)]
PPO_METRICS = {"score", "kl_k1_nats", "policy_loss", "value_loss", "explained_variance", "length_tokens"}
DISTIL_METRICS = {
    "kl_k1_nats",
    "kl_reverse_nats",
    "kl_forward_nats",
    "entropy_nats",
    "agreement",
    "length_tokens",
    "eos_rate",
    "unreadable",
}
PORT = 29900 + os.getpid() % 90


def served(zero: str | None, lora: bool, url: str) -> dict[str, Any]:
    return {"name": f"ppo-served-{zero}-{lora}", "what": "ppo", "zero": zero, "lora": lora, "served": url}


def ragged(what: str, zero: str | None, per_device: int) -> dict[str, Any]:
    return {"name": f"{what}-ragged-{zero}-{per_device}", "what": what, "zero": zero, "per_device": per_device, "rows": 11}


def on_two(url: str) -> list[dict[str, Any]]:
    orders: list[dict[str, Any]] = [{"name": what, "what": what} for what in OBJECTIVES]
    orders += [{"name": f"{what}-{zero}", "what": what, "zero": zero} for what, zero in SHARDED]
    lora = {what for what, _ in SHARDED_LORA}
    orders += [{"name": f"{what}-lora", "what": what, "lora": True} for what in sorted(lora)]
    orders += [{"name": f"{what}-lora-{zero}", "what": what, "zero": zero, "lora": True} for what, zero in SHARDED_LORA]
    orders += [{"name": f"ppo-shared-{zero}", "what": "ppo", "critic": "shared", "zero": zero} for zero in SHARED_CRITIC]
    orders += [served(zero, lora, url) for zero, lora in SERVED]
    orders += [{"name": f"{what}-uneven", "what": what, "zero": "zero3", "uneven": True} for what in UNEVEN]
    orders += [ragged(*one) for one in RAGGED]
    for what, zero in [*((what, None) for what in OBJECTIVES), *STOPPED_SHARDED]:
        orders += stopped_and_resumed(what, zero)
    for what, zero in ELASTIC:
        orders.append({**stopped_and_resumed(what, zero)[0], "name": f"{what}-{zero}-moved", "folder": f"{what}-{zero}-moved"})
    other_shards = {"name": "dpo-other-shards", "what": "dpo", "zero": "zero3", "folder": "dpo-zero2"}
    return [*orders, other_shards, {"name": "dpo-moved", "what": "dpo", "folder": "moved", "stop_at": 3}]


def on_one(url: str) -> list[dict[str, Any]]:
    orders: list[dict[str, Any]] = [{"name": what, "what": what, "per_device": 8} for what in OBJECTIVES]
    orders += [{"name": f"{what}-accumulated", "what": what, "per_device": 1} for what in OBJECTIVES]
    orders += [{**served(None, lora, url), "per_device": 8} for lora in (False, True)]
    orders += [{"name": "ppo-shared", "what": "ppo", "critic": "shared", "per_device": 8}]
    orders += [ragged(what, None, 8) for what in sorted({what for what, *_ in RAGGED})]
    for what in OBJECTIVES:
        orders += [{**order, "per_device": 8} for order in stopped_and_resumed(what, None)]
    moved = {"name": "dpo-moved", "what": "dpo", "per_device": 8, "folder": "../two/moved"}
    return [*orders, moved, {"name": "dpo-fewer", "what": "dpo", "per_device": 8, "folder": "../two/dpo-zero2"}]


def elastic(per_device: int) -> list[dict[str, Any]]:
    """What two processes were stopped in; each number of processes gets a copy of its own."""
    return [{"name": f"{what}-{zero}-moved", "what": what, "zero": zero, "per_device": per_device} for what, zero in ELASTIC]


def stopped_and_resumed(what: str, zero: str | None) -> list[dict[str, Any]]:
    """The first is stopped behind a step at which no checkpoint was due, but for PPO, whose checkpoints are whole updates."""
    name = f"{what}-{zero}" if zero else what
    order = {"what": what, "zero": zero, "folder": f"{name}-again"}
    return [{**order, "name": f"{name}-stopped", "stop_at": 1 if what == "ppo" else 3}, {**order, "name": f"{name}-resumed"}]


@pytest.fixture(scope="module")
def made(forked: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several")
    with PolicyServer(write_tiny_model(folder / "start")) as server:
        url = server.base_url
        for name, orders, processes in (("two", on_two(url), ranks(2, PORT)), ("one", on_one(url), [{}])):
            (folder / name).mkdir()
            (folder / name / "orders.json").write_text(json.dumps(orders))
            forked.run_module("tests.training.several", str(folder / name), environments=processes)
    for name, per_device, processes in (("one-sharded", 8, ranks(1, PORT)), ("four", 2, ranks(4, PORT))):
        for what, zero in ELASTIC:
            shutil.copytree(folder / "two" / f"{what}-{zero}-moved", folder / name / f"{what}-{zero}-moved")
        (folder / name / "orders.json").write_text(json.dumps(elastic(per_device)))
        forked.run_module("tests.training.several", str(folder / name), environments=processes)
    return folder


def result(folder: Path, name: str, rank: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"{name}.{rank}.json").read_text())
    assert "error" not in found or "weights" not in found
    if "log" in found:
        found["log"] = [{key: value for key, value in entry.items() if not key.endswith("seconds")} for entry in found["log"]]
    return found


def assert_same_training(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """The same up to the rounding of sums in another order."""
    assert "error" not in found, found
    assert found["steps"] == expected["steps"] == 4
    assert len(found["log"]) == len(expected["log"]) > 1
    for entry, other in zip(found["log"], expected["log"], strict=True):
        assert entry["loss"] == pytest.approx(other["loss"], rel=1e-3, abs=1e-5)
        assert entry["learning_rate"] == other["learning_rate"]
        assert entry.get("baseline_nats", 0) == pytest.approx(other.get("baseline_nats", 0), rel=1e-3, abs=1e-4)  # of KTO
        if "kl_reverse_nats" in other:
            for metric in DISTIL_METRICS:
                assert entry[metric] == pytest.approx(other[metric], rel=2e-3, abs=2e-4), metric
        if "score" in other:
            assert entry.keys() & other.keys() >= PPO_METRICS
            assert entry.keys() ^ other.keys() <= {"grad_norm"}  # DeepSpeed has none under ZeRO-0
            for metric in entry.keys() & other.keys():
                assert entry[metric] == pytest.approx(other[metric], rel=2e-3, abs=2e-4), metric
    # ZeRO writes a tied head too
    assert_same_steps(*({name: torch.tensor(value) for name, value in one["weights"].items()} for one in (found, expected)))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("what", OBJECTIVES)
def test_however_a_batch_is_split_it_is_the_same_step(made: Path, what: str) -> None:
    whole = result(made / "one", what)
    assert_same_training(result(made / "one", f"{what}-accumulated"), whole)
    assert_same_training(result(made / "two", what), whole)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("what", "zero"), SHARDED)
def test_every_zero_stage_learns_what_plain_data_parallel_training_does(made: Path, what: str, zero: str) -> None:
    assert_same_training(result(made / "two", f"{what}-{zero}"), result(made / "two", what))


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("what", "zero"), SHARDED_LORA)
def test_adapters_train_under_every_zero_stage(made: Path, what: str, zero: str) -> None:
    assert_same_training(result(made / "two", f"{what}-lora-{zero}"), result(made / "two", f"{what}-lora"))


@pytest.mark.timeout(600)
def test_a_teachers_layers_are_sharded_with_the_student_and_its_head_is_not(made: Path) -> None:
    """Between forward passes, in which they are gathered one at a time."""
    whole, sharded = (result(made / "two", name)["kept"] for name in ("distil-zero2", "distil-zero3"))
    assert whole["layers"] > 1000
    assert sharded["layers"] < 100
    assert sharded["head"] == whole["head"] > 1000


@pytest.mark.timeout(600)
@pytest.mark.parametrize("zero", SHARED_CRITIC)
def test_a_critic_on_the_policys_backbone_learns_sharded_what_it_learns_alone(made: Path, zero: str) -> None:
    assert_same_training(result(made / "two", f"ppo-shared-{zero}"), result(made / "one", "ppo-shared"))


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("zero", "lora"), SERVED)
def test_what_a_server_samples_for_several_processes_is_what_it_samples_for_one(made: Path, zero: str | None, lora: bool) -> None:
    """The first process sends gathered weights, however they were sharded; the server's log-probs say so."""
    found, expected = (result(made / processes, f"ppo-served-{way}-{lora}") for processes, way in (("two", zero), ("one", None)))
    assert_same_training(found, expected)
    assert all(entry["server_gap_nats"] < 1e-4 for entry in found["log"] + expected["log"])


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("what", "zero", "per_device"), RAGGED)
def test_no_row_counts_twice_where_the_data_end_within_a_step(made: Path, what: str, zero: str | None, per_device: int) -> None:
    whole = result(made / "one", f"{what}-ragged-None-8")
    found = result(made / "two", f"{what}-ragged-{zero}-{per_device}")
    assert_same_training(found, whole)
    for entry, other in zip(found["log"], whole["log"], strict=True):
        assert entry.keys() ^ other.keys() <= {"grad_norm"}
        # transformers counts epochs in micro-batches; before the first step DPO's accuracy is that of rounding
        for metric in entry.keys() & other.keys() - {"epoch", "rewards/accuracies"}:
            assert entry[metric] == pytest.approx(other[metric], rel=2e-3, abs=2e-4), metric


@pytest.mark.timeout(600)
@pytest.mark.parametrize("what", UNEVEN)
def test_processes_may_read_the_head_in_different_numbers_of_chunks(made: Path, what: str) -> None:
    assert_same_training(result(made / "two", f"{what}-uneven"), result(made / "two", what))


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("processes", "name"),
    [
        *(("one", what) for what in OBJECTIVES),
        *(("two", what) for what in OBJECTIVES),
        *(("two", f"{what}-{zero}") for what, zero in STOPPED_SHARDED),
    ],
)
def test_stopped_and_resumed_is_uninterrupted(made: Path, processes: str, name: str) -> None:
    for rank in range(1 if processes == "one" else 2):
        whole, stopped, resumed = (result(made / processes, f"{name}{kind}", rank) for kind in ("", "-stopped", "-resumed"))
        assert stopped["code"] == 5
        assert "saved" in stopped["error"]
        assert 0 < len(stopped["seen"]) < len(whole["seen"])
        assert stopped["seen"] + resumed["seen"] == whole["seen"]
        assert resumed["log"] == whole["log"]
        assert resumed.get("weights") == whole.get("weights")  # to the bit
    assert "weights" in result(made / processes, name)


@pytest.mark.timeout(600)
def test_a_run_may_resume_with_fewer_processes(made: Path) -> None:
    assert result(made / "two", "dpo-moved")["code"] == 5
    moved = result(made / "one", "dpo-moved")
    assert len(moved["seen"]) == 1  # the last of four steps
    assert_same_training(moved, result(made / "one", "dpo"))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("processes", ["one-sharded", "four"])
@pytest.mark.parametrize(("what", "zero"), ELASTIC)
def test_shards_are_converted_for_another_number_of_processes(made: Path, what: str, zero: str, processes: str) -> None:
    """One process on its own is under ZeRO, too."""
    assert result(made / "two", f"{what}-{zero}-moved")["code"] == 5
    moved = result(made / processes, f"{what}-{zero}-moved")
    assert_same_training(moved, result(made / "two", f"{what}-{zero}"))
    assert not list((made / processes / f"{what}-{zero}-moved").glob("converted-*"))


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("processes", "name"), [("two", "dpo-other-shards"), ("one", "dpo-fewer")])
def test_shards_that_do_not_fit_are_refused_in_plain_words(made: Path, processes: str, name: str) -> None:
    found = result(made / processes, name)
    assert found["code"] == 3
    assert "was saved by 2 processes under ZeRO-2" in found["error"]
    assert "the optimiser's states do not fit" in found["error"]
