"""Samples from one author for some prompts, each saved as it arrives, so that a resumed run repeats none."""

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
    """One saved sample."""

    prompt_id: str
    author: str
    sample: int
    text: str
    finish: Finish
    usage: Usage


@dataclass(frozen=True)
class SamplingJob:
    """The samples to generate: `samples` answers to each prompt (id -> messages), none to prompts over the limit."""

    prompts: Mapping[str, tuple[Message, ...]]
    samples: int
    max_prompt_tokens: int
    sampling: SamplingParams


@dataclass(frozen=True)
class SampleResult:
    """The samples of one author.

    Attributes:
        samples: every sample, by prompt and sample number, including those of interrupted runs; on the main process.
        too_long: the number of prompts that are too long for the author.
        refused: the number of answers that the author's server rejected; a resumed run requests them again.
        local: the author's model, if it runs here and was used.
    """

    samples: dict[tuple[str, int], StoredSample]
    too_long: int
    refused: int
    local: "LanguageModel | None"


def sample_answers(context: StageContext, name: str, author: ModelSource, job: SamplingJob, partial: Path) -> SampleResult:
    """Sample the answers that are missing in `partial`, a JSONL file of `StoredSample`, and its shards.

    Each process samples its share from a local model; only the main process sends requests to a server.
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
            ours = set(job.prompts if on_server else our_share(list(job.prompts)))
            asked = [prompt for prompt in fitting if prompt in ours]
            requests = [Request(job.prompts[prompt], missing[prompt]) for prompt in asked]
            before = sum(len(done[prompt]) for prompt in ours)
            total = before + sum(len(request.samples) for request in requests)
            spending = context.spending if on_server else None
            for answered in track(chat.model.answer(requests, job.sampling), f"answers of {name}", total, before, spending):
                if answered.reply.problem:
                    refused += 1
                    continue
                sample = StoredSample(
                    prompt_id=asked[answered.request],
                    author=name,
                    sample=answered.sample,
                    text=answered.reply.text,
                    finish=answered.reply.finish,
                    usage=answered.reply.usage,
                )
                appender.add([sample])
    if not on_server:
        wait_for_others(f"{context.folder.name} has the answers of {name}")
        if not is_main_process():  # the main process may have finished and deleted the scratch folder
            return SampleResult({}, too_long, refused, local)
    samples = {(one.prompt_id, one.sample): one for one in _stored(partial, name)}
    return SampleResult(samples, too_long, refused, local)


def _stored(partial: Path, author: str) -> Iterator[StoredSample]:
    for file in shards(partial):
        yield from (one for one in read_jsonl(file, StoredSample) if one.author == author)
