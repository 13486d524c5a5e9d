"""generated.jsonl: of each row that a model wrote, which model, asked what, how, when and at what cost.

It stands beside the rows, not in them, so that these are the same bytes after an interruption: only times differ.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import Field

from aligndistill.chat.protocol import SamplingParams
from aligndistill.config.budget import Price
from aligndistill.config.models import EndpointModel, FunctionModel
from aligndistill.config.servers import hosts_of
from aligndistill.models.folder import read_json
from aligndistill.records import Demonstration, Message, Record, Usage, candidate_id, prompt_id
from aligndistill.stages.context import ModelSource
from aligndistill.stages.files import GENERATED
from aligndistill.store.artifacts import content_fingerprint
from aligndistill.store.jsonl import read_jsonl, write_jsonl


class Generated(Record):
    """How a model wrote a row. The request is the one whose reply has the row's text, no other that the row took.

    Attributes:
        id: of the prompt or the candidate; of a demonstration `demonstration_id`.
        author: the model's name in the config.
        model: the name on its server, a Hub name, the name of a folder, or a function.
        server: host and port, without path or credentials; None for a model that ran here.
        revision: the Hub commit, or a hash of the folder's content or of the function's code; None if unknown.
        prompt_hash: of the messages as they were sent (see `prompt_id`).
        sampling: what the request set: `temperature`, `max_new_tokens`, `seed` (the run's), `top_p` if the config gives it.
        time: when the reply was received, UTC; None if it was stored by a version that kept no times.
        of: how many rows that the stage kept are from this one request, which each of them names whole: divide by it before adding
            up. Filters may drop some of them later.
        prompt_tokens, completion_tokens: of the request; None if the model does not say. Where a server gave several replies to one
            request, the first of them has the tokens of all, and the others have 0.
        usd: their price by `budget.prices`; None without one.
    """

    id: str
    author: str
    model: str
    server: str | None = None
    revision: str | None = None
    prompt_hash: str
    sampling: Mapping[str, Any]
    time: str | None
    of: int = Field(default=1, ge=1)
    prompt_tokens: int | None
    completion_tokens: int | None
    usd: float | None


@dataclass(frozen=True)
class Writer:
    """A model that writes rows of a stage.

    Attributes:
        author: its name in the config.
        model, server, revision, sampling: see `Generated`.
    """

    author: str
    model: str
    server: str | None
    revision: str | None
    sampling: Mapping[str, Any]
    price: Price | None

    def line(self, row: str, messages: Sequence[Message], usage: Usage, time: str | None, of: int = 1) -> Generated:
        """The line of one row.

        Args:
            row: its id.
            messages: as they were sent; none where the model wrote the user's turn by itself.
        """
        known = usage.calls == 0 or usage.prompt_tokens + usage.completion_tokens > 0
        usd = self.price.usd(usage.prompt_tokens, usage.completion_tokens) if self.price is not None and known else None
        return Generated(
            id=row,
            author=self.author,
            model=self.model,
            server=self.server,
            revision=self.revision,
            prompt_hash=prompt_id(messages),
            sampling=self.sampling,
            time=time,
            of=of,
            prompt_tokens=usage.prompt_tokens if known else None,
            completion_tokens=usage.completion_tokens if known else None,
            usd=usd,
        )


def writer(author: str, source: ModelSource, sampling: SamplingParams, prices: Mapping[str, Price]) -> Writer:
    """What the lines of a model have in common. `prices` are by the names of the models, of those that have one."""
    values = {"temperature": sampling.temperature, "max_new_tokens": sampling.max_new_tokens, "seed": sampling.seed}
    price = prices.get(author)
    if isinstance(source, EndpointModel):
        sent = {name: value for name, value in values.items() if name not in source.omit}
        sent |= {name: source.body[name] for name in ("temperature", "seed", "top_p") if name in source.body}
        return Writer(author, source.name, hosts_of(source.urls), None, sent, price)
    if isinstance(source, FunctionModel):
        return Writer(author, source.function, None, source.code_hash[:16] or None, values, price)
    return Writer(author, *_local(source), values, price)


def _local(folder: Path) -> tuple[str, str | None, str | None]:
    """The name of the model that a stage's folder points to, no server, and its revision. In a dry run there is no model yet."""
    pointer = read_json(folder / "model.json")
    named = str(pointer.get("adapter") or pointer.get("path", folder.name))
    path = folder / named
    if not path.is_dir():
        return named, None, pointer.get("revision")
    trained_here = path.parent == folder or path.name == "model"
    return (path.parent if trained_here else path).resolve().name, None, content_fingerprint(path)


def utc_now() -> str:
    """The time, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def demonstration_id(row: Demonstration) -> str:
    """The id of a demonstration's line: that of the candidate with its text."""
    return candidate_id(row.prompt_id, row.author, row.response)


def write_generated(folder: Path, lines: Iterable[Generated]) -> None:
    """Write the lines, in the order of the rows."""
    write_jsonl(folder / GENERATED, lines)


def read_generated(folder: Path) -> dict[str, Generated]:
    """The lines of a stage's folder by the ids of the rows; empty for one of a version that wrote none."""
    path = folder / GENERATED
    return {one.id: one for one in read_jsonl(path, Generated)} if path.is_file() else {}


def known_lines(known: Mapping[str, Generated], rows: Iterable[str]) -> list[Generated]:
    """The lines of these rows, in their order, without rows that no model wrote."""
    return [known[row] for row in rows if row in known]
