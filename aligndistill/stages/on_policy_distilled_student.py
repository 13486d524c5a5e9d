"""Students that are distilled on their own answers, which a teacher reads."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aligndistill.chat.local import split_answer
from aligndistill.config.models import EndpointModel, Lora
from aligndistill.config.objectives import OnPolicyDistil
from aligndistill.config.students import Student
from aligndistill.models.conversation import Conversation
from aligndistill.models.folder import end_ids_in
from aligndistill.models.groups import TokenGroup
from aligndistill.models.load import ModelPointer, load_language_model, load_tokenizer, read_pointer
from aligndistill.models.sampling import Sampled
from aligndistill.models.tokenise import shared_positions
from aligndistill.models.vocabulary import shared_vocabulary, tokens_of
from aligndistill.stages.context import ModelSource, StageContext
from aligndistill.stages.distilled_student import live_teacher
from aligndistill.stages.files import RolloutSample
from aligndistill.stages.on_policy_student import SHOWN_PROMPTS, finish, frozen_reference, kept_samples, policy_prompts
from aligndistill.stages.opening import open_answer_logprobs
from aligndistill.stages.student_folder import save_student
from aligndistill.store.stage import StageResult
from aligndistill.training.fit import TrainingJob
from aligndistill.training.offline.distillation import LiveTeacher, require_readable
from aligndistill.training.on_policy.distillation import train_on_own_answers
from aligndistill.training.on_policy.rollouts import PolicyPrompt
from aligndistill.training.on_policy.served_teacher import ServedTeacher


def train_beside_teacher(
    context: StageContext,
    settings: Student,
    lora: Lora | None,
    seed: int,
    start_folder: Path,
    prompts_folder: Path,
    taught_by: ModelSource,
    reference_folder: Path | None = None,
) -> StageResult:
    """Distil one student on its own answers, and save it as a Hugging Face folder.

    Raises:
        ConfigError: the teacher has another tokenizer, or other tokens end its answers.
        JudgeError: the teacher's server cannot be reached, or does not say how likely given tokens are.
    """
    objective = settings.objective
    assert isinstance(objective, OnPolicyDistil)
    start = read_pointer(start_folder)
    own = load_tokenizer(start)
    teacher: LiveTeacher | ServedTeacher
    if isinstance(taught_by, EndpointModel):
        teacher, reads = served_teacher(context, start, own, taught_by)
        longest = None if taught_by.context_tokens is None else taught_by.context_tokens - 1  # it samples one token
    else:
        assert isinstance(taught_by, Path), "the config's checks see to that"
        teacher = live_teacher(start, own, taught_by)
        reads, longest = teacher.model.conversation, teacher.model.max_positions
    policy = load_language_model(start.for_training(adapters=lora is not None), own)
    positions = shared_positions(policy.max_positions, longest)
    prompts, dropped = policy_prompts(prompts_folder, policy.conversation, positions, settings)
    groups = [TokenGroup(prompt.ids, []) for prompt in prompts]
    require_readable(groups, policy.conversation, reads, teacher.vocabulary)

    reference = frozen_reference(start_folder, reference_folder, lora, own) if reference_folder is not None else None
    job = TrainingJob(context.name.removeprefix("student-"), settings, context.runtime, context.scratch, seed)
    with kept_samples(context) as samples:

        def keep(update: int, asked: Sequence[PolicyPrompt], drawn: Sequence[Sequence[Sampled]]) -> None:
            samples.add(_shown(policy.conversation, update, asked, drawn))

        trained = train_on_own_answers(policy, teacher, objective, lora, prompts, keep, job, reference)
    save_student(context, start, lora, trained)
    return finish(context, policy, objective, trained, len(prompts), trained.steps, dropped)


def served_teacher(
    context: StageContext, start: ModelPointer, own: Any, server: EndpointModel
) -> tuple[ServedTeacher, Conversation]:
    """A teacher on a server, once its tokenizer is known to be the student's `own`, and how it reads conversations.

    The server is asked about two tokens, before a model is loaded.
    """
    assert server.tokenizer is not None  # `check` asks for it
    known = load_tokenizer(ModelPointer(path=server.tokenizer, layout=start.layout), alone=True)
    students, teachers = tokens_of(start.path, own), tokens_of(server.tokenizer, known)
    vocabulary = shared_vocabulary(students, teachers)
    teacher = ServedTeacher(
        vocabulary, frozenset(students.by_id.keys() & teachers.by_id.keys()), open_answer_logprobs(context, server).of
    )
    reads = Conversation(known, start.layout, end_ids_in(Path(server.tokenizer)))
    teacher.logprobs([([reads.end_of_turn], [reads.end_of_turn])])
    return teacher, reads


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
