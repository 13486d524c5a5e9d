"""Students that are distilled: trained on a teacher's distributions over the answers in rankings."""

from pathlib import Path

from aligndistill.config.models import Lora
from aligndistill.config.objectives import Distil
from aligndistill.config.students import Student
from aligndistill.models.load import load_language_model, load_tokenizer, read_pointer
from aligndistill.models.tokenise import Limits
from aligndistill.models.vocabulary import shared_vocabulary, tokens_of
from aligndistill.stages.context import StageContext
from aligndistill.stages.offline_student import finish
from aligndistill.stages.tokens import ranking_examples, rankings_without
from aligndistill.store.stage import StageResult
from aligndistill.training.fit import TrainingJob
from aligndistill.training.offline.distillation import require_readable, train_distilled


def train_by_teacher(
    context: StageContext, settings: Student, lora: Lora | None, seed: int, start_folder: Path, rankings: Path, teacher_folder: Path
) -> StageResult:
    """Distil one student, and save it as a Hugging Face folder.

    Whether teacher and student have one vocabulary is found out before a model is loaded.
    """
    objective = settings.objective
    assert isinstance(objective, Distil)
    start, taught_by = read_pointer(start_folder), read_pointer(teacher_folder)
    own, teachers = load_tokenizer(start), load_tokenizer(taught_by)
    vocabulary = shared_vocabulary(tokens_of(start.path, own), tokens_of(taught_by.path, teachers))

    policy = load_language_model(start.for_training(adapters=lora is not None), own)
    teacher = load_language_model(taught_by, teachers)
    positions = min((one.max_positions for one in (policy, teacher) if one.max_positions is not None), default=None)
    limits = Limits(settings.max_prompt_tokens, settings.max_response_tokens, positions)
    author, best_only = ("teacher" if objective.on == "teacher" else None), objective.on == "best"
    examples = ranking_examples(context, rankings, policy.conversation, limits, best_only, objective.learns_ties, author)
    require_readable(examples.groups, policy, teacher, vocabulary)

    job = TrainingJob(context.name.removeprefix("student-"), settings, context.runtime, context.scratch, seed)
    trained = train_distilled(policy, teacher, vocabulary, objective, lora, examples, job)
    skipped = {f"without an answer of '{author}'": rankings_without(rankings, author)} if author else {}
    return finish(context, start, lora, policy, examples, trained, {**skipped, **examples.dropped})
