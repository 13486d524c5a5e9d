"""The stage `verdicts` by itself, with a scripted teacher in the place of a server."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from aligndistill.chat.scripted import ScriptedChat
from aligndistill.commands.batch_files import Labelling
from aligndistill.config.audit import Audit, AuditProbes, AuditSettings
from aligndistill.config.judges import Judge, Pairwise
from aligndistill.config.models import EndpointModel
from aligndistill.config.run import Runtime
from aligndistill.records import Candidate, Message, Prompt, prompt_id
from aligndistill.stages import audit, verdicts
from aligndistill.stages.context import ModelSource, StageContext
from aligndistill.store.jsonl import write_jsonl

SERVER = {"kind": "endpoint", "base_url": "http://localhost:1/v1", "name": "teacher"}
MODELS: dict[str, ModelSource] = {"judge": EndpointModel.model_validate(SERVER)}
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


def context_in(folder: Path, prompts: int = 60, answers: int = 3) -> StageContext:
    """A stage's, with prompts and candidates (see `inputs_of`), whose lengths say nothing about their place."""
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
    return StageContext(name="verdicts", folder=folder, caches=folder / "caches", runtime=Runtime())


def inputs_of(context: StageContext) -> dict[str, Path]:
    """The stages that labelling reads."""
    return {"prompts": context.folder / "in", "candidates": context.folder / "in"}


def judge_of(folder: Path) -> Pairwise:
    return Pairwise.model_validate({"kind": "pairwise", "model": "judge", "template": str(folder / "template.txt")})


def with_teacher(context: StageContext, teacher: Teacher) -> StageContext:
    scripted = chat(teacher)
    return replace(context, open_endpoint=lambda _: scripted)


def labelling_of(context: StageContext, judge: Judge, models: Mapping[str, ModelSource], probes: AuditProbes) -> Labelling:
    """The inputs of the stage `verdicts`."""
    return Labelling(context, {"judge": judge, "models": models, "probes": probes, **inputs_of(context), "seed": 0})


def label(context: StageContext, judge: Judge, models: Mapping[str, ModelSource], probes: AuditProbes) -> None:
    """Make the verdicts."""
    verdicts.make(context, **labelling_of(context, judge, models, probes).arguments)


def labelled(context: StageContext, teacher: Teacher, settings: Audit | None = None) -> StageContext:
    """The same context, its verdicts made."""
    label(with_teacher(context, teacher), judge_of(context.folder), MODELS, (settings or Audit()).probes)
    return context


def audit_of(context: StageContext, settings: Audit) -> None:
    """Audit the verdicts that were made there."""
    limits = AuditSettings(labels=settings.labels, warn=settings.warn, stop=settings.stop)
    audit.make(context, settings=limits, **inputs_of(context), verdicts=context.folder)


def audited(context: StageContext, teacher: Teacher, settings: Audit | None = None) -> dict[str, object]:
    """audit.json of a teacher's verdicts."""
    audit_of(labelled(context, teacher, settings), settings or Audit())
    found: dict[str, object] = json.loads((context.folder / "audit.json").read_text())
    return found
