"""The card of exported data: README.md with the front matter that the Hugging Face Hub reads."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aligndistill.evaluation.audit import AuditMetrics
from aligndistill.reporting.audit_rows import audit_rows
from aligndistill.reporting.card_text import Terms, card_text, counts, fenced, plain, table
from aligndistill.reporting.provenance import UNKNOWN, Origins, Provenance
from aligndistill.reporting.writing import share

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"), (10_000_000, "1M<n<10M"))
TERMS = (
    "The outputs of a model fall under its licence or terms of use. What is `unknown` here has to be found out before this is used."
)
FLOW = "prompts -> candidates -> verdicts (the judge) -> rankings -> preferences"
COLUMNS: Mapping[str, str] = {
    "prompt": "the conversation, as messages, or the last turn as text",
    "chosen": "the better answer (`openrlhf`: the whole conversation)",
    "rejected": "the worse answer (`openrlhf`: the whole conversation)",
    "score_chosen": "its score, logit scale: P(better) = sigmoid(difference)",
    "score_rejected": "its score, logit scale",
    "responses": "the answers, best first",
    "scores": "their scores, logit scale",
    "authors": "the models that wrote them, by the names below",
    "judge": "the judge",
    "first": "the answer shown first, or the one that was graded",
    "second": "the answer shown second",
    "outcome": "first, tie, second, or unparsed",
    "probability_first": "P(first is better), where the judge gave one",
    "value": "the grade, higher is better",
    "reply": "the judge's raw reply",
    "left": "the answer on the left",
    "right": "the answer on the right",
    "vote": "what a person chose, blind",
    "named": "an answer names a model, so the vote may not have been blind",
    "messages": "the conversation with its answer",
    "lineage": "of a prompt that a model wrote: what it was made from and by whom, ids being hashes; empty texts for other prompts",
}


@dataclass(frozen=True)
class DataPart:
    """One configuration of a data set.

    Attributes:
        name: of the configuration.
        form: the format of its rows.
        files: split -> path in the repository.
        rows, size_bytes: split -> how many, and how large.
        columns: of its rows.
        example: one of them, as JSON.
    """

    name: str
    form: str
    files: Mapping[str, str]
    rows: Mapping[str, int]
    size_bytes: Mapping[str, int]
    columns: Sequence[str]
    example: str


@dataclass(frozen=True)
class DataFacts:
    """What the card of exported data says.

    Attributes:
        authors: model -> how many ranked answers it wrote.
        shared: prompts that are in the training and in the held-out rows; None if not compared.
        templates: the judge's prompt templates, name -> text.
        personal_data: what the config says of it.
    """

    provenance: Provenance
    terms: Terms
    parts: Sequence[DataPart]
    pretty_name: str | None = None
    audit: AuditMetrics | None = None
    authors: Mapping[str, int] = field(default_factory=dict)
    shared: int | None = None
    templates: Mapping[str, str] = field(default_factory=dict)
    personal_data: str | None = None
    warnings: Sequence[str] = ()


def dataset_card(facts: DataFacts) -> str:
    """The whole README.md."""
    return card_text(dict(_front_matter(facts)), _body(facts))


def licence(origins: Origins) -> tuple[str, str | None]:
    """`license` and `license_name` of data that these models and sources made: one if all agree, `unknown` if any is unknown."""
    named = [one.licence for one in origins.models if one.model != "from scratch"] + [one.licence for one in origins.data]
    different = list(dict.fromkeys(named))
    if not different or UNKNOWN in different:
        return "unknown", None
    return (different[0], None) if len(different) == 1 else ("other", "several, see below")


def _front_matter(facts: DataFacts) -> Iterator[tuple[str, Any]]:
    run, parts = facts.provenance.run, facts.parts
    if facts.terms.license is None:
        name, several = licence(facts.provenance.origins)
        yield "license", name
        if several:
            yield "license_name", several
    yield from facts.terms.front_matter()
    yield "pretty_name", facts.pretty_name or f"{run} ({', '.join(one.form for one in parts)})"
    largest = max(sum(one.rows.values()) for one in parts)
    yield "size_categories", [next((size for limit, size in SIZES if largest < limit), "n>10M")]
    yield "task_categories", ["text-generation"]
    votes = ["other"] if any(one.name == "votes" for one in parts) else []
    yield "annotations_creators", ["machine-generated", *votes]
    yield "language_creators", ["machine-generated"]
    distilabel = ["distilabel"] if any(one.form.startswith("distilabel") for one in parts) else []
    ranked = ["preference"] if any(one.name in ("preferences", "rankings", "votes") for one in parts) else []
    yield "tags", ["aligndistill", "synthetic", *ranked, "rlaif", *distilabel]
    if on_hub := [one.data for one in facts.provenance.origins.data if one.revision is not None]:
        yield "source_datasets", on_hub
    files = [{"config_name": one.name, "data_files": [{"split": s, "path": p} for s, p in one.files.items()]} for one in parts]
    yield "configs", [{**one, **({"default": True} if len(parts) > 1 and not n else {})} for n, one in enumerate(files)]
    yield "dataset_info", [_info(one) for one in parts]


def _info(part: DataPart) -> dict[str, Any]:
    splits = [{"name": one, "num_bytes": part.size_bytes[one], "num_examples": part.rows[one]} for one in part.files]
    whole = sum(part.size_bytes.values())
    return {"config_name": part.name, "splits": splits, "download_size": whole, "dataset_size": whole}


def _body(facts: DataFacts) -> Iterator[str]:
    provenance = facts.provenance
    yield f"# {plain(facts.pretty_name or provenance.run)}\n"
    yield f"From the run `{provenance.run}` of aligndistill:\n"
    yield fenced(FLOW, "text")
    for part in facts.parts:
        yield from _part(part)
    yield f"## Models and terms\n\n{TERMS}\n"
    if facts.terms.shown:
        yield f"Published under {plain(facts.terms.shown)}.\n"
    models = [
        (o.name, o.model, o.server or "", o.revision or "", o.licence, o.outputs_may_train) for o in provenance.origins.models
    ]
    yield from table(("name", "model", "server", "revision", "licence", "outputs may train other models"), models)
    yield from (f"- {plain(one)}" for one in facts.warnings)
    yield "\n## Data\n"
    sources = [(one.key, one.data, one.revision or one.hash or "", one.licence) for one in provenance.origins.data]
    yield from table(("used as", "data", "revision or hash", "licence"), sources)
    yield "## How it was made\n"
    made = [
        (s.stage, ", ".join(s.models), s.first, s.last, counts(s.rows), counts(s.dropped), f"{s.tokens:,}", f"{s.usd:.2f}")
        for s in provenance.stages
    ]
    yield from table(("stage", "models", "from", "to", "rows", "dropped", "tokens", "USD"), made)
    if facts.authors:
        whole = sum(facts.authors.values())
        shares = ", ".join(f"{name} {100 * number / whole:.0f}%" for name, number in facts.authors.items())
        yield f"Authors of the {whole:,} ranked answers: {plain(shares)}.\n"
    if facts.shared is not None:
        yield f"Prompts that are both in the training and in the held-out rows: {facts.shared:,}.\n"
    yield from _judge(facts)
    yield "## Personal data\n"
    said = facts.personal_data or "Not examined by this tool: the prompts are those of the sources above, the answers are models'."
    yield plain(said)


def _part(part: DataPart) -> Iterator[str]:
    rows = ", ".join(f"{number:,} {split}" for split, number in part.rows.items())
    whole = sum(part.rows.values())
    yield f"## `{part.name}`\n"
    yield f"{', '.join(f'`{one}`' for one in part.files.values())}: {whole:,} rows ({rows}) in the format `{part.form}`.\n"
    yield from table(("column", "meaning"), [(one, COLUMNS.get(one, "")) for one in part.columns])
    yield f"One row:\n\n{fenced(part.example, 'json')}"


def _judge(facts: DataFacts) -> Iterator[str]:
    for name, text in facts.templates.items():
        yield f"## The judge's prompt, `{plain(name)}`\n"
        yield fenced(text, "text")
    if facts.audit is not None:
        yield "## How far the judge can be trusted\n"
        rows = [(one.label, share(one.figure), str(one.figure.n), one.wanted) for one in audit_rows(facts.audit)]
        yield from table(("metric", "share", "n", "compare with"), rows)
