"""answers.jsonl: one model's answers to the held-out prompts, and its KL from the reference."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aligndistill.chat.protocol import SamplingParams
from aligndistill.config.run import AnswerSampling
from aligndistill.errors import DataError
from aligndistill.processes.ranks import is_main_process
from aligndistill.records import Answer, Prompt
from aligndistill.stages.context import ModelSource, StageContext
from aligndistill.stages.files import ANSWERS, held_out_prompts
from aligndistill.stages.sampling import SamplingJob, sample_answers
from aligndistill.store.jsonl import write_jsonl
from aligndistill.store.stage import StageResult, together

if TYPE_CHECKING:
    from aligndistill.models.load import LanguageModel


@together
def make(
    context: StageContext,
    *,
    name: str,
    author: ModelSource,
    sampling: AnswerSampling,
    prompts: Path,
    seed: int,
    reference: ModelSource | None = None,
) -> StageResult:
    """Sample the author's answers; with a `reference`, also KL(author || reference)."""
    held_out = {prompt.id: prompt for prompt in held_out_prompts(prompts, sampling.prompts)}
    how = SamplingParams(sampling.temperature, sampling.max_new_tokens, seed)
    job = SamplingJob(held_out, sampling.samples_per_prompt, sampling.max_prompt_tokens, how)
    result = sample_answers(context, name, author, job, context.scratch / "sampled.jsonl")
    if not is_main_process():
        return StageResult()
    if not result.samples:
        raise DataError(
            f"none of the {len(held_out)} held-out prompts fits into {name}: lower max_new_tokens ({sampling.max_new_tokens}) or "
            "use a model with more positions."
            if not result.refused
            else f"the server of {name} rejected all {result.refused} requests for answers; the warnings above give the reasons."
        )
    answers = [
        Answer(
            prompt_id=prompt,
            author=name,
            text=one.text,
            finish=one.finish,
            length_tokens=one.usage.completion_tokens,
        )
        for prompt in held_out
        for sample in range(sampling.samples_per_prompt)
        if (one := result.samples.get((prompt, sample))) is not None
    ]
    if isinstance(author, Path) and isinstance(reference, Path):
        answers = _with_kl(context, result.local, author, reference, held_out, answers)
    write_jsonl(context.folder / ANSWERS, answers)
    unanswered = sum(one.unanswered for one in result.samples.values())
    dropped = {"prompt too long": result.too_long, "refused": result.refused}
    return StageResult(
        counts={
            "prompts": len(held_out) - result.too_long,
            "answers": len(answers),
            **({"ended inside thoughts": unanswered} if unanswered else {}),
        },
        dropped={reason: count for reason, count in dropped.items() if count},
    )


def _with_kl(
    context: StageContext,
    policy: "LanguageModel | None",
    author: Path,
    reference: Path,
    prompts: Mapping[str, Prompt],
    answers: Sequence[Answer],
) -> list[Answer]:
    from aligndistill.models.groups import TokenGroup
    from aligndistill.models.load import load_language_model, read_pointer
    from aligndistill.models.scoring import kl_nats

    policy = policy or load_language_model(read_pointer(author))
    conversation = policy.conversation
    # The KL of an answer without tokens (empty and truncated) is 0.
    groups = [
        TokenGroup(
            conversation.prompt_ids(prompts[answer.prompt_id].messages),
            [conversation.response_ids(answer.text, answer.finish == "stop") or [conversation.end_of_turn]],
        )
        for answer in answers
    ]
    start = load_language_model(read_pointer(reference), policy.tokenizer)
    divergences = kl_nats(policy, start, groups, context.runtime.per_device_eval_batch_size)
    return [answer.model_copy(update={"kl_nats": row[0]}) for answer, row in zip(answers, divergences, strict=True)]
