"""A finished run without a model: its files as the stages write them, with a pairwise judge asked in both orders.

Every text is chosen by the caller, so that hostile ones can be placed in each field.
"""

import json
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from aligndistill.evaluation.audit import AuditMetrics, Evidence, audit
from aligndistill.evaluation.intervals import Mean
from aligndistill.records import (
    Answer,
    Canary,
    Candidate,
    Comparison,
    Message,
    Prompt,
    Ranking,
    Response,
    Usage,
    Verdict,
    candidate_id,
    prompt_id,
)
from aligndistill.reporting.report import ModelMetrics, Report, StartMetrics, StudentMetrics, write_report
from aligndistill.stages.files import RolloutSample
from aligndistill.stages.scored_answers import ScoredAnswer

MODELS = ("start", "teacher", "dpo", "ppo")
WORDS = ("alpha", "river", "stone", "green", "seven", "quiet", "light", "north", "paper", "glass")

Text = Callable[[str, str], str]
"""From the name of a field and a default to what is written there."""


def plain(field: str, default: str) -> str:
    return default


@dataclass(frozen=True)
class FakeRun:
    """Where it is, and its records."""

    folder: Path
    prompts: list[Prompt]
    answers: list[ScoredAnswer]
    written: list[Answer]
    verdicts: list[Comparison]
    labelled: list[Comparison]
    canaries: list[Canary]
    second: list[Comparison]

    @property
    def held_out(self) -> list[Prompt]:
        return [prompt for prompt in self.prompts if prompt.split == "held_out"]


def write_run(
    base: Path, name: str = "fake", prompts: int = 40, text: Text = plain, seed: int = 0, measured: bool = True
) -> FakeRun:
    """Write `base/runs/NAME` and its store."""
    made = _records(random.Random(seed), prompts, text, base / "runs" / name)
    store = base / "runs" / "store"
    folders: dict[str, Path] = {}

    def stage(stage_name: str, files: dict[str, Iterable[BaseModel | dict[str, Any]]], **manifest: Any) -> None:
        folder = folders[stage_name] = store / f"{stage_name}-{seed:016x}"
        folder.mkdir(parents=True, exist_ok=True)
        for file, rows in files.items():
            with (folder / file).open("wb") as handle:
                for row in rows:
                    line = json.dumps(row.model_dump() if isinstance(row, BaseModel) else row)
                    handle.write((line + "\n").encode())
        values = {"stage": stage_name, "fingerprint": f"{seed:016x}", "files": {}, "wall_seconds": 1.5, **manifest}
        (folder / "manifest.json").write_text(json.dumps(values))

    candidates, rankings, pairs = _training(made, text)
    stage("prompts", {"prompts.jsonl": made.prompts}, counts={"rows": prompts}, dropped={text("reason", "empty prompt"): 2})
    stage("candidates", {"candidates.jsonl": candidates}, counts={"candidates": len(candidates)}, dropped={"duplicate": 3})
    verdict_files: dict[str, Iterable[BaseModel | dict[str, Any]]] = {
        "verdicts.jsonl": made.labelled,
        "canaries.jsonl": made.canaries,
        "repeats.jsonl": made.labelled[:2],
    }
    stage("verdicts", verdict_files, counts={"verdicts": len(made.labelled)})
    stage("second_verdicts", {"verdicts.jsonl": made.second}, counts={"verdicts": len(made.second)})
    metrics = _audit(made, candidates) if measured else AuditMetrics(verdicts=0, prompts=0)
    warnings = [text("warning", "the longer answer wins in 71%")]
    audited = {"metrics": metrics.model_dump(mode="json"), "warnings": warnings, "stops": []}
    stage("audit", {"audit.json": [audited]}, metrics=audited)
    stage("rankings", {"rankings.jsonl": rankings, "pairs.jsonl": pairs}, counts={"pairs": len(pairs)})
    for student in ("dpo", "ppo"):
        samples = _rollouts(made, text) if student == "ppo" else []
        stage(f"student-{student}", {"metrics.jsonl": _log(student), **({"samples.jsonl": samples} if samples else {})})
    for model in MODELS:
        stage(f"answers-{model}", {"answers.jsonl": [one for one in made.written if one.author == model]})
    stage("evaluation", {"scored.jsonl": made.answers, "verdicts.jsonl": made.verdicts})
    _run_folder(made.folder, folders, base, text, warnings)
    return made


