"""Rules that end the rounds, rankings of several rounds, and the pointer to the promoted student."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from aligndistill.config.rounds import FreshPrompts, RoundStop
from aligndistill.config.run import Runtime
from aligndistill.data.trl_pairs import pairs_of
from aligndistill.errors import DataError
from aligndistill.evaluation.audit import AuditMetrics
from aligndistill.evaluation.intervals import Mean
from aligndistill.models.load import ModelPointer, read_pointer
from aligndistill.records import Prompt, Ranking
from aligndistill.reporting.report import RoundMetrics
from aligndistill.stages import prompts, rounds, weak_prompts
from aligndistill.stages.audit import AuditResult
from aligndistill.stages.context import StageContext
from aligndistill.stages.models import point_to_student
from aligndistill.store.artifacts import finish
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


def ranked(number: int, split: str, scores: tuple[float, ...]) -> Ranking:
    responses = [{"text": f"{number}.{place}", "score": score, "candidate_id": "c"} for place, score in enumerate(scores)]
    content = [{"role": "user", "content": str(number)}]
    return Ranking.model_validate({"prompt_id": f"{number:x}", "split": split, "messages": content, "responses": responses})


def rankings_of(folder: Path, numbers: range, held_out: int) -> Path:
    """Training rankings of these prompts with two pairs each, one tie for each, and held-out ones."""
    folder.mkdir()
    trained = [ranked(number, "train", (2.0, 1.0, 1.0)) for number in numbers]
    write_jsonl(
        folder / "rankings.jsonl", [*trained, *(ranked(1000 + number, "held_out", (1.0, 0.0)) for number in range(held_out))]
    )
    write_jsonl(folder / "ties.jsonl", [ranked(number, "train", (1.0, 1.0)) for number in numbers])
    with (folder / "pairs.jsonl").open("w") as file:
        file.writelines(json.dumps(row) + "\n" for one in trained for row in pairs_of(one, conversational=True))
    return folder


def mixed(folder: Path, made: StageContext, share: float, seed: int = 0) -> dict[str, int]:
    earlier = {str(number): folder / str(number) for number in (1, 2)}
    more: dict[str, Any] = {"pairs": "all", "conversational": True, "seed": seed}
    return dict(rounds.mix(made, earlier=earlier, latest=folder / "3", share=share, **more).counts)


def test_a_mixture_has_all_of_the_latest_round_and_its_share(tmp_path: Path) -> None:
    for name, numbers in (("1", range(20)), ("2", range(20, 40)), ("3", range(40, 54))):
        rankings_of(tmp_path / name, numbers, held_out=3)
    made = context(tmp_path / "mixed")
    assert mixed(tmp_path, made, 0.7) == {"latest": 14, "earlier": 6}  # 14 of 20 are 0.7
    found = list(read_jsonl(made.folder / "rankings.jsonl", Ranking))
    train = [int(one.prompt_id, 16) for one in found if one.split == "train"]
    assert set(range(40, 54)) <= set(train)
    assert len(set(train)) == len(train) == 20
    assert sum(one.split == "held_out" for one in found) == 3
    pairs = [json.loads(line)["prompt"][0]["content"] for line in (made.folder / "pairs.jsonl").read_text().splitlines()]
    assert pairs == [str(number) for number in train for _ in range(2)]
    assert sum(1 for _ in read_jsonl(made.folder / "ties.jsonl", Ranking)) == 20
    # The seed decides, and nothing else.
    again, other = context(tmp_path / "again"), context(tmp_path / "other")
    mixed(tmp_path, again, 0.7)
    mixed(tmp_path, other, 0.7, seed=1)
    contents = [(one.folder / "rankings.jsonl").read_bytes() for one in (made, again, other)]
    assert contents[0] == contents[1] != contents[2]
    # There are not so many: all are taken.
    assert mixed(tmp_path, context(tmp_path / "few"), 0.1) == {"latest": 14, "earlier": 40}


@pytest.mark.parametrize(("learns_ties", "tied", "ends"), [(False, 2, True), (True, 2, False), (True, 0, True)])
def test_a_round_without_an_order_ends_the_rounds(tmp_path: Path, learns_ties: bool, tied: int, ends: bool) -> None:
    rankings = rankings_of(tmp_path / "rankings", range(tied), held_out=3)
    write_jsonl(rankings / "rankings.jsonl", [ranked(7, "held_out", (1.0, 0.0))])
    finish(rankings, stage="x", stage_fingerprint="0", counts={}, dropped={"tied": 2}, metrics={}, wall_seconds=0)
    audit = audited(tmp_path / "audit")
    given: dict[str, Any] = {"audit": audit, "rankings": rankings, "learns_ties": learns_ties}
    ended = rounds.require_order(context(tmp_path / "order"), **given).metrics.get("ended")
    assert ended == ("all_tied: no training prompt of the next round has answers in a strict order (2 tied)" if ends else None)
    write_jsonl(rankings / "rankings.jsonl", [ranked(7, "train", (1.0, 0.0))])
    assert rounds.require_order(context(tmp_path / "again"), **given).metrics == {}


def audited(folder: Path, *stops: str) -> Path:
    folder.mkdir()
    result = AuditResult(metrics=AuditMetrics(verdicts=9, prompts=3), warnings=(), stops=stops)
    (folder / "audit.json").write_text(result.model_dump_json())
    return folder


def test_a_judge_beyond_its_limits_ends_the_rounds(tmp_path: Path) -> None:
    rankings = rankings_of(tmp_path / "rankings", range(3), held_out=0)
    audit = audited(tmp_path / "audit", "80% of the known-bad answers")
    result = rounds.require_order(context(tmp_path / "order"), audit=audit, rankings=rankings, learns_ties=False)
    assert result.metrics == {"ended": "audit: the judge of the next round cannot be trusted: 80% of the known-bad answers"}


def whole_prompts(folder: Path, train: int) -> list[str]:
    rows = [
        Prompt.model_validate({"id": f"{n:x}", "messages": [{"role": "user", "content": str(n)}], "source": "s", "split": split})
        for n, split in enumerate(["train"] * train + ["held_out"] * 3)
    ]
    folder.mkdir()
    write_jsonl(folder / "prompts.jsonl", rows)
    return [one.id for one in rows if one.split == "train"]


def test_sized_parts_use_every_prompt_before_one_is_used_again(tmp_path: Path) -> None:
    train = whole_prompts(tmp_path / "whole", 10)
    sizes = {"per_round": 4, "repeats": 1}
    parts = []
    for part in range(5):
        made = context(tmp_path / str(part))
        prompts.sized_part(made, prompts=tmp_path / "whole", part=part, parts=5, **sizes)
        rows = list(read_jsonl(made.folder / "prompts.jsonl", Prompt))
        assert sum(one.split == "held_out" for one in rows) == 3
        parts.append([one.id for one in rows if one.split == "train"])
    assert all(len(set(part)) == 4 for part in parts)
    assert len({*parts[0], *parts[1]}) == 8
    assert Counter(name for part in parts for name in part) == dict.fromkeys(train, 2)  # 5 rounds of 4, twice 10
    with pytest.raises(DataError, match=r"rounds\.prompts: 6 rounds of 4 prompts need more than the 10 training prompts"):
        prompts.sized_part(context(tmp_path / "more"), prompts=tmp_path / "whole", part=0, parts=6, **sizes)


def test_a_sized_part_is_the_same_however_many_rounds_follow(tmp_path: Path) -> None:
    """They are no part of its fingerprint."""
    whole_prompts(tmp_path / "whole", 16)
    for part in range(3):
        written = set()
        for parts, repeats, weak in [(3, 0, False), (4, 0, False), (3, 1, False), (8, 1, False), (5, 2, True)]:
            made = context(tmp_path / f"{part}-{parts}-{repeats}")
            prompts.sized_part(made, prompts=tmp_path / "whole", per_round=4, part=part, parts=parts, repeats=repeats, weak=weak)
            written.add((made.folder / "prompts.jsonl").read_bytes())
        assert len(written) == 1


def write_order(folder: Path, prompts: list[str], split: str = "train") -> None:
    """A ranking of two answers of the student to each prompt, whose scores differ more from one to the next; the first is tied."""
    rows = [
        Ranking.model_validate(
            {
                "prompt_id": name,
                "split": split,
                "messages": [{"role": "user", "content": name}],
                "responses": [{"text": t, "score": s, "candidate_id": t, "author": "start"} for t, s in (("b", gap), ("a", 0.0))],
            }
        )
        for gap, name in enumerate(prompts)
    ]
    folder.mkdir()
    write_jsonl(folder / "rankings.jsonl", rows[1:])
    write_jsonl(folder / "ties.jsonl", rows[:1])


def test_half_of_a_round_is_drawn_from_the_hard_prompts_of_the_round_before(tmp_path: Path) -> None:
    train = whole_prompts(tmp_path / "whole", 12)
    settings = FreshPrompts(per_round=4, repeats=1)
    of_round: dict[str, list[str]] = {}
    earlier: dict[str, Path] = {}
    for part in range(5):  # 5 + 1 rounds of 4 are 12 prompts twice
        made = context(tmp_path / str(part))
        if part == 0:
            prompts.sized_part(made, prompts=tmp_path / "whole", part=0, parts=5, weak=True, per_round=4, repeats=1)
        else:
            order = tmp_path / f"order-{part}"
            write_order(order, of_round[str(part - 1)])
            given = {"settings": settings, "share": 0.5, "parts": 5, "earlier": dict(earlier), "rankings": order, "seed": 3}
            counts = weak_prompts.part(made, prompts=tmp_path / "whole", **given).counts
            before = {one for one in of_round[str(part - 1)] if sum(one in names for names in of_round.values()) < 2}
            weak = before & {one.id for one in read_jsonl(made.folder / "prompts.jsonl", Prompt)}
            assert counts == {"train": 4, "held_out": 3, "weak": min(2, len(before))}
            assert len(weak) >= counts["weak"]
        rows = list(read_jsonl(made.folder / "prompts.jsonl", Prompt))
        of_round[str(part)] = [one.id for one in rows if one.split == "train"]
        earlier[str(part)] = made.folder
        assert len(set(of_round[str(part)])) == 4
    assert max(Counter(name for names in of_round.values() for name in names).values()) == 2
    assert len({*of_round["0"], *of_round["1"], *of_round["2"], *of_round["3"]}) > 8
    assert {name for names in of_round.values() for name in names} <= set(train)


def test_held_out_prompts_have_no_difficulty(tmp_path: Path) -> None:
    write_order(tmp_path / "order", ["a", "b", "c"], split="held_out")
    assert weak_prompts.training_difficulties(tmp_path / "order") == {}


def test_weak_prompts_that_may_run_out_are_an_error_of_the_first_round(tmp_path: Path) -> None:
    whole_prompts(tmp_path / "whole", 11)
    settings = FreshPrompts(per_round=4, repeats=1)
    assert settings.shortage(5, 11) is None
    with pytest.raises(DataError, match=r"of which 'weak' uses some early, may use up the 11 training prompts, each 2 times"):
        prompts.sized_part(context(tmp_path / "x"), prompts=tmp_path / "whole", part=0, parts=5, weak=True, per_round=4, repeats=1)


def test_one_more_round_of_weak_prompts_that_may_run_out_is_an_error_of_that_round(tmp_path: Path) -> None:
    """The first round is made already."""
    whole_prompts(tmp_path / "whole", 11)
    write_order(tmp_path / "order", [])
    given = {"share": 0.5, "parts": 5, "earlier": {}, "rankings": tmp_path / "order", "seed": 3}
    with pytest.raises(DataError, match=r"of which 'weak' uses some early, may use up the 11 training prompts, each 2 times"):
        weak_prompts.part(
            context(tmp_path / "x"), prompts=tmp_path / "whole", settings=FreshPrompts(per_round=4, repeats=1), **given
        )


def test_an_empty_part_is_an_error_of_the_first_round(tmp_path: Path) -> None:
    whole_prompts(tmp_path / "whole", 2)
    with pytest.raises(DataError, match=r"into 3 parts, one for each round, and [12] of them are empty"):
        prompts.part(context(tmp_path / "part"), prompts=tmp_path / "whole", part=0, parts=3)


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
