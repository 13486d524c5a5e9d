"""Near duplicates and contained evaluation items among many texts that are all known: exact, and about linear in their number.

Near duplicates are found as in AllPairs (Bayardo et al. 2007): of two sets with a Jaccard similarity of at least t, the rarest
members of each, all but `ceil(t n) - 1` of n, have one in common. So a text is compared only with those that share one of its
rarest shingles, and most texts have so many shingles of their own that they need not be compared.
"""

import math
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from aligndistill.data.overlap import NGRAM, SHINGLE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Runs = tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]

ROWS_AT_ONCE = 50_000
ROUNDING = 1e-9


class UnitTable:
    """Texts as the numbers of their units, four bytes each."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._units = array("i")
        self._ends = array("q", [0])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def add(self, text: Sequence[str]) -> None:
        """Add a text, given as its units."""
        numbers = self._numbers
        self._units.extend([numbers.setdefault(unit, len(numbers)) for unit in text])
        self._ends.append(len(self._units))

    def length(self, row: int) -> int:
        """How many units a text has."""
        return self._ends[row + 1] - self._ends[row]

    def runs(self, size: int) -> "Iterator[Runs]":
        """All runs of `size` units, some rows at a time: 64-bit hashes, rows, and places in the row. A shorter text is one run."""
        import numpy as np

        units = np.frombuffer(self._units, np.int32) if self._units else np.zeros(0, np.int32)
        ends = np.frombuffer(self._ends, np.int64)
        for start in range(0, len(self), ROWS_AT_ONCE):
            stop = min(start + ROWS_AT_ONCE, len(self))
            starts, lengths = ends[start:stop], np.diff(ends[start : stop + 1])
            counts = np.maximum(lengths - size + 1, 1)
            rows = np.repeat(np.arange(stop - start), counts)
            places = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
            first, last = starts[rows] + places, (starts + lengths)[rows]
            hashes = np.zeros(len(rows), np.uint64)
            for offset in range(size):
                inside = first + offset < last
                hashes[inside] = _mixed(hashes[inside] + units[first[inside] + offset].astype(np.uint64) + np.uint64(1))
            yield hashes, rows + start, places


def _mixed(values: "NDArray[np.uint64]") -> "NDArray[np.uint64]":
    """SplitMix64 (Steele et al. 2014)."""
    import numpy as np

    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


# ----------------------------------------------------------------------------------------------------- near duplicates


@dataclass(frozen=True)
class Nearest:
    """A row that another one repeats or contains, and how far: a similarity or a share, in [0, 1]."""

    row: int
    score: float


def near_duplicates(
    table: UnitTable, threshold: float, rows: Iterable[int] | None = None, size: int = SHINGLE
) -> dict[int, Nearest]:
    """The rows that repeat an earlier one, with the most similar of those that are kept.

    A row is kept if no kept row before it has a Jaccard similarity of at least `threshold` by shingles. So the order of the rows
    decides, and of each group of duplicates the first is kept.

    Args:
        threshold: in (0, 1].
        rows: those that are compared, in order; all by default.
        size: units in a shingle.
    """
    shared = _shared_shingles(table, size)
    kept_with: defaultdict[int, list[int]] = defaultdict(list)
    found: dict[int, Nearest] = {}
    for row in range(len(table)) if rows is None else rows:
        rarest, length = shared.rarest(row, threshold), shared.sizes[row]
        if rarest <= 0:
            continue
        own = shared.of(row)
        members = set(own)
        best: Nearest | None = None
        for other in sorted({other for shingle in own[:rarest] for other in kept_with.get(shingle, ())}):
            other_length = shared.sizes[other]
            if min(length, other_length) < threshold * max(length, other_length) - ROUNDING:
                continue
            common = len(members.intersection(shared.of(other)))
            similarity = common / (length + other_length - common)
            if similarity >= threshold - ROUNDING and (best is None or similarity > best.score):
                best = Nearest(other, similarity)
        if best is not None:
            found[row] = best
            continue
        for shingle in own[:rarest]:
            kept_with[shingle].append(row)
    return found


@dataclass(frozen=True)
class _Shared:
    """The shingles that several rows have.

    Attributes:
        sizes: by row, its distinct shingles.
        counts: by row, those of them that another row has, too.
        of: these of a row as numbers, rarest first.
    """

    sizes: list[int]
    counts: list[int]
    of: Callable[[int], list[int]]

    def rarest(self, row: int, threshold: float) -> int:
        """How many shared shingles are among a row's rarest, of which a similar row must have one."""
        size = self.sizes[row]
        return self.counts[row] - math.ceil(threshold * size - ROUNDING) + 1


