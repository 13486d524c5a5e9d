"""Samples from one author for some prompts, each saved as it arrives, so that a resumed run repeats none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, overload

from pydantic import Field

from aligndistill.chat.protocol import CUT_IN_THOUGHTS, NO_ANSWER, Reply, Request, SamplingParams
from aligndistill.config.models import EndpointModel
from aligndistill.errors import DataError
from aligndistill.processes.monitor import wait_for_others
from aligndistill.processes.progress import track
from aligndistill.processes.ranks import is_main_process, our_share
from aligndistill.records import Finish, Prompt, Record, Usage
from aligndistill.stages.context import ModelSource, StageContext, naming_row, thinking_tokens
from aligndistill.stages.generated import utc_now
from aligndistill.stages.opening import OpenChat, open_chat
from aligndistill.stages.shards import shard, shards
from aligndistill.store.jsonl import Appender, read_growing
from aligndistill.store.stored_records import StoredRecords

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
        cut_by: the `thinking_tokens` of the server's config that a reply without an answer reached; else 0.
    """

    prompt_id: str
    author: str
    sample: int
    text: str
    finish: Finish
    usage: Usage
    thoughts: str = Field(default="", exclude_if=lambda text: not text)
    time: str | None = None
    cut_by: int = Field(default=0, exclude_if=lambda tokens: not tokens)

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
        samples: every sample, by prompt and sample number, including those of interrupted runs; on the main process. They are
            read from the disk when they are asked for.
        too_long: the number of prompts that are too long for the author.
        refused: the number of answers that the author's server rejected; a resumed run requests them again.
        local: the author's model, if it runs here and was used.
    """

    samples: Mapping[tuple[str, int], StoredSample]
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
    too_long, refused, local = 0, 0, None
    with Appender(shard(partial)) as appender:
        missing = _missing(partial, name, job, thinking_tokens(author))
        if missing:
            chat = open_chat(context, author)
            local = chat.local
            fitting = missing if local is None else _fitting(chat, job, missing)
            too_long = len(missing) - len(fitting)
            ours = list(job.prompts) if on_server else our_share(list(job.prompts))
            requests = _Requests(job.prompts, [(prompt, fitting[prompt]) for prompt in ours if prompt in fitting])
            left = sum(len(missing.get(prompt, ())) for prompt in ours)
            before = len(ours) * job.samples - left
            total = before + sum(len(samples) for _, samples in requests.wanted)
            spending = context.spending if on_server else None
            arrived = unanswered = 0
            for answered in track(chat.model.answer(requests, job.sampling), f"{name} answers", total, before, spending):
                problem = answered.reply.problem
                if problem and not problem.startswith((CUT_IN_THOUGHTS, NO_ANSWER)):
                    refused += 1
                    continue
                prompt = requests.wanted[answered.request][0]
                sample = _stored_sample(prompt, name, answered.sample, answered.reply, thinking_tokens(author))
                appender.add([sample])
                arrived += 1
                unanswered += sample.unanswered
                if arrived >= ENOUGH_TO_STOP and unanswered > arrived / 2:
                    raise _unanswered(name, author, unanswered, arrived, job.sampling.max_new_tokens)
    if not on_server:
        wait_for_others(f"{context.folder.name} has the answers of {name}")
        if not (everywhere or is_main_process()):  # the main process may have finished and deleted the scratch folder
            return SampleResult({}, too_long, refused, local)
    return SampleResult(_answered(partial, name, author, job.sampling.max_new_tokens), too_long, refused, local)


def _missing(partial: Path, name: str, job: SamplingJob, thoughts: int) -> dict[str, tuple[int, ...]]:
    """The samples that are not stored yet, or were cut off inside their thoughts by a lower limit than `thoughts`, by prompt."""
    done: dict[str, set[int]] = {}
    for file in shards(partial):
        for one in read_growing(file, StoredSample):
            if one.author == name and not (one.unanswered and one.finish == "length" and one.cut_by < thoughts):
                done.setdefault(one.prompt_id, set()).add(one.sample)
    every = tuple(range(job.samples))
    left = {prompt: tuple(n for n in every if n not in done[prompt]) if prompt in done else every for prompt in job.prompts}
    return {prompt: samples for prompt, samples in left.items() if samples}


def _fitting(chat: OpenChat, job: SamplingJob, missing: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Those of prompts that are short enough."""
    fitting = {}
    for identity, samples in missing.items():
        prompt = job.prompts[identity]
        with naming_row(prompt.source):
            if chat.fits(prompt.messages, job.max_prompt_tokens, job.sampling.max_new_tokens):
                fitting[identity] = samples
    return fitting


class _Requests(Sequence[Request]):
    """Requests for the wanted samples, each made when it is asked for.

    Attributes:
        wanted: the id of each request's prompt, and the numbers of its samples.
    """

    def __init__(self, prompts: Mapping[str, Prompt], wanted: Sequence[tuple[str, tuple[int, ...]]]) -> None:
        self._prompts = prompts
        self.wanted = wanted

    def __len__(self) -> int:
        return len(self.wanted)

    @overload
    def __getitem__(self, place: int) -> Request: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Request]: ...
    def __getitem__(self, place: int | slice) -> Request | Sequence[Request]:
        if isinstance(place, slice):
            return _Requests(self._prompts, self.wanted[place])
        prompt, samples = self.wanted[place]
        return Request(self._prompts[prompt].messages, samples)


def _stored_sample(prompt: str, author: str, number: int, reply: Reply, thoughts: int) -> StoredSample:
    return StoredSample(
        prompt_id=prompt,
        author=author,
        sample=number,
        text=reply.text,
        finish=reply.finish,
        usage=reply.usage,
        thoughts=reply.thoughts,
        time=utc_now(),
        cut_by=thoughts if reply.problem.startswith(CUT_IN_THOUGHTS) else 0,
    )


def _answered(partial: Path, name: str, author: ModelSource, new_tokens: int) -> StoredRecords[tuple[str, int], StoredSample]:
    """The author's stored samples.

    Raises:
        DataError: too many of them ended inside the model's thoughts.
    """
    without_answer: set[tuple[str, int]] = set()

    def key(one: StoredSample) -> tuple[str, int] | None:
        if one.author != name:
            return None
        known_by = one.prompt_id, one.sample
        (without_answer.add if one.unanswered else without_answer.discard)(known_by)  # of several records the last one counts
        return known_by

    samples = StoredRecords(shards(partial), StoredSample, key, growing=True)
    if without_answer and len(without_answer) >= MAX_UNANSWERED * len(samples):
        raise _unanswered(name, author, len(without_answer), len(samples), new_tokens)
    return samples


def _unanswered(name: str, author: ModelSource, unanswered: int, replies: int, new_tokens: int) -> DataError:
    thoughts = thinking_tokens(author)
    limit = f"thinking_tokens ({thoughts}) beside it" if thoughts else f"max_new_tokens ({new_tokens})"
    return DataError(
        f"{name} thinks before it answers, and {unanswered} of {replies} replies ended inside the thoughts, without an answer "
        f"(fewer than {MAX_UNANSWERED:.0%} may). Set thinking: off for this model, or raise {limit}."
    )
