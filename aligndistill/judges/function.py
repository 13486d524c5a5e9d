"""Grades computed by a user's function."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from aligndistill.config.plugins import shown
from aligndistill.errors import JudgeError
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
        prompt = plain_prompt(task.messages)
        texts = [candidate.text for candidate in task.candidates]
        where = f"the judge function {_name(self._function)}, on the prompt {shown(prompt)},"
        try:
            returned: Any = self._function(prompt, texts)
        except Exception as error:
            raise JudgeError(f"{where} raised {type(error).__name__}: {error}") from error
        values = returned.tolist() if hasattr(returned, "tolist") else returned  # arrays and tensors
        grades = [_number(value) for value in values] if isinstance(values, list | tuple) else []
        if len(grades) != len(texts) or not all(map(math.isfinite, grades)):
            raise JudgeError(
                f"{where} returned {shown(returned)}. It must return a list of {len(texts)} finite numbers, one per response."
            )
        return grades


def _number(value: Any) -> float:
    """The value as a float; NaN if it is not a number (text that contains a number is not)."""
    try:
        return float(value) if hasattr(value, "__float__") else math.nan
    except (TypeError, ValueError, RuntimeError, OverflowError):  # arrays and tensors of several numbers, huge integers
        return math.nan


def _name(function: Callable[..., Any]) -> str:
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    return f"{module}:{name}" if module and name else repr(function)
