"""HTML pages with the judge's inputs and verbatim replies, failures first: no scripts or external files, everything escaped."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import ascii_uppercase

from aligndistill.evaluation.wins import PromptVerdicts, by_prompt
from aligndistill.records import CanaryKind, Candidate, Comparison, Grade, Verdict, is_unparsed
from aligndistill.reporting.templates import environment

PROMPTS_A_PAGE = 100
MOST_PROMPTS = 2000
SECTIONS = {
    "canaries-won": "Known-bad answers that the judge preferred",
    "order-flips": "The winner changes with the order",
    "judges-differ": "The second judge prefers another answer",
    "unreadable": "Replies that could not be read",
    "canaries": "Known-bad answers that lost",
    "evaluation": "Answers to held-out prompts",
    "labelling": "Candidates that label the data",
}
"""Where a prompt is shown: in the first that fits."""


@dataclass(frozen=True)
class JudgedPrompt:
    """A prompt, its candidates and every verdict on them.

    Attributes:
        canary: the kind of known-bad answer, which is the first of two candidates.
        held_out: whether these are the answers of the evaluation.
        second: the second judge's verdicts on the same candidates.
        id: the prompt's.
    """

    prompt: str
    candidates: tuple[Candidate, ...]
    verdicts: tuple[Verdict, ...]
    canary: CanaryKind | None = None
    held_out: bool = False
    second: tuple[Verdict, ...] = ()
    id: str = ""


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
    section: str
    letters: dict[str, str]
    results: tuple[str, ...]
    lines: tuple[_Line, ...]


@dataclass
class _Section:
    """A section with its number of prompts, and the page that it begins on; 0 if it is not shown."""

    id: str
    title: str
    count: int = 0
    page: int = 0
    left_out: int = field(default=0)


def write_verdicts_pages(folder: Path, run: str, judged: Iterable[JudgedPrompt], mark: str = "") -> list[Path]:
    """Write `verdicts.html`, `verdicts/2.html` ..., UTF-8, a hundred prompts each, and remove what is left of longer lists.

    Args:
        mark: a hash of what they are made of, kept in the first page.
    """
    entries = sorted((_entry(one) for one in judged), key=lambda one: list(SECTIONS).index(one.section))
    sections = {name: _Section(name, title) for name, title in SECTIONS.items()}
    for place, entry in enumerate(entries):
        section = sections[entry.section]
        section.count += 1
        section.left_out += place >= MOST_PROMPTS
        section.page = section.page or (place // PROMPTS_A_PAGE + 1 if place < MOST_PROMPTS else 0)
    shown = entries[:MOST_PROMPTS]
    pages = [shown[start : start + PROMPTS_A_PAGE] for start in range(0, len(shown), PROMPTS_A_PAGE)] or [[]]
    verdicts = [verdict for one in entries for verdict in (*one.judged.verdicts, *one.judged.second)]
    template = environment().get_template("verdicts.html.j2")
    written = []
    for number, some in enumerate(pages, 1):
        values = {"run": run, "page": number, "pages": len(pages), "mark": mark if number == 1 else ""}
        values |= {"name_of": page_name, "up": "" if number == 1 else "../"}
        of_page = {name: [one for one in some if one.section == name] for name in SECTIONS}
        page = template.render(
            **values,
            sections=[one for one in sections.values() if one.count],
            entries={name: found for name, found in of_page.items() if found},
            titles=SECTIONS,
            left_out=len(entries) - len(shown),
            verdicts=len(verdicts),
            unparsed=sum(map(is_unparsed, verdicts)),
        )
        path = folder / page_name(number)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(page.encode("utf-8", "replace"))
        written.append(path)
    for path in folder.glob("verdicts/*.html"):
        if path not in written:
            path.unlink()
    return written


def page_name(number: int) -> str:
    """The file of a page; the first is `verdicts.html`."""
    return "verdicts.html" if number == 1 else f"verdicts/{number}.html"


def _entry(judged: JudgedPrompt) -> _Entry:
    letters = dict(zip((candidate.id for candidate in judged.candidates), _letters(len(judged.candidates)), strict=True))
    pairs, second = _readable(judged.verdicts), _readable(judged.second)
    results = [*_results(judged, pairs, letters)]
    results += [f"Second judge: {_result(second, one, other, letters)}" for one, other in second.pairs]
    lines = [*_lines(judged.verdicts, letters)]
    lines += [replace(line, asked=f"second judge, {line.asked}") for line in _lines(judged.second, letters)]
    return _Entry(judged, _section(judged, pairs, second), letters, tuple(results), tuple(lines))


def _readable(verdicts: Sequence[Verdict]) -> PromptVerdicts:
    """The verdicts on one prompt."""
    known = list(by_prompt(verdicts).values())
    return known[0] if known else PromptVerdicts()


def _section(judged: JudgedPrompt, pairs: PromptVerdicts, second: PromptVerdicts) -> str:
    if judged.canary and _canary_wins(judged, pairs):
        return "canaries-won"
    if any(_flips(pairs, one, other) for one, other in _pairs(pairs)):
        return "order-flips"
    if pairs.disagrees_with(second):
        return "judges-differ"
    if any(map(is_unparsed, (*judged.verdicts, *judged.second))):
        return "unreadable"
    return "canaries" if judged.canary else "evaluation" if judged.held_out else "labelling"


def _canary_wins(judged: JudgedPrompt, pairs: PromptVerdicts) -> bool:
    bad, reference = judged.candidates
    return (pairs.win_probability(bad.id, reference.id) or 0.0) > 0.5


def _pairs(pairs: PromptVerdicts) -> list[tuple[str, str]]:
    """Compared pairs, each once."""
    return sorted({(min(pair), max(pair)) for pair in pairs.comparisons})


def _flips(pairs: PromptVerdicts, one: str, other: str) -> bool:
    """Whether the winner changes with the order in which the two are shown."""
    forwards, backwards = pairs.comparisons.get((one, other), []), pairs.comparisons.get((other, one), [])
    if not forwards or not backwards:
        return False
    first, second = sum(forwards) / len(forwards) - 0.5, 0.5 - sum(backwards) / len(backwards)
    return first * second < 0


def _results(judged: JudgedPrompt, pairs: PromptVerdicts, letters: dict[str, str]) -> Iterator[str]:
    """Who won, and by how much: of grades the order, of comparisons each pair."""
    if judged.canary and _canary_wins(judged, pairs):
        yield f"The judge prefers the known-bad answer, {letters[judged.candidates[0].id]}"
    graded = sorted((one for one in pairs.grades if one in letters), key=lambda one: -pairs.grades[one])
    if len(graded) > 1:
        best, second = graded[:2]
        gap = pairs.grades[best] - pairs.grades[second]
        ahead = (
            f"{letters[best]} wins, {gap:.4g} ahead of {letters[second]}" if gap else f"{letters[best]} and {letters[second]} tie"
        )
        yield f"{ahead} (grades: {', '.join(f'{letters[one]} {pairs.grades[one]:.4g}' for one in graded)}; higher is better)"
    for one, other in _pairs(pairs):
        if one in letters and other in letters:
            yield _result(pairs, one, other, letters)


def _result(pairs: PromptVerdicts, one: str, other: str, letters: dict[str, str]) -> str:
    probability = pairs.win_probability(one, other)
    assert probability is not None  # the pair is among those with a verdict
    a, b = (one, other) if letters[one] < letters[other] else (other, one)
    probability = probability if a == one else 1 - probability
    if _flips(pairs, one, other):
        return f"{letters[a]} or {letters[b]}: the winner changes with the order, P({letters[a]}) = {probability:.2f} on average"
    if probability == 0.5:
        return f"{letters[a]} and {letters[b]} tie"
    winner, loser, sure = (a, b, probability) if probability > 0.5 else (b, a, 1 - probability)
    return f"{letters[winner]} beats {letters[loser]}, P({letters[winner]}) = {sure:.2f}"


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
        result = "unreadable" if verdict.value is None else f"grade {verdict.value:.4g}"
        return _Line(letters[verdict.candidate], result, verdict.reply, verdict.thoughts, not is_unparsed(verdict))
    first, second = letters[verdict.first], letters[verdict.second]
    result = {"first": f"{first} wins", "second": f"{second} wins", "tie": "a tie", "unparsed": "unreadable"}[verdict.outcome]
    p = verdict.probability_first
    if p is not None and not is_unparsed(verdict):
        result += f", P({second}) = {1 - p:.2f}" if verdict.outcome == "second" else f", P({first}) = {p:.2f}"
    return _Line(f"{first} or {second}", result, verdict.reply, verdict.thoughts, not is_unparsed(verdict))
