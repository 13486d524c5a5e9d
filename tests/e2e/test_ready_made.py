"""Preferences that came with the data: no candidates, no judge of them, the same students and report."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.command import ForkServer
from tests.e2e.small_run import read_rows, write_config, write_rows

GOOD, BAD = "The answer is Rome.", "No idea"


def rankings(prompts: list[str]) -> list[dict[str, Any]]:
    return [{"prompt": p, "responses": [BAD, GOOD, "Rome"], "scores": [-1.0, 2.0, 0.5]} for p in prompts]


def transcripts(prompts: list[str]) -> list[dict[str, Any]]:
    asked = [f"\n\nHuman: {p}\n\nAssistant:" for p in prompts]
    return [{"chosen": f"{q} {GOOD}", "rejected": f"{q} {BAD}"} for q in asked]


@pytest.mark.parametrize("rows_of", [rankings, transcripts])
@pytest.mark.parametrize("truth", [None, "examples.quickstart.truth:truth"])
def test_students_and_reward_model_learn_from_them(
    folder: Path, forked: ForkServer, config: dict[str, Any], rows_of: Any, truth: str | None
) -> None:
    prompts = [row["prompt"] for row in read_rows(folder / "prompts.jsonl")]
    write_rows(folder / "ranked.jsonl", rows_of(prompts))
    ready_made = {
        "name": "run",
        "start": config["start"],
        "rankings": {"source": {"path": "ranked.jsonl"}, "held_out": 0.3},
        "reward_model": {"max_steps": 8, "batch_size": 16, "learning_rate": 1e-2},
        "students": config["students"],
        "evaluation": {"truth": truth, "max_new_tokens": 8, "judge": {"kind": "function", "function": truth} if truth else "same"},
        "runtime": config["runtime"],
    }
    write_config(folder / "run.yaml", ready_made)
    ended = forked.run(folder, "run", "run.yaml")
    assert ended.code == 0, ended.errors
    made = {path.name.rpartition("-")[0] for path in (folder / "runs/store").iterdir() if path.name != "caches"}
    assert not made & {"candidates", "verdicts"}

    report = json.loads((folder / "runs/run/report.json").read_text())
    judge = report["judge"]
    assert (judge is None) == (truth is None)
    if judge is not None:  # that of the evaluation alone
        assert (judge["kind"], judge["evaluation_kind"]) == ("function", "function")
        assert [(one["purpose"], one["verdicts"]) for one in judge["work"]] == [("evaluation", judge["verdicts"])]
    assert report["teacher"] is None
    assert report["reward_model"]["accuracy"]["mean"] > 0.9  # the same two answers are right and wrong everywhere
    assert list(report["students"]) == ["best_of_n", "pro"]
    for student in report["students"].values():
        assert (student["win_rate"] is None) == (truth is None)
        assert (student["truth"] is None) == (truth is None)
        assert student["kl_nats"]["n"] == report["start"]["length_tokens"]["n"]
    pairs = read_rows(next((folder / "runs/store").glob("rankings-*/pairs.jsonl")))
    assert {row["chosen"][0]["content"] for row in pairs} == ({GOOD, "Rome"} if rows_of is rankings else {GOOD})
    held_out = {row["prompt_id"] for row in read_rows(next((folder / "runs/store").glob("answers-pro-*/answers.jsonl")))}
    trained = {
        row["prompt_id"]
        for row in read_rows(next((folder / "runs/store").glob("rankings-*/rankings.jsonl")))
        if row["split"] == "train"
    }
    assert held_out
    assert not held_out & trained
