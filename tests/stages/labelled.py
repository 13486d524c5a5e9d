"""The stage `verdicts` by itself, with a scripted teacher in the place of a server."""

import json
from collections.abc import Callable
from pathlib import Path

from aligndistill.chat.scripted import ScriptedChat
from aligndistill.config.audit import Audit
from aligndistill.config.judges import PairwiseJudge
from aligndistill.config.models import EndpointModel
from aligndistill.config.run import Runtime
from aligndistill.records import Candidate, Message, Prompt, prompt_id
from aligndistill.stages.audit import make_audit
from aligndistill.stages.context import Work
from aligndistill.stages.opening import JUDGE_MODEL
from aligndistill.stages.verdicts import make_verdicts
from aligndistill.store.jsonl import write_jsonl

SERVER = {"kind": "endpoint", "base_url": "http://localhost:1/v1", "name": "teacher"}
SERVERS = {JUDGE_MODEL: EndpointModel.model_validate(SERVER)}
TEMPLATE = "{prompt}\n<<{first}||{second}>>"
WORDS = ("I", "think that", "it is", "the answer number", "of a long list", "which somebody wrote down here")

Teacher = Callable[[str, str, str], str]
"""(prompt, first, second) -> reply."""


def shown(text: str) -> tuple[str, str, str]:
    """What TEMPLATE was filled with."""
    prompt, _, answers = text.partition("\n<<")
    first, _, second = answers.removesuffix(">>").partition("||")
    return prompt, first, second


def chat(teacher: Teacher) -> ScriptedChat:
    return ScriptedChat(lambda messages, sample: teacher(*shown(messages[-1].content)), identity=f"scripted {id(teacher)}")


def work_of(folder: Path, prompts: int = 60, answers: int = 3) -> Work:
    """Prompts and candidates, whose lengths say nothing about their place."""
    (folder / "in").mkdir(parents=True)
    (folder / "template.txt").write_text(TEMPLATE)
    messages = [(Message(role="user", content=f"What is question {number}?"),) for number in range(prompts)]
    rows = [
        Prompt(id=prompt_id(one), messages=one, source="x", split="held_out" if number % 5 == 0 else "train")
        for number, one in enumerate(messages)
    ]
    candidates = [
        Candidate(
            id=f"{row.id}-{(place * 7 + number) % answers}",
            prompt_id=row.id,
            text=" ".join([*WORDS[: (place * 5 + number) % len(WORDS) + 1], f"{number}.{place}."]),
            author="start",
        )
        for number, row in enumerate(rows)
        for place in range(answers)
    ]
    write_jsonl(folder / "in" / "prompts.jsonl", rows)
    write_jsonl(folder / "in" / "candidates.jsonl", candidates)
    return Work(
        folder=folder,
        inputs={"prompts": folder / "in", "candidates": folder / "in", "verdicts": folder},
        identities={},
        caches=folder / "caches",
        runtime=Runtime(),
        seed=0,
    )


def judge_of(folder: Path) -> PairwiseJudge:
    return PairwiseJudge.model_validate({"kind": "pairwise", "model": SERVER, "template": str(folder / "template.txt")})


def with_teacher(work: Work, teacher: Teacher) -> Work:
    scripted = chat(teacher)
    return Work(**{**vars(work), "open_endpoint": lambda _: scripted})


def labelled(work: Work, teacher: Teacher, settings: Audit | None = None) -> Work:
    """The same work, its verdicts made."""
    judge = judge_of(work.folder)
    make_verdicts(with_teacher(work, teacher), judge, SERVERS, "", (settings or Audit()).probes)
    return work


def audited(work: Work, teacher: Teacher, settings: Audit | None = None) -> dict[str, object]:
    """audit.json of a teacher's verdicts."""
    make_audit(labelled(work, teacher, settings), settings or Audit(), None, None, ())
    found: dict[str, object] = json.loads((work.folder / "audit.json").read_text())
    return found
