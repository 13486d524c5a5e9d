"""Grades computed by a user's function."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any

from aligndistill.config.plugins import shown
from aligndistill.errors import JudgeError, UserError
from aligndistill.judges.protocol import Judged, Task
from aligndistill.records import Grade, Usage, plain_prompt

GradingFunction = Callable[[str, list[str]], Sequence[float]]
"""`(prompt, responses) -> grades`, one finite number per response, higher is better."""


class FunctionJudge:
    """Grades the candidates of each task with one call of a function."""

    def __init__(self, name: str, function: GradingFunction) -> None:
        self.name = name
        self._function = function

    def judge(self, tasks: Sequence[Task]) -> Iterator[Judged]:
        """See `Judge`. The call is counted on the task's first grade.

        Raises:
            JudgeError: the function raised, or did not return one finite number per response.
        """
        for task in tasks:
            grades = tuple(
                Grade(
                    prompt_id=task.prompt_id,
                    candidate=candidate.id,
                    value=value,
                    judge=self.name,
                    usage=Usage(calls=1 if place == 0 else 0),
                )
                for place, (candidate, value) in enumerate(zip(task.candidates, self._values(task), strict=True))
            )
            yield Judged(task.prompt_id, grades)

    def _values(self, task: Task) -> list[float]:
        texts = [candidate.text for candidate in task.candidates]
        return scores_of(
            f"the judge function {_name(self._function)}", self._function, plain_prompt(task.messages), texts, JudgeError
        )


def scores_of(who: str, function: GradingFunction, prompt: str, responses: Sequence[str], error: type[UserError]) -> list[float]:
    """What the function returns for a prompt: one finite number per response, numbers of numpy and torch and booleans included.

    Args:
        who: names the function in the message.

    Raises:
        UserError: of the type `error`: the function raised, or returned something else.
    """
    where = f"{who}, on the prompt {shown(prompt)},"
    try:
        returned: Any = function(prompt, list(responses))
        values = returned.tolist() if hasattr(returned, "tolist") else returned  # arrays and tensors
        is_ordered = isinstance(values, Iterable) and not isinstance(values, Mapping | Set)
        scores = [_number(value) for value in values] if is_ordered else []
    except Exception as raised:
        raise error(f"{where} raised {type(raised).__name__}: {raised}") from raised
    if len(scores) != len(responses) or not all(map(math.isfinite, scores)):
        raise error(
            f"{where} returned {shown(returned)}. It must return a list of {len(responses)} finite numbers, one per response."
        )
    return scores


def _number(value: Any) -> float:
    """The value as a float; NaN if it is not a number (text that contains a number is not)."""
    try:
        return float(value) if hasattr(value, "__float__") else math.nan
    except (TypeError, ValueError, RuntimeError, OverflowError):  # arrays and tensors of several numbers, huge integers
        return math.nan


def _name(function: Callable[..., Any]) -> str:
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    return f"{module}:{name}" if module and name else repr(function)
