import re
from collections.abc import Callable
from typing import Any

import pytest

from aligndistill.chat.endpoint import EndpointChat
from aligndistill.chat.scripted import ScriptedChat
from aligndistill.errors import JudgeError
from aligndistill.judges.listwise import ListwiseJudge
from aligndistill.judges.parsing import parse_order
from aligndistill.judges.protocol import Judged, Task
from aligndistill.judges.questions import JudgeOptions
from aligndistill.judges.templates import LISTWISE_FIELDS, load_template
from aligndistill.preferences.scores import scores_from_comparisons
from aligndistill.records import Comparison
from tests.chat.fault_server import Act, FaultServer, completion
from tests.judges.tasks import task

TEMPLATE = load_template("listwise", LISTWISE_FIELDS)
SHOWN = re.compile(r"\[Start of answer (\w) (?P<mark>\w+)\]\n(.*?)\n\[End of answer \1 (?P=mark)\]", re.DOTALL)


def shown(text: str) -> dict[str, str]:
    """The answers of a request, by letter."""
    return {letter: answer for letter, _, answer in SHOWN.findall(text)}


def scripted(reply: Callable[[dict[str, str], int], str]) -> ScriptedChat:
    return ScriptedChat(lambda messages, sample: reply(shown(messages[-1].content), sample))


def longest_first(answers: dict[str, str], sample: int) -> str:
    return " > ".join(sorted(answers, key=lambda letter: -len(answers[letter])))


def comparisons(judged: Judged) -> list[Comparison]:
    return [verdict for verdict in judged.verdicts if isinstance(verdict, Comparison)]


def by_text(asked: Task, judged: Judged) -> dict[tuple[str, str], float | None]:
    texts = {candidate.id: candidate.text for candidate in asked.candidates}
    return {(texts[one.first], texts[one.second]): one.probability_first for one in comparisons(judged)}


def test_two_lists_each_the_others_reverse_give_all_pairs_in_both_orders() -> None:
    lists: list[list[str]] = []

    def reply(answers: dict[str, str], sample: int) -> str:
        lists.append(list(answers.values()))
        return longest_first(answers, sample)

    asked = task("why", "x", "yy", "zzz", "uuuu")
    (judged,) = ListwiseJudge("j", scripted(reply), TEMPLATE).judge([asked])
    assert lists[0] == lists[1][::-1]
    found = by_text(asked, judged)
    assert len(found) == len(comparisons(judged)) == 12
    assert all(probability == float(len(first) > len(second)) for (first, second), probability in found.items())
    assert sum(one.usage.calls for one in comparisons(judged)) == 2
    scores = scores_from_comparisons(comparisons(judged))
    assert sorted(scores, key=lambda one: scores[one]) == [candidate.id for candidate in asked.candidates]


def test_a_preference_for_a_place_cancels() -> None:
    asked = task("why", "x", "yy", "zzz")
    (judged,) = ListwiseJudge("j", scripted(lambda answers, _: " > ".join(answers)), TEMPLATE).judge([asked])
    assert list(scores_from_comparisons(comparisons(judged)).values()) == pytest.approx([0, 0, 0], abs=1e-9)


def test_equals_and_several_replies_make_soft_verdicts() -> None:
    replies = ["A > B = C", "B > A > C", "nonsense"]
    judge = ListwiseJudge(
        "j", scripted(lambda _, sample: replies[sample]), TEMPLATE, both_orders=False, options=JudgeOptions(samples=3)
    )
    (judged,) = judge.judge([task("why", "x", "yy", "zzz")])
    assert [one.probability_first for one in comparisons(judged)] == [0.5, 1.0, 0.75]  # A B, A C, B C
    assert [one.outcome for one in comparisons(judged)] == ["tie", "first", "first"]


@pytest.mark.parametrize("reply", ["A > B", "A > B > C > D", "A > A > B", "no idea", "A > B > C\nC > B > A"])
def test_a_list_that_is_no_order_of_all_is_unparsed(reply: str) -> None:
    (judged,) = ListwiseJudge("j", scripted(lambda *_: reply), TEMPLATE).judge([task("why", "x", "yy", "zzz")])
    assert {(one.outcome, one.probability_first, one.reply) for one in comparisons(judged)} == {("unparsed", None, reply)}


def test_an_order_of_fewer_answers_than_were_shown_is_asked_for_again_though_another_list_is_as_short() -> None:
    wrong_first: set[str] = set()

    def behave(body: dict[str, Any], _: int) -> Act:
        messages = body["messages"]
        letters = [letter for letter, _, _ in SHOWN.findall(messages[0]["content"])]
        if len(letters) == 3 and len(messages) == 1:  # the first try
            wrong_first.add(messages[0]["content"])
            return completion("B > A")
        return completion(" > ".join(letters))

    with FaultServer(behave) as server:
        judge = ListwiseJudge("j", EndpointChat(server.config()), TEMPLATE)
        found = [comparisons(judged) for judged in judge.judge([task("one", "x", "yy", "zzz"), task("two", "x", "yy")])]
    assert len(wrong_first) == 2
    assert sorted(len(of_task) for of_task in found) == [2, 6]
    assert {one.outcome for of_task in found for one in of_task} == {"first"}


def test_only_the_answers_of_the_named_pairs_are_listed() -> None:
    lists: list[set[str]] = []

    def reply(answers: dict[str, str], sample: int) -> str:
        lists.append(set(answers.values()))
        return longest_first(answers, sample)

    whole = task("why", "x", "yy", "zzz", "uuuu")
    asked = Task(whole.prompt_id, whole.messages, whole.candidates, pairs=((0, 1), (0, 3)))
    (judged,) = ListwiseJudge("j", scripted(reply), TEMPLATE, both_orders=False).judge([asked])
    assert lists == [{"x", "yy", "uuuu"}]
    assert {frozenset(pair) for pair in by_text(asked, judged)} == {frozenset(("x", "yy")), frozenset(("x", "uuuu"))}


def test_tasks_with_nothing_to_compare_are_yielded_and_too_many_answers_are_an_error() -> None:
    judge = ListwiseJudge("j", scripted(longest_first), TEMPLATE)
    assert [judged.verdicts for judged in judge.judge([task("one", "x"), task("none")])] == [(), ()]
    with pytest.raises(JudgeError, match="at most 26 answers, and a prompt has 27"):
        list(judge.judge([task("why", *(f"answer {number}" for number in range(27)))]))


@pytest.mark.parametrize(
    ("reply", "order"),
    [
        ("B > A > C", ["B", "A", "C"]),
        ("b>a>c", ["B", "A", "C"]),
        ("[[C > A = B]]", ["C", "AB"]),
        ("A is fine.\n\n[[B > A > C]]", ["B", "A", "C"]),
        ('{"ranking": ["C", "B", "A"]}', ["C", "B", "A"]),
        ('{"ranking": ["C", "B"]}', None),
        ('{"ranking": [3, 2, 1]}', None),
        ("<think>A > B > C</think>C > B > A", ["C", "B", "A"]),
        ("A", None),
        ("", None),
    ],
)
def test_orders_in_replies(reply: str, order: list[str] | None) -> None:
    found = parse_order(reply, "ABC")
    assert (None if found is None else [set(group) for group in found]) == (None if order is None else [set(one) for one in order])
