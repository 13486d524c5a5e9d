"""demonstrations.jsonl: the labels that are kept, as rows that the student learns from."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from aligndistill.config.labels import LabelRequest, Selection
from aligndistill.elicitation.labelling import read_reply, rows
from aligndistill.elicitation.selection import BINS, LOW_GRADE, REJECTED, Kept, agreeing, at_least, best, difficulty, final_answer
from aligndistill.preferences.scores import mean_grade, scores_from_comparisons
from aligndistill.records import Candidate, Comparison, Demonstration, Grade, Prompt, Verdict, group_by_prompt
from aligndistill.stages.context import StageContext, require_records
from aligndistill.stages.files import CANDIDATES, DEMONSTRATIONS, read_verdicts
from aligndistill.stages.generated import Generated, demonstration_id, read_generated, write_generated
from aligndistill.stages.labels import HINTED, dropped_by, least_value, training_prompts, values_of
from aligndistill.store.jsonl import read_jsonl, write_jsonl
from aligndistill.store.stage import StageResult

LEAST_AGREEING = 0.5


def make(
    context: StageContext,
    *,
    settings: LabelRequest,
    selection: Selection,
    prompts: Path,
    labels: Path,
    verdicts: Path | None = None,
) -> StageResult:
    """Keep some of the labels, and write the rows that the student learns from.

    Args:
        verdicts: the judge's, with `keep: judge`.
    """
    asked = training_prompts(prompts)
    of_prompt = group_by_prompt(read_jsonl(labels / CANDIDATES, Candidate))
    judged = group_by_prompt(read_verdicts(verdicts)) if verdicts is not None else defaultdict(list)
    dropped = dropped_by(labels)
    kept: dict[str, Kept] = {}
    for prompt in asked:
        if of_prompt[prompt.id]:
            kept[prompt.id] = _kept(prompt, of_prompt[prompt.id], judged[prompt.id], settings, selection)
            dropped += Counter(kept[prompt.id].dropped)
    of_label = [
        one for prompt in asked if prompt.id in kept for one in rows(prompt, kept[prompt.id].candidates, settings.rationale)
    ]
    written = [row for _, row in of_label]
    require_records(len(written), "labels", dropped, "Change label.keep or what it accepts.")
    write_jsonl(context.folder / DEMONSTRATIONS, written)
    write_generated(context.folder, _lines(of_label, read_generated(labels)))
    chosen = [one for many in kept.values() for one in many.candidates]
    counts = {"prompts": len(asked), "labelled prompts": len({one.prompt_id for one in chosen}), "labels": len(chosen)}
    counts |= {"rows": len(written), "rationale rows": sum(row.task == "rationale" for row in written)}
    counts |= {"with a hint": sum(one.author.endswith(HINTED) for one in chosen), "revisions": sum(bool(c.revises) for c in chosen)}
    accepted = accepted_by_difficulty(kept.values())
    return StageResult(
        counts={name: count for name, count in counts.items() if count},
        dropped={reason: count for reason, count in dropped.items() if count},
        metrics={"accepted_by_difficulty": accepted} if accepted else {},
    )


def _lines(rows_of_labels: Sequence[tuple[Candidate, Demonstration]], known: Mapping[str, Generated]) -> Iterator[Generated]:
    """The lines of the labels as those of their rows: a label with reasons as a task of their own has two."""
    rows_of = Counter(label.id for label, _ in rows_of_labels)
    for label, row in rows_of_labels:
        if label.id in known:
            yield known[label.id].model_copy(update={"id": demonstration_id(row), "of": rows_of[label.id]})


def read_labels(folder: Path) -> list[Demonstration]:
    """The rows in a finished stage's folder."""
    return list(read_jsonl(folder / DEMONSTRATIONS, Demonstration))


def _kept(
    prompt: Prompt,
    candidates: Sequence[Candidate],
    verdicts: Sequence[Verdict],
    settings: LabelRequest,
    selection: Selection,
) -> Kept:
    match selection.keep:
        case "all":
            return Kept(tuple(candidates), {}, None)
        case "judge":
            scores = scores_of(verdicts)
            if selection.at_least is None:
                return best(candidates, scores)
            return at_least(candidates, scores, selection.at_least, LOW_GRADE)
        case "agreement":

            def answer(candidate: Candidate) -> str | None:
                read = read_reply(candidate.text, settings.rationale)
                return final_answer(read.answer, selection.answer) if read is not None else None

            return agreeing(candidates, answer, LEAST_AGREEING if selection.at_least is None else selection.at_least)
        case "function":
            values = values_of(selection, settings, prompt, list(candidates))
            return at_least(candidates, values, least_value(selection), REJECTED)


def scores_of(verdicts: Sequence[Verdict]) -> Mapping[str, float]:
    """The judge's score of each candidate of a prompt: its mean grade, or its strength in the comparisons."""
    grades = [one for one in verdicts if isinstance(one, Grade)]
    return mean_grade(grades, 1.0) if grades else scores_from_comparisons([one for one in verdicts if isinstance(one, Comparison)])


def accepted_by_difficulty(kept: Iterable[Kept]) -> dict[str, dict[str, int]]:
    """Prompts by the share of their answers that the rule accepted, and of each bin the prompts with a label and the labels.

    Rules that need agreement or acceptance keep easy prompts: this says how many hard ones are left. Empty for other rules.
    """
    table: dict[str, dict[str, int]] = {}
    for one in kept:
        if one.accepted is not None:
            row = table.setdefault(difficulty(one.accepted), {"prompts": 0, "labelled": 0, "labels": 0})
            row["prompts"] += 1
            row["labelled"] += bool(one.candidates)
            row["labels"] += len(one.candidates)
    return {name: table[name] for name in BINS if name in table}
