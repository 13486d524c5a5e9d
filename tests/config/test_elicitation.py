"""What the steps of `prompts.elicit` may be, and what is refused before anything runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from aligndistill.config.load import load_config
from aligndistill.config.run import RunConfig
from aligndistill.errors import ConfigError

SERVER = {"kind": "endpoint", "base_url": "http://localhost:1/v1", "name": "m"}
Load = Callable[..., RunConfig]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def loaded(*steps: dict[str, Any], **sections: Any) -> RunConfig:
        config = {
            "name": "x",
            "prompts": {"source": {"path": "p.jsonl"}, "elicit": list(steps)},
            "start": {"model": "./start"},
            "teacher": SERVER,
            "judge": {"kind": "pairwise"},
            "students": {},
            **sections,
        }
        path = tmp_path / "c.yaml"
        path.write_text(yaml.safe_dump({name: one for name, one in config.items() if one is not None}))
        return load_config(path)

    return loaded


def expand(**changes: Any) -> dict[str, Any]:
    return {"name": "more", "kind": "expand", "target": 10, **changes}


def magpie(**changes: Any) -> dict[str, Any]:
    return {"name": "own", "kind": "magpie", "target": 10, **changes}


def curate(**changes: Any) -> dict[str, Any]:
    return {"name": "topics", "kind": "curate", "topics": "topics.txt", **changes}


def test_steps_as_their_user_writes_them(load: Load) -> None:
    config = load(
        expand(shots=8, max_similarity=0.7, model="start"),
        {"name": "harder", "kind": "evolve", "per_prompt": 1},
        curate(per_topic=20, model=["teacher", "start"]),
        curate(name="lists", topics={"generate": 50}),
    )
    assert config.prompts is not None
    more, harder, topics, lists = config.prompts.elicit
    assert (more.name, more.models, harder.models, topics.models) == ("more", ("start",), ("teacher",), ("teacher", "start"))
    assert lists.kind == "curate"
    assert config.model_dump(mode="json", by_alias=True)["prompts"]["elicit"][0]["model"] == ["start"]


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([expand(model="teachr")], "prompts.elicit[0].model: there is no model 'teachr'; did you mean 'teacher'?"),
        ([expand(), expand()], "prompts.elicit[1].name: two steps are named 'more': choose another name"),
        ([expand(name="part-r2")], "prompts.elicit[0].name: 'part-r2' is a reserved name: choose another name"),
        ([expand(name="a b")], "prompts.elicit[0].name: expected a name made of letters"),
        ([expand(taget=10)], "prompts.elicit[0].taget: unknown key; did you mean 'target'?"),
        ([{"name": "more", "kind": "expand"}], "prompts.elicit[0].target: this key is required"),
        ([{"name": "more", "kind": "exapnd"}], "prompts.elicit[0].kind: unknown kind 'exapnd'; did you mean 'expand'?"),
        ([{"name": "more"}], "prompts.elicit[0].kind: this key is required (known kinds: expand, evolve, curate, magpie)"),
        ([expand(target=0)], "prompts.elicit[0].target: expected a number greater than 0, found 0"),
        ([expand(shots=2)], "'own_shots' must be less than 'shots': at least one example is the user's"),
        ([expand(length=[9, 4])], "'length' is [fewest, most], both at least 1"),
        ([expand(model=["teacher", "teacher"])], "'model' lists a model twice"),
        ([expand(model=[])], "prompts.elicit[0].model: expected a list of at least 1, found"),
        ([{"name": "h", "kind": "evolve", "operations": ["deeper"]}], "prompts.elicit[0].operations[0]: expected 'constraints'"),
        ([curate(shares={"a": 0.5, "b": 0.6})], "'shares' must be positive and have the sum 1, found 1.1"),
        ([curate(topics={"generat": 5})], "prompts.elicit[0].topics.generate: this key is required"),
        (
            [magpie()],
            "an endpoint of chats alone takes none: use a server that continues text (/v1/completions)",
        ),
    ],
)
def test_what_is_refused(load: Load, steps: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(*steps)
    assert message in str(refused.value)
    assert "c.yaml:" in str(refused.value)


ROUNDS = {"count": 3, "promotes": "dpo", "prompts": {"per_round": 20, "repeats": 1}}


def evolve(**changes: Any) -> dict[str, Any]:
    return {"name": "harder", "kind": "evolve", **changes}


def test_steps_of_later_rounds(load: Load) -> None:
    students = {"dpo": {"objective": {"kind": "dpo"}}}
    found = load(expand(), evolve(weak_seeds=20), curate(topics={"generate": 3}, weak_seeds=4), rounds=ROUNDS, students=students)
    assert found.prompts is not None
    assert [one.name for one in found.prompts.first_steps] == ["more"]
    assert [one.name for one in found.prompts.round_steps] == ["harder", "topics"]


@pytest.mark.parametrize(
    ("step", "rounds", "message"),
    [
        (
            evolve(weak_seeds=5),
            None,
            "[0].weak_seeds: these are prompts that the student of the round before was weak at",
        ),
        (
            magpie(model="start", weak_seeds=5),
            ROUNDS,
            "[0].weak_seeds: magpie shows a model no prompts: remove this key",
        ),
        (
            curate(weak_seeds=5),
            ROUNDS,
            "models see no prompts: remove this key, or set topics to {generate: 20}",
        ),
        (evolve(weak_seeds=21), ROUNDS, "a round has only 20 prompts (rounds.prompts.per_round): lower this"),
        (evolve(weak_seeds=0), ROUNDS, "prompts.elicit[0].weak_seeds: expected a number greater than 0, found 0"),
        (evolve(name="a-r2"), ROUNDS, "prompts.elicit[0].name: names that end in -r and a number are those of later rounds"),
        (evolve(name="round"), ROUNDS, "prompts.elicit[0].name: 'round' is a reserved name"),
    ],
)
def test_seeds_that_cannot_be(load: Load, step: dict[str, Any], rounds: dict[str, Any] | None, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(step, rounds=rounds, students={"dpo": {"objective": {"kind": "dpo"}}})
    assert message in str(refused.value)


def test_steps_without_a_model_to_ask(load: Load) -> None:
    with pytest.raises(ConfigError, match=r"there is no model 'teacher' \(models of this run: start\)"):
        load(expand(), teacher=None, judge={"kind": "function", "function": "a:b"})


def test_magpie_needs_to_know_what_stands_before_a_users_turn(load: Load) -> None:
    load(magpie(), teacher={**SERVER, "tokenizer": "./start"})
    load(magpie(model="start"))
    load(magpie(model="start"), start={"model": "./start", "layout": "transcript"})
    with pytest.raises(
        ConfigError, match="magpie gives 'teacher' its chat template up to the user's turn, and a function has none"
    ):
        load(magpie(), teacher={"kind": "function", "function": "a:b"})
    with pytest.raises(ConfigError, match="layout 'plain' has no turns"):
        load(magpie(model="start"), start={"model": "./start", "layout": "plain"})
