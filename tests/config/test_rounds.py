"""Repeated rounds: which there are, and what `check` says of rounds that cannot be."""

from typing import Any

import pytest
from pydantic import ValidationError

from aligndistill.config.checks import check
from aligndistill.config.rounds import FreshPrompts, LatestShare, Round
from aligndistill.config.run import RunConfig


def config(**sections: Any) -> RunConfig:
    base = {
        "name": "x",
        "prompts": {"source": {"path": "p.jsonl"}},
        "start": {"model": "some/model"},
        "teacher": {"model": "some/teacher"},
        "judge": {"kind": "likelihood"},
        "students": {"dpo": {"objective": {"kind": "dpo"}}, "base": {"objective": {"kind": "best_of_n"}}},
    }
    return RunConfig.model_validate({**base, **sections})


def test_without_rounds_there_is_one() -> None:
    (only,) = config().all_rounds
    assert (only.of("verdicts"), only.promotes, only.stop) == ("verdicts", None, None)
    assert only.students == ("dpo", "base")


def test_later_rounds_start_from_the_promoted_student_and_leave_the_baseline_out() -> None:
    first, second, third = config(rounds={"count": 3, "promotes": "dpo", "data": "all", "prompts": "fresh"}).all_rounds
    assert [one.of("verdicts") for one in (first, second, third)] == ["verdicts", "verdicts-r2", "verdicts-r3"]
    assert [one.promotes for one in (first, second, third)] == ["dpo"] * 3
    assert first.roles == {"start": "start", "reference": "start"}
    assert second.roles == third.roles == {"start": "student", "reference": "student"}
    assert (first.compared, second.compared) == (("start", "teacher"), ())
    assert (first.students, second.students) == (("dpo", "base"), ("dpo",))
    assert [(one.part, one.parts, one.part_size) for one in (first, second, third)] == [(0, 3, None), (1, 3, None), (2, 3, None)]
    assert [one.data for one in (first, second, third)] == ["latest", "all", "all"]
    assert [one.stop is not None for one in (first, second, third)] == [True, True, False]  # after the last, none can follow


def test_the_runs_start_may_stay_the_reference() -> None:
    second = config(rounds={"count": 2, "promotes": "dpo", "reference": "start"}).all_rounds[1]
    assert second.roles == {"start": "student", "reference": "start"}


def test_a_promoted_baseline_is_trained_in_every_round() -> None:
    rounds: tuple[Round, ...] = config(rounds={"count": 2, "promotes": "base"}).all_rounds
    assert rounds[1].students == ("dpo", "base")


ROUNDS = {"count": 2, "promotes": "dpo"}
FUNCTION = [{"source": {"kind": "function", "function": "a:b"}}]
GRPO = {"objective": {"kind": "grpo", "reward": "judge"}}
PPO = {"objective": {"kind": "ppo", "reward": FUNCTION}}
SERVED = {"kind": "endpoint", "base_url": "http://localhost:1/v1", "name": "m"}


@pytest.mark.parametrize(
    ("sections", "key", "said"),
    [
        ({"rounds": {"count": 2, "promotes": "dqo"}}, ("rounds", "promotes"), "there is no student 'dqo'"),
        ({"judge": None, "students": {"dpo": PPO}}, ("rounds",), "this needs 'prompts' and a 'judge'"),
        ({"teacher": SERVED, "judge": {"kind": "pairwise"}, "candidates": {"from": ["teacher"], "per_prompt": 2}},
         ("candidates", "from"), "writes in place of 'start'"),
        ({"evaluation": {"judge": None}}, ("evaluation", "judge"), "rounds are compared by a judge"),
        ({"students": {"dpo": {"objective": {"kind": "dpo"}}, "a-r2": {"objective": {"kind": "dpo"}}}},
         ("students", "a-r2"), "are those of later rounds"),
        ({"start": {"model": "m", "quantize": {"kind": "nf4", "export": "adapter"}, "lora": {"r": 4}}},
         ("start", "quantize", "export"), "set export to 'merged'"),
        ({"rounds": {**ROUNDS, "stop": {"length_growth": 64}}, "evaluation": {"max_new_tokens": 64}},
         ("rounds", "stop", "length_growth"), "answers have 1 to 64 tokens"),
        ({"rounds": {**ROUNDS, "reference": "start"}, "students": {"dpo": GRPO}},
         ("students", "dpo", "objective", "kl_coefficient"), "set this to 0, set rounds.reference to 'previous', or use ppo"),
    ],
)  # fmt: skip
def test_rounds_that_cannot_be_are_refused(sections: dict[str, Any], key: tuple[str, ...], said: str) -> None:
    found = [one for one in check(config(**{"rounds": ROUNDS, **sections})) if one.path == key]
    assert len(found) == 1
    assert said in found[0].text


