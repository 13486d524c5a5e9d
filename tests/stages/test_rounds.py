"""Rules that end the rounds, rankings of several rounds, and the pointer to the promoted student."""

import json
from pathlib import Path
from typing import Any

import pytest

from aligndistill.config.rounds import RoundStop
from aligndistill.config.run import Runtime
from aligndistill.evaluation.intervals import Mean
from aligndistill.models.load import ModelPointer, read_pointer
from aligndistill.records import Prompt
from aligndistill.reporting.report import RoundMetrics
from aligndistill.stages import prompts, rounds
from aligndistill.stages.context import StageContext
from aligndistill.stages.models import point_to_student
from aligndistill.store.jsonl import read_jsonl, write_jsonl

GAIN, NONE = Mean(mean=0.6, low=0.52, high=0.68, n=50), Mean(mean=0.55, low=0.48, high=0.62, n=50)


UNCERTAIN = "no_gain: the win rate over the previous round is 0.55 [0.48, 0.62], so a gain is not certain"


def measured(**changed: Any) -> RoundMetrics:
    found = {"win_rate": GAIN, "win_rate_lc": None, "length_growth": 1.1, "kl_nats": NONE, "pairs": 100}
    return RoundMetrics.model_validate({"round": "1", "ended": None, **found, **changed})


def context(folder: Path) -> StageContext:
    folder.mkdir()
    return StageContext(name="x", folder=folder, caches=folder, runtime=Runtime(), identities={})


@pytest.mark.parametrize(
    ("found", "settings", "reason"),
    [
        (measured(), {}, None),
        (measured(win_rate=NONE), {}, UNCERTAIN),
        (measured(win_rate=NONE), {"no_gain": False}, None),
        # The win rate at equal length decides where it was measured.
        (measured(win_rate_lc=NONE), {}, UNCERTAIN),
        (measured(win_rate=NONE, win_rate_lc=GAIN), {}, None),
        (measured(win_rate=None), {}, None),
        (measured(length_growth=1.31), {}, "length_growth: answers are 1.31 times as long as the start's (limit 1.3)"),
        (measured(length_growth=1.31), {"length_growth": None}, None),
        (measured(), {"kl_budget": 0.5}, "kl_budget: the KL from the start is 0.6 nats per answer (limit 0.5)"),
        (measured(kl_nats=None), {"kl_budget": 0.5}, None),
        (measured(), {"min_pairs": 101}, "min_pairs: the round had 100 training pairs (limit 101)"),
        (measured(), {"min_pairs": 100}, None),
    ],
)  # fmt: skip
def test_the_first_rule_that_holds_ends_the_rounds(found: RoundMetrics, settings: dict[str, Any], reason: str | None) -> None:
    assert rounds.reason_to_end(found, RoundStop(**settings)) == reason


def test_joined_rankings_are_those_of_both_rounds_in_order(tmp_path: Path) -> None:
    for name, rows in (("one", ["a", "b"]), ("two", ["c"])):
        (tmp_path / name).mkdir()
        for file in ("rankings.jsonl", "pairs.jsonl", "ties.jsonl"):
            (tmp_path / name / file).write_text("".join(f'"{file} {row}"\n' for row in rows))
    made = context(tmp_path / "joined")
    result = rounds.join(made, before=tmp_path / "one", latest=tmp_path / "two")
    assert result.counts == {"rankings": 3, "pairs": 3}
    for file in ("rankings.jsonl", "pairs.jsonl", "ties.jsonl"):
        assert [json.loads(line) for line in (made.folder / file).read_text().splitlines()] == [f"{file} {row}" for row in "abc"]


def test_parts_of_the_prompts_are_disjoint_and_share_the_held_out_ones(tmp_path: Path) -> None:
    rows = [
        Prompt.model_validate({"id": f"{n:x}", "messages": [{"role": "user", "content": str(n)}], "source": "s", "split": split})
        for n, split in enumerate(["train"] * 90 + ["held_out"] * 10)
    ]
    (tmp_path / "whole").mkdir()
    write_jsonl(tmp_path / "whole" / "prompts.jsonl", rows)
    parts = []
    for part in range(3):
        made = context(tmp_path / str(part))
        prompts.part(made, prompts=tmp_path / "whole", part=part, parts=3)
        parts.append([one.id for one in read_jsonl(made.folder / "prompts.jsonl", Prompt)])
    held_out = {one.id for one in rows if one.split == "held_out"}
    assert all(held_out <= set(part) for part in parts)
    trained = [name for part in parts for name in part if name not in held_out]
    assert sorted(trained) == sorted(one.id for one in rows if one.split == "train")
    assert all(len(part) > 20 for part in parts)


def test_the_pointer_survives_moving_the_store(tmp_path: Path) -> None:
    student, progress = tmp_path / "store" / "student", tmp_path / "store" / "progress"
    (student / "model").mkdir(parents=True)
    progress.mkdir()
    ModelPointer(path="model", layout="chat").write(student)
    point_to_student(student, progress)
    (tmp_path / "store").rename(tmp_path / "moved")
    assert Path(read_pointer(tmp_path / "moved" / "progress").path).resolve() == tmp_path / "moved" / "student" / "model"
