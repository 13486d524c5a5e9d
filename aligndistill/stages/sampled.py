"""What a model writes for prompts, each sample on disk as it arrives: a kill loses none that was paid for."""

from collections.abc import Mapping
from dataclasses import dataclass

from aligndistill.chat.protocol import Request, Sampling
from aligndistill.progress import bar
from aligndistill.records import Finish, Message, Record, Usage
from aligndistill.stages.open_models import OpenChat
from aligndistill.stages.stage import Work
from aligndistill.store.jsonl import Appender, read_jsonl


class Written(Record):
    """One sample as it arrived."""

    prompt_id: str
    author: str
    sample: int
    text: str
    finish: Finish
    usage: Usage


@dataclass(frozen=True)
class Sampled:
    """What an author wrote, by prompt id and sample number, and how many prompts are too long for it."""

    written: Mapping[tuple[str, int], Written]
    prompts_too_long: int


def sample_answers(
    work: Work,
    author: str,
    chat: OpenChat,
    prompts: Mapping[str, tuple[Message, ...]],
    samples: int,
    sampling: Sampling,
    max_prompt_tokens: int,
    label: str,
) -> Sampled:
    """So many samples for each prompt that fits, by prompt id; only those are asked for that are not there yet."""
    path = work.scratch / "written.jsonl"
    fitting = [
        identity for identity, messages in prompts.items() if chat.fits(messages, max_prompt_tokens, sampling.max_new_tokens)
    ]
    with Appender(path) as appender:
        written = {(one.prompt_id, one.sample): one for one in read_jsonl(path, Written) if one.author == author}
        missing = {identity: tuple(n for n in range(samples) if (identity, n) not in written) for identity in fitting}
        asked = [identity for identity, numbers in missing.items() if numbers]
        requests = [Request(prompts[identity], missing[identity]) for identity in asked]
        with bar(label, sum(len(request.samples) for request in requests)) as running:
            for answered in chat.model.answer(requests, sampling):
                one = Written(
                    prompt_id=asked[answered.request],
                    author=author,
                    sample=answered.sample,
                    text=answered.reply.text,
                    finish=answered.reply.finish,
                    usage=answered.reply.usage,
                )
                appender.add([one])
                written[one.prompt_id, one.sample] = one
                running.advance()
    return Sampled(written, len(prompts) - len(fitting))
