"""model.json, and a model folder if the model was trained: the start, the teacher and every other model that runs here."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from aligndistill.config.data import Source
from aligndistill.config.from_scratch import FromScratch
from aligndistill.config.labels import StartSft
from aligndistill.config.models import LocalModel, Quantize
from aligndistill.config.training import Sft
from aligndistill.data.loading import load_demonstrations
from aligndistill.processes.monitor import wait_for_others
from aligndistill.processes.ranks import is_main_process
from aligndistill.records import Demonstration
from aligndistill.stages.context import StageContext, require_records
from aligndistill.stages.files import DEMONSTRATIONS, write_log
from aligndistill.store.jsonl import read_jsonl
from aligndistill.store.stage import StageResult, hashed, trains

if TYPE_CHECKING:
    from aligndistill.models.load import LanguageModel, ModelPointer
    from aligndistill.training.offline.policy import StepByStep
    from aligndistill.training.offline.token_dataset import StoredExamples


COPY = "@"
"""Between a student and the bits of its quantised copy, in the copy's name; no name of a config has it."""


def point(context: StageContext, *, settings: LocalModel) -> StageResult:
    """The pointer to a model that is used without training."""
    from aligndistill.models.load import pointer_to

    pointer = pointer_to(settings)
    if settings.run is not None:  # a store can be moved
        pointer = pointer.model_copy(update={"path": os.path.relpath(pointer.path, context.folder)})
    pointer.write(context.folder)
    return StageResult()


def quantised(context: StageContext, *, student: Path, kind: Literal["nf4", "int8"]) -> StageResult:
    """The pointer to a student whose linear layers are quantised while it is loaded; its folder stays as it is."""
    point_to_student(student, context.folder, quantize=Quantize(kind=kind))
    return StageResult()


def point_to_student(student: Path, folder: Path, **changes: Any) -> None:
    """Write the pointer to a student's model into another folder of the store, as a relative path: a store can be moved.

    Args:
        changes: fields of the pointer that differ.
    """
    from aligndistill.models.load import read_pointer

    pointer = read_pointer(student)
    paths = {"path": pointer.path, "adapter": pointer.adapter}
    own = {name: path for name, path in paths.items() if path is not None and Path(path).is_relative_to(student.absolute())}
    moved = {name: os.path.relpath(path, folder) for name, path in own.items()}
    pointer.model_copy(update={**moved, **changes}).write(folder)


@trains
def fine_tune(
    context: StageContext,
    *,
    settings: LocalModel,
    sft: Sft | StartSft,
    held_out: float,
    seed: int,
    demonstrations: Path | None = None,
) -> StageResult:
    """A model fine-tuned on demonstrations of training prompts only.

    Args:
        held_out: the run's held-out share: demonstrations of held-out prompts are dropped.
        demonstrations: what a model wrote in this run, or what filters kept; None to read them from a file.
    """
    from transformers import AutoModelForCausalLM

    from aligndistill.models.load import ModelPointer, load_language_model, pointer_to
    from aligndistill.training.fit import TrainingJob
    from aligndistill.training.offline.policy import train_policy
    from aligndistill.training.save import save_model

    read = _demonstrations(context, sft, held_out, demonstrations)
    shown, dropped = read.records, read.dropped

    lora = getattr(settings, "lora", None)
    if settings.from_scratch is not None:
        own_data = settings.from_scratch.tokenizer_data
        own = load_demonstrations(own_data, held_out) if own_data else shown
        texts = (text for one in own if one.split == "train" for text in (*(m.content for m in one.messages), one.response))
        language_model = load_language_model(new_model(context, settings, settings.from_scratch, texts, seed))
        base = None
    else:
        base = pointer_to(settings)
        language_model = load_language_model(base.for_training(adapters=lora is not None))

    examples = _tokenised(context, read, sft, language_model, held_out)
    dropped = {reason: count for reason, count in {**dropped, **examples.dropped}.items() if count}
    require_records(len(examples), "demonstrations", dropped)
    adapters = lora if base is not None else None
    job = TrainingJob(f"{context.name} sft", sft, context.runtime, context.scratch, seed)
    trained = train_policy(language_model, _objective(sft), adapters, examples, job)
    save_model(trained, context.folder / "model", base, adapters is not None, AutoModelForCausalLM)
    if not is_main_process():
        return StageResult()
    pointer = ModelPointer(
        path="model",
        layout=settings.layout,
        dtype=settings.dtype,
        attn_implementation=settings.attn_implementation,
        trust_remote_code=settings.trust_remote_code,
        thinking=settings.thinking,
    )
    pointer.write(context.folder)
    write_log(context.folder, trained.log)
    return StageResult(
        counts={"demonstrations": len(examples), "steps": trained.steps, **examples.cut},
        dropped=dropped,
        metrics={"train_seconds": trained.seconds, "parameters": sum(p.numel() for p in language_model.model.parameters())},
    )


