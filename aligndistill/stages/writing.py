"""Samples from one author for some prompts, each written to its file as it arrives: after a kill none is asked for again."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from aligndistill.chat.protocol import Request, Sampling
from aligndistill.config import EndpointModel
from aligndistill.models.load import LanguageModel
from aligndistill.progress import track
from aligndistill.records import Finish, Message, Record, Usage
from aligndistill.stages.open_models import open_chat
from aligndistill.stages.sharing import part, parts
from aligndistill.stages.stage import Work, wait_for_others
from aligndistill.store.jsonl import Appender, read_jsonl
from aligndistill.training.distributed import is_main_process, our_share


class Written(Record):
    """One sample as it arrived."""

    prompt_id: str
    author: str
    sample: int
    text: str
    finish: Finish
    usage: Usage


@dataclass(frozen=True)
class Author:
    """Who writes: the name of the stage's input that holds its model, or a server."""

    name: str
    endpoint: EndpointModel | None


@dataclass(frozen=True)
class Order:
    """What is wanted: `samples` answers to each prompt (id -> messages), none to prompts over the limit."""

    prompts: Mapping[str, tuple[Message, ...]]
    samples: int
    max_prompt_tokens: int
    sampling: Sampling


@dataclass(frozen=True)
class Delivery:
    """What came of it.

    Attributes:
        written: every sample, by prompt and sample number, those of earlier tries included; on the first process.
        too_long: how many prompts the author has no room for.
        refused: how many answers the author's server refused to give; they are asked for again by a run that goes on.
        local: the author's model, when it runs here and had something to write.
    """

    written: dict[tuple[str, int], Written]
    too_long: int
    refused: int
    local: LanguageModel | None


def write_samples(work: Work, author: Author, order: Order, partial: Path) -> Delivery:
    """Have an author write what is missing in `partial`, a JSONL file of `Written`, and its parts.

    Where several processes run, each writes its share of what a local model writes; a server is asked by the first alone.
    """
    if author.endpoint is not None and not is_main_process():
        return Delivery({}, 0, 0, None)
    with Appender(part(partial)) as appender:
        done: dict[str, set[int]] = defaultdict(set)
        for one in _written(partial, author):
            done[one.prompt_id].add(one.sample)
        missing = {prompt: tuple(n for n in range(order.samples) if n not in done[prompt]) for prompt in order.prompts}
        wanted = [prompt for prompt, samples in missing.items() if samples]
        too_long, refused, local = 0, 0, None
        if wanted:
            chat = open_chat(work, author.name, author.endpoint)
            local = chat.local
            new_tokens = order.sampling.max_new_tokens
            fitting = [prompt for prompt in wanted if chat.fits(order.prompts[prompt], order.max_prompt_tokens, new_tokens)]
            too_long = len(wanted) - len(fitting)
            if author.endpoint is None:
                ours = set(our_share(list(order.prompts)))
                fitting = [prompt for prompt in fitting if prompt in ours]
            requests = [Request(order.prompts[prompt], missing[prompt]) for prompt in fitting]
            total = sum(len(request.samples) for request in requests)
            for answered in track(chat.model.answer(requests, order.sampling), f"written by {author.name}", total):
                if answered.reply.problem:
                    refused += 1
                    continue
                appender.add(
                    [
                        Written(
                            prompt_id=fitting[answered.request],
                            author=author.name,
                            sample=answered.sample,
                            text=answered.reply.text,
                            finish=answered.reply.finish,
                            usage=answered.reply.usage,
                        )
                    ]
                )
    if author.endpoint is None:
        wait_for_others(f"{work.folder.name} has what {author.name} writes")
        if not is_main_process():  # the first one may have finished by now, and scratch is gone then
            return Delivery({}, too_long, refused, local)
    written = {(one.prompt_id, one.sample): one for one in _written(partial, author)}
    return Delivery(written, too_long, refused, local)


def _written(partial: Path, author: Author) -> Iterator[Written]:
    for file in parts(partial):
        yield from (one for one in read_jsonl(file, Written) if one.author == author.name)
