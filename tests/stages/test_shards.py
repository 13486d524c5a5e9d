"""The files of all processes of a stage that was killed in the middle of a line, when fewer processes resume it."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from aligndistill.chat.protocol import SamplingParams
from aligndistill.config.judges import Function
from aligndistill.config.models import FunctionModel
from aligndistill.config.run import Runtime
from aligndistill.errors import DataError
from aligndistill.judges.protocol import Task
from aligndistill.records import Candidate, Grade, Message, Prompt, Usage
from aligndistill.stages.context import StageContext
from aligndistill.stages.sampling import SamplingJob, StoredSample, sample_answers
from aligndistill.stages.verdicts import JudgedTask, judged_tasks

NAMES = ["p0", "p1", "p2", "p3"]
MAIN, OTHER = "work.jsonl", "work.part-1.jsonl"


def answer(messages: list[dict[str, str]], sample: int, seed: int) -> str:
    return "new"


def length(prompt: str, responses: list[str]) -> list[float]:
    return [1.0 for _ in responses]


def sample(name: str) -> StoredSample:
    return StoredSample(prompt_id=name, author="m", sample=0, text="old", finish="stop", usage=Usage())


def judged(name: str) -> JudgedTask:
    return JudgedTask(prompt_id=name, verdicts=(Grade(prompt_id=name, candidate=name, value=0.5, judge="j"),))


def resumed_samples(context: StageContext) -> dict[str, object]:
    prompts = {one: Prompt(id=one, messages=(Message(role="user", content=one),), source="x", split="train") for one in NAMES}
    author = FunctionModel(kind="function", function=f"{__name__}:answer")
    job = SamplingJob(prompts, 1, 100, SamplingParams(1.0, 10, 0))
    found = sample_answers(context, "m", author, job, context.scratch / MAIN).samples
    return {prompt: one.text for (prompt, _), one in found.items()}


def resumed_verdicts(context: StageContext) -> dict[str, object]:
    candidates = {one: Candidate(id=one, prompt_id=one, text="a", author="m") for one in NAMES}
    tasks = {one: Task(one, (Message(role="user", content=one),), (candidates[one],)) for one in NAMES}
    judge = Function(kind="function", function=f"{__name__}:length")
    found = judged_tasks(context, judge, {}, tasks, 0, Path(MAIN).stem)
    return {name: verdict.value for name, one in found.items() for verdict in one.verdicts if isinstance(verdict, Grade)}


@pytest.fixture
def context(tmp_path: Path) -> StageContext:
    (tmp_path / "stage/scratch").mkdir(parents=True)
    return StageContext(name="candidates", folder=tmp_path / "stage", caches=tmp_path / "caches", runtime=Runtime())


@pytest.mark.parametrize("torn", [MAIN, OTHER])
@pytest.mark.parametrize(
    ("record", "resume", "old", "new"), [(sample, resumed_samples, "old", "new"), (judged, resumed_verdicts, 0.5, 1.0)]
)
def test_what_is_whole_in_each_file_is_kept_and_the_torn_line_is_made_again(context, torn, record, resume, old, new) -> None:
    for file, first, second in ((MAIN, "p0", "p1"), (OTHER, "p2", "p3")):
        rest = line(record(second))[: 40 if file == torn else None]
        (context.scratch / file).write_bytes(line(record(first)) + rest)
    lost = "p1" if torn == MAIN else "p3"
    for _ in range(2):  # and once more, with what was made again in the file of this process
        assert resume(context) == {name: new if name == lost else old for name in NAMES}


@pytest.mark.parametrize(("record", "resume"), [(sample, resumed_samples), (judged, resumed_verdicts)])
def test_a_damaged_line_before_the_last_is_an_error(context, record, resume) -> None:
    (context.scratch / OTHER).write_bytes(line(record("p0"))[:40] + b"\n" + line(record("p1")))
    with pytest.raises(DataError, match=r"work\.part-1\.jsonl:1: this line is damaged"):
        resume(context)


def line(record: BaseModel) -> bytes:
    return record.model_dump_json().encode() + b"\n"
