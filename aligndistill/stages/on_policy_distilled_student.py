"""Students that are distilled on their own answers, which a teacher reads."""

from collections.abc import Sequence
from pathlib import Path

from aligndistill.chat.local import split_answer
from aligndistill.config.models import Lora
from aligndistill.config.objectives import OnPolicyDistil
from aligndistill.config.students import Student
from aligndistill.models.conversation import Conversation
from aligndistill.models.groups import TokenGroup
from aligndistill.models.load import load_language_model, load_tokenizer, read_pointer
from aligndistill.models.sampling import Sampled
from aligndistill.stages.context import StageContext
from aligndistill.stages.distilled_student import live_teacher
from aligndistill.stages.files import RolloutSample
from aligndistill.stages.on_policy_student import SHOWN_PROMPTS, finish, kept_samples, policy_prompts
from aligndistill.stages.student_folder import save_student
from aligndistill.store.stage import StageResult
from aligndistill.training.fit import TrainingJob
from aligndistill.training.offline.distillation import require_readable
from aligndistill.training.on_policy.distillation import train_on_own_answers
from aligndistill.training.on_policy.rollouts import PolicyPrompt


def train_beside_teacher(
    context: StageContext,
    settings: Student,
    lora: Lora | None,
    seed: int,
    start_folder: Path,
    prompts_folder: Path,
    teacher_folder: Path,
) -> StageResult:
    """Distil one student on its own answers, and save it as a Hugging Face folder.

    Raises:
        ConfigError: the teacher has another tokenizer, or other tokens end its answers.
    """
    objective = settings.objective
    assert isinstance(objective, OnPolicyDistil)
    start = read_pointer(start_folder)
    own = load_tokenizer(start)
    teacher = live_teacher(start, own, teacher_folder)
    policy = load_language_model(start.for_training(adapters=lora is not None), own)
    positions = min((one.max_positions for one in (policy, teacher.model) if one.max_positions is not None), default=None)
    prompts, dropped = policy_prompts(prompts_folder, policy.conversation, positions, settings)
    groups = [TokenGroup(prompt.ids, []) for prompt in prompts]
    require_readable(groups, policy.conversation, teacher.model.conversation, teacher.vocabulary)

    job = TrainingJob(context.name.removeprefix("student-"), settings, context.runtime, context.scratch, seed)
    with kept_samples(context) as samples:

        def keep(update: int, asked: Sequence[PolicyPrompt], drawn: Sequence[Sequence[Sampled]]) -> None:
            samples.add(_shown(policy.conversation, update, asked, drawn))

        trained = train_on_own_answers(policy, teacher, objective, lora, prompts, keep, job)
    save_student(context, start, lora, trained)
    return finish(context, policy, objective, trained, len(prompts), trained.steps, dropped)


def _shown(
    conversation: Conversation, update: int, prompts: Sequence[PolicyPrompt], drawn: Sequence[Sequence[Sampled]]
) -> list[RolloutSample]:
    """The first answers to the first prompts of an update."""
    return [
        RolloutSample(
            update=update + 1,
            place=place,
            prompt_id=prompt.id,
            messages=prompt.messages,
            text=split_answer(conversation, prompt.ids, first.ids).answer,
            finish=first.finish,
            score=None,
            kl_nats=None,
            length_tokens=len(first.ids),
        )
        for place, (prompt, (first, *_)) in enumerate(zip(prompts[:SHOWN_PROMPTS], drawn, strict=False))
    ]
