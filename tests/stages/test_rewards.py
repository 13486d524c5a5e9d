"""Judges as rewards: one expected score for each answer, whatever the judge gives."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from aligndistill.chat.scripted import ScriptedChat
from aligndistill.config.judges import FunctionJudge, Judge, PairwiseJudge, RubricJudge
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
from aligndistill.stages.context import Work
from aligndistill.stages.rewards import REWARD_MODEL, RewardPart, Rewards, for_part, open_rewards
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
def work(tmp_path: Path) -> Work:
    ASKED.clear()
    return Work(tmp_path, {}, {}, tmp_path, Runtime(), seed=0)


def part(judge: Judge | str | None, weight: float = 1.0, inputs: str = "") -> RewardPart:
    section = FunctionJudge(kind="function", function=f"{__name__}:{judge}") if isinstance(judge, str) else judge
    return RewardPart(section, None, "", inputs, weight)


def asked(question: str, *texts: str) -> SampledPrompt:
    return SampledPrompt(question, user(question), texts, ("stop",) * len(texts))


def test_one_source_as_it_is(work: Work) -> None:
    score = open_rewards(work, [part("letters")])
    assert score([asked("a?", "no.", "yes!"), asked("b?", "")]) == [[2.0, 3.0], [0.0]]
    assert ASKED == [("a?", ["no.", "yes!"]), ("b?", [""])]


def test_several_are_added_up_by_their_weights(work: Work) -> None:
    score = open_rewards(work, [part("letters"), part("words", weight=-0.5)])
    assert score([asked("a?", "one two", "three")]) == [[6 - 0.5 * 2, 5 - 0.5 * 1]]


def test_equal_answers_are_judged_once_and_a_prompt_asked_twice_is_two(work: Work) -> None:
    score = open_rewards(work, [part("letters")])
    assert score([asked("a?", "no", "yes", "no"), asked("a?", "no", "no", "no")]) == [[2.0, 3.0, 2.0], [2.0] * 3]
    assert ASKED == [("a?", ["no", "yes"]), ("a?", ["no"])]


def test_no_prompts_at_all_are_no_scores(work: Work) -> None:
    """A process may have none of an update's prompts."""
    assert open_rewards(work, [part("letters")])([]) == []


# ------------------------------------------------------------------------------------------------------- chat judges


Script = Callable[[str], str]


def scripted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: Script, both_orders: bool = True) -> list[str]:
    """Real pairwise and rubric judges over a chat model that follows a script; returns what it is shown."""
    shown: list[str] = []

    def answer(messages: tuple[Message, ...], sample: int) -> str:
        shown.append(messages[0].content)
        return script(messages[0].content)

    def open_judge(work: Work, settings: Judge, endpoint: object) -> OpenJudge:
        chat, cache = ScriptedChat(answer), Cache(tmp_path / "cache.sqlite")
        if isinstance(settings, PairwiseJudge):
            template = Template("{prompt}|{first}|{second}")
            return pairwise.PairwiseJudge(
                "pairwise", chat, template, both_orders=both_orders, max_new_tokens=9, cache=cache, seed=0
            )
        template = Template("{prompt}|{response}|{lowest}|{highest}")
        return rubric.RubricJudge("rubric", chat, template, lowest=1, highest=10, max_new_tokens=9, cache=cache, seed=0)

    monkeypatch.setattr(rewards, "open_judge", open_judge)
    return shown


def longer(shown: str) -> str:
    _, first, second = shown.split("|")
    return "A" if len(first) > len(second) else "B" if len(second) > len(first) else "tie"


