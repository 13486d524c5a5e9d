"""answers.jsonl: what one model writes for the held-out prompts, and how far it has moved from the start."""

from collections.abc import Mapping, Sequence

from aligndistill.chat.protocol import Sampling
from aligndistill.config.models import EndpointModel
from aligndistill.config.run import Evaluation
from aligndistill.errors import DataError
from aligndistill.models.groups import TokenGroup
from aligndistill.models.load import LanguageModel, load_language_model, read_pointer
from aligndistill.models.scoring import kl_nats
from aligndistill.processes.ranks import is_main_process
from aligndistill.records import Answer, Message, Prompt, Ranking, Record
from aligndistill.stages.context import Work
from aligndistill.stages.sampling import Author, Order, write_samples
from aligndistill.store.jsonl import read_jsonl, write_jsonl
from aligndistill.store.stage import Made


class HeldOutPrompt(Record):
    """A prompt that only the evaluation sees."""

    id: str
    messages: tuple[Message, ...]


def held_out_prompts(work: Work, limit: int | None) -> list[HeldOutPrompt]:
    """The held-out prompts of the run, from `prompts` or from ready-made `rankings`; the first `limit` by id."""
    found: dict[str, HeldOutPrompt] = {}
    if "prompts" in work.inputs:
        for prompt in read_jsonl(work.inputs["prompts"] / "prompts.jsonl", Prompt):
            if prompt.split == "held_out":
                found[prompt.id] = HeldOutPrompt(id=prompt.id, messages=prompt.messages)
    else:
        for ranking in read_jsonl(work.inputs["rankings"] / "rankings.jsonl", Ranking):
            if ranking.split == "held_out":
                found[ranking.prompt_id] = HeldOutPrompt(id=ranking.prompt_id, messages=ranking.messages)
    return [found[identity] for identity in sorted(found)][:limit]


def make_answers(
    work: Work, author: str, settings: Evaluation, max_prompt_tokens: int, max_new_tokens: int, endpoint: EndpointModel | None
) -> Made:
    """Sample the author's answers; with an input `start` that is another model, also KL(author || start)."""
    prompts = {prompt.id: prompt.messages for prompt in held_out_prompts(work, settings.prompts)}
    sampling = Sampling(settings.temperature, max_new_tokens, work.seed)
    order = Order(prompts, settings.samples_per_prompt, max_prompt_tokens, sampling)
    delivery = write_samples(work, Author(author, endpoint), order, work.scratch / "written.jsonl")
    if not is_main_process():
        return Made()
    if not delivery.written:
        raise DataError(
            f"none of the {len(prompts)} held-out prompts fits {author}: lower max_new_tokens ({max_new_tokens}) or take a model "
            "with more positions."
            if not delivery.refused
            else f"the server of {author} refused all {delivery.refused} requests for answers: the warnings above say why."
        )
    answers = [
        Answer(
            prompt_id=prompt,
            author=author,
            text=one.text,
            finish=one.finish,
            length_tokens=one.usage.completion_tokens,
        )
        for prompt in prompts
        for sample in range(settings.samples_per_prompt)
        if (one := delivery.written.get((prompt, sample))) is not None
    ]
    if endpoint is None and "start" in work.inputs and author != "start":
        policy = delivery.local or load_language_model(read_pointer(work.inputs[author]))
        answers = _with_kl(work, policy, prompts, answers)
    write_jsonl(work.folder / "answers.jsonl", answers)
    return Made(
        counts={"prompts": len(prompts) - delivery.too_long, "answers": len(answers)},
        dropped={
            reason: count for reason, count in (("prompt too long", delivery.too_long), ("refused", delivery.refused)) if count
        },
    )


def _with_kl(
    work: Work, policy: LanguageModel, prompts: Mapping[str, tuple[Message, ...]], answers: Sequence[Answer]
) -> list[Answer]:
    start = load_language_model(read_pointer(work.inputs["start"]))
    conversation = policy.conversation
    # An answer without a token (its text was empty and it was cut) has moved nowhere.
    groups = [
        TokenGroup(
            conversation.prompt_ids(prompts[answer.prompt_id]),
            [conversation.response_ids(answer.text, answer.finish == "stop") or [conversation.end_of_turn]],
        )
        for answer in answers
    ]
    divergences = kl_nats(policy, start, groups, work.runtime.per_device_eval_batch_size)
    return [answer.model_copy(update={"kl_nats": row[0]}) for answer, row in zip(answers, divergences, strict=True)]