def _records(draw: random.Random, count: int, text: Text, folder: Path) -> FakeRun:
    prompts, answers, written, verdicts, labelled, canaries, second = [], [], [], [], [], [], []
    for number in range(count):
        messages = (Message(role="user", content=text("prompt", f"question {number} about {draw.choice(WORDS)}")),)
        if prompt_id(messages) in {one.id for one in prompts[-1:]}:
            messages = (*messages, Message(role="user", content=str(number)))
        held_out = number % 4 != 3
        source = text("source", "data.jsonl")
        prompt = Prompt(
            id=prompt_id(messages), messages=messages, source=f"{source} row {number}", split="held_out" if held_out else "train"
        )
        prompts.append(prompt)
        of_model = {}
        for model in MODELS if held_out else ():
            same = model == "ppo" and number % 7 == 0
            said = (
                of_model["start"]
                if same
                else text("answer", " ".join(draw.choices(WORDS, k=draw.randint(2, 9))) + f" {model}{number}")
            )
            of_model[model] = said
        keys = {model: candidate_id(prompt.id, "answer", said) for model, said in of_model.items()}
        wins: dict[str, float | None] = {"start": None, "teacher": None}
        for model in ("dpo", "ppo") if held_out else ():
            asked = [] if keys[model] == keys["start"] else _asked(draw, prompt.id, keys[model], keys["start"], text)
            verdicts += asked
            known = [
                one.probability_first if one.first == keys[model] else 1 - (one.probability_first or 0)
                for one in asked
                if one.outcome != "unparsed"
            ]
            wins[model] = 0.5 if keys[model] == keys["start"] else sum(map(float, known)) / len(known) if known else None
        for model, said in of_model.items():
            length = len(said.split())
            answers.append(
                ScoredAnswer(
                    prompt_id=prompt.id,
                    messages=messages,
                    author=text("model", model),
                    text=said,
                    length_tokens=length,
                    truth=draw.choice((0.0, 0.25, 0.5, 1.0)),
                    reward=round(draw.uniform(-2, 2), 3),
                    win=wins.get(model),
                )
            )
            finish = "length" if draw.random() < 0.1 else "stop"
            written.append(Answer(prompt_id=prompt.id, author=model, text=said, finish=finish, length_tokens=length, kl_nats=0.5))
        one, other = (candidate_id(prompt.id, "start", f"{word} {number}") for word in ("first", "second"))
        labelled += _asked(draw, prompt.id, one, other, text)
        second += _asked(random.Random(number), prompt.id, one, other, text) if held_out and number % 3 == 0 else []
        if number % 10 == 0:
            bad = Candidate(id=candidate_id(prompt.id, "canary", ""), prompt_id=prompt.id, text=text("canary", ""), author="canary")
            good = Candidate(id=one, prompt_id=prompt.id, text=text("reference", f"first {number}"), author="start")
            asked = _asked(draw, f"canary-empty-{prompt.id}", bad.id, good.id, text)
            canaries.append(Canary(prompt_id=prompt.id, kind="empty", bad=bad, reference=good, verdicts=tuple[Verdict, ...](asked)))
    order = [text("model", model) for model in MODELS]
    answers.sort(key=lambda row: order.index(row.author))
    return FakeRun(folder, prompts, answers, written, verdicts, labelled, canaries, second)


def _asked(draw: random.Random, prompt: str, one: str, other: str, text: Text) -> list[Comparison]:
    """Both orders; one verdict in twenty cannot be read, and one pair in eight flips."""
    p = round(draw.random(), 3)
    flip = draw.random() < 0.125
    found = []
    for first, second, probability in ((one, other, p), (other, one, p if flip else round(1 - p, 3))):
        unreadable = draw.random() < 0.05
        outcome = "unparsed" if unreadable else "first" if probability > 0.5 else "second" if probability < 0.5 else "tie"
        found.append(
            Comparison(
                prompt_id=prompt,
                first=first,
                second=second,
                probability_first=None if unreadable else probability,
                outcome=outcome,
                judge=text("judge", "pairwise"),
                reply=text("reply", "I cannot say." if unreadable else f"{'A' if probability > 0.5 else 'B'} is better."),
                thoughts=text("thoughts", ""),
                usage=Usage(calls=1, prompt_tokens=30, completion_tokens=5),
            )
        )
    return found


