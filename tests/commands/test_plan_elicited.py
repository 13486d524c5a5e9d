"""What a plan says of the steps of `prompts.elicit`: an upper bound, and less once some replies are known."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aligndistill.chat.scripted import ScriptedChat
from aligndistill.commands.plan.chats import Estimate
from aligndistill.commands.plan.elicited import most_requests
from aligndistill.commands.plan.requests import planned_requests
from aligndistill.config.models import EndpointModel
from aligndistill.config.run import RunConfig
from aligndistill.pipeline import pipeline
from aligndistill.runs.make import run_stage
from aligndistill.stages.context import StageContext
from tests.e2e.small_run import small_config, write_data
from tests.elicitation.scripted_teacher import reply_to

TEACHER = {"kind": "endpoint", "base_url": "http://localhost:1/v1", "name": "scripted"}
FUNCTION = {"kind": "function", "function": "tests.elicitation.scripted_teacher:reply_to"}
MORE = {"name": "more", "kind": "expand", "target": 40}
HARDER = {"name": "harder", "kind": "evolve", "rounds": 2, "answer": True}
TOPICS = {"name": "topics", "kind": "curate", "topics": "topics.txt", "per_topic": 10, "subtopics": 2}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path)
    (tmp_path / "topics.txt").write_text("rivers\nlakes\n")

    def with_steps(*steps: dict[str, Any]) -> RunConfig:
        whole = {**small_config(), "teacher": TEACHER, "judge": {"kind": "pairwise"}, "students": {}, "reward_model": None}
        return RunConfig.model_validate({**whole, "prompts": {**whole["prompts"], "elicit": steps}})

    return with_steps


def planned(config: RunConfig) -> dict[str, Estimate]:
    """What is planned up to the candidates."""
    return dict(planned_requests(config, pipeline(config).upstream_of("candidates"), {}))


class Counted(ScriptedChat):
    asked = 0

    def __init__(self, left: int | None = None) -> None:
        super().__init__(self._reply, identity=EndpointModel.model_validate(TEACHER).identity)
        self.left = left

    def _reply(self, messages: Any, sample: int) -> str:
        if self.left == self.asked:
            raise KeyboardInterrupt
        self.asked += 1
        return reply_to(messages[-1].content, sample)


def make(config: RunConfig, until: str, chat: ScriptedChat) -> None:
    def equip(context: StageContext) -> StageContext:
        return replace(context, open_endpoint=lambda _: chat)

    for stage in pipeline(config).upstream_of(until):
        run_stage(stage, config.runtime, equip)


@pytest.mark.parametrize("step", [MORE, HARDER, TOPICS, {**TOPICS, "topics": {"generate": 3}}])
def test_a_plan_is_an_upper_bound(config: Any, step: dict[str, Any]) -> None:
    whole, name = config(step), f"prompts-{step['name']}"
    found = planned(whole)[name]
    assert not found.certain
    train = sum(one.split == "train" for one in _prompts(whole))
    assert found.asked.calls == most_requests(whole.prompts.elicit[0], train)
    chat = Counted()
    make(whole, name, chat)
    assert 0 < chat.asked <= found.asked.calls
    assert name not in planned(whole)


def test_a_function_is_counted_but_has_no_server_and_no_price(config: Any) -> None:
    whole = config(MORE)
    function = RunConfig.model_validate({**whole.model_dump(by_alias=True), "teacher": FUNCTION})
    found, served = planned(function)["prompts-more"], planned(whole)["prompts-more"]
    assert (found.model, found.server) == ("teacher", None)
    assert found.asked == served.asked


def _prompts(config: RunConfig) -> list[Any]:
    from aligndistill.data.loading import load_prompts

    assert config.prompts is not None
    return load_prompts(config.prompts.source, config.prompts.held_out).all().records


@pytest.mark.parametrize("step", [MORE, HARDER, TOPICS])
def test_replies_that_are_known_are_not_planned_again(config: Any, step: dict[str, Any]) -> None:
    whole, name = config(step), f"prompts-{step['name']}"
    before = planned(whole)[name].asked.calls
    with pytest.raises(KeyboardInterrupt):
        make(whole, name, Counted(left=5))
    assert planned(whole)[name].asked.calls <= before - 4
    assert planned(whole)[name].asked.calls >= before - 6


def test_later_stages_are_planned_with_the_prompts_of_earlier_steps(config: Any) -> None:
    alone, after = planned(config(HARDER)), planned(config(MORE, HARDER))
    train = sum(one.split == "train" for one in _prompts(config()))
    assert after["prompts-harder"].asked.calls / alone["prompts-harder"].asked.calls == pytest.approx(
        (train + 40) / train, rel=0.01
    )
    assert after["candidates"].prompts == len(_prompts(config())) + 40 + 2 * (train + 40)


OTHER = {"kind": "endpoint", "base_url": "http://localhost:2/v1", "name": "other"}


def test_rounds_are_planned_with_the_prompts_that_are_written_for_them_and_with_the_second_judge(config: Any) -> None:
    """Before anything has run: 6 seeds, evolved and compared, in two rounds; a grade of both answers of each of 5 pairs."""
    plain = config({"name": "weak", "kind": "evolve", "weak_seeds": 6})
    changes = {
        "prompts": {**plain.prompts.model_dump(by_alias=True, mode="json"), "filters": {"duplicates": 0.5}},
        "students": {"dpo": {"objective": {"kind": "dpo"}}},
        "rounds": {"count": 3, "promotes": "dpo", "prompts": {"per_round": 10}},
        "audit": {"second": {"judge": {"kind": "rubric", "model": OTHER}, "prompts": 5}},
        "evaluation": {"judge": "same"},
    }
    whole = RunConfig.model_validate({**plain.model_dump(by_alias=True, mode="json"), **changes})
    found = dict(planned_requests(whole, pipeline(whole).stages, {}))
    assert "prompts-weak" not in found
    assert [found[f"prompts-weak-r{number}"].asked.calls for number in (2, 3)] == [12, 12]
    first = found["candidates"].prompts  # 10, and those that are held out
    assert [found[f"candidates-r{number}"].prompts for number in (2, 3)] == [first + 6, first + 6]
    for of_round in ("", "-r2", "-r3"):
        second = found[f"second_verdicts{of_round}"]
        assert (second.model, second.prompts, second.verdicts, second.asked.calls) == ("other", 5, 10, 10)
