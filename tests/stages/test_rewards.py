"""Judges as rewards: one expected score for each answer, whatever the judge gives."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aligndistill.chat.scripted import ScriptedChat
from aligndistill.config.judges import Function, Judge, Pairwise, Rubric
from aligndistill.config.models import EndpointModel
from aligndistill.config.objectives import WeightedReward
from aligndistill.config.run import Runtime
from aligndistill.errors import JudgeError
from aligndistill.judges import pairwise, rubric
from aligndistill.judges.protocol import Judge as OpenJudge
from aligndistill.judges.templates import Template
from aligndistill.models.groups import TokenGroup
from aligndistill.models.load import ModelPointer
from aligndistill.models.reward import new_reward_model, score_rewards
from aligndistill.records import Message
from aligndistill.stages import rewards
from aligndistill.stages.context import ModelSource, StageContext
from aligndistill.stages.rewards import Rewards, open_rewards
from aligndistill.store.cache import Cache
from aligndistill.training.on_policy.rollouts import SampledPrompt
from tests.tiny_models import user, write_tiny_model
from tests.training.as_processes import as_processes

ASKED: list[tuple[str, list[str]]] = []


def letters(prompt: str, responses: list[str]) -> list[float]:
    """How many letters."""
    ASKED.append((prompt, responses))
    return [float(sum(map(str.isalpha, response))) for response in responses]


def picky(prompt: str, responses: list[str]) -> list[float]:
    """Fails on some answers."""
    if "bad" in responses:
        raise ValueError("not that one")
    return [1.0] * len(responses)


def words(prompt: str, responses: list[str]) -> list[float]:
    """How many words."""
    return [float(len(response.split())) for response in responses]


@pytest.fixture
def context(tmp_path: Path) -> StageContext:
    ASKED.clear()
    return StageContext(name="student", folder=tmp_path, caches=tmp_path, runtime=Runtime())


def part(source: Judge | str, weight: float = 1.0) -> WeightedReward:
    """Of a judge, or of a function here."""
    section = Function(kind="function", function=f"{__name__}:{source}") if isinstance(source, str) else source
    return WeightedReward(source=section, weight=weight)


def opened(context: StageContext, *parts: WeightedReward) -> Rewards:
    return open_rewards(context, parts, {}, None, seed=0)


def asked(question: str, *texts: str) -> SampledPrompt:
    return SampledPrompt(question, user(question), texts, ("stop",) * len(texts))


def test_one_source_as_it_is(context: StageContext) -> None:
    score = opened(context, part("letters"))
    assert score([asked("a?", "no.", "yes!"), asked("b?", "")]) == [[2.0, 3.0], [0.0]]
    assert ASKED == [("a?", ["no.", "yes!"]), ("b?", [""])]


def test_several_are_added_up_by_their_weights(context: StageContext) -> None:
    score = opened(context, part("letters"), part("words", weight=-0.5))
    assert score([asked("a?", "one two", "three")]) == [[6 - 0.5 * 2, 5 - 0.5 * 1]]


def test_equal_answers_are_judged_once_and_a_prompt_asked_twice_is_two(context: StageContext) -> None:
    score = opened(context, part("letters"))
    assert score([asked("a?", "no", "yes", "no"), asked("a?", "no", "no", "no")]) == [[2.0, 3.0, 2.0], [2.0] * 3]
    assert ASKED == [("a?", ["no", "yes"]), ("a?", ["no"])]


def test_no_prompts_at_all_are_no_scores(context: StageContext) -> None:
    """A process may have none of an update's prompts."""
    assert opened(context, part("letters"))([]) == []


# ------------------------------------------------------------------------------------------------------- chat judges


Script = Callable[[str], str]


def scripted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: Script, both_orders: bool = True) -> list[str]:
    """Real pairwise and rubric judges over a chat model that follows a script; returns what it is shown."""
    shown: list[str] = []

    def answer(messages: tuple[Message, ...], sample: int) -> str:
        shown.append(messages[0].content)
        return script(messages[0].content)

    def open_judge(context: StageContext, settings: Judge, models: object, seed: int) -> OpenJudge:
        chat, cache = ScriptedChat(answer), Cache(tmp_path / "cache.sqlite")
        if isinstance(settings, Pairwise):
            template = Template("{prompt}|{first}|{second}")
            return pairwise.PairwiseJudge(
                "pairwise", chat, template, both_orders=both_orders, max_new_tokens=9, cache=cache, seed=seed
            )
        template = Template("{prompt}|{response}|{lowest}|{highest}")
        return rubric.RubricJudge("rubric", chat, template, lowest=1, highest=10, max_new_tokens=9, cache=cache, seed=seed)

    monkeypatch.setattr(rewards, "open_judge", open_judge)
    return shown


def longer(shown: str) -> str:
    _, first, second = shown.split("|")
    return "A" if len(first) > len(second) else "B" if len(second) > len(first) else "tie"