def _shared_shingles(table: UnitTable, size: int) -> _Shared:
    import numpy as np

    parts = [_distinct(hashes, rows) for hashes, rows, _ in table.runs(size)]
    hashes = np.concatenate([part[0] for part in parts]) if parts else np.zeros(0, np.uint64)
    rows = np.concatenate([part[1] for part in parts]) if parts else np.zeros(0, np.int32)
    del parts
    sizes = np.bincount(rows, minlength=len(table))
    ordered = np.sort(hashes)
    repeated, times = np.unique(ordered[1:][ordered[1:] == ordered[:-1]], return_counts=True)
    del ordered
    rank = np.empty(len(repeated), np.int64)
    rank[np.argsort(times, kind="stable")] = np.arange(len(repeated))
    place, common = _places(hashes, repeated)
    rows, ranks = rows[common], rank[place[common]]
    order = np.lexsort((ranks, rows))
    ranks = ranks[order]
    counts = np.bincount(rows, minlength=len(table))
    ends = np.cumsum(counts)
    starts = ends - counts
    return _Shared(sizes.tolist(), counts.tolist(), lambda row: ranks[starts[row] : ends[row]].tolist())


def _distinct(hashes: Any, rows: Any) -> tuple[Any, Any]:
    """Each hash of a row once; rows as four bytes."""
    import numpy as np

    order = np.lexsort((hashes, rows))
    hashes, rows = hashes[order], rows[order]
    different = np.ones(len(rows), bool)
    different[1:] = (hashes[1:] != hashes[:-1]) | (rows[1:] != rows[:-1])
    return hashes[different], rows[different].astype(np.int32)


def _places(values: Any, known: Any) -> tuple[Any, Any]:
    """The index of each value in a sorted array, and whether it is there."""
    import numpy as np

    if not len(known):
        return np.zeros(len(values), np.int64), np.zeros(len(values), bool)
    place = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return place, known[place] == values


# ----------------------------------------------------------------------------------------------------- decontamination


def contained_items(
    table: UnitTable, items: Sequence[int], texts: Sequence[int], above: float = 0.5, size: int = NGRAM
) -> dict[int, Nearest]:
    """The texts that contain an evaluation item, each with the item that it covers most, as `EvaluationIndex` has it.

    Args:
        items: the rows of the table that are evaluation items.
        texts: the rows that may contain them.
        above: a text contains an item if its n-grams cover more than this share of the item's units.
    """
    import numpy as np

    is_item, is_text = np.zeros(len(table), bool), np.zeros(len(table), bool)
    is_item[list(items)] = True
    is_text[list(texts)] = True
    of_items = [hashes[is_item[rows]] for hashes, rows, _ in table.runs(size)]
    known = np.unique(np.concatenate(of_items)) if of_items else np.zeros(0, np.uint64)
    hits: list[tuple[int, int]] = []
    for hashes, rows, _ in table.runs(size):
        place, there = _places(hashes, known)
        there &= is_text[rows]
        hits += zip(rows[there].tolist(), place[there].tolist(), strict=True)
    wanted = np.unique(np.array([number for _, number in hits], np.int64))
    item_places: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    for hashes, rows, places in table.runs(size):
        place, there = _places(hashes, known[wanted])
        there &= is_item[rows]
        for number, row, start in zip(wanted[place[there]].tolist(), rows[there].tolist(), places[there].tolist(), strict=True):
            item_places[number].append((row, start))
    found: dict[int, Nearest] = {}
    for row, of_row in groupby(hits, key=lambda hit: hit[0]):
        covered: defaultdict[int, set[int]] = defaultdict(set)
        for number in {number for _, number in of_row}:
            for item, start in item_places[number]:
                covered[item].update(range(start, min(start + size, table.length(item))))
        share = {item: len(units) / (table.length(item) or 1) for item, units in sorted(covered.items())}
        best = max(share, key=lambda item: share[item])
        if share[best] > above:
            found[row] = Nearest(best, share[best])
    return found