@pytest.mark.parametrize(
    ("reference", "objective"),
    [
        ("start", {"kind": "rloo", "reward": "judge", "kl_coefficient": 0.0}),
        ("start", {"kind": "ppo", "reward": "judge"}),
        ("previous", {"kind": "rloo", "reward": "judge"}),
    ],
)
def test_rounds_whose_reference_is_held(reference: str, objective: dict[str, Any]) -> None:
    rounds = {**ROUNDS, "promotes": "a", "reference": reference}
    found = check(config(rounds=rounds, students={"a": {"objective": objective}}))
    assert [one for one in found if one.path[-1] == "kl_coefficient"] == []


def test_good_rounds_have_no_problem() -> None:
    assert list(check(config(rounds=ROUNDS))) == []
    almost = {**ROUNDS, "stop": {"length_growth": 63.9}}
    assert list(check(config(rounds=almost, evaluation={"max_new_tokens": 64}))) == []


def test_rules_that_are_all_off_can_never_end_the_rounds_and_none_is_said_with_null() -> None:
    off = {"no_gain": False, "length_growth": None}
    with pytest.raises(ValidationError, match=r"rounds\.stop\n.*no rule is left .* set rounds\.stop to null"):
        config(rounds={**ROUNDS, "stop": off})
    for rule in ({"kl_budget": 5.0}, {"min_pairs": 2}, {"no_gain": True}, {"length_growth": 2.0}):
        assert config(rounds={**ROUNDS, "stop": {**off, **rule}}).all_rounds[0].stop is not None
    assert [one.stop for one in config(rounds={**ROUNDS, "stop": None}).all_rounds] == [None, None]


def test_a_reference_is_one_of_two() -> None:
    with pytest.raises(ValidationError, match=r"rounds\.reference\n.*'start' or 'previous'"):
        config(rounds={**ROUNDS, "reference": "teacher"})


def test_a_mixture_and_a_number_of_prompts_reach_the_rounds() -> None:
    rounds = {"count": 2, "promotes": "dpo", "data": {"latest": 0.7}, "prompts": {"per_round": 5}}
    first, second = config(rounds=rounds).all_rounds
    assert (first.data, second.data) == ("latest", LatestShare(latest=0.7))
    assert [(one.part, one.part_size) for one in (first, second)] == [(part, FreshPrompts(per_round=5)) for part in (0, 1)]


@pytest.mark.parametrize("share", [0, 1, 1.2])
def test_a_share_lies_between_none_and_all(share: float) -> None:
    with pytest.raises(ValidationError, match=r"rounds\.data"):
        config(rounds={"count": 2, "promotes": "dpo", "data": {"latest": share}})


@pytest.mark.parametrize(
    ("per_round", "repeats", "prompts", "short"),
    [
        (5, 0, 15, None),
        (5, 0, 14, "set repeats to 1"),  # 15 are needed
        (5, 1, 8, None),  # 16 uses
        (5, 1, 7, "each 2 times: add prompts, lower per_round or count, or set repeats to 2"),  # 14 uses
        (5, 9, 4, "fewer than the 5 of one round"),
    ],
)
def test_prompts_may_run_out(per_round: int, repeats: int, prompts: int, short: str | None) -> None:
    found = FreshPrompts(per_round=per_round, repeats=repeats).shortage(3, prompts)
    assert found is None if short is None else found is not None and short in found


def test_weak_prompts_are_drawn_in_all_rounds_but_the_first() -> None:
    rounds = {"count": 3, "promotes": "dpo", "prompts": {"per_round": 5, "repeats": 1}, "weak": 0.5}
    assert [one.weak for one in config(rounds=rounds).all_rounds] == [None, 0.5, 0.5]


@pytest.mark.parametrize(
    ("rounds", "said"),
    [
        ({"weak": 0.5}, "'weak' chooses the prompts of a round: set prompts to"),
        ({"weak": 0.5, "prompts": "fresh"}, "'weak' chooses the prompts of a round: set prompts to"),
        ({"weak": 0.5, "prompts": {"per_round": 5}}, "set prompts.repeats to 1 or more"),
        ({"weak": 0.05, "prompts": {"per_round": 5, "repeats": 1}}, "is less than one prompt"),
        ({"weak": 1.1, "prompts": {"per_round": 5, "repeats": 1}}, "less than or equal to 1"),
        ({"weak": 0, "prompts": {"per_round": 5, "repeats": 1}}, "greater than 0"),
    ],
)
def test_weak_prompts_that_cannot_be_drawn_are_refused(rounds: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        config(rounds={"count": 2, "promotes": "dpo", **rounds})