def test_comparisons_become_strengths(context: StageContext, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shown = scripted(monkeypatch, tmp_path, longer)
    score = opened(context, part(Pairwise(kind="pairwise"), weight=2.0))
    ((short, long, long_again), (alone, alike)) = score([asked("a?", "x", "xx", "xx"), asked("b?", "y", "y")])
    assert long == long_again == -short > 0  # type: ignore[operator]
    # Two comparisons, both lost, and a pseudo-tie of weight 0.1: the strength solves 2 sigmoid(2s) = 2 + 0.1 (1/2 - sigmoid(s)).
    s = long / 2  # type: ignore[operator]
    sigmoid = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    assert 2 * (1 - sigmoid(2 * s)) == pytest.approx(0.1 * (sigmoid(s) - 0.5), rel=1e-6)
    assert (alone, alike) == (0.0, 0.0)  # nothing to compare with
    assert len(shown) == 2
    # Verdicts are kept: the same answers once more cost nothing.
    assert score([asked("a?", "xx", "x", "x")]) == [[long, short, short]]
    assert len(shown) == 2


def test_what_cannot_be_read_is_no_score(context: StageContext, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scripted(monkeypatch, tmp_path, lambda shown: "who knows" if "bad" in shown else "7")
    settings = Rubric(kind="rubric")
    assert opened(context, part(settings))([asked("a?", "good", "bad")]) == [[7.0, None]]
    # And none of the sum either.
    both = opened(context, part(settings), part(settings, weight=0.5))
    assert both([asked("a?", "good", "bad", "good")]) == [[10.5, None, 10.5]]


def test_no_score_for_any_answer_is_the_judges_failure(
    context: StageContext, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scripted(monkeypatch, tmp_path, lambda shown: "who knows")
    with pytest.raises(JudgeError, match=r"none of 2 sampled answers got a score from rubric"):
        opened(context, part(Rubric(kind="rubric")))([asked("a?", "good", "bad", "good")])


# --------------------------------------------------------------------------------------------------- several processes


def on_two(monkeypatch: pytest.MonkeyPatch, score: Callable[[], Rewards], everything: Sequence[SampledPrompt]) -> list[Any]:
    """What two processes make of prompts that they take in turn."""
    return as_processes(monkeypatch, 2, lambda rank: score()(everything[rank::2]), knows_rank=[rewards])


def test_scores_do_not_depend_on_the_number_of_processes(
    context: StageContext, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A judge that is asked in one order, and likes what is shown first where two are close."""

    def biased(shown: str) -> str:
        _, first, second = shown.split("|")
        return "B" if len(second) > len(first) + 2 else "A"

    scripted(monkeypatch, tmp_path, biased, both_orders=False)
    everything = [asked(f"{n % 5}?", *("x" * length for length in (1 + n, 3, 4 + n % 4, 9))) for n in range(8)]  # some twice
    open_judge = lambda: opened(context, part(Pairwise(kind="pairwise")))  # noqa: E731
    alone = open_judge()(everything)
    first, second = on_two(monkeypatch, open_judge, everything)
    assert first == alone[::2]
    assert second == alone[1::2]


def test_one_processs_unscored_answers_end_nothing(context: StageContext, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scripted(monkeypatch, tmp_path, lambda shown: "who knows" if "bad" in shown else "7")
    found = on_two(monkeypatch, lambda: opened(context, part(Rubric(kind="rubric"))), [asked("a?", "good"), asked("b?", "bad")])
    assert found == [[[7.0]], [[None]]]


def test_no_score_for_any_answer_of_any_process_ends_all(
    context: StageContext, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scripted(monkeypatch, tmp_path, lambda shown: "who knows")
    everything = [asked("a?", "x"), asked("b?", "y", "z"), asked("c?", "u")]
    found = on_two(monkeypatch, lambda: opened(context, part(Rubric(kind="rubric"))), everything)
    assert all(isinstance(error, JudgeError) and "none of 4 sampled answers" in str(error) for error in found)


def test_a_judge_that_fails_in_one_process_ends_all_with_its_words(context: StageContext, monkeypatch: pytest.MonkeyPatch) -> None:
    found = on_two(monkeypatch, lambda: opened(context, part("picky"), part("letters")), [asked("a?", "good"), asked("b?", "bad")])
    assert [type(error) for error in found] == [JudgeError, JudgeError]
    assert all("raised ValueError: not that one" in str(error) for error in found)


# -------------------------------------------------------------------------------------------------------- local models


def test_the_runs_reward_model_scores_as_it_does_elsewhere(context: StageContext, tmp_path: Path) -> None:
    pointer = ModelPointer(path=str(write_tiny_model(tmp_path / "backbone")), layout="chat")
    made = new_reward_model(pointer, seed=1)
    folder = tmp_path / "made"
    made.model.save_pretrained(folder / "model")
    made.conversation.tokenizer.save_pretrained(folder / "model")
    ModelPointer(path="model", layout="chat").write(folder)
    parts = [WeightedReward(source="reward_model", weight=3.0)]
    (found,) = open_rewards(context, parts, {}, folder, seed=0)([asked("No?", "blue", "Paris")])
    conversation = made.conversation
    group = TokenGroup(conversation.prompt_ids(user("No?")), [conversation.response_ids(text) for text in ("blue", "Paris")])
    (expected,) = score_rewards(made, [group], 1)
    assert found == pytest.approx([3 * value for value in expected.rewards], abs=1e-5)


def test_each_part_asks_its_own_model(context: StageContext) -> None:
    """Two judges of one kind, each with the model that it names; the rewards of the second count a thousandfold."""
    models: dict[str, ModelSource] = {
        name: EndpointModel(kind="endpoint", base_url="http://localhost:1/v1", name=grade)
        for name, grade in (("start", "9"), ("zero", "2"), ("one", "5"))
    }
    spoken = replace(context, open_endpoint=lambda server: ScriptedChat(lambda *_: server.name, identity=server.name))
    parts = [WeightedReward(source=Rubric(kind="rubric", model=name), weight=w) for name, w in (("zero", 1), ("one", 1000))]
    assert open_rewards(spoken, parts, models, None, seed=0)([asked("a?", "x")]) == [[5002.0]]
    assert open_rewards(spoken, parts[::-1], models, None, seed=0)([asked("a?", "x")]) == [[5002.0]]


def test_scores_stand_in_the_order_of_the_answers(context: StageContext) -> None:
    texts: Sequence[str] = ["x" * n for n in (5, 1, 4, 2)]
    assert opened(context, part("letters"))([asked("a?", *texts)]) == [[5.0, 1.0, 4.0, 2.0]]
