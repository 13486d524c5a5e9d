import math
from collections.abc import Callable
from pathlib import Path

import pytest

from aligndistill.chat.endpoint import EndpointChat
from aligndistill.chat.scripted import ScriptedChat
from aligndistill.errors import ConfigError
from aligndistill.judges.pairwise import PairwiseJudge
from aligndistill.judges.rubric import RubricJudge
from aligndistill.judges.templates import Template
from aligndistill.records import Usage
from aligndistill.store.cache import Cache
from tests.chat.fault_server import FaultServer, completion
from tests.judges.tasks import task

TEMPLATE = Template("{prompt}|{response}|{lowest}-{highest}")


def scripted(reply: Callable[[str], str]) -> ScriptedChat:
    return ScriptedChat(lambda messages, sample: reply(messages[0].content))


def test_every_candidate_is_graded_by_itself_from_the_reply() -> None:
    asked: list[str] = []

    def reply(text: str) -> str:
        asked.append(text)
        return {"x": "3", "yy": "Score: 4/5"}.get(text.split("|")[1], "no idea")

    one = task("why", "x", "yy", "zzz")
    (judged,) = RubricJudge("j", scripted(reply), TEMPLATE, lowest=1, highest=5).judge([one])
    assert asked == ["why|x|1-5", "why|yy|1-5", "why|zzz|1-5"]
    assert [grade.candidate for grade in judged.verdicts] == [candidate.id for candidate in one.candidates]
    assert [grade.value for grade in judged.verdicts] == [3.0, 4.0, None]
    assert [grade.reply for grade in judged.verdicts] == ["3", "Score: 4/5", "no idea"]
    assert judged.verdicts[0].usage == Usage(calls=1, prompt_tokens=1, completion_tokens=1)


def test_a_grade_is_the_expected_value_over_the_labels() -> None:
    def label(messages: object, labels: object) -> tuple[float, ...]:
        assert labels == ("-1", "0", "1", "2")
        return (math.log(0.1), math.log(0.1), math.log(0.2), math.log(0.4))  # 0.2 of the probability is elsewhere

    chat = ScriptedChat(lambda messages, sample: "never", label)
    (judged,) = RubricJudge("j", chat, TEMPLATE, lowest=-1, highest=2).judge([task("why", "x")])
    (grade,) = judged.verdicts
    assert grade.value == pytest.approx((-1 * 0.1 + 0 * 0.1 + 1 * 0.2 + 2 * 0.4) / 0.8)
    assert grade.reply is None


@pytest.mark.parametrize(("first_tokens", "value"), [({"7": 0.5, "10": 0.5}, 8.5), ({"7": 0.5, "1": 0.5}, 10.0)])
def test_a_one_that_may_continue_to_ten_is_asked_for_as_text(first_tokens: dict[str, float], value: float) -> None:
    padded = {**first_tokens, **{str(grade): 1e-9 for grade in range(2, 10) if str(grade) not in first_tokens}}
    with FaultServer(lambda body, _: completion(*(("7", "stop", padded) if "logprobs" in body else ("10",)))) as server:
        (judged,) = RubricJudge("j", EndpointChat(server.config()), TEMPLATE).judge([task("why", "x")])
    assert judged.verdicts[0].value == pytest.approx(value, abs=1e-6)


def test_grades_are_cached_and_unreadable_ones_asked_for_again(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache.sqlite")
    asked: list[str] = []

    def reply(text: str) -> str:
        asked.append(text)
        return "7" if "|x|" in text else "no idea"

    for _ in range(2):
        (judged,) = RubricJudge("j", scripted(reply), TEMPLATE, cache=cache).judge([task("why", "x", "y")])
        assert [grade.value for grade in judged.verdicts] == [7.0, None]
    assert asked == ["why|x|1-10", "why|y|1-10", "why|y|1-10"]


def test_a_reply_off_the_scale_is_no_grade_even_when_it_was_one_on_another_scale(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache.sqlite")
    fixed = Template("{prompt}|{response}")
    values = []
    for highest in (10, 5):
        (judged,) = RubricJudge("j", scripted(lambda text: "7"), fixed, highest=highest, cache=cache).judge([task("why", "x")])
        values.append(judged.verdicts[0].value)
    assert values == [7.0, None]


def test_kinds_of_judges_do_not_share_answers(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache.sqlite")
    asked: list[str] = []

    def reply(text: str) -> str:
        asked.append(text)
        return "A"

    same = Template("the same text for all")
    list(PairwiseJudge("j", scripted(reply), same, cache=cache, both_orders=False).judge([task("why", "x", "y")]))
    (judged,) = RubricJudge("j", scripted(reply), same, cache=cache).judge([task("why", "x")])
    assert judged.verdicts[0].value is None
    assert len(asked) == 2


@pytest.mark.parametrize(("lowest", "highest"), [(5, 5), (10, 1)])
def test_a_scale_must_go_up(lowest: int, highest: int) -> None:
    with pytest.raises(ConfigError, match=rf"'lowest' \({lowest}\) must be less than 'highest' \({highest}\)"):
        RubricJudge("j", scripted(str), TEMPLATE, lowest=lowest, highest=highest)
