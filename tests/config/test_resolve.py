"""What a resolved config spells out."""

from pathlib import Path
from typing import Any

import pytest

from aligndistill.config.checks import check
from aligndistill.config.judges import Pairwise, Panel, Rubric
from aligndistill.config.load import load_config
from aligndistill.config.models import EndpointModel
from aligndistill.config.objectives import Rewarded, WeightedReward
from aligndistill.config.offline_objectives import Kto
from aligndistill.config.resolve import resolved
from aligndistill.config.run import RunConfig
from aligndistill.config.schema import model_uses

CONFIGS = Path(__file__).parents[2] / "configs"


def server(name: str, **settings: Any) -> dict[str, Any]:
    return {"kind": "endpoint", "base_url": "http://localhost:1/v1", "name": name, **settings}


def pairwise(model: Any) -> dict[str, Any]:
    return {"kind": "pairwise", "model": model}


def panel(**members: Any) -> dict[str, Any]:
    return {"kind": "panel", "members": {name: {"judge": judge} for name, judge in members.items()}}


def ppo(reward: Any, **settings: Any) -> dict[str, Any]:
    return {"objective": {"kind": "ppo", "reward": reward, **settings}}


DPO = {"objective": {"kind": "dpo"}}


def config(**sections: Any) -> RunConfig:
    base = {
        "name": "x",
        "prompts": {"source": {"path": "p.jsonl"}},
        "start": {"model": "some/model"},
        "judge": pairwise(server("a")),
    }
    found = RunConfig.model_validate({**base, **sections})
    assert not list(check(found))
    return found


def names(found: RunConfig) -> dict[str, str]:
    """The servers of a config, by the names of their models there."""
    return {name: model.name for name, model in found.models.items() if isinstance(model, EndpointModel)}


def rewards(found: RunConfig, student: str) -> tuple[WeightedReward, ...]:
    objective = found.students[student].objective
    assert isinstance(objective, Rewarded)
    assert isinstance(objective.reward, tuple)
    return objective.reward


# ------------------------------------------------------------------------------------------------------- inline models


def test_models_that_are_written_out_are_named_after_their_place() -> None:
    found = resolved(
        config(
            judge=pairwise(server("a")),
            evaluation={"judge": pairwise(server("b"))},
            students={"online": ppo({"kind": "rubric", "model": server("c")})},
        )
    )
    assert names(found) == {"judge": "a", "evaluation_judge": "b", "online_reward": "c"}
    assert isinstance(found.judge, Pairwise)
    assert isinstance(found.evaluation.judge, Pairwise)
    assert (found.judge.model, found.evaluation.judge.model) == ("judge", "evaluation_judge")
    (part,) = rewards(found, "online")
    assert isinstance(part.source, Rubric)
    assert part.source.model == "online_reward"


def test_members_of_a_panel_are_named_behind_it() -> None:
    found = resolved(config(judge=panel(one=pairwise(server("a")), other=pairwise(server("b")), again=pairwise("start"))))
    assert names(found) == {"judge-one": "a", "judge-other": "b"}
    assert isinstance(found.judge, Panel)
    models = {name: getattr(member.judge, "model", None) for name, member in found.judge.members.items()}
    assert models == {"one": "judge-one", "other": "judge-other", "again": "start"}


def test_several_rewards_are_numbered_by_their_place_in_the_sum() -> None:
    reward = [
        {"source": {"kind": "function", "function": "m:f"}, "weight": 0.5},
        {"source": {"kind": "rubric", "model": server("b")}, "weight": 2},
        {"source": panel(one=pairwise(server("c")), other=pairwise(server("d")))},
        {"source": "judge", "weight": -1},
    ]
    found = resolved(config(students={"online": ppo(reward)}))
    assert names(found) == {"judge": "a", "online_reward-1": "b", "online_reward-2-one": "c", "online_reward-2-other": "d"}
    parts = rewards(found, "online")
    assert [part.weight for part in parts] == [0.5, 2, 1, -1]
    assert parts[3].source == found.judge


