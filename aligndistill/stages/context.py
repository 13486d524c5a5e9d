"""What a stage's maker is given."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from aligndistill.chat.protocol import ChatModel
from aligndistill.config.models import EndpointModel
from aligndistill.config.run import Runtime
from aligndistill.errors import DataError
from aligndistill.store.artifacts import SCRATCH


@dataclass(frozen=True)
class Work:
    """What a stage's maker is given.

    Attributes:
        folder: where the result goes. It may hold what an interrupted run left.
        inputs: the finished folders it depends on, by name.
        identities: the fingerprint of each input.
        caches: a folder for what is kept by content hash, across stages and runs.
        open_endpoint: what stands for a server; None connects to it.
    """

    folder: Path
    inputs: Mapping[str, Path]
    identities: Mapping[str, str]
    caches: Path
    runtime: Runtime
    seed: int
    open_endpoint: Callable[[EndpointModel], ChatModel] | None = None

    @property
    def scratch(self) -> Path:
        """A folder for what is needed only until the stage is finished."""
        path = self.folder / SCRATCH
        path.mkdir(parents=True, exist_ok=True)
        return path


def require_records(count: int, what: str, dropped: Mapping[str, int]) -> None:
    """Refuse to go on with nothing.

    Raises:
        DataError: there are none; it says what was dropped and why.
    """
    if count == 0:
        reasons = ", ".join(f"{number} {reason}" for reason, number in dropped.items() if number) or "nothing"
        raise DataError(f"no {what} are left. Dropped: {reasons}. Change the data, or the limits and margins that drop it.")
