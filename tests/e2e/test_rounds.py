"""Rounds: run, stopped by a rule, continued with a new limit, and killed in the second round."""

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.e2e.command import ForkServer
from tests.e2e.reports import student_weights
from tests.e2e.small_run import write_config

RULES = {"no_gain": False, "length_growth": None}
"""With none of `stop`, no rule is left."""
CHANGING = """
from pathlib import Path

def grade(prompt, responses):
    later = any(Path("runs/store").glob("student-dpo-*/manifest.json"))
    return [FACTOR * len(response) if later else -len(response) for response in responses]

def shorter(prompt, responses):
    return [-len(response) for response in responses]
"""


def repeated(config: dict[str, Any], **stop: Any) -> dict[str, Any]:
    training = {"batch_size": 8, "max_steps": 6, "learning_rate": 1e-3}
    return {
        **config,
        "students": {"dpo": {"objective": {"kind": "dpo"}, **training}},
        "reward_model": None,
        "rounds": {"count": 2, "promotes": "dpo", "data": "all", "stop": {**RULES, **stop} if stop else None},
        "runtime": {**config["runtime"], "save_steps": 1},
    }


def report(folder: Path) -> dict[str, Any]:
    (found,) = (folder / "runs").glob("*/report.json")
    read: dict[str, Any] = json.loads(found.read_text())
    return read


@pytest.mark.timeout(300)
def test_a_rule_ends_the_rounds_a_new_limit_goes_on_and_a_kill_loses_nothing(
    folder: Path, forked: ForkServer, config: dict[str, Any]
) -> None:
    write_config(folder / "run.yaml", repeated(config, kl_budget=1e-6))
    ended = forked.run(folder, "run", "run.yaml")
    assert ended.code == 0, ended.errors
    assert "round 2 is not run; kl_budget: the KL from the start is" in ended.errors
    found = report(folder)
    assert set(found["students"]) == {"best_of_n", "dpo"}
    assert [one["ended"].partition(":")[0] for one in found["rounds"]] == ["kl_budget"]
    nothing = forked.run(folder, "run", "run.yaml")
    assert (nothing.code, "Nothing to do" in nothing.output) == (0, True), nothing.errors

    write_config(folder / "run.yaml", repeated(config))
    killed = folder.parent / "killed"
    shutil.copytree(folder, killed)
    ended = forked.run(folder, "run", "run.yaml")
    assert ended.code == 0, ended.errors
    assert "student-dpo: stage" not in ended.errors
    found = report(folder)
    assert set(found["students"]) == {"best_of_n", "dpo", "dpo-r2"}
    assert [(one["round"], one["ended"]) for one in found["rounds"]] == [("1", None), ("2", None)]
    audited = forked.run(folder, "judge", "audit", f"runs/{found['run']}", "--json")
    assert json.loads(audited.output)["metrics"] == found["audit"]
    assert found["rounds"][1]["kl_nats"]["mean"] > found["rounds"][0]["kl_nats"]["mean"] > 0

    def kill(pid: int) -> None:
        deadline = time.monotonic() + 120
        saved = "student-dpo-r2-*/scratch/checkpoint-3/aligndistill_checkpoint.json"
        while not list((killed / "runs/store").glob(saved)) and time.monotonic() < deadline:
            time.sleep(0.001)
        os.kill(pid, signal.SIGKILL)

    ended = forked.run(killed, "run", "run.yaml", meanwhile=kill)
    assert ended.code == -signal.SIGKILL
    ended = forked.run(killed, "run", "run.yaml")
    assert ended.code == 0, ended.errors
    assert "resuming from checkpoint-" in ended.errors
    whole, resumed = student_weights(folder, "dpo-r2"), student_weights(killed, "dpo-r2")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize(
    ("factor", "stop", "rule", "said"),
    [
        (0, {}, "all_tied", "all_tied: no training prompt of the next round has answers"),
        # It likes length all at once.
        (1, {"longer_wins": 0.7}, "audit", "audit: the judge of the next round cannot be trusted: 100%"),
        (
            1,
            {"second_disagreement": 0.4},
            "audit",
            "to 100%] of the pairs are decided otherwise by the second judge (limit second_d",
        ),
    ],
)
def test_a_round_that_cannot_be_learned_from_ends_the_rounds(
    folder: Path, forked: ForkServer, config: dict[str, Any], factor: int, stop: dict[str, float], rule: str, said: str
) -> None:
    (folder / "changing.py").write_text(CHANGING.replace("FACTOR", str(factor)))
    settings = repeated(config) | {"judge": {"kind": "function", "function": "changing:grade"}}
    settings["audit"] = {"stop": {**stop, "canaries": None}}
    if "second_disagreement" in stop:
        settings["audit"]["second"] = {"judge": {"kind": "function", "function": "changing:shorter"}, "prompts": 12}
    settings["rounds"] |= {"count": 3, "prompts": {"per_round": 12, "repeats": 1}, "weak": 0.5}
    write_config(folder / "run.yaml", settings)
    ended = forked.run(folder, "run", "run.yaml")
    assert ended.code == 0, ended.errors
    errors = " ".join(ended.errors.split())
    assert "round 2 is not finished; " in errors
    assert said in errors
    assert f"round 3 is not run; {rule}" in errors
    found = report(folder)
    assert set(found["students"]) == {"best_of_n", "dpo"}
    assert [one["ended"].partition(":")[0] for one in found["rounds"]] == [rule]
    assert found["rounds"][0]["canaries"]["n"] > 0
    agreed = found["rounds"][0]["second_agreement"]
    if "second_disagreement" in stop:
        assert (agreed["mean"], 4 <= agreed["n"] <= 12) == (1.0, True)  # pairs of equal length are not decided
    else:
        assert agreed is None
    nothing = forked.run(folder, "run", "run.yaml")
    assert (nothing.code, "Nothing to do" in nothing.output) == (0, True), nothing.errors


def test_a_judge_that_loves_length_ends_the_rounds_by_the_length_rule(
    folder: Path, forked: ForkServer, config: dict[str, Any]
) -> None:
    """Answers grow in both rounds; with a limit between the two growths, no third round follows the second."""
    settings = repeated(config) | {"judge": {"kind": "function", "function": "examples.quickstart.longer:grade"}}
    settings["candidates"] = {**settings["candidates"], "max_new_tokens": 40}
    settings["students"]["dpo"] |= {"max_steps": 8, "learning_rate": 2e-3}
    settings["rounds"] |= {"data": "latest"}
    settings["evaluation"] = {"samples_per_prompt": 4}
    write_config(folder / "run.yaml", settings)
    ended = forked.run(folder, "run", "run.yaml")
    assert ended.code == 0, ended.errors
    first, second = (one["length_growth"] for one in report(folder)["rounds"])
    assert second > first > 1
    limit = (first + second) / 2
    settings["rounds"] |= {"count": 3, "stop": {"no_gain": False, "length_growth": limit}}
    write_config(folder / "run.yaml", settings)
    ended = forked.run(folder, "run", "run.yaml")
    assert ended.code == 0, ended.errors
    assert "student-" not in ended.errors  # nothing is trained again, and nothing more
    found = report(folder)
    said = f"length_growth: answers are {second:.2f} times as long as the start's (limit {limit:g})"
    assert [one["ended"] for one in found["rounds"]] == [None, said]
    lengths = {name: one["length_tokens"]["mean"] for name, one in found["students"].items()} | {
        "start": found["start"]["length_tokens"]["mean"]
    }
    assert lengths["dpo-r2"] / lengths["start"] == pytest.approx(second)