def test_equal_models_are_one() -> None:
    teacher = server("t")
    found = resolved(
        config(
            teacher=teacher,
            models={"known": server("k")},
            judge=pairwise(server("a")),
            evaluation={"judge": panel(one=pairwise(server("a")), other=pairwise(teacher), third=pairwise(server("k")))},
            students={"online": ppo({"kind": "rubric", "model": server("a")})},
        )
    )
    assert names(found) == {"known": "k", "judge": "a"}
    assert [use.model for use in model_uses(found.evaluation)] == ["judge", "teacher", "known"]
    assert [use.model for use in model_uses(found.students["online"])] == ["judge"]
    other = resolved(config(evaluation={"judge": pairwise(server("a", concurrency=3))}))
    assert names(other) == {"judge": "a", "evaluation_judge": "a"}  # not equal: it is asked otherwise


def test_a_name_that_is_taken_gets_a_number() -> None:
    found = resolved(config(models={"judge": server("j"), "judge-2": server("k")}))
    assert names(found) == {"judge": "j", "judge-2": "k", "judge-3": "a"}
    assert isinstance(found.judge, Pairwise)
    assert found.judge.model == "judge-3"


def test_no_model_is_written_out_any_more_and_what_was_given_is_unchanged() -> None:
    given = config(judge=panel(one=pairwise(server("a")), other=pairwise(server("b"))), students={"online": ppo("judge")})
    before = given.model_dump()
    assert all(isinstance(use.model, str) for use in model_uses(resolved(given)))
    assert given.model_dump() == before


# -------------------------------------------------------------------------------------------------------- other people


def test_the_evaluation_has_the_judge_itself() -> None:
    same = resolved(config(evaluation={"judge": "same"}))
    assert same.evaluation.judge == same.judge
    assert isinstance(same.judge, Pairwise)
    assert resolved(config(evaluation={"judge": None})).evaluation.judge is None
    ready = {"prompts": None, "judge": None, "rankings": {"source": {"path": "r.jsonl"}}}
    assert resolved(config(**ready)).evaluation.judge is None  # `same` as none


def test_a_reward_that_is_the_judge_is_the_judge_itself() -> None:
    found = resolved(config(students={"online": ppo("judge")}))
    assert rewards(found, "online") == (WeightedReward(source=found.judge),)
    assert names(found) == {"judge": "a"}


def test_the_runs_reward_model_keeps_its_name() -> None:
    found = resolved(config(reward_model={}, students={"online": ppo("reward_model")}))
    assert rewards(found, "online") == (WeightedReward(source="reward_model"),)


# ----------------------------------------------------------------------------------------------------------- best of n


def test_best_of_n_stands_before_the_others() -> None:
    found = resolved(config(students={"mine": DPO, "online": ppo("judge")}))
    assert [(name, one.objective.kind) for name, one in found.students.items()] == [
        ("best_of_n", "best_of_n"),
        ("mine", "dpo"),
        ("online", "ppo"),
    ]
    assert found.students["best_of_n"].learning_rate == 2e-5


@pytest.mark.parametrize(
    ("sections", "students"),
    [
        ({"students": {"mine": DPO, "base": {"objective": {"kind": "best_of_n"}, "batch_size": 4}}}, ["mine", "base"]),
        ({"students": {}}, []),
        ({"judge": None, "students": {"online": ppo({"kind": "function", "function": "m:f"})}}, ["online"]),
        (
            {"prompts": None, "judge": None, "rankings": {"source": {"path": "r.jsonl"}}, "students": {"mine": DPO}},
            ["best_of_n", "mine"],
        ),
    ],
    ids=["there is one", "nothing to compare with", "no rankings", "ready-made rankings"],
)
def test_best_of_n_is_added_where_it_can_be_trained_and_compared(sections: dict[str, Any], students: list[str]) -> None:
    assert list(resolved(config(**sections)).students) == students


