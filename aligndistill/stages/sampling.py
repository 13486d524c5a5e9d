"""Samples from one author for some prompts, each saved as it arrives, so that a resumed run repeats none."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from aligndistill.chat.protocol import CUT_IN_THOUGHTS, NO_ANSWER, Reply, Request, SamplingParams
from aligndistill.config.models import EndpointModel
from aligndistill.errors import DataError
from aligndistill.processes.monitor import wait_for_others
from aligndistill.processes.progress import track
from aligndistill.processes.ranks import is_main_process, our_share
from aligndistill.records import Finish, Prompt, Record, Usage
from aligndistill.stages.context import ModelSource, StageContext, naming_row
from aligndistill.stages.generated import utc_now
from aligndistill.stages.opening import open_chat
from aligndistill.stages.shards import shard, shards
from aligndistill.store.jsonl import Appender, read_jsonl

if TYPE_CHECKING:
    from aligndistill.models.load import LanguageModel


MAX_UNANSWERED = 0.2
"""The largest share of replies that may end inside the model's thoughts."""

ENOUGH_TO_STOP = 64
"""After this many replies, more than half of them without an answer end the stage at once."""


class StoredSample(Record):
    """One saved sample. Its text is the answer, without the thoughts in front of it.

    Attributes:
        time: when it was received, UTC; None in files of versions that kept no times.
    """

    prompt_id: str
    author: str
    sample: int
    text: str
    finish: Finish
    usage: Usage
    thoughts: str = Field(default="", exclude_if=lambda text: not text)
    time: str | None = None

    @property
    def unanswered(self) -> bool:
        """Whether the reply ended inside the thoughts, or right behind them."""
        return bool(self.thoughts) and not self.text.strip()


@dataclass(frozen=True)
class SamplingJob:
    """The samples to generate: `samples` answers to each prompt, by its id, none to prompts over the limit."""

    prompts: Mapping[str, Prompt]
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


def sample_answers(
    context: StageContext, name: str, author: ModelSource, job: SamplingJob, partial: Path, everywhere: bool = False
) -> SampleResult:
    """Sample the answers that are missing in `partial`, a JSONL file of `StoredSample`, and its shards.

    Each process samples its share from a local model; only the main process sends requests to a server.

    Args:
        name: of the author, or of the author and a step of several, each of which has samples of its own.
        everywhere: every process gets a local model's samples; for all steps but the last one of a stage.

    Raises:
        DataError: too many replies ended inside the model's thoughts.
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
            fitting = []
            for prompt in wanted:
                with naming_row(job.prompts[prompt].source):
                    if chat.fits(job.prompts[prompt].messages, job.max_prompt_tokens, new_tokens):
                        fitting.append(prompt)
            too_long = len(wanted) - len(fitting)
            ours = set(job.prompts if on_server else our_share(list(job.prompts)))
            asked = [prompt for prompt in fitting if prompt in ours]
            requests = [Request(job.prompts[prompt].messages, missing[prompt]) for prompt in asked]
            before = sum(len(done[prompt]) for prompt in ours)
            total = before + sum(len(request.samples) for request in requests)
            spending = context.spending if on_server else None
            arrived = unanswered = 0
            for answered in track(chat.model.answer(requests, job.sampling), f"{name} answers", total, before, spending):
                problem = answered.reply.problem
                if problem and not problem.startswith((CUT_IN_THOUGHTS, NO_ANSWER)):
                    refused += 1
                    continue
                sample = _stored_sample(asked[answered.request], name, answered.sample, answered.reply)
                appender.add([sample])
                arrived += 1
                unanswered += sample.unanswered
                if arrived >= ENOUGH_TO_STOP and unanswered > arrived / 2:
                    raise _unanswered(name, unanswered, arrived, new_tokens)
    if not on_server:
        wait_for_others(f"{context.folder.name} has the answers of {name}")
        if not (everywhere or is_main_process()):  # the main process may have finished and deleted the scratch folder
            return SampleResult({}, too_long, refused, local)
    samples = {(one.prompt_id, one.sample): one for one in _stored(partial, name)}
    _require_answers(name, samples.values(), job.sampling.max_new_tokens)
    return SampleResult(samples, too_long, refused, local)


def _stored_sample(prompt: str, author: str, number: int, reply: Reply) -> StoredSample:
    return StoredSample(
        prompt_id=prompt,
        author=author,
        sample=number,
        text=reply.text,
        finish=reply.finish,
        usage=reply.usage,
        thoughts=reply.thoughts,
        time=utc_now(),
    )


def _require_answers(name: str, samples: Collection[StoredSample], new_tokens: int) -> None:
    unanswered = sum(one.unanswered for one in samples)
    if unanswered and unanswered >= MAX_UNANSWERED * len(samples):
        raise _unanswered(name, unanswered, len(samples), new_tokens)


def _unanswered(name: str, unanswered: int, replies: int, new_tokens: int) -> DataError:
    return DataError(
        f"{name} thinks before it answers, and {unanswered} of {replies} replies ended inside the thoughts, without an answer "
        f"(fewer than {MAX_UNANSWERED:.0%} may). Set thinking: off for this model, or raise max_new_tokens ({new_tokens})."
    )


def _stored(partial: Path, author: str) -> Iterator[StoredSample]:
    for file in shards(partial):
        yield from (one for one in read_jsonl(file, StoredSample) if one.author == author)
