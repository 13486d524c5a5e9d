"""What students learn from rewards is what was rewarded, and the report says where it went wrong."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from tests.e2e import counting_judge
from tests.e2e.command import Ended, ForkServer
from tests.e2e.conftest import FinishedRun
from tests.e2e.small_run import read_rows, small_config, write_config, write_data

UPDATES = 6
TRL_STEPS = 16


def students() -> dict[str, Any]:
    fast = {"batch_size": 8, "max_response_tokens": 12, "lr_scheduler_type": "constant", "warmup_ratio": 0.0, "learning_rate": 3e-3}
    trl = {"reward": "judge", "samples_per_prompt": 4, "kl_coefficient": 0.01}
    ppo = {"reward": "judge", "samples_per_prompt": 2, "ppo_epochs": 2, "critic": "shared"}
    return {
        "grpo": {"objective": {"kind": "grpo", **trl}, "max_steps": TRL_STEPS, **fast},
        "rloo": {"objective": {"kind": "rloo", **trl}, "max_steps": TRL_STEPS, **fast},
        # Its KL will be past this target.
        "ppo": {
            "objective": {"kind": "ppo", **ppo, "kl_target": 0.001, "evaluate_every": 3, "evaluate_prompts": 4},
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

    def log(self, student: str) -> list[dict[str, Any]]:
        return read_rows(self.made(f"student-{student}") / "metrics.jsonl")


@pytest.fixture(scope="module")
def online(small_run: FinishedRun, forked: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Online:
    """All three, from the small run's start, with a judge that counts letters."""
    folder = tmp_path_factory.mktemp("online")
    write_data(folder)
    shutil.copytree(small_run.made("start") / "model", folder / "start")
    shutil.copy(counting_judge.__file__, folder)
    whole = small_config()
    config = {
        "name": "run",
        "seed": 5,
        **{key: whole[key] for key in ("prompts", "candidates", "runtime")},
        "start": {"model": "./start"},
        "judge": {"kind": "function", "function": "counting_judge:grade"},
        "students": students(),
    }
    write_config(folder / "run.yaml", config)
    ended = forked.run(folder, "run", "run.yaml")
    assert ended.code == 0, ended.errors
    return Online(folder, ended)


def mean_grade(online: Online, author: str) -> float:
    """What the judge says of an author's held-out answers; worked out from the letters in them, not from any log."""
    rows = read_rows(online.made(f"answers-{author}") / "answers.jsonl")
    return fmean(sum(map(str.isalpha, row["text"])) / 10 for row in rows)


@pytest.mark.parametrize("name", ["grpo", "rloo"])
def test_trls_trainers_learn_what_is_rewarded(online: Online, name: str) -> None:
    """Held-out answers, since a trainer's own log rises with whatever it was given, a reward of the wrong sign too."""
    assert online.log(name)[-1]["step"] == TRL_STEPS
    assert mean_grade(online, name) > mean_grade(online, "start") + 0.2


def test_the_judge_itself_scores_what_is_sampled(online: Online) -> None:
    samples = read_rows(online.made("student-ppo") / "samples.jsonl")
    assert {row["update"] for row in samples} == set(range(1, UPDATES + 1))
    for row in samples:
        assert row["score"] == sum(map(str.isalpha, row["text"])) / 10
        assert 0 < row["length_tokens"] <= 12
    assert all(row["kl_nats"] == pytest.approx(0, abs=1e-4) for row in samples if row["update"] == 1)
    asked = [json.loads(line) for line in (online.folder / counting_judge.CALLS).read_text().splitlines()]
    given = {(call[0], text) for call in asked for text in call[1:]}
    assert {(row["messages"][0]["content"], row["text"]) for row in samples} <= given


def test_held_out_prompts_are_looked_at_on_the_way(online: Online) -> None:
    looks = {entry["update"]: entry["held_out_win_rate"] for entry in online.log("ppo") if "held_out_win_rate" in entry}
    assert looks.keys() == {1, 4}
    assert all(0 <= rate <= 1 for rate in looks.values())


def test_a_health_warning_is_printed_and_in_the_report(online: Online) -> None:
    text = "more than twice its target of 0.001"
    assert text in online.ended.errors
    report = json.loads((online.folder / "runs/run/report.json").read_text())
    (warning,) = (warning for warning in report["warnings"] if text in warning)
    assert warning.startswith("ppo, update 4: KL is ")
    assert "Lower learning_rate" in warning
    assert text in (online.folder / "runs/run/report.html").read_text()
