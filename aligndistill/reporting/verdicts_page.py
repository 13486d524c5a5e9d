"""One HTML page with what the judge was shown and what it replied, word for word: no script, nothing fetched, all escaped."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from aligndistill.records import CanaryKind, Candidate, Comparison, Grade, Verdict

MOST_PROMPTS = 500


@dataclass(frozen=True)
class JudgedPrompt:
    """A prompt, what was shown for it, and every verdict; `canary` is the kind of known-bad answer among them."""

    prompt: str
    candidates: tuple[Candidate, ...]
    verdicts: tuple[Verdict, ...]
    canary: CanaryKind | None = None


@dataclass(frozen=True)
class _Line:
    """A verdict as the page has it."""

    asked: str
    said: str
    reply: str | None
    readable: bool


@dataclass(frozen=True)
class _Entry:
    judged: JudgedPrompt
    letters: dict[str, str]
    lines: tuple[_Line, ...]


def write_verdicts_page(path: Path, judged: Iterable[JudgedPrompt]) -> None:
    """Write the page, UTF-8: canaries first, then prompts with unreadable replies, then the others, at most 500 prompts."""
    everything = list(judged)
    ordered = sorted(everything, key=lambda one: (one.canary is None, not any(map(_unparsed, one.verdicts))))
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("verdicts.html.j2").render(
        entries=[_entry(one) for one in ordered[:MOST_PROMPTS]],
        left_out=max(0, len(everything) - MOST_PROMPTS),
        verdicts=sum(len(one.verdicts) for one in everything),
        unparsed=sum(_unparsed(verdict) for one in everything for verdict in one.verdicts),
    )
    path.write_bytes(page.encode("utf-8", "replace"))


def _unparsed(verdict: Verdict) -> bool:
    return verdict.value is None if isinstance(verdict, Grade) else verdict.outcome == "unparsed"


def _entry(judged: JudgedPrompt) -> _Entry:
    letters = dict(zip((candidate.id for candidate in judged.candidates), _letters(len(judged.candidates)), strict=True))
    return _Entry(judged, letters, tuple(_line(verdict, letters) for verdict in judged.verdicts))


def _letters(count: int) -> Sequence[str]:
    return [ascii_uppercase[n] if n < 26 else f"Z{n}" for n in range(count)]


def _line(verdict: Comparison | Grade, letters: dict[str, str]) -> _Line:
    if isinstance(verdict, Grade):
        said = "unreadable" if verdict.value is None else f"{verdict.value:.4g}"
        return _Line(letters[verdict.candidate], said, verdict.reply, verdict.value is not None)
    first, second = letters[verdict.first], letters[verdict.second]
    said = {"first": first, "second": second, "tie": "a tie", "unparsed": "unreadable"}[verdict.outcome]
    if verdict.probability_first is not None and verdict.outcome != "unparsed":
        said += f", P({first}) = {verdict.probability_first:.2f}"
    return _Line(f"{first} or {second}", said, verdict.reply, verdict.outcome != "unparsed")
