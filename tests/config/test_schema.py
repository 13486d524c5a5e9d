"""Sections are walked: marks on their fields, and the models that they name."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from aligndistill.config.judges import Function, Pairwise, Rubric
from aligndistill.config.models import EndpointModel, FunctionModel, LocalModel, ModelRef
from aligndistill.config.objectives import RolloutServer
from aligndistill.config.run import Evaluation, RunConfig
from aligndistill.config.schema import (
    alternatives,
    fields_of,
    kind_of,
    marks,
    model_uses,
    models_of,
    with_named_models,
)
from aligndistill.config.section import FieldMark, NamesModel, NotHashed, PluginName, ReadsCode, ReadsFile, Section

SERVER = {"kind": "endpoint", "base_url": "http://localhost:1/v1", "name": "m"}
ENDPOINT = EndpointModel.model_validate(SERVER)


class Marked(Section):
    plain: int | None = 0
    outermost: Annotated[int, NotHashed] = 0
    whole_union: Annotated[str | None, ReadsFile] = None
    in_union: PluginName | None = None
    deeper: Annotated[str, ReadsFile] | Annotated[PluginName, NotHashed] | None = None
    named: ModelRef | None = None
    several: Annotated[Annotated[str, ReadsFile] | None, NotHashed] = None
    with_default: Annotated[str | None, ReadsFile, Field(min_length=1)] = Field(default=None, max_length=9)


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("plain", set()),
        ("outermost", {NotHashed}),
        ("whole_union", {ReadsFile}),
        ("in_union", {ReadsCode}),
        ("deeper", {ReadsFile, ReadsCode, NotHashed}),
        ("named", {NamesModel}),
        ("several", {ReadsFile, NotHashed}),
        ("with_default", {ReadsFile}),
    ],
)
def test_marks_are_found_wherever_pydantic_leaves_them(field: str, expected: set[FieldMark]) -> None:
    assert marks(Marked)[field] == expected


def test_the_marks_of_the_real_sections() -> None:
    assert marks(Evaluation)["truth"] == {ReadsCode}
    assert marks(LocalModel)["model"] == {ReadsFile}
    assert marks(Pairwise)["template"] == {ReadsFile}
    assert marks(Pairwise)["model"] == {NamesModel}
    assert marks(Function)["function"] == marks(FunctionModel)["function"] == {ReadsCode}
    assert marks(EndpointModel)["api_key_env"] == {NotHashed}
    assert marks(EndpointModel)["requests_per_minute"] == {NotHashed}
    assert {mark for of_field in marks(RolloutServer).values() for mark in of_field} == {NotHashed}


def test_types_are_taken_apart_and_sections_known_by_their_kind() -> None:
    assert alternatives(Annotated[int | None, "x"] | Annotated[Annotated[str, 1] | Literal["a"], 2]) == (int, str, Literal["a"])
    assert alternatives(type(None)) == ()
    assert kind_of(Pairwise) == "pairwise"
    assert kind_of(Evaluation) is None
    assert kind_of(int) is None
    assert "from" in fields_of(RunConfig.model_fields["candidates"].annotation)  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------------------- models in sections


def rubric(model: Any) -> dict[str, Any]:
    return {"kind": "rubric", "model": model}


def run() -> RunConfig:
    members = {"one": rubric("a"), "f": {"kind": "function", "function": "m:f"}, "other": {"kind": "likelihood"}}
    return RunConfig.model_validate(
        {
            "name": "x",
            "models": {"b": SERVER},
            "judge": {"kind": "panel", "members": {name: {"judge": judge} for name, judge in members.items()}},
            "evaluation": {"judge": rubric("a")},
            "students": {
                "sum": {"objective": {"kind": "ppo", "reward": [{"source": "judge"}, {"source": rubric(SERVER)}]}},
                "single": {"objective": {"kind": "grpo", "reward": rubric("b")}},
                "offline": {"objective": {"kind": "dpo"}},
            },
        }
    )


def test_every_use_of_a_model_has_the_path_that_a_user_would_write() -> None:
    config = run()
    assert {use.path: use.model for use in model_uses(config)} == {
        ("judge", "members", "one", "judge", "model"): "a",
        ("judge", "members", "other", "judge", "model"): "teacher",
        ("students", "sum", "objective", "reward", 1, "source", "model"): ENDPOINT,
        ("students", "single", "objective", "reward", "model"): "b",
        ("evaluation", "judge", "model"): "a",
    }
    owner = next(use.owner for use in model_uses(config) if use.path[0] == "evaluation")
    assert owner is config.evaluation.judge
    assert list(model_uses(None)) == []


def test_a_path_has_the_key_and_not_the_fields_name() -> None:
    class Renamed(Section):
        source: ModelRef = Field(default="teacher", alias="from")

    class Outer(Section):
        inner: tuple[Renamed, ...] = Field(default=(Renamed(),), alias="in")

    assert [use.path for use in model_uses(Outer())] == [("in", 0, "from")]


def test_models_of_sections_are_named_once_in_the_order_of_their_fields() -> None:
    config = run()
    assert models_of(config.judge) == ("a", "teacher")
    assert models_of(config.students["single"].objective, config.judge) == ("b", "a", "teacher")
    assert models_of(config.judge, config.students["single"].objective, config.evaluation) == ("a", "teacher", "b")
    assert models_of(config.students["sum"].objective) == ()  # a model written out has no name yet
    assert models_of(None, config.students["offline"].objective) == ()


def test_models_written_out_get_names_and_the_rest_stays() -> None:
    named: dict[str, Any] = {"known": ENDPOINT}
    config = run()
    assert with_named_models(config.evaluation, "e", named) == config.evaluation
    changed = with_named_models(config.students["sum"].objective, "s", named)
    assert models_of(changed) == ("known",)  # equal to one that has a name
    other = Rubric.model_validate(rubric({**SERVER, "name": "n"}))
    assert models_of(with_named_models(other, "r", named)) == ("r",)
    assert list(named) == ["known", "r"]
    assert isinstance(other.model, EndpointModel)  # what was given is unchanged
