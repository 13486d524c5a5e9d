"""teacher_tokens.arrow: a teacher's likeliest tokens at every response token that a student will learn from."""

from dataclasses import replace
from pathlib import Path

from aligndistill.config.students import TeacherTokens
from aligndistill.processes.monitor import wait_for_others
from aligndistill.processes.ranks import is_main_process, our_share
from aligndistill.stages.context import StageContext
from aligndistill.stages.shards import shard
from aligndistill.store.stage import StageResult, together


@together
def make(context: StageContext, *, settings: TeacherTokens, start: Path, teacher: Path, rankings: Path) -> StageResult:
    """Score the answers with the teacher, each process its share of the prompts.

    Args:
        start: its tokenizer decides the tokens.
    """
    from aligndistill.models.load import load_language_model, load_tokenizer, read_pointer
    from aligndistill.models.scoring import likeliest_tokens
    from aligndistill.models.tokenise import Limits, shared_positions
    from aligndistill.models.vocabulary import shared_vocabulary, tokens_of
    from aligndistill.processes.progress import track
    from aligndistill.stages.distilled_student import distilled_examples
    from aligndistill.training.offline.distillation import require_readable
    from aligndistill.training.offline.teacher_tokens import ABOUT, ROWS, TeacherTokensInfo, write_teacher_tokens
    from aligndistill.training.offline.token_dataset import Subset

    own, taught_by = read_pointer(start), read_pointer(teacher)
    tokenizers = load_tokenizer(own), load_tokenizer(taught_by)
    vocabulary = shared_vocabulary(tokens_of(own.path, tokenizers[0]), tokens_of(taught_by.path, tokenizers[1]))
    student = load_language_model(own, tokenizers[0])
    conversation, width, positions = student.conversation, student.vocabulary_size, student.max_positions
    del student  # before the teacher is loaded, which may need all memory
    model = load_language_model(taught_by, tokenizers[1])
    info = TeacherTokensInfo(
        width=min(width, model.vocabulary_size),
        unshared=tuple(sorted(vocabulary.unshared)),
        positions=shared_positions(positions, model.max_positions),
    )
    limits = Limits(settings.max_prompt_tokens, settings.max_response_tokens, info.positions)
    examples, dropped = distilled_examples(context, rankings, conversation, limits, settings.on)
    require_readable(examples.groups, conversation, model.conversation, vocabulary)

    ours = our_share(range(len(examples)))
    batch_size, k = context.runtime.per_device_eval_batch_size, min(settings.top_k, info.width)
    found = likeliest_tokens(
        model, Subset(examples.groups, ours), batch_size, k, lambda logits_CV: vocabulary.restricted(logits_CV, info.width)
    )
    rows = (replace(one, index=ours[one.index]) for one in track(found, "teacher's tokens", len(ours)))
    write_teacher_tokens(shard(context.folder / ROWS), shard(context.scratch / ROWS), rows)
    wait_for_others(f"{context.folder.name} has its rows")
    if is_main_process():
        (context.folder / ABOUT).write_text(info.model_dump_json())
    tokens = sum(len(response) for group in examples.groups for response in group.responses)
    return StageResult(counts={"rankings": len(examples), "tokens": tokens, **examples.cut}, dropped=dropped)
