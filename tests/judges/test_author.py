"""The judge that goes by authors."""

from dataclasses import replace

from aligndistill.judges.author import AuthorJudge
from tests.judges.tasks import task


def test_one_author_is_graded_1_and_all_others_0_whatever_they_say() -> None:
    asked = task("why?", "", "because", "because it is")
    by = ("start", "demonstrations", "teacher")
    written = tuple(one.model_copy(update={"author": author}) for one, author in zip(asked.candidates, by, strict=True))
    (judged,) = AuthorJudge("author", "demonstrations").judge([replace(asked, candidates=written)])
    assert judged.prompt_id == asked.prompt_id
    grades = {one.candidate: one.value for one in judged.verdicts}
    assert grades == {written[0].id: 0.0, written[1].id: 1.0, written[2].id: 0.0}
    assert {one.judge for one in judged.verdicts} == {"author"}
