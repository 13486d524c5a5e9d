"""What a line of the log looks like: text, or with `--log-format json` one JSON object."""

import json
import os
import sys
from collections.abc import Mapping
from datetime import datetime

LOG_FORMAT = "ALIGNDISTILL_LOG_FORMAT"
"""The environment variable with the format, here and in the processes of a launcher: `text` (the default) or `json`."""
KEYS = ("stage", "n", "total", "rate", "eta_s", "usd", "note")
"""What a line may know, null where it does not: the stage, its count and total, items per second, seconds left, USD spent so far
by the run, and the rest as text."""


def is_json() -> bool:
    """Whether lines are JSON objects."""
    return os.environ.get(LOG_FORMAT) == "json"


def json_line(message: str, level: str = "info", values: Mapping[str, str | float | None] | None = None) -> str:
    """A line of the log with `time` (ISO 8601 with the zone), `level`, `message` and `KEYS`.

    Args:
        level: `info`, `warning` or `error`.
        values: of some of the keys.
    """
    time = datetime.now().astimezone().isoformat(timespec="milliseconds")
    return json.dumps({"time": time, "level": level, "message": message.strip(), **dict.fromkeys(KEYS), **(values or {})})


def print_error(message: str) -> None:
    """Print an error on standard error, in the log's format."""
    print(json_line(message, "error") if is_json() else f"error: {message}", file=sys.stderr, flush=True)
