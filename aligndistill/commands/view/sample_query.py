"""What is asked for of the samples, as the query of an address: a view is a link, and an export."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from aligndistill.commands.view.flags import CELL_FILTERS, PROMPT_FILTERS

PAGE_ROWS = 50
MEASURES = ("truth", "reward", "win", "length", "kl")
SORTS = {
    "truth": "truth",
    "reward": "reward",
    "win": "win rate",
    "length": "length",
    "kl": "KL",
    "delta": "difference",
    "spread": "spread of students",
}
HUMAN_FILTERS = {
    "human": "judge and human disagree",
    "unvoted": "unvoted",
}
SPLITS = ("held_out", "train", "all")
NARROWS = ("f", "m", "split", "source", "q", "min", "max")
"""The fields of an address that decide which samples are found, not how they are shown."""


@dataclass(frozen=True)
class SampleQuery:
    """What a URL asks for.

    Attributes:
        filters: names of filters, all of which hold.
        model: the model that they are about; empty for any student.
        base: the model that `delta` compares with.
        measure: what `delta` and `spread` are of.
        sort: one of `SORTS`, with a minus sign for the highest first; empty for the order of the data.
        at_least, at_most: length of the answers of `model`, tokens.
        hidden: models whose columns are not shown.
    """

    filters: tuple[str, ...] = ()
    model: str = ""
    base: str = "start"
    measure: str = ""
    split: str = ""
    source: str = ""
    text: str = ""
    sort: str = ""
    at_least: int | None = None
    at_most: int | None = None
    page: int = 1
    hidden: tuple[str, ...] = ()

    @staticmethod
    def read(values: Mapping[str, str], models: Collection[str]) -> "SampleQuery":
        """The query of a URL; what has no meaning is left out."""
        known = {*CELL_FILTERS, *PROMPT_FILTERS, *HUMAN_FILTERS}
        values = {name: value.encode("utf-8", "replace").decode() for name, value in values.items()}
        sort = values.get("sort", "")
        return SampleQuery(
            filters=tuple(name for name in dict.fromkeys(values.get("f", "").split(",")) if name in known),
            model=values["m"] if values.get("m") in models else "",
            base=values["b"] if values.get("b") in models else "start",
            measure=values["by"] if values.get("by") in MEASURES else "",
            split=values["split"] if values.get("split") in SPLITS else "",
            source=values.get("source", "")[:500],
            text=values.get("q", "")[:200],
            sort=sort if sort.removeprefix("-") in SORTS else "",
            at_least=_number(values.get("min")),
            at_most=_number(values.get("max")),
            page=min(max(_number(values.get("page")) or 1, 1), 1_000_000),
            hidden=tuple(name for name in dict.fromkeys(values.get("hide", "").split(",")) if name in models),
        )

    @property
    def narrows(self) -> bool:
        """Whether there may be held-out answers that it does not find."""
        return bool(self.filters or self.model or self.source or self.text) or (self.at_least, self.at_most) != (None, None)

    def url(self, **changes: Any) -> str:
        """The query string, with changes; a new filter or order begins at the first page."""
        new = replace(self, **({"page": 1} | changes))
        values = {
            "f": ",".join(new.filters),
            "m": new.model,
            "b": "" if new.base == "start" else new.base,
            "by": new.measure,
            "split": new.split,
            "source": new.source,
            "q": new.text,
            "sort": new.sort,
            "min": new.at_least,
            "max": new.at_most,
            "page": "" if new.page == 1 else new.page,
            "hide": ",".join(new.hidden),
        }
        return urlencode({name: value for name, value in values.items() if value not in ("", None)})

    def in_words(self) -> str:
        """The filters as their chips have them, and the model that they are about."""
        labels = {name: label for name, (_, label, _) in {**CELL_FILTERS, **PROMPT_FILTERS}.items()} | HUMAN_FILTERS
        found = ", ".join(labels[name] for name in self.filters)
        return f"{self.model}: {found}" if found and self.model else found

    def toggled(self, name: str) -> str:
        """The query string with a filter switched."""
        rest = tuple(one for one in self.filters if one != name)
        return self.url(filters=rest if name in self.filters else (*rest, name))


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 10 else None


@dataclass(frozen=True)
class Votes:
    """What people decided, for filters: ids of prompts that they voted on, and of those where the judge disagrees."""

    voted: frozenset[str] = frozenset()
    disagreed: frozenset[str] = frozenset()


NO_VOTES = Votes()