@dataclass(frozen=True)
class _Demonstrations:
    """Demonstrations of training prompts, the rows dropped by reason, and what identifies the source of all in a cache key."""

    records: list[Demonstration]
    dropped: dict[str, int]
    identity: Any


def _demonstrations(context: StageContext, sft: Sft | StartSft, held_out: float, written: Path | None) -> _Demonstrations:
    if written is not None:
        known = list(read_jsonl(written / DEMONSTRATIONS, Demonstration))
        learned = [one for one in known if one.split == "train"]
        return _Demonstrations(learned, {"prompt is held out": len(known) - len(learned)}, context.identities[written])
    assert isinstance(sft.demonstrations, Source), "labels are written by another stage"
    loaded = load_demonstrations(sft.demonstrations, held_out).all()
    found = [one for one in loaded.records if one.split == "train"]
    dropped = {**loaded.dropped, "prompt is held out": len(loaded.records) - len(found)}
    return _Demonstrations(found, dropped, hashed(sft.demonstrations))


def _tokenised(
    context: StageContext, read: _Demonstrations, sft: Sft | StartSft, language_model: "LanguageModel", held_out: float
) -> "StoredExamples":
    """The rows as token ids. Their score is 1 for a rationale as a task of its own, and 0 for an answer."""
    from aligndistill.models.tokenise import Limits, PromptWithResponses
    from aligndistill.stages.tokens import stored_examples
    from aligndistill.training.offline.token_dataset import ScoredResponses

    exchanges = (
        ScoredResponses(PromptWithResponses(one.messages, [one.response], ["stop"]), [float(one.task == "rationale")])
        for one in read.records
    )
    limits = Limits(sft.max_prompt_tokens, sft.max_response_tokens, language_model.max_positions)
    source = {"demonstrations": read.identity, "held_out": held_out}
    return stored_examples(context, language_model.conversation, limits, exchanges, **source)


def _objective(sft: Sft | StartSft) -> 'StepByStep | Literal["supervised"]':
    from aligndistill.training.offline.policy import StepByStep

    label = sft.label if isinstance(sft, StartSft) else None
    return StepByStep(label.rationale_weight) if label is not None and label.rationale == "task" else "supervised"


def new_model(context: StageContext, settings: LocalModel, sizes: FromScratch, texts: Iterable[str], seed: int) -> "ModelPointer":
    """A new model in the stage's scratch folder, written by the first process while the others wait.

    Args:
        texts: the tokenizer is trained on them.
    """
    from aligndistill.models.from_scratch import write_new_model
    from aligndistill.models.load import ModelPointer

    folder = context.scratch / "new"
    if is_main_process():  # transformers writes in the first process alone
        write_new_model(folder, sizes, texts, seed)
    wait_for_others(f"{context.folder.name} has a new model", range(1))
    return ModelPointer(path=str(folder), layout=settings.layout)
