"""The context of a stage's function, passed besides its arguments."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aligndistill.chat.protocol import ChatModel
from aligndistill.config.models import EndpointModel, FunctionModel
from aligndistill.config.run import Runtime
from aligndistill.errors import DataError, RefusedConversation
from aligndistill.judges.protocol import Judge
from aligndistill.store.artifacts import SCRATCH

ModelSource = Path | EndpointModel | FunctionModel
"""A model as an argument of a stage's function: the folder of a stage with its pointer, a server, or a function."""


@dataclass(frozen=True)
class StageContext:
    """The context of a stage.

    Attributes:
        name: of the stage, for messages and progress.
        folder: the folder of the result. It may hold files of an interrupted run.
        caches: a folder for caches by content hash, shared by stages and runs.
        identities: the fingerprint of each input, by its folder.
        unreadable_limit: the share of unreadable verdicts above which a judge is stopped early; None never stops it.
        open_endpoint: replaces a server by a chat model; None connects to the server.
        spending: what the run has spent on servers so far, as text for progress messages.
        open_model, open_grader: in a dry run, replace any chat model, and any judge (by name) that computes its grades here.
    """

    name: str
    folder: Path
    caches: Path
    runtime: Runtime
    identities: Mapping[Path, str] = field(default_factory=dict)
    unreadable_limit: float | None = None
    open_endpoint: Callable[[EndpointModel], ChatModel] | None = None
    spending: Callable[[], str] | None = None
    open_model: Callable[[ModelSource], ChatModel] | None = None
    open_grader: Callable[[str], Judge] | None = None

    @property
    def is_dry(self) -> bool:
        """Whether this is a dry run, in which models give placeholders and functions of users are not called."""
        return self.open_grader is not None

    @property
    def scratch(self) -> Path:
        """A folder for files that are needed only until the stage is finished."""
        path = self.folder / SCRATCH
        path.mkdir(parents=True, exist_ok=True)
        return path


def thinking_tokens(model: ModelSource) -> int:
    """The most tokens of thoughts that a server's config allows. They change no key: replies that a lower limit cut off inside
    their thoughts are asked for again. 0 for a model that is not on a server."""
    return model.thinking_tokens if isinstance(model, EndpointModel) else 0


@contextmanager
def naming_row(source: str) -> Iterator[None]:
    """Name the row of the data in the error for a conversation that a model's template refuses."""
    try:
        yield
    except RefusedConversation as error:
        raise DataError(f"{source}: {error}") from None


def require_records(count: int, what: str, dropped: Mapping[str, int], advice: str = "") -> None:
    """Raise an error if no records are left.

    Args:
        advice: added to the message.

    Raises:
        DataError: `count` is 0; the message has the reasons of the dropped ones.
    """
    if count == 0:
        reasons = ", ".join(f"{number} {reason}" for reason, number in dropped.items() if number) or "nothing"
        change = f"Change the data, or the limits and margins that drop records.{advice and ' '}{advice}"
        raise DataError(f"no {what} are left. Dropped: {reasons}. {change}")
