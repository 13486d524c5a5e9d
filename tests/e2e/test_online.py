"""Students that learn from rewards for what they write themselves, in one whole run."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.e2e import counting_judge
from tests.e2e.command import Ended, ForkServer
from tests.e2e.conftest import FinishedRun
from tests.e2e.small_run import read_rows, small_config, write_config, write_data

BUDGET_NATS = 0.3
UPDATES = 6
TRL_STEPS = 16


def students() -> dict[str, Any]:
    fast = {"batch_size": 8, "max_response_tokens": 12, "lr_scheduler_type": "constant", "warmup_ratio": 0.0}
    ppo = {"kind": "ppo", "samples_per_prompt": 2, "ppo_epochs": 2, "critic": "shared"}
    weighted = [{"source": "judge", "weight": 2.0}, {"source": "reward_model", "weight": 0.1}]
    trl = {"samples_per_prompt": 4, "kl_coefficient": 0.01}
    return {
        "grpo": {"objective": {"kind": "grpo", "reward": "judge", **trl}, "learning_rate": 3e-3, "max_steps": TRL_STEPS, **fast},
        "rloo": {"objective": {"kind": "rloo", "reward": weighted, **trl}, "learning_rate": 3e-3, "max_steps": TRL_STEPS, **fast},
        # Its KL will be past this target.
        "ppo_judge": {
            "objective": {**ppo, "reward": "judge", "kl_target": 0.001, "evaluate_every": 3, "evaluate_prompts": 4},
            "learning_rate": 3e-3,
            "max_steps": UPDATES * 2,
            **fast,
        },
        "ppo_model": {
            "objective": {**ppo, "reward": "reward_model", "critic": "separate", "kl_budget": BUDGET_NATS},
            "learning_rate": 1e-3,
            "max_steps": UPDATES * 2,
            **fast,
        },
    }


@dataclass(frozen=True)
class Online:
    folder: Path
    ended: Ended

    def made(self, stage: str) -> Path:
        (found,) = (self.folder / "runs/store").glob(f"{stage}-*")
        return found

    def manifest(self, student: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.made(f"student-{student}") / "manifest.json").read_text())
        return found

    def log(self, student: str) -> list[dict[str, Any]]:
        return read_rows(self.made(f"student-{student}") / "metrics.jsonl")


@pytest.fixture(scope="module")
def online(small_run: FinishedRun, forked: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Online:
    """All four, from the small run's start, with a judge that counts letters."""
    folder = tmp_path_factory.mktemp("online")
    write_data(folder)
    shutil.copytree(small_run.made("start") / "model", folder / "start")
    shutil.copy(counting_judge.__file__, folder)
    whole = small_config()
    config = {
        "name": "run",
        "seed": 5,
        **{key: whole[key] for key in ("prompts", "candidates", "reward_model", "runtime")},
        "start": {"model": "./start"},
        "judge": {"kind": "function", "function": "counting_judge:grade"},
        "students": students(),
    }
    write_config(folder / "run.yaml", config)
    ended = forked.run(folder, "run", "run.yaml")
    assert ended.code == 0, ended.errors
    return Online(folder, ended)


@pytest.mark.parametrize("name", students())
def test_a_student_is_an_ordinary_folder_of_changed_weights(online: Online, name: str) -> None:
    start = AutoModelForCausalLM.from_pretrained(online.folder / "start")
    trained = AutoModelForCausalLM.from_pretrained(online.made(f"student-{name}") / "model")
    before, after = start.state_dict(), trained.state_dict()
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("name", ["grpo", "rloo"])
def test_trls_trainers_raise_our_rewards(online: Online, name: str) -> None:
    log = online.log(name)
    assert log[-1]["step"] == TRL_STEPS
    rewards = [entry["reward"] for entry in log]
    assert fmean(rewards[-3:]) > fmean(rewards[:3]) + 0.1
    assert all(entry["completions/max_length"] <= 12 for entry in log)


def test_the_judge_itself_scores_what_is_sampled(online: Online) -> None:
    samples = read_rows(online.made("student-ppo_judge") / "samples.jsonl")
    assert {row["update"] for row in samples} == set(range(1, UPDATES + 1))
    for row in samples:
        assert row["score"] == sum(map(str.isalpha, row["text"])) / 10
        assert 0 < row["length_tokens"] <= 12
    assert all(row["kl_nats"] == pytest.approx(0, abs=1e-4) for row in samples if row["update"] == 1)
    asked = [json.loads(line) for line in (online.folder / counting_judge.CALLS).read_text().splitlines()]
    given = {(call[0], text) for call in asked for text in call[1:]}
    assert {(row["messages"][0]["content"], row["text"]) for row in samples} <= given


def test_held_out_prompts_are_looked_at_on_the_way(online: Online) -> None:
    looks = {entry["update"]: entry["held_out_win_rate"] for entry in online.log("ppo_judge") if "held_out_win_rate" in entry}
    assert looks.keys() == {1, 4}
    assert all(0 <= rate <= 1 for rate in looks.values())


def test_a_health_warning_is_told_and_stands_in_the_report(online: Online) -> None:
    text = "past twice its target of 0.001"
    assert text in online.ended.errors
    report = json.loads((online.folder / "runs/run/report.json").read_text())
    (warning,) = (warning for warning in report["warnings"] if text in warning)
    assert warning.startswith("ppo_judge, update 4: KL is ")
    assert "Lower learning_rate" in warning
    assert text in (online.folder / "runs/run/report.html").read_text()


def test_a_budget_that_is_hit_ends_the_student_inside_it(online: Online) -> None:
    log = online.log("ppo_model")
    assert online.manifest("ppo_model")["counts"]["updates"] == len(log) < UPDATES
    assert all(entry["kl_k1_nats"] <= BUDGET_NATS for entry in log)
    assert "past kl_budget 0.3: the result is checkpoint-" in online.ended.errors
    # Measured anew, on held-out prompts, by the evaluation.
    report = json.loads((online.folder / "runs/run/report.json").read_text())
    assert report["students"]["ppo_model"]["kl_nats"]["low"] <= BUDGET_NATS
    assert report["students"]["ppo_judge"]["kl_nats"]["low"] > BUDGET_NATS


def test_the_page_shows_how_each_went(online: Online) -> None:
    page = (online.folder / "runs/run/report.html").read_text()
    for name in students():
        assert f"Updates of {name}" in page
