"""Everything that learns from rankings, by this project, through the functions its own stages call."""

import tempfile
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from aligndistill.config.models import Lora
from aligndistill.config.offline_objectives import Distil, OfflineObjective
from aligndistill.config.run import Runtime
from aligndistill.config.students import RewardTraining as RewardModelSettings
from aligndistill.config.training import Training
from aligndistill.models.groups import TokenGroup
from aligndistill.models.load import ModelPointer, load_language_model
from aligndistill.models.reward import load_reward_model
from aligndistill.models.vocabulary import SharedVocabulary
from aligndistill.stages.context import StageContext
from aligndistill.stages.offline_student import reference_logprobs
from aligndistill.training.fit import TrainingJob
from aligndistill.training.offline.distillation import LiveTeacher, train_distilled
from aligndistill.training.offline.examples import Example, Mismatched
from aligndistill.training.offline.mismatched import MismatchedPairs, mismatched_groups
from aligndistill.training.offline.policy import train_policy
from aligndistill.training.offline.reward_model import train_reward_model
from benchmarks.probe import Clock, Memory, now, training_round, watch_every_trainer
from benchmarks.worlds import read_rows

watch_every_trainer()


def _work(scratch: Path, settings: dict[str, Any]) -> StageContext:
    batch = settings["batch"]
    runtime = Runtime(per_device_train_batch_size=batch, per_device_eval_batch_size=batch, save_steps=10**6, logging_steps=1)
    return StageContext("benchmark", scratch, scratch, runtime)


def _training(settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "batch_size": settings["batch"],
        "learning_rate": settings["learning_rate"],
        "lr_scheduler_type": "constant",
        "warmup_ratio": 0.0,
        "max_steps": settings["steps"],
        "max_prompt_tokens": 8192,
        "max_response_tokens": 8192,
    }


def policy(world: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """One training of a policy. What reference log-probs cost is in the time of the steps that use them."""
    memory = Memory()
    rows = read_rows(world / "rows.jsonl")
    name = settings["objective"]
    objective: Any = name
    if name != "supervised":
        adapter: TypeAdapter[Any] = TypeAdapter(OfflineObjective)
        objective = adapter.validate_python({"kind": name, **settings.get("options", {})})
    pointer = ModelPointer(
        path=str(world / "policy"),
        layout="plain",
        dtype=settings.get("dtype", "float32"),
        attn_implementation=settings.get("attn_implementation"),
    )
    learner = load_language_model(pointer)
    lora = Lora(**settings["lora"]) if "lora" in settings else None
    groups = [TokenGroup(row["prompt"], row["responses"][: 1 if name == "supervised" else None]) for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        work = _work(Path(folder), settings)
        reference: list[list[float] | None] = [None] * len(groups)
        mismatched: list[Mismatched | None] = [None] * len(groups)
        started = now()
        if name != "supervised" and "reference" in objective.reads:
            reference = [*reference_logprobs(work, learner, "the world's model", groups)]
        if name != "supervised" and objective.needs_mismatched:
            others = mismatched_groups(groups, None)
            known = reference_logprobs(work, learner, "the world's model", others, "of mismatched pairs")
            mismatched = [*MismatchedPairs(others, known)]
        reference_seconds = now() - started
        examples = [Example(*one) for one in zip(groups, [row["scores"] for row in rows], reference, mismatched, strict=True)]
        job = TrainingJob("benchmark", Training(**_training(settings)), work.runtime, work.folder / "checkpoints", 0)
        Clock.reset()
        train_policy(learner, objective, lora, examples, job)
    charged = reference_seconds / settings["steps"]  # live references would be computed in every step of the one epoch
    result = training_round(
        settings["warm_up"],
        memory,
        settings["batch"],
        reference_seconds=reference_seconds,
        shares_prompt=learner.shares_prompt,
    )
    if settings.get("whole"):
        return {
            **result,
            "seconds": [reference_seconds + Clock.ends[-1] - Clock.start],
            "samples": settings["batch"] * settings["steps"],
        }
    return {**result, "seconds": [seconds + charged for seconds in result["seconds"]]}


def distilled(world: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """One training of a policy on a teacher's distributions, the teacher in memory beside it."""
    memory = Memory()
    rows = read_rows(world / "rows.jsonl")
    policy, teacher = (
        load_language_model(ModelPointer(path=str(world / name), layout="plain", dtype="float32")) for name in ("policy", "teacher")
    )
    objective = Distil(kind="distil", divergence="jsd", beta=0.5, sft_weight=0.0)
    examples = [Example(TokenGroup(row["prompt"], row["responses"]), row["scores"]) for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        work = _work(Path(folder), settings)
        job = TrainingJob("benchmark", Training(**_training(settings)), work.runtime, work.folder / "checkpoints", 0)
        Clock.reset()
        train_distilled(policy, LiveTeacher(teacher, SharedVocabulary(frozenset())), objective, None, examples, job)
    return training_round(settings["warm_up"], memory, settings["batch"])


def reward_model(world: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """One training of a reward model on whole rankings."""
    memory = Memory()
    rows = read_rows(world / "rows.jsonl")
    learner = load_reward_model(ModelPointer(path=str(world / "reward"), layout="plain", dtype="float32"))
    examples = [Example(TokenGroup(row["prompt"], row["responses"]), row["scores"]) for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        work = _work(Path(folder), settings)
        objective = RewardModelSettings(**_training(settings), centering=0.0)
        job = TrainingJob("benchmark", objective, work.runtime, work.folder / "checkpoints", 0)
        Clock.reset()
        train_reward_model(learner, objective, examples, job)
    return training_round(settings["warm_up"], memory, settings["batch"])


def reference_cache(world: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Reference log-probs after 10 % more rows: the time of the second pass."""
    memory = Memory()
    groups = [TokenGroup(row["prompt"], row["responses"]) for row in read_rows(world / "rows.jsonl")]
    before = round(len(groups) / 1.1)
    start = load_language_model(ModelPointer(path=str(world / "policy"), layout="plain", dtype="float32"))
    with tempfile.TemporaryDirectory() as folder:
        work = _work(Path(folder), settings)
        reference_logprobs(work, start, "the world's model", groups[:before])
        started = now()
        found = reference_logprobs(work, start, "the world's model", groups)
        seconds = now() - started
    return {
        "seconds": [seconds],
        "samples": len(groups),
        "added_bytes": memory.added_bytes(),
        "losses": [sum(row) for row in zip(*found, strict=True)],
    }
