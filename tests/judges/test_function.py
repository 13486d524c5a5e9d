import math

import numpy as np
import pytest
import torch

from aligndistill.errors import JudgeError
from aligndistill.judges.function import FunctionJudge
from aligndistill.records import Message
from tests.judges.tasks import task


def judge(function, *texts: str):
    return FunctionJudge("by length", function).judge([task("why?", *texts)])


def test_one_call_per_task_with_the_plain_prompt_and_the_texts_in_order() -> None:
    calls: list[tuple[str, list[str]]] = []

    def length(prompt: str, responses: list[str]) -> list[float]:
        calls.append((prompt, responses))
        return [float(len(response)) for response in responses]

    turns = (Message(role="system", content="be kind"), Message(role="user", content="why?"))
    tasks = [task("one", "a", "bbb", "cc"), task(turns, "dddd")]
    first, second = FunctionJudge("by length", length).judge(tasks)
    assert calls == [("one", ["a", "bbb", "cc"]), ("System: be kind\n\nUser: why?", ["dddd"])]
    assert [(grade.candidate, grade.value, grade.usage.calls) for grade in first.verdicts] == [
        (candidate.id, value, calls)
        for candidate, value, calls in zip(tasks[0].candidates, (1.0, 3.0, 2.0), (1, 0, 0), strict=True)
    ]
    assert (second.prompt_id, [grade.value for grade in second.verdicts]) == (tasks[1].prompt_id, [4.0])
    assert {grade.judge for grade in first.verdicts} == {"by length"}


@pytest.mark.parametrize(
    "returned",
    [
        [0.5, 1],
        (0.5, 1),
        np.array([0.5, 1.0]),
        torch.tensor([0.5, 1.0]),
        [np.float32(0.5), torch.tensor(1)],
        [0.5, True],
        [np.float64(0.5), np.bool_(True)],
        (value for value in (0.5, 1)),
    ],
)
def test_numbers_in_their_many_forms(returned: object) -> None:
    (judged,) = judge(lambda prompt, responses: returned, "a", "b")
    assert [grade.value for grade in judged.verdicts] == [0.5, 1.0]


@pytest.mark.parametrize(
    "returned",
    [
        None, 0.5, "12", [0.5], [0.5, 1, 2], [0.5, None], [0.5, "1"], [0.5, math.nan], [0.5, math.inf], [[0.5], [1.0]],
        {0.5, 1.0}, {1: 0.5, 2: 1.0}, np.zeros((2, 1)), [torch.zeros(2), 1.0], [10**400, 1],
    ],
    ids=lambda value: repr(value)[:20],
)  # fmt: skip
def test_anything_else_is_refused_with_function_prompt_and_value(returned: object) -> None:
    def mine(prompt: str, responses: list[str]) -> object:
        return returned

    with pytest.raises(JudgeError, match=r"test_function:.*mine, on the prompt 'why\?', returned .*list of 2 finite") as caught:
        list(judge(mine, "a", "b"))
    assert " ".join(repr(returned).split())[:50] in str(caught.value)


def test_an_exception_in_the_function_is_shown_with_its_origin() -> None:
    def mine(prompt: str, responses: list[str]) -> list[float]:
        raise KeyError("capital")

    with pytest.raises(JudgeError, match=r"mine, on the prompt 'why\?', raised KeyError: 'capital'") as caught:
        list(judge(mine, "a"))
    assert isinstance(caught.value.__cause__, KeyError)


def test_verdicts_that_came_before_the_failure_are_yielded() -> None:
    judged = FunctionJudge("f", lambda prompt, responses: [1.0] if prompt == "good" else []).judge(
        [task("good", "a"), task("bad", "a")]
    )
    assert next(judged).verdicts[0].value == 1.0
    with pytest.raises(JudgeError, match="'bad'"):
        next(judged)
