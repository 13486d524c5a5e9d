from collections.abc import Mapping
from pathlib import Path

from aligndistill.runs.expected import Remaining, remaining
from aligndistill.stages.context import StageContext
from aligndistill.store.stage import StageResult, stage


def train(context: StageContext, *, number: int) -> StageResult:
    return StageResult()


def answer(context: StageContext, *, number: int, inputs: Mapping[str, Path] | None = None) -> StageResult:
    return StageResult()


def test_what_is_left_is_told_by_the_same_kind() -> None:
    students = [stage(f"student-{number}", train, number=number) for number in range(4)]
    answers = [stage(f"answers-{number}", answer, number=number) for number in range(2)]
    measured = {students[0]: 10.0, students[1]: 30.0}
    assert remaining(students[2:], measured) == Remaining(40.0, partial=False)
    assert remaining([*students[2:], *answers], measured) == Remaining(40.0, partial=True)
    assert remaining(answers, measured) == Remaining(None, partial=True)
