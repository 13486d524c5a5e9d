"""JSON lines that survive a killed process: an incomplete last line is removed; finished files are written atomically."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from aligndistill.errors import DataError

R = TypeVar("R", bound=BaseModel)


class Appender:
    """Appends records, each flushed to the operating system before `add` returns.

    They survive the end of the process, including `kill -9`. A power failure or system crash may lose the last seconds: records are
    not synced individually, because that can take longer than sampling an answer. The results of a stage are synced when it is
    finished (`artifacts.finish`). Opening a file removes an incomplete last line.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab+")
        keep = _length_of_whole_lines(self._file.tell(), path)
        self._file.truncate(keep)

    def add(self, records: Iterable[BaseModel]) -> None:
        """Append records in one write; when this returns, they survive the end of the process."""
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


@contextmanager
def writing_jsonl(path: Path) -> Iterator[Callable[[BaseModel], None]]:
    """A function that adds a record to a file, for the time of a `with`. The file is written atomically, by renaming a temporary
    one.

    It is not synced here: `artifacts.finish` does that for all files of a stage.
    """
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        yield lambda record: _write(file, record)
    os.replace(partial, path)


def _write(file: BinaryIO, record: BaseModel) -> None:
    file.write((record.model_dump_json() + "\n").encode("utf-8", "surrogatepass"))


def write_jsonl(path: Path, records: Iterable[BaseModel]) -> int:
    """Write a file as `writing_jsonl` does. Returns the number of records."""
    count = 0
    with writing_jsonl(path) as add:
        for record in records:
            add(record)
            count += 1
    return count


def read_jsonl(path: Path, record_type: type[R]) -> Iterator[R]:
    """Read records one by one.

    Raises:
        DataError: a line that is not such a record, with its number.
    """
    return _read(path, TypeAdapter(record_type))


def read_growing(path: Path, record_type: type[R]) -> Iterator[R]:
    """Read the records of a file that a process appends to, or did when it was killed: an incomplete last line is left out.

    An `Appender` removes it from the file of its own process alone, and each process reads the files of all.

    Raises:
        DataError: a line that is not such a record, with its number.
    """
    return _read(path, TypeAdapter(record_type), growing=True)


def read_union(path: Path, adapter: TypeAdapter[R]) -> Iterator[R]:
    """Read records of a union type."""
    return _read(path, adapter)


def _read(path: Path, adapter: TypeAdapter[R], growing: bool = False) -> Iterator[R]:
    with path.open("rb") as file:
        for number, line in enumerate(raw_lines(file, growing), start=1):
            try:
                yield adapter.validate_json(line)
            except ValidationError:
                raise damaged_line(path, str(number)) from None


def raw_lines(file: BinaryIO, growing: bool) -> Iterator[bytes]:
    """The lines of a file; of a growing one up to the last newline that it has now."""
    return takewhile(lambda line: line.endswith(b"\n"), file) if growing else iter(file)


def damaged_line(path: Path, where: str) -> DataError:
    """The error for a line that is not a record, which says where it is and what to do."""
    return DataError(f"{path}:{where}: this line is damaged. Delete the folder {path.parent} and run the same command again.")
