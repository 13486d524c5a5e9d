"""Where a run's data comes from, as `provenance.json`: who wrote and judged it, under which terms, when, and at what cost."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from aligndistill.records import Record

UNKNOWN = "unknown"


class ModelOrigin(Record):
    """A model that wrote or judged something.

    Attributes:
        name: in the config; the author of its rows.
        model: a Hub name, the last part of a folder's path, or the name on its server.
        server: host and port, without path or credentials; None for a model that ran here.
        revision: the commit, or a hash of the folder's content; None if unknown.
        licence: as the config gives it, or as the model's README.md names it; else `unknown`.
        outputs_may_train: whether what it writes may be used to train other models, as the config says.
    """

    name: str
    model: str
    server: str | None = None
    revision: str | None = None
    licence: str = UNKNOWN
    outputs_may_train: Literal["yes", "no", "unknown"] = "unknown"


class DataOrigin(Record):
    """Data that a run read. `hash` is of its content; of a data set on the Hub, `revision` is the commit."""

    key: str
    data: str
    revision: str | None = None
    hash: str | None = None
    licence: str = UNKNOWN


class Origins(Record):
    """All models and data of a run."""

    models: tuple[ModelOrigin, ...] = ()
    data: tuple[DataOrigin, ...] = ()


class Energy(Record):
    """What a stage used, watt hours.

    Attributes:
        how: `measured`, by the counters that are named, of the whole machine; or `estimate`, with what it assumes.
    """

    watt_hours: float
    how: str


class StageOrigin(Record):
    """How a stage made its rows.

    Attributes:
        artifact: its folder in the store.
        models: by name, those that wrote or judged.
        sampling: the settings that decide on the rows.
        templates: the file of each prompt template with a hash of its text.
        first, last: when the call that finished it began and ended, UTC.
        tokens, usd: of requests to servers, all calls together; without a price, USD are 0.
        rows: what it wrote, by kind.
        generated: the file in its folder with a line for each row that a model wrote; None if it has none.
        usd_per_row: of the largest kind; None where nothing was paid.
    """

    stage: str
    artifact: str
    models: tuple[str, ...]
    sampling: Mapping[str, Any]
    templates: Mapping[str, str]
    first: str
    last: str
    wall_seconds: float
    requests: int = 0
    tokens: int = 0
    usd: float = 0.0
    rows: Mapping[str, int] = {}
    dropped: Mapping[str, int] = {}
    generated: str | None = None
    usd_per_row: float | None = None
    tokens_per_row: float | None = None
    energy: Energy | None = None


class Provenance(Record):
    """`provenance.json`. Rows name their author, which is the name of a model here."""

    run: str
    origins: Origins
    stages: tuple[StageOrigin, ...]


def read_provenance(path: Path) -> Provenance | None:
    """`provenance.json`; None if there is none."""
    return Provenance.model_validate_json(path.read_bytes()) if path.is_file() else None