def test_comparisons_become_strengths(work: Work, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shown = scripted(monkeypatch, tmp_path, longer)
    score = open_rewards(work, [part(PairwiseJudge(kind="pairwise"), weight=2.0)])
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


def test_what_cannot_be_read_is_no_score(work: Work, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scripted(monkeypatch, tmp_path, lambda shown: "who knows" if "bad" in shown else "7")
    settings = RubricJudge(kind="rubric")
    assert open_rewards(work, [part(settings)])([asked("a?", "good", "bad")]) == [[7.0, None]]
    # And none of the sum either.
    both = open_rewards(work, [part(settings), part(settings, weight=0.5)])
    assert both([asked("a?", "good", "bad", "good")]) == [[10.5, None, 10.5]]


def test_no_score_for_any_answer_is_the_judges_failure(work: Work, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scripted(monkeypatch, tmp_path, lambda shown: "who knows")
    with pytest.raises(JudgeError, match=r"not one of 2 sampled answers got a score from rubric"):
        open_rewards(work, [part(RubricJudge(kind="rubric"))])([asked("a?", "good", "bad", "good")])


# --------------------------------------------------------------------------------------------------- several processes


def on_two(monkeypatch: pytest.MonkeyPatch, score: Callable[[], Rewards], everything: Sequence[SampledPrompt]) -> list[Any]:
    """What two processes make of prompts that they take in turn."""
    return as_processes(monkeypatch, 2, lambda rank: score()(everything[rank::2]), knows_rank=[rewards])


def test_scores_do_not_depend_on_the_number_of_processes(work: Work, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A judge that is asked in one order, and likes what is shown first where two are close."""

    def biased(shown: str) -> str:
        _, first, second = shown.split("|")
        return "B" if len(second) > len(first) + 2 else "A"

    scripted(monkeypatch, tmp_path, biased, both_orders=False)
    everything = [asked(f"{n % 5}?", *("x" * length for length in (1 + n, 3, 4 + n % 4, 9))) for n in range(8)]  # some twice
    open_judge = lambda: open_rewards(work, [part(PairwiseJudge(kind="pairwise"))])  # noqa: E731
    alone = open_judge()(everything)
    first, second = on_two(monkeypatch, open_judge, everything)
    assert first == alone[::2]
    assert second == alone[1::2]


def test_one_processs_unscored_answers_end_nothing(work: Work, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scripted(monkeypatch, tmp_path, lambda shown: "who knows" if "bad" in shown else "7")
    found = on_two(
        monkeypatch, lambda: open_rewards(work, [part(RubricJudge(kind="rubric"))]), [asked("a?", "good"), asked("b?", "bad")]
    )
    assert found == [[[7.0]], [[None]]]


def test_no_score_for_any_answer_of_any_process_ends_all(work: Work, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scripted(monkeypatch, tmp_path, lambda shown: "who knows")
    everything = [asked("a?", "x"), asked("b?", "y", "z"), asked("c?", "u")]
    found = on_two(monkeypatch, lambda: open_rewards(work, [part(RubricJudge(kind="rubric"))]), everything)
    assert all(isinstance(error, JudgeError) and "not one of 4 sampled answers" in str(error) for error in found)


def test_a_judge_that_fails_in_one_process_ends_all_with_its_words(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    found = on_two(
        monkeypatch, lambda: open_rewards(work, [part("picky"), part("letters")]), [asked("a?", "good"), asked("b?", "bad")]
    )
    assert [type(error) for error in found] == [JudgeError, JudgeError]
    assert all("raised ValueError: not that one" in str(error) for error in found)


# -------------------------------------------------------------------------------------------------------- local models


def test_the_runs_reward_model_scores_as_it_does_elsewhere(work: Work, tmp_path: Path) -> None:
    pointer = ModelPointer(path=str(write_tiny_model(tmp_path / "trunk")), layout="chat")
    made = new_reward_model(pointer, seed=1)
    folder = tmp_path / "made"
    made.model.save_pretrained(folder / "model")
    made.conversation.tokenizer.save_pretrained(folder / "model")
    ModelPointer(path="model", layout="chat").write(folder)
    inside = Work(work.folder, {REWARD_MODEL: folder}, {REWARD_MODEL: "x"}, work.caches, work.runtime, 0)
    (found,) = open_rewards(inside, [part(None, weight=3.0)])([asked("No?", "blue", "Paris")])
    conversation = made.conversation
    group = TokenGroup(conversation.prompt_ids(user("No?")), [conversation.response_ids(text) for text in ("blue", "Paris")])
    (expected,) = score_rewards(made, [group], 1)
    assert found == pytest.approx([3 * value for value in expected.rewards], abs=1e-5)


def test_each_part_sees_its_own_models() -> None:
    inputs = {"start": Path("s"), "reward 0: judge model": Path("zero"), "reward 1: judge model": Path("one")}
    work = Work(Path("f"), inputs, {name: str(path) for name, path in inputs.items()}, Path("c"), Runtime(), 0)
    for number, path in enumerate(("zero", "one")):
        seen = for_part(work, f"reward {number}: ")
        assert seen.inputs["judge model"] == Path(path)
        assert seen.identities["judge model"] == path
        assert seen.inputs["start"] == Path("s")
    assert "judge model" not in work.inputs


def test_an_empty_prefix_changes_nothing(work: Work) -> None:
    assert for_part(work, "") == work


def test_scores_stand_in_the_order_of_the_answers(work: Work) -> None:
    texts: Sequence[str] = ["x" * n for n in (5, 1, 4, 2)]
    assert open_rewards(work, [part("letters")])([asked("a?", *texts)]) == [[5.0, 1.0, 4.0, 2.0]]
