"""A second judge: where it may stand, and what `check` says of one that cannot be."""

from typing import Any

import pytest

from aligndistill.commands.server_checks import server_findings
from aligndistill.config.checks import check
from aligndistill.config.resolve import resolved
from aligndistill.config.run import RunConfig
from aligndistill.config.schema import models_of
from aligndistill.pipeline import pipeline

SERVER = {"kind": "endpoint", "base_url": "http://localhost:1/v1", "name": "m"}
PAIRWISE = {"kind": "pairwise", "model": SERVER}
RUBRIC = {"kind": "rubric", "model": {**SERVER, "name": "other"}}


def config(**sections: Any) -> RunConfig:
    base = {
        "name": "x",
        "prompts": {"source": {"path": "p.jsonl"}},
        "start": {"model": "some/model"},
        "judge": PAIRWISE,
        "students": {"dpo": {"objective": {"kind": "dpo"}}},
    }
    return RunConfig.model_validate({name: one for name, one in {**base, **sections}.items() if one is not None})


def stages(found: RunConfig) -> dict[str, Any]:
    return {one.name: one for one in pipeline(found).stages}


def test_it_is_asked_in_every_round_as_it_was_in_the_first() -> None:
    """Also where it is the start: that of the run, not of the round."""
    second = {"judge": {"kind": "rubric", "model": "start"}, "prompts": 7}
    built = stages(config(audit={"second": second}, rounds={"count": 2, "promotes": "dpo"}))
    for of_round in ("", "-r2"):
        given = built[f"second_verdicts{of_round}"].given
        assert (given["models"], given["sample"]) == ({"start": built["start"]}, 7)
        assert given["verdicts"] is built[f"verdicts{of_round}"]
        assert built[f"audit{of_round}"].given["second_verdicts"] is built[f"second_verdicts{of_round}"]
    assert built["candidates-r2"].given["authors"] == {"start": built["progress"]}
    assert built["student-dpo-r2"].waits_for is built["order-r2"]
    assert built["order-r2"].given["audit"] is built["audit-r2"]


def test_it_changes_neither_verdicts_nor_students() -> None:
    without, with_one = stages(config()), stages(config(audit={"second": {"judge": RUBRIC}}))
    assert {name for name in without if without[name].fingerprint != with_one[name].fingerprint} == {"audit", "report"}
    assert with_one.keys() - without.keys() == {"second_verdicts"}


def test_an_inline_model_is_one_of_the_run() -> None:
    found = resolved(config(audit={"second": {"judge": RUBRIC}}))
    assert found.audit.second is not None
    assert models_of(found.audit.second) == ("second_judge",)
    assert found.endpoints["second_judge"].name == "other"
    assert [one.what for one in server_findings(config(audit={"second": {"judge": RUBRIC}}))] == ["judge", "second_judge"]


@pytest.mark.parametrize(
    ("sections", "key", "said"),
    [
        ({"audit": {"second": {"judge": PAIRWISE}}}, ("audit", "second", "judge"), "a judge always agrees with itself"),
        (
            {"audit": {"second": {"judge": {**RUBRIC, "model": "missing"}}}},
            ("audit", "second", "judge", "model"),
            "there is no model 'missing'",
        ),
        (
            {"audit": {"second": {"judge": {"kind": "likelihood", "model": SERVER}}}},
            ("audit", "second", "judge", "model"),
            "needs log-probabilities",
        ),
        (
            {"prompts": None, "judge": None, "rankings": {"source": {"path": "r.jsonl"}}, "audit": {"second": {"judge": RUBRIC}}},
            ("audit", "second"),
            "nothing is judged here",
        ),
        ({"audit": {"stop": {"second_disagreement": 0.5}}}, ("audit", "stop", "second_disagreement"), "there is no second judge"),
        ({"audit": {"warn": {"second_disagreement": 0.5}}}, ("audit", "warn", "second_disagreement"), "add audit.second"),
        (
            {"audit": {"second": {"judge": RUBRIC}}, "budget": {"usd": 5, "prices": {"m": {"prompt": 1, "completion": 1}}}},
            ("budget", "prices"),
            "there is no price for 'other'",
        ),
    ],
)
def test_a_second_judge_that_cannot_be(sections: dict[str, Any], key: tuple[str, ...], said: str) -> None:
    (problem,) = check(config(**sections))
    assert problem.path == key
    assert said in problem.text


def test_limits_that_are_off_need_no_second_judge() -> None:
    assert not list(check(config(audit={"warn": {"second_disagreement": None}, "stop": {"canaries": 0.5}})))
    assert not list(check(config(audit={"second": {"judge": RUBRIC}, "stop": {"second_disagreement": 0.5}})))
