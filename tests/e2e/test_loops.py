"""The configs of `configs/loops`, over a small run: what each repeats is trained on what it says."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.command import REPOSITORY, ForkServer
from tests.e2e.small_run import read_rows, write_config, write_rows

SMALL = {"batch_size": 8, "max_steps": 4, "learning_rate": 1e-4}
TWO_ROUNDS = ("rounds.count=2", "rounds.stop=null", "candidates.per_prompt=3")

WEAK = ("rounds.prompts={per_round: 12, repeats: 1}", "rounds.weak=0.5")
COUNTING = "evaluation.judge={kind: function, function: 'counting_judge:grade'}"


def made(folder: Path, stage: str, file: str) -> list[Any]:
    (path,) = (folder / "runs/store").glob(f"{stage}-????????????????/{file}")
    return read_rows(path)


@pytest.mark.parametrize(
    ("loop", "promoted", "further"),
    [
        ("sppo", "sppo", ()),
        ("rejection_sampling", "best_of_n", WEAK),
        ("self_rewarding", "dpo", ("judge={kind: likelihood, model: start}", COUNTING)),
    ],
)
def test_a_loop_runs_over_a_config(
    folder: Path, forked: ForkServer, config: dict[str, Any], loop: str, promoted: str, further: tuple[str, ...]
) -> None:
    """Self-rewarding has a judge that so small a start can be: its own likelihood."""
    write_config(folder / "run.yaml", config)
    overlay = str(REPOSITORY / f"configs/loops/{loop}.yaml")
    settings = [f"students.{promoted}.{key}={value}" for key, value in SMALL.items()]
    ended = forked.run(folder, "run", "run.yaml", overlay, "students.pro=null", *settings, *TWO_ROUNDS, *further)
    assert ended.code == 0, ended.errors
    report = json.loads((folder / "runs/run/report.json").read_text())
    assert {promoted, f"{promoted}-r2"} <= report["students"].keys()
    assert [one["round"] for one in report["rounds"]] == ["1", "2"]
    assert report["students"][f"{promoted}-r2"]["kl_nats"]["mean"] > 0
    first, second = (
        {row["id"] for row in made(folder, f"prompts-part{r}", "prompts.jsonl") if row["split"] == "train"} for r in ("", "-r2")
    )
    assert first
    assert second
    assert len(first & second) == (6 if further == WEAK else 0)
    assert all(one["accept_rate"]["mean"] + one["difficulty"]["mean"] == pytest.approx(1) for one in report["rounds"])
    assert "Accept rate and difficulty" in (folder / "runs/run/report.html").read_text()
    if loop == "self_rewarding":  # held-out prompts are judged in both rounds, by another judge in each
        before, after = (
            {one["candidate"]: one["value"] for one in made(folder, f"verdicts{r}", "verdicts.jsonl")} for r in ("", "-r2")
        )
        again = before.keys() & after.keys()
        assert again
        assert all(before[one] != after[one] for one in again)


def test_spin_prefers_demonstrations_to_own_answers(folder: Path, forked: ForkServer, config: dict[str, Any]) -> None:
    """In both rounds: a pair a prompt, whose rejected answer is the student's of the round before."""
    shown = {row["prompt"]: row["completion"] for row in read_rows(folder / "teacher_demonstrations.jsonl")[:40]}
    write_rows(folder / "shown.jsonl", [{"prompt": prompt, "completion": answer} for prompt, answer in shown.items()])
    write_config(folder / "run.yaml", config)
    settings = [f"students.spin.{key}={value}" for key, value in SMALL.items()]
    data = ("prompts.source.path=shown.jsonl", "candidates.demonstrations={path: shown.jsonl}", "students.pro=null")
    overlay = str(REPOSITORY / "configs/loops/spin.yaml")
    ended = forked.run(folder, "run", "run.yaml", overlay, *settings, *data, "rounds.count=2", "rounds.stop=null", COUNTING)
    assert ended.code == 0, ended.errors
    report = json.loads((folder / "runs/run/report.json").read_text())
    assert [one["round"] for one in report["rounds"]] == ["1", "2"]
    rejected = []
    for suffix in ("", "-r2"):
        own = {one["text"] for one in made(folder, f"candidates{suffix}", "candidates.jsonl") if one["author"] == "start"}
        pairs = made(folder, f"rankings{suffix}", "pairs.jsonl")
        assert len(pairs) == len({row["prompt"][0]["content"] for row in pairs}) > 10
        assert all(row["chosen"][0]["content"] == shown[row["prompt"][0]["content"]] for row in pairs)
        assert {row["rejected"][0]["content"] for row in pairs} <= own
        rejected.append([row["rejected"][0]["content"] for row in pairs])
    assert rejected[0] != rejected[1]
    mixed = made(folder, "mixed_rankings-r2", "pairs.jsonl")
    assert len(mixed) == 2 * len(rejected[1])
