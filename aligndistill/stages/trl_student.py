"""A student that one of TRL's online trainers makes from this project's rewards."""

from collections.abc import Mapping, Sequence

from transformers import AutoModelForCausalLM

from aligndistill.config.models import Lora
from aligndistill.config.objectives import Online
from aligndistill.config.students import Student
from aligndistill.models.conversation import Conversation
from aligndistill.models.load import from_pretrained, generation_eos_ids, load_tokenizer, read_pointer
from aligndistill.processes.ranks import is_main_process
from aligndistill.stages.context import Work
from aligndistill.stages.files import write_log
from aligndistill.stages.ppo_student import policy_prompts
from aligndistill.stages.rewards import RewardPart, open_rewards
from aligndistill.store.stage import Made
from aligndistill.training.fit import Job
from aligndistill.training.on_policy.trl import train_by_trl
from aligndistill.training.save import save_model


def make_trl_student(work: Work, name: str, settings: Student, lora: Lora | None, parts: Sequence[RewardPart]) -> Made:
    """Train one student by GRPO or RLOO and save it as an ordinary Hugging Face folder."""
    assert isinstance(settings.objective, Online)
    start = read_pointer(work.inputs["start"])
    model = from_pretrained(AutoModelForCausalLM, start.for_training(adapters=lora is not None))
    conversation = Conversation(load_tokenizer(start), start.layout, generation_eos_ids(model))
    positions = getattr(model.config, "max_position_embeddings", None)
    prompts, dropped = policy_prompts(work, conversation, positions, settings)
    job = Job(name, settings, work.runtime, work.scratch, work.seed)
    trained = train_by_trl(model, conversation, settings.objective, lora, prompts, open_rewards(work, parts), job)
    save_model(trained, work.folder / "model", start, lora is not None, AutoModelForCausalLM)
    if not is_main_process():
        return Made()
    start.model_copy(update={"path": "model", "revision": None, "trust_remote_code": False}).write(work.folder)
    write_log(work.folder, trained)
    return Made(
        counts={"prompts": len(prompts), "steps": trained.steps}, dropped=dropped, figures={"train_seconds": trained.seconds}
    )


def trl_entry(entry: Mapping[str, float]) -> dict[str, float]:
    """An entry of TRL's log under this project's names, where it has the same figure. Its KL is per token, so it has none here."""
    names = {"step": "update", "reward": "score", "entropy": "entropy_nats", "completions/mean_length": "length_tokens"}
    return {ours: entry[theirs] for theirs, ours in names.items() if theirs in entry}
