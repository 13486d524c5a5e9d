"""Students trained by TRL's on-policy trainers with this package's rewards."""

from collections.abc import Mapping
from pathlib import Path

from transformers import AutoModelForCausalLM

from aligndistill.config.models import Lora
from aligndistill.config.objectives import Rewarded
from aligndistill.config.students import Student
from aligndistill.models.conversation import Conversation
from aligndistill.models.load import from_pretrained, generation_eos_ids, load_tokenizer, read_pointer
from aligndistill.processes.ranks import is_main_process
from aligndistill.stages.context import ModelSource, StageContext
from aligndistill.stages.on_policy_student import policy_prompts
from aligndistill.stages.rewards import open_rewards
from aligndistill.stages.student_folder import save_student
from aligndistill.store.stage import StageResult
from aligndistill.training.fit import TrainingJob
from aligndistill.training.on_policy.trl import train_by_trl


def train_with_trl(
    context: StageContext,
    settings: Student,
    lora: Lora | None,
    seed: int,
    start_folder: Path,
    prompts_folder: Path,
    models: Mapping[str, ModelSource],
    reward_model: Path | None,
) -> StageResult:
    """Train one student by GRPO or RLOO and save it as a Hugging Face folder."""
    objective = settings.objective
    assert isinstance(objective, Rewarded)
    start = read_pointer(start_folder)
    model = from_pretrained(AutoModelForCausalLM, start.for_training(adapters=lora is not None))
    conversation = Conversation(load_tokenizer(start), start.layout, generation_eos_ids(model))
    positions = getattr(model.config, "max_position_embeddings", None)
    prompts, dropped = policy_prompts(prompts_folder, conversation, positions, settings)
    job = TrainingJob(context.name.removeprefix("student-"), settings, context.runtime, context.scratch, seed)
    rewards = open_rewards(context, objective.rewards, models, reward_model, seed)
    trained = train_by_trl(model, conversation, objective, lora, prompts, rewards, job, start)
    save_student(context, start, lora, trained)
    if not is_main_process():
        return StageResult()
    counts = {"prompts": len(prompts), "steps": trained.steps}
    return StageResult(counts=counts, dropped=dropped, metrics={"train_seconds": trained.seconds})
