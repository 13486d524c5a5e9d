"""Grades by who wrote a candidate, where that is known to decide: demonstrations before the model's own answers."""

from collections.abc import Iterator, Sequence

from aligndistill.judges.protocol import Judged, Task
from aligndistill.records import Grade


class AuthorJudge:
    """Grades 1 the candidates of one author, and 0 all others."""

    def __init__(self, name: str, best: str) -> None:
        self.name = name
        self._best = best

    def judge(self, tasks: Sequence[Task]) -> Iterator[Judged]:
        """See `Judge`."""
        for task in tasks:
            yield Judged(task.prompt_id, tuple(self._grade(task.prompt_id, one.id, one.author) for one in task.candidates))

    def _grade(self, prompt: str, candidate: str, author: str) -> Grade:
        return Grade(prompt_id=prompt, candidate=candidate, value=float(author == self._best), judge=self.name)
