"""Samples from one author for some prompts, each on disk as it arrives: nothing that was sampled is asked for again."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aligndistill.chat.protocol import Request, SamplingParams
from aligndistill.config.models import EndpointModel
from aligndistill.processes.monitor import wait_for_others
from aligndistill.processes.progress import track
from aligndistill.processes.ranks import is_main_process, our_share
from aligndistill.records import Finish, Message, Record, Usage
from aligndistill.stages.context import ModelSource, StageContext
from aligndistill.stages.opening import open_chat
from aligndistill.stages.shards import shard, shards
from aligndistill.store.jsonl import Appender, read_jsonl

if TYPE_CHECKING:
    from aligndistill.models.load import LanguageModel


class StoredSample(Record):
    """One sample as it arrived."""

    prompt_id: str
    author: str
    sample: int
    text: str
    finish: Finish
    usage: Usage


@dataclass(frozen=True)
class SamplingJob:
    """What is wanted: `samples` answers to each prompt (id -> messages), none to prompts over the limit."""

    prompts: Mapping[str, tuple[Message, ...]]
    samples: int
    max_prompt_tokens: int
    sampling: SamplingParams


@dataclass(frozen=True)
class SampleResult:
    """The samples of one author.

    Attributes:
        samples: every sample, by prompt and sample number, those of interrupted runs included; on the first process.
        too_long: how many prompts are too long for the author.
        refused: how many answers the author's server refused to give; a resumed run asks for them again.
        local: the author's model, when it runs here and had something to sample.
    """

    samples: dict[tuple[str, int], StoredSample]
    too_long: int
    refused: int
    local: "LanguageModel | None"


def sample_answers(context: StageContext, name: str, author: ModelSource, job: SamplingJob, partial: Path) -> SampleResult:
    """Have an author answer what is missing in `partial`, a JSONL file of `StoredSample`, and its shards.

    Where several processes run, each samples its share from a local model; a server is asked by the first alone.
    """
    on_server = isinstance(author, EndpointModel)
    if on_server and not is_main_process():
        return SampleResult({}, 0, 0, None)
    with Appender(shard(partial)) as appender:
        done: dict[str, set[int]] = defaultdict(set)
        for one in _stored(partial, name):
            done[one.prompt_id].add(one.sample)
        missing = {prompt: tuple(n for n in range(job.samples) if n not in done[prompt]) for prompt in job.prompts}
        wanted = [prompt for prompt, samples in missing.items() if samples]
        too_long, refused, local = 0, 0, None
        if wanted:
            chat = open_chat(context, author)
            local = chat.local
            new_tokens = job.sampling.max_new_tokens
            fitting = [prompt for prompt in wanted if chat.fits(job.prompts[prompt], job.max_prompt_tokens, new_tokens)]
            too_long = len(wanted) - len(fitting)
            if not on_server:
                ours = set(our_share(list(job.prompts)))
                fitting = [prompt for prompt in fitting if prompt in ours]
            requests = [Request(job.prompts[prompt], missing[prompt]) for prompt in fitting]
            total = sum(len(request.samples) for request in requests)
            for answered in track(chat.model.answer(requests, job.sampling), f"answers of {name}", total):
                if answered.reply.problem:
                    refused += 1
                    continue
                sample = StoredSample(
                    prompt_id=fitting[answered.request],
                    author=name,
                    sample=answered.sample,
                    text=answered.reply.text,
                    finish=answered.reply.finish,
                    usage=answered.reply.usage,
                )
                appender.add([sample])
    if not on_server:
        wait_for_others(f"{context.folder.name} has the answers of {name}")
        if not is_main_process():  # the first one may have finished by now, and scratch is gone then
            return SampleResult({}, too_long, refused, local)
    samples = {(one.prompt_id, one.sample): one for one in _stored(partial, name)}
    return SampleResult(samples, too_long, refused, local)


def _stored(partial: Path, author: str) -> Iterator[StoredSample]:
    for file in shards(partial):
        yield from (one for one in read_jsonl(file, StoredSample) if one.author == author)
