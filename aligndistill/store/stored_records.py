"""Records of JSON lines files by a key, each read when it is asked for: in memory are keys and places in the files alone."""

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from threading import Lock
from typing import Generic, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from aligndistill.store.jsonl import damaged_line, raw_lines

K = TypeVar("K")
R = TypeVar("R", bound=BaseModel)


class Lines(Generic[R]):
    """A file of JSON lines. A record's place is the offset of its line, bytes. Threads may share it.

    Args:
        growing: processes append to it; see `read_growing`.
    """

    def __init__(self, path: Path, record_type: type[R], growing: bool = False) -> None:
        self._path = path
        self._growing = growing
        self._adapter = TypeAdapter(record_type)
        self._file = path.open("rb")
        self._lock = Lock()
        weakref.finalize(self, self._file.close)

    def __iter__(self) -> Iterator[tuple[int, R]]:
        """Every record with its place.

        Raises:
            DataError: a line that is not such a record, with its number.
        """
        place = 0
        with self._path.open("rb") as file:
            for number, line in enumerate(raw_lines(file, self._growing), start=1):
                yield place, self._read(line, f"{number}")
                place += len(line)

    def at(self, place: int) -> R:
        """The record at a place.

        Raises:
            DataError: the file has changed.
        """
        with self._lock:
            self._file.seek(place)
            line = self._file.readline()
        return self._read(line, f"byte {place}")

    def _read(self, line: bytes, where: str) -> R:
        try:
            return self._adapter.validate_json(line)
        except ValidationError:
            raise damaged_line(self._path, where) from None


class StoredRecords(Mapping[K, R]):
    """Records by key, in the order in which their keys are first in the files; of several with one key, the last.

    Args:
        key: a record's key; None for records that are left out.
        growing: processes append to the files; see `read_growing`.
    """

    def __init__(self, files: Iterable[Path], record_type: type[R], key: Callable[[R], K | None], growing: bool = False) -> None:
        self._places: dict[K, tuple[Lines[R], int]] = {}
        for path in files:
            lines = Lines(path, record_type, growing)
            for place, record in lines:
                known_by = key(record)
                if known_by is not None:
                    self._places[known_by] = lines, place

    def __getitem__(self, key: K) -> R:
        lines, place = self._places[key]
        return lines.at(place)

    def __contains__(self, key: object) -> bool:
        return key in self._places

    def __iter__(self) -> Iterator[K]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)
