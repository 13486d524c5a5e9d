"""One HTML page with the judge's inputs and verbatim replies: no scripts, no external resources, everything escaped."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import ascii_uppercase

from aligndistill.records import CanaryKind, Candidate, Comparison, Grade, Verdict, is_unparsed
from aligndistill.reporting.templates import environment

MOST_PROMPTS = 500


@dataclass(frozen=True)
class JudgedPrompt:
    """A prompt, its candidates and every verdict on them; `canary` is the kind of known-bad answer among them."""

    prompt: str
    candidates: tuple[Candidate, ...]
    verdicts: tuple[Verdict, ...]
    canary: CanaryKind | None = None


@dataclass(frozen=True)
class _Line:
    """A verdict as shown on the page."""

    asked: str
    result: str
    reply: str | None
    thoughts: str
    readable: bool


@dataclass(frozen=True)
class _Entry:
    judged: JudgedPrompt
    letters: dict[str, str]
    lines: tuple[_Line, ...]


def write_verdicts_page(path: Path, judged: Iterable[JudgedPrompt]) -> None:
    """Write the page, UTF-8: canaries first, then prompts with unreadable replies, then the others, at most 500 prompts."""
    everything = list(judged)
    ordered = sorted(everything, key=lambda one: (one.canary is None, not any(map(is_unparsed, one.verdicts))))
    page = (
        environment()
        .get_template("verdicts.html.j2")
        .render(
            entries=[_entry(one) for one in ordered[:MOST_PROMPTS]],
            not_shown=max(0, len(everything) - MOST_PROMPTS),
            verdicts=sum(len(one.verdicts) for one in everything),
            unparsed=sum(is_unparsed(verdict) for one in everything for verdict in one.verdicts),
        )
    )
    path.write_bytes(page.encode("utf-8", "replace"))


def _entry(judged: JudgedPrompt) -> _Entry:
    letters = dict(zip((candidate.id for candidate in judged.candidates), _letters(len(judged.candidates)), strict=True))
    return _Entry(judged, letters, tuple(_lines(judged.verdicts, letters)))


def _lines(verdicts: Iterable[Verdict], letters: dict[str, str]) -> Iterator[_Line]:
    """A line for each verdict; after a panel's verdict, those of its members."""
    for verdict in verdicts:
        yield _line(verdict, letters)
        for member in verdict.members if isinstance(verdict, Comparison) else ():
            line = _line(member, letters)
            yield replace(line, asked=f"{member.judge}, {line.asked}")


def _letters(count: int) -> Sequence[str]:
    return [ascii_uppercase[n] if n < 26 else f"Z{n}" for n in range(count)]


def _line(verdict: Comparison | Grade, letters: dict[str, str]) -> _Line:
    if isinstance(verdict, Grade):
        result = "unreadable" if verdict.value is None else f"{verdict.value:.4g}"
        return _Line(letters[verdict.candidate], result, verdict.reply, verdict.thoughts, not is_unparsed(verdict))
    first, second = letters[verdict.first], letters[verdict.second]
    result = {"first": first, "second": second, "tie": "a tie", "unparsed": "unreadable"}[verdict.outcome]
    if verdict.probability_first is not None and not is_unparsed(verdict):
        result += f", P({first}) = {verdict.probability_first:.2f}"
    return _Line(f"{first} or {second}", result, verdict.reply, verdict.thoughts, not is_unparsed(verdict))
