"""model.json, and a model folder if the model was trained: the start, the teacher and every other model that runs here."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from aligndistill.config.models import FromScratch, LocalModel, Quantize
from aligndistill.config.training import Sft
from aligndistill.data.loading import load_demonstrations
from aligndistill.processes.monitor import wait_for_others
from aligndistill.processes.ranks import is_main_process
from aligndistill.records import Demonstration
from aligndistill.stages.context import StageContext, require_records
from aligndistill.stages.files import DEMONSTRATIONS, write_log
from aligndistill.store.jsonl import read_jsonl
from aligndistill.store.stage import StageResult, trains

if TYPE_CHECKING:
    from aligndistill.models.load import ModelPointer


COPY = "@"
"""Between a student and the bits of its quantised copy, in the copy's name; no name of a config has it."""


def point(context: StageContext, *, settings: LocalModel) -> StageResult:
    """The pointer to a model that is used without training."""
    from aligndistill.models.load import pointer_to

    pointer_to(settings).write(context.folder)
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
    context: StageContext, *, settings: LocalModel, sft: Sft, held_out: float, seed: int, demonstrations: Path | None = None
) -> StageResult:
    """A model fine-tuned on demonstrations of training prompts only.

    Args:
        held_out: the run's held-out share: demonstrations of held-out prompts are dropped.
        demonstrations: those of `sft` that were kept by filters; None if there are none.
    """
    from transformers import AutoModelForCausalLM

    from aligndistill.models.load import ModelPointer, load_language_model, pointer_to
    from aligndistill.models.tokenise import Limits, PromptWithResponses
    from aligndistill.stages.tokens import stored_examples
    from aligndistill.store.stage import hashed
    from aligndistill.training.fit import TrainingJob
    from aligndistill.training.offline.policy import train_policy
    from aligndistill.training.offline.token_dataset import ScoredResponses
    from aligndistill.training.save import save_model

    learned, dropped = _of_training_prompts(sft, held_out, demonstrations)
    lora = getattr(settings, "lora", None)
    if settings.from_scratch is not None:
        own_data = settings.from_scratch.tokenizer_data
        read = load_demonstrations(own_data, held_out) if own_data else learned
        texts = (text for one in read if one.split == "train" for text in (*(m.content for m in one.messages), one.response))
        language_model = load_language_model(new_model(context, settings, settings.from_scratch, texts, seed))
        base = None
    else:
        base = pointer_to(settings)
        language_model = load_language_model(base.for_training(adapters=lora is not None))

    exchanges = (ScoredResponses(PromptWithResponses(one.messages, [one.response], ["stop"]), [0.0]) for one in learned)
    limits = Limits(sft.max_prompt_tokens, sft.max_response_tokens, language_model.max_positions)
    source = context.identities[demonstrations] if demonstrations else hashed(sft.demonstrations)
    examples = stored_examples(context, language_model.conversation, limits, exchanges, demonstrations=source, held_out=held_out)
    dropped = {reason: count for reason, count in {**dropped, **examples.dropped}.items() if count}
    require_records(len(examples), "demonstrations", dropped)
    adapters = lora if base is not None else None
    job = TrainingJob(f"{context.name} sft", sft, context.runtime, context.scratch, seed)
    trained = train_policy(language_model, "supervised", adapters, examples, job)
    save_model(trained, context.folder / "model", base, adapters is not None, AutoModelForCausalLM)
    if not is_main_process():
        return StageResult()
    pointer = ModelPointer(
        path="model",
        layout=settings.layout,
        dtype=settings.dtype,
        attn_implementation=settings.attn_implementation,
        thinking=settings.thinking,
    )
    pointer.write(context.folder)
    write_log(context.folder, trained.log)
    return StageResult(
        counts={"demonstrations": len(examples), "steps": trained.steps, **examples.cut},
        dropped=dropped,
        metrics={"train_seconds": trained.seconds, "parameters": sum(p.numel() for p in language_model.model.parameters())},
    )


def _of_training_prompts(sft: Sft, held_out: float, kept: Path | None) -> tuple[list[Demonstration], dict[str, int]]:
    """The demonstrations to train on, and how many others there are, by reason."""
    loading = load_demonstrations(sft.demonstrations, held_out)
    records = list(read_jsonl(kept / DEMONSTRATIONS, Demonstration) if kept else loading)
    learned = [one for one in records if one.split == "train"]
    return learned, {**loading.dropped, "prompt is held out": len(records) - len(learned)}


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
