"""One data file to numbered rows: JSON, JSONL, CSV and Parquet; the text formats also packed with gzip."""

import codecs
import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aligndistill.errors import DataError


class BadRow(Exception):
    """A row that cannot be used.

    Attributes:
        reason: a few words, the same for every row with this fault: bad rows are counted by it.
        detail: more about this one row, for the error that stops a run.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason} ({detail})" if detail else reason)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class SourceRow:
    """One row as it was read.

    Attributes:
        where: file (or data set) and row number, from 1, as in `data/x.jsonl row 17`. In JSONL the number is the line's; in
            CSV the header is row 1, as spreadsheets count.
        values: column name to value; empty when the row could not be read.
        fault: why the row could not be read, or None.
    """

    where: str
    values: dict[str, Any]
    error: BadRow | None = None


LONGEST_CSV_CELL = 2**31 - 1  # characters; Python's default of 131,072 refuses long answers


def data_suffix(path: Path) -> str | None:
    """`.jsonl`, `.json`, `.csv` or `.parquet`, with any `.gz` taken off; None when we do not read such files."""
    packed = path.suffix.lower() == ".gz"
    suffix = Path(path.stem).suffix.lower() if packed else path.suffix.lower()
    if packed and suffix == ".parquet":
        return None
    return suffix if suffix in READERS else None


def read_file(path: Path) -> Iterator[SourceRow]:
    """The rows of one file, in order. A line that cannot be read is a row with a fault.

    Raises:
        DataError: not a kind of file we read, or a file that is damaged as a whole.
    """
    suffix = data_suffix(path)
    if suffix is None:
        raise DataError(f"{path}: not a kind of data file that is read here. Use {KINDS}.")
    try:
        with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb") as file:
            yield from READERS[suffix](file, str(path))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: the gzip file is damaged or cut short ({error}). Fetch or pack it again.") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from None


def _json_lines(file: io.BufferedIOBase, name: str) -> Iterator[SourceRow]:
    for number, line in enumerate(file, start=1):
        text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        if text.strip():
            yield _json_line(text, f"{name} row {number}")


def _json_line(line: bytes, where: str) -> SourceRow:
    try:
        return _object_row(json.loads(line.rstrip(b"\r\n").decode("utf-8")), where)
    except json.JSONDecodeError as error:
        return SourceRow(where, {}, BadRow("not valid JSON", f"column {error.colno}: {error.msg}"))
    except (ValueError, RecursionError) as error:  # bytes that are not UTF-8, numbers too long, brackets too deep
        return SourceRow(where, {}, BadRow("not valid JSON", str(error)))


def _object_row(value: Any, where: str) -> SourceRow:
    if isinstance(value, dict):
        return SourceRow(where, value)
    return SourceRow(where, {}, BadRow("not a JSON object", f"found {type(value).__name__}"))


def _json(file: io.BufferedIOBase, name: str) -> Iterator[SourceRow]:
    content = file.read().removeprefix(codecs.BOM_UTF8)
    if _is_json_lines(content):
        yield from _json_lines(io.BytesIO(content), name)
        return
    try:
        document = json.loads(content.decode("utf-8")) if content.strip() else []
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name}: not valid JSON ({error}).") from None
    rows = document.get("data") if isinstance(document, dict) else document
    if not isinstance(rows, list):
        raise DataError(f'{name}: expected a list of objects, or {{"data": [...]}}.')
    for number, value in enumerate(rows, start=1):
        yield _object_row(value, f"{name} row {number}")


def _is_json_lines(content: bytes) -> bool:
    """Whether a `.json` file is JSONL by another name, as many on the Hub are: its first line is a whole object."""
    first, _, rest = content.lstrip().partition(b"\n")
    try:
        value = json.loads(first)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and (bool(rest.strip()) or "data" not in value)


def _csv(file: io.BufferedIOBase, name: str) -> Iterator[SourceRow]:
    csv.field_size_limit(LONGEST_CSV_CELL)
    reader = csv.reader(_text_lines(file, name), strict=True)
    try:
        header = next(reader, [])
        for number, cells in enumerate(reader, start=2):
            where = f"{name} row {number}"
            if not cells:
                continue
            if len(cells) == len(header):
                yield SourceRow(where, dict(zip(header, cells, strict=True)))
            else:
                yield SourceRow(where, {}, BadRow("wrong number of cells", f"{len(cells)} where the header has {len(header)}"))
    except csv.Error as error:
        raise DataError(f"{name} line {reader.line_num}: not valid CSV ({error}).") from None


def _text_lines(file: io.BufferedIOBase, name: str) -> Iterator[str]:
    for number, line in enumerate(file, start=1):
        try:
            yield (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{name} line {number}: not UTF-8 ({error}). Save the file as UTF-8.") from None


def _parquet(file: io.BufferedIOBase, name: str) -> Iterator[SourceRow]:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    number = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(file).iter_batches():
            for values in batch.to_pylist():
                number += 1
                yield SourceRow(f"{name} row {number}", values)
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{name}: not a readable Parquet file, after {number} rows ({error}).") from None


READERS: dict[str, Callable[[io.BufferedIOBase, str], Iterator[SourceRow]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}
KINDS = ".jsonl, .json, .csv (each also with .gz) or .parquet"
