"""Students that learn from rewards for what they write, by one command."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.command import ForkServer
from tests.e2e.small_run import read_rows, small_config, write_config

TRAINING = {"batch_size": 8, "max_steps": 4, "learning_rate": 1e-3, "max_response_tokens": 12}


@pytest.fixture(scope="module")
def rewarded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Every kind of online student with another reward source each."""
    ppo = {"kind": "ppo", "ppo_epochs": 2, "samples_per_prompt": 2}
    return {
        "ppo": {"objective": {**ppo, "evaluate_every": 1, "evaluate_prompts": 4}, **TRAINING},
        "ppo_teacher": {"objective": {**ppo, "reward": [{"source": "judge", "weight": 4}], "critic": "shared"}, **TRAINING},
        "ppo_bounded": {
            "objective": {**ppo, "reward": {"kind": "function", "function": "counting_judge:grade"}, "kl_budget": 0.3},
            **{**TRAINING, "max_steps": 60, "learning_rate": 2e-3},
        },
        "grpo": {"objective": {"kind": "grpo", "reward": "judge", "samples_per_prompt": 2}, **TRAINING},
        "rloo": {
            "objective": {
                "kind": "rloo",
                "samples_per_prompt": 2,
                "reward": [{"source": "reward_model", "pessimism": 1.0}, {"source": "judge"}],
            },
            **TRAINING,
        },
    }


@pytest.mark.timeout(300)
def test_online_students_end_to_end(forked: ForkServer, folder: Path, config: dict[str, Any], rewarded: dict[str, Any]) -> None:
    whole = small_config()
    ensemble = {**whole["reward_model"], "ensemble": 3}
    config |= {"reward_model": ensemble, "students": rewarded, "evaluation": {"judge": "same"}}
    write_config(folder / "run.yaml", config)
    ended = forked.run(folder, "run", "run.yaml")
    assert ended.code == 0, ended.errors
    report = json.loads((folder / "runs/run/report.json").read_text())
    assert set(rewarded) <= report["students"].keys()
    for name in rewarded:
        assert report["students"][name]["kl_nats"]["mean"] >= 0
        assert report["students"][name]["reward"]["n"] > 0
    members = report["reward_model"]["ensemble"]
    assert members["members"] == 3
    assert members["disagreement"] > 0
    assert "calibration error of the members' mean probability" in (folder / "runs/run/report.html").read_text().replace(
        "&#39;", "'"
    )
    curves = read_rows(folder / "runs/run/metrics.jsonl")
    logged = {name: [row for row in curves if row["stage"] == f"student-{name}"] for name in rewarded}
    assert len(logged["ppo"]) == len(logged["ppo_teacher"]) == 2  # four steps, two epochs each
    for row in logged["ppo"]:
        assert {"score", "kl_k1_nats", "kl_k3_nats", "clip_fraction", "explained_variance", "held_out_win_rate"} <= row.keys()
    assert all(row["reward"] == row["reward"] for row in logged["grpo"] + logged["rloo"])
    # The budget was passed, and what is kept is a policy from inside it.
    bounded = logged["ppo_bounded"]
    assert 0 < len(bounded) < 30
    assert all(row["kl_k1_nats"] <= 0.3 for row in bounded)
    assert "above kl_budget 0.3" in ended.errors + ended.output
    (store,) = (folder / "runs/store").glob("student-ppo_teacher-*")
    samples = read_rows(store / "samples.jsonl")
    assert {row["update"] for row in samples} == {1, 2}
    page = (folder / "runs/run/report.html").read_text()
    assert "mean probability" in page
    assert samples[0]["text"].strip()[:20] in page or not samples[0]["text"].strip()
