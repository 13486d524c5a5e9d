"""JSON lines that survive a kill: a torn last line is cut off and written anew, a finished file appears whole."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from aligndistill.errors import DataError

R = TypeVar("R", bound=BaseModel)


class Appender:
    """Appends records, each handed to the operating system before `add` returns.

    So they survive the end of the process, also by `kill -9`; not a power failure or a crash of the machine, which may take the
    last seconds' records: they are not synced one by one, since that would take longer than many an answer. What is read from them
    into a stage's result is synced when the stage is finished (`artifacts.finish`). Opening a file whose last line was torn cuts
    that line off.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab+")
        keep = _length_of_whole_lines(self._file.tell(), path)
        self._file.truncate(keep)

    def add(self, records: Iterable[BaseModel]) -> None:
        """Write some records together; they outlive the process when this returns."""
        self._file.write("".join(record.model_dump_json() + "\n" for record in records).encode("utf-8", "surrogatepass"))
        self._file.flush()

    def __enter__(self) -> "Appender":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()


def _length_of_whole_lines(size: int, path: Path) -> int:
    if size == 0:
        return 0
    with path.open("rb") as file:
        position = size
        while position > 0:
            start = max(0, position - 65536)
            file.seek(start)
            newline = file.read(position - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            position = start
    return 0


def write_jsonl(path: Path, records: Iterable[BaseModel]) -> int:
    """Write a file whole: under another name first, then renamed. Returns how many records it holds.

    It is not synced here: `artifacts.finish` does that for all files of a stage.
    """
    count = 0
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        for record in records:
            file.write((record.model_dump_json() + "\n").encode("utf-8", "surrogatepass"))
            count += 1
    os.replace(partial, path)
    return count


def read_jsonl(path: Path, record_type: type[R]) -> Iterator[R]:
    """Read records one by one.

    Raises:
        DataError: a line that is no such record, with its number.
    """
    return _read(path, TypeAdapter(record_type))


def read_union(path: Path, adapter: TypeAdapter[R]) -> Iterator[R]:
    """Read records of a type that is a union of several."""
    return _read(path, adapter)


def _read(path: Path, adapter: TypeAdapter[R]) -> Iterator[R]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield adapter.validate_json(line)
            except ValidationError:
                raise DataError(
                    f"{path}:{number}: this line was damaged since it was written. Delete the folder {path.parent} and run again."
                ) from None
