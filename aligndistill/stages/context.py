"""What a stage's function is given besides its arguments."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from aligndistill.chat.protocol import ChatModel
from aligndistill.config.models import EndpointModel
from aligndistill.config.run import Runtime
from aligndistill.errors import DataError
from aligndistill.judges.protocol import Judge
from aligndistill.store.artifacts import SCRATCH

ModelSource = Path | EndpointModel
"""A model as a stage's function is given it: the folder of a stage with its pointer, or a server."""


@dataclass(frozen=True)
class StageContext:
    """Where a stage works.

    Attributes:
        name: of the stage, for messages and progress.
        folder: where the result goes. It may hold what an interrupted run left.
        caches: a folder for what is kept by content hash, across stages and runs.
        identities: the fingerprint of each input, by its folder.
        open_endpoint: what stands for a server; None connects to it.
        open_model, open_grader: what stands, in a dry run, for any chat model, and for a judge (by name) that grades here.
    """

    name: str
    folder: Path
    caches: Path
    runtime: Runtime
    identities: Mapping[Path, str] = field(default_factory=dict)
    open_endpoint: Callable[[EndpointModel], ChatModel] | None = None
    open_model: Callable[[ModelSource], ChatModel] | None = None
    open_grader: Callable[[str], Judge] | None = None

    @property
    def scratch(self) -> Path:
        """A folder for what is needed only until the stage is finished."""
        path = self.folder / SCRATCH
        path.mkdir(parents=True, exist_ok=True)
        return path


def require_records(count: int, what: str, dropped: Mapping[str, int]) -> None:
    """Refuse to continue with nothing.

    Raises:
        DataError: there are none; it says what was dropped and why.
    """
    if count == 0:
        reasons = ", ".join(f"{number} {reason}" for reason, number in dropped.items() if number) or "nothing"
        raise DataError(f"no {what} are left. Dropped: {reasons}. Change the data, or the limits and margins that drop it.")