# ------------------------------------------------------------------------------------------------------------- twice


RULES = {"kind": "function", "function": "m:f"}
BUSY = {
    "teacher": server("t"),
    "reward_model": {},
    "judge": panel(one=pairwise(server("a")), other=pairwise("teacher"), rules=RULES),
    "students": {
        "mine": DPO,
        "online": ppo([{"source": "judge"}, {"source": pairwise(server("b")), "weight": 2}, {"source": "reward_model"}]),
        "other": ppo({"kind": "rubric", "model": server("b")}),
    },
}


@pytest.mark.parametrize(
    "sections",
    [{}, BUSY, {**BUSY, "evaluation": {"judge": pairwise(server("e"))}}, {"judge": None, "students": {"online": ppo(RULES)}}],
)
def test_resolving_twice_changes_nothing(sections: dict[str, Any]) -> None:
    once = resolved(config(**sections))
    assert resolved(once) == once
    assert resolved(once).model_dump() == once.model_dump()
    assert not list(check(once))


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_config_is_resolved_once_and_for_all(path: Path) -> None:
    once = resolved(load_config([path]))
    assert resolved(once) == once
    assert not list(check(once))


@pytest.mark.parametrize(
    ("objective", "margin"),
    [({"split": "margin"}, 0.25), ({"split": "margin", "margin": 0.5}, 0.5), ({"split": "mean"}, None), ({"labels": "soft"}, None)],
)
def test_ktos_margin_is_that_of_ties_where_none_is_given(objective: dict[str, Any], margin: float | None) -> None:
    students = {"kto": {"objective": {"kind": "kto", **objective}}}
    found = resolved(config(students=students, rankings={"tie_margin": 0.25})).students["kto"].objective
    assert isinstance(found, Kto)
    assert found.margin == margin


PROBABILITIES = {"source": {"path": "r.jsonl"}, "scores": "probabilities"}
THINKS = {"judge": pairwise(server("a", thinking="on"))}
READY_MADE: dict[str, Any] = {"prompts": None, "judge": None, "evaluation": {"judge": None}}
FUNCTION = {"kind": "function", "function": "examples.quickstart.longer:grade"}


@pytest.mark.parametrize(
    ("sections", "labels"),
    [
        ({}, "soft"),  # the log-probabilities of A and B
        ({"judge": pairwise({"model": "some/judge"})}, "soft"),
        ({"judge": {**pairwise("start"), "reasoning": True}}, "hard"),  # one reply, read from its text
        ({"judge": {**pairwise("start"), "reasoning": True, "samples": 5}}, "soft"),  # the share of five
        (THINKS, "hard"),
        ({"judge": pairwise({"kind": "function", "function": "examples.quickstart.teacher:answer"})}, "hard"),
        ({"judge": {"kind": "listwise", "model": "start"}}, "hard"),
        ({"judge": {"kind": "listwise", "model": "start", "samples": 2}}, "soft"),
        ({"judge": {"kind": "rubric", "model": "start"}}, "hard"),  # grades have no scale of their own
        ({"judge": {"kind": "likelihood", "model": "start"}}, "hard"),
        ({"judge": FUNCTION}, "hard"),
        ({"judge": panel(one=FUNCTION, other={"kind": "likelihood", "model": "start"})}, "soft"),
        ({**READY_MADE, "rankings": PROBABILITIES}, "soft"),
        ({**READY_MADE, "rankings": {"source": {"path": "r.jsonl"}}}, "hard"),
    ],
)
def test_reward_models_learn_probabilities_where_the_verdicts_are_some(sections: dict[str, Any], labels: str) -> None:
    def found(**reward_model: Any) -> str:
        learned = resolved(config(**sections, reward_model=reward_model)).reward_model
        assert learned is not None
        assert learned.pair_labels == learned.labels
        return learned.labels

    assert found() == found(labels="auto") == labels
    assert found(labels="soft") == "soft"
    assert found(labels="hard") == "hard"
