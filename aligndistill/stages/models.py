"""model.json, and a model folder beside it where one was trained: the start, the teacher and whoever else writes or judges."""

from collections.abc import Sequence

from transformers import AutoModelForCausalLM

from aligndistill.config.models import FromScratch, LocalModel, Lora
from aligndistill.config.training import Sft
from aligndistill.data.loading import load_demonstrations
from aligndistill.models.from_scratch import write_new_model
from aligndistill.models.load import LanguageModel, ModelPointer, load_language_model, pointer_to
from aligndistill.models.tokenise import Exchange, Limits
from aligndistill.processes.ranks import is_main_process
from aligndistill.records import Demonstration
from aligndistill.stages.context import Work, require_records
from aligndistill.stages.files import write_log
from aligndistill.stages.tokens import stored_examples
from aligndistill.store.stage import Made
from aligndistill.training.fit import Job
from aligndistill.training.offline.policy import train_policy
from aligndistill.training.offline.token_dataset import ScoredExchange
from aligndistill.training.save import save_model


def make_named_model(work: Work, model: LocalModel, content: str) -> Made:
    """A model that is used as it is: where it lies and how to speak to it."""
    pointer_to(model).write(work.folder)
    return Made()


def make_taught_model(work: Work, model: LocalModel, lora: Lora | None, sft: Sft, held_out: float, contents: Sequence[str]) -> Made:
    """A model that imitates demonstrations first, of training prompts only.

    Args:
        held_out: the run's held-out share: demonstrations of held-out prompts are left out.
        contents: content hashes of the demonstrations and of the model's folder.
    """
    loaded = load_demonstrations(sft.demonstrations, held_out).all()
    demonstrations = [one for one in loaded.records if one.split == "train"]
    dropped = {**loaded.dropped, "prompt is held out": len(loaded.records) - len(demonstrations)}

    if model.from_scratch is not None:
        language_model, base = _from_scratch(work, model, model.from_scratch, demonstrations), None
    else:
        base = pointer_to(model)
        language_model = load_language_model(base.for_training(adapters=lora is not None))

    exchanges = (ScoredExchange(Exchange(one.messages, [one.response], ["stop"]), [0.0]) for one in demonstrations)
    limits = Limits(sft.max_prompt_tokens, sft.max_response_tokens, language_model.max_positions)
    source = sft.demonstrations.model_dump(mode="json")
    examples = stored_examples(
        work, language_model.conversation, limits, exchanges, demonstrations=source, content=contents[0], held_out=held_out
    )
    dropped = {reason: count for reason, count in {**dropped, **examples.dropped}.items() if count}
    require_records(len(examples), "demonstrations", dropped)
    adapters = lora if base is not None else None
    trained = train_policy(
        language_model,
        "supervised",
        adapters,
        examples,
        Job(f"{work.folder.name.rpartition('-')[0]} sft", sft, work.runtime, work.scratch, work.seed),
    )
    save_model(trained, work.folder / "model", base, adapters is not None, AutoModelForCausalLM)
    if not is_main_process():
        return Made()
    trained_pointer = ModelPointer(
        path="model", layout=model.layout, dtype=model.dtype, attn_implementation=model.attn_implementation
    )
    trained_pointer.write(work.folder)
    write_log(work.folder, trained)
    return Made(
        counts={"demonstrations": len(examples), "steps": trained.steps, **examples.cut},
        dropped=dropped,
        figures={"train_seconds": trained.seconds, "parameters": sum(p.numel() for p in language_model.model.parameters())},
    )


def _from_scratch(work: Work, model: LocalModel, sizes: FromScratch, demonstrations: Sequence[Demonstration]) -> LanguageModel:
    texts = (text for one in demonstrations for text in (*(m.content for m in one.messages), one.response))
    folder = work.scratch / "new"
    write_new_model(folder, sizes, texts, work.seed)
    return load_language_model(ModelPointer(path=str(folder), layout=model.layout))