def _training(made: FakeRun, text: Text) -> tuple[list[Candidate], list[Ranking], list[dict[str, Any]]]:
    candidates, rankings, pairs = [], [], []
    for number, prompt in enumerate(made.prompts):
        both = [
            Candidate(
                id=candidate_id(prompt.id, "start", f"{word} {number}"),
                prompt_id=prompt.id,
                text=text("candidate", f"{word} {number}"),
                author=text("author", "start"),
            )
            for word in ("first", "second")
        ]
        candidates += both
        responses = tuple(
            Response(text=one.text, score=1.0 - place, candidate_id=one.id, author=one.author) for place, one in enumerate(both)
        )
        rankings.append(Ranking(prompt_id=prompt.id, split=prompt.split, messages=prompt.messages, responses=responses))
        sides = {side: [{"role": "assistant", "content": one.text}] for side, one in zip(("chosen", "rejected"), both, strict=True)}
        turns = [message.model_dump() for message in prompt.messages]
        pairs.append({"prompt": turns, **sides, "score_chosen": 1.0, "score_rejected": 0.0})
    return candidates, rankings, pairs


def _audit(made: FakeRun, candidates: list[Candidate]) -> AuditMetrics:
    verdicts: list[Verdict] = [*made.labelled]
    return audit(
        Evidence(verdicts=verdicts, candidates=candidates, repeats=verdicts[:2], canaries=made.canaries, second=made.second)
    )


def _log(student: str) -> list[dict[str, Any]]:
    more = {"entropy_nats": 0.5, "kl_k1_nats": 0.1} if student == "ppo" else {}
    return [{"loss": 1 / step, "step": step, "seconds": 0.5 * step, "epoch": step / 10, **more} for step in range(1, 11)]


def _rollouts(made: FakeRun, text: Text) -> list[RolloutSample]:
    return [
        RolloutSample(
            update=update,
            place=0,
            prompt_id=made.prompts[0].id,
            messages=made.prompts[0].messages,
            text=text("rollout", f"written at {update}"),
            finish="stop",
            score=0.1 * update,
            kl_nats=0.01 * update,
            length_tokens=3,
        )
        for update in (1, 2, 3)
    ]


def _run_folder(folder: Path, folders: dict[str, Path], base: Path, text: Text, warnings: list[str]) -> None:
    folder.mkdir(parents=True)
    judge = {"kind": "pairwise", "model": text("config", "teacher"), "template": "general"}
    config = {
        "name": folder.name,
        "seed": 0,
        "prompts": {"source": {"path": "data.jsonl"}},
        "start": {"model": text("config", "some/start")},
        "teacher": {"model": "some/teacher"},
        "judge": judge,
        "reward_model": {},
        "evaluation": {"judge": judge},
        "students": {"dpo": {"objective": {"kind": "dpo", "beta": 0.1}}, "ppo": {"objective": {"kind": "ppo"}}},
    }
    (folder / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    relative = {name: str(path.relative_to(base)) for name, path in folders.items()}
    (folder / "artifacts.json").write_text(json.dumps(relative))
    stages = [
        {"name": name, "folder": path, "kind": "a.b", "inputs": [] if name == "prompts" else ["prompts"], "trains": False}
        for name, path in relative.items()
    ]
    (folder / "plan.json").write_text(json.dumps({"stages": stages, "totals": {"stages": len(stages)}}))
    events = [
        {"t": 1.0, "stage": None, "event": "begin", "note": text("command", "aligndistill run fake.yaml")},
        {"t": 2.0, "stage": "prompts", "event": "finish", "n": 3, "total": 3, "note": text("note", "3 rows")},
        {"t": 3.0, "stage": None, "event": "end"},
    ]
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    mean = Mean(mean=0.6, low=0.5, high=0.7, n=30)
    report = Report(
        run=folder.name,
        seed=0,
        start=StartMetrics(truth=mean),
        teacher=ModelMetrics(truth=mean),
        students={
            name: StudentMetrics(objective=name, model="model", truth=mean, win_rate=mean, train_seconds=3.0)
            for name in ("dpo", "ppo")
        },
        warnings=(*warnings, text("warning", "")),
    )
    write_report(folder / "report.json", report)
