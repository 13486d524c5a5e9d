"""Students that are distilled: trained on a teacher's distributions over the answers in rankings."""

from pathlib import Path
from typing import Any, Literal

from aligndistill.config.models import Lora
from aligndistill.config.offline_objectives import Distil
from aligndistill.config.students import Student
from aligndistill.models.conversation import Conversation
from aligndistill.models.load import ModelPointer, load_language_model, load_tokenizer, read_pointer
from aligndistill.models.tokenise import Limits, shared_positions
from aligndistill.models.vocabulary import SharedVocabulary, shared_vocabulary, tokens_of
from aligndistill.stages.context import StageContext
from aligndistill.stages.files import PROJECTIONS
from aligndistill.stages.offline_student import finish
from aligndistill.stages.shards import shards
from aligndistill.stages.tokens import ranking_examples, rankings_without
from aligndistill.store.stage import StageResult
from aligndistill.training.fit import TrainingJob
from aligndistill.training.offline.distillation import (
    LiveTeacher,
    StoredTeacher,
    require_readable,
    save_projections,
    train_distilled,
)
from aligndistill.training.offline.teacher_tokens import ABOUT, ROWS, TeacherTokensInfo, read_teacher_tokens
from aligndistill.training.offline.token_dataset import StoredExamples


def train_by_teacher(
    context: StageContext,
    settings: Student,
    lora: Lora | None,
    seed: int,
    start_folder: Path,
    rankings: Path,
    teacher_folder: Path | None,
    teacher_tokens: Path | None,
) -> StageResult:
    """Distil one student, and save it as a Hugging Face folder.

    Args:
        teacher_folder: a teacher to load. Whether it has the student's vocabulary is found out before a model is.
        teacher_tokens: else what was stored of it.
    """
    objective = settings.objective
    assert isinstance(objective, Distil)
    start = read_pointer(start_folder)
    own = load_tokenizer(start)
    info, live = None, None
    if teacher_tokens is not None:
        info = TeacherTokensInfo.model_validate_json((teacher_tokens / ABOUT).read_bytes())
    elif teacher_folder is not None:
        live = live_teacher(start, own, teacher_folder)
    policy = load_language_model(start.for_training(adapters=lora is not None), own)

    positions = shared_positions(policy.max_positions, live.model.max_positions if live else None, info.positions if info else None)
    limits = Limits(settings.max_prompt_tokens, settings.max_response_tokens, positions)
    examples, dropped = distilled_examples(context, rankings, policy.conversation, limits, objective.on)
    job = TrainingJob(context.name.removeprefix("student-"), settings, context.runtime, context.scratch, seed)
    if info is not None and teacher_tokens is not None:
        read = read_teacher_tokens(shards(teacher_tokens / ROWS), examples)
        stored = StoredTeacher(SharedVocabulary(frozenset(info.unshared)), info.width)
        trained = train_distilled(policy, stored, objective, lora, read, job)
    else:
        assert live is not None
        require_readable(examples.groups, policy.conversation, live.model.conversation, live.vocabulary)
        trained = train_distilled(policy, live, objective, lora, examples, job)
    save_projections(trained, context.folder / PROJECTIONS)
    return finish(context, start, lora, policy, examples, trained, dropped, len(examples))


def live_teacher(start: ModelPointer, own: Any, teacher_folder: Path) -> LiveTeacher:
    """Load a teacher, once its tokenizer is known to be the student's `own`.

    Raises:
        ConfigError: it is another one.
    """
    taught_by = read_pointer(teacher_folder)
    teachers = load_tokenizer(taught_by)
    vocabulary = shared_vocabulary(tokens_of(start.path, own), tokens_of(taught_by.path, teachers))
    return LiveTeacher(load_language_model(taught_by, teachers), vocabulary)


def distilled_examples(
    context: StageContext, rankings: Path, conversation: Conversation, limits: Limits, on: Literal["teacher", "best", "all"]
) -> tuple[StoredExamples, dict[str, int]]:
    """The answers that are read, with the numbers of those that are not, by reason. No order is needed, so ties are read, too."""
    author = "teacher" if on == "teacher" else None
    examples = ranking_examples(context, rankings, conversation, limits, best_only=on == "best", ties=True, author=author)
    skipped = {f"without an answer of '{author}'": rankings_without(rankings, author)} if author else {}
    return examples, {reason: count for reason, count in {**skipped, **examples.dropped}.items() if count}
