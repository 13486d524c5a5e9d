"""The card of a student: README.md with the front matter that the Hugging Face Hub reads. It says what is known and no more."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from aligndistill.evaluation.intervals import Mean
from aligndistill.evaluation.votes import VoteMetrics
from aligndistill.reporting.audit_rows import audit_rows
from aligndistill.reporting.card_text import Terms, card_text, counts, fenced, plain, table
from aligndistill.reporting.citations import citations
from aligndistill.reporting.columns import COLUMNS, authors_of
from aligndistill.reporting.headline import result_sentence
from aligndistill.reporting.provenance import ModelOrigin, Provenance
from aligndistill.reporting.report import Report
from aligndistill.reporting.writing import duration, interval, number, share, with_interval

PUBLISHED = ("truth", "win_rate", "win_rate_lc", "kl_nats", "length_tokens", "reward", "distinct_2", "repetition_4")


@dataclass(frozen=True)
class Base:
    """What a student was trained from.

    Attributes:
        name: in the config.
        hub_name, revision: on the Hub; None for a model that is not there.
        why_no_link: why the card names no `base_model`; empty if it does.
    """

    name: str
    hub_name: str | None
    revision: str | None = None
    why_no_link: str = ""


@dataclass(frozen=True)
class StageFacts:
    """A finished stage: records in and out, what was dropped by reason, seconds."""

    name: str
    made: Mapping[str, int]
    dropped: Mapping[str, int]
    wall_seconds: float


@dataclass(frozen=True)
class Outcomes:
    """A student's answers beside the start's on the held-out prompts.

    Attributes:
        wins, ties, losses: in the judge's eyes.
        below: prompts on which its truth is lower than the start's; None without a truth.
    """

    wins: int = 0
    ties: int = 0
    losses: int = 0
    below: int | None = None
    prompts: int = 0


@dataclass(frozen=True)
class ModelFacts:
    """What the card of a student says.

    Attributes:
        relation: `finetune` (adapters that were merged are one) or `adapter`.
        lora: whether adapters were trained, merged or not.
        held_out: the name of the held-out prompts' data, and its revision or hash.
        example: a held-out prompt, as turns, and the student's answer to it; None without answers.
        asked: its prompt as the student reads it, where the layout is text.
        templates: the judge's prompt templates, name -> text.
        orders: how often and in which orders the judge was asked, in words.
        fingerprint: of the stage that trained it.
        repo: where the student is published, or the folder that has it.
    """

    run: str
    student: str
    objective: str
    settings: Mapping[str, Any]
    terms: Terms
    base: Base
    relation: str
    parameters: int
    dtype: str
    layout: str
    lora: bool
    held_out: tuple[str, str | None]
    config: str
    fingerprint: str
    stages: Sequence[StageFacts] = ()
    report: Report | None = None
    provenance: Provenance | None = None
    outcomes: Outcomes | None = None
    example: tuple[Sequence[Mapping[str, str]], str] | None = None
    asked: str = ""
    templates: Mapping[str, str] = field(default_factory=dict)
    orders: str = ""
    votes: VoteMetrics | None = None
    warnings: Sequence[str] = ()
    repo: str = "REPO"


def model_card(facts: ModelFacts) -> str:
    """The whole README.md."""
    return card_text(dict(_front_matter(facts)), _body(facts))


def _front_matter(facts: ModelFacts) -> Iterator[tuple[str, Any]]:
    yield from facts.terms.front_matter()
    yield "library_name", "peft" if facts.relation == "adapter" else "transformers"
    yield "pipeline_tag", "text-generation"
    yield "tags", list(dict.fromkeys(["aligndistill", facts.objective.replace("_", "-"), "rlaif", "distillation"]))
    if facts.base.hub_name is not None:
        yield "base_model", facts.base.hub_name
        yield "base_model_relation", facts.relation
    sources = facts.provenance.origins.data if facts.provenance is not None else ()
    if on_hub := list(dict.fromkeys(one.data for one in sources if one.revision is not None)):
        yield "datasets", on_hub
    results = list(_results(facts))
    if results:
        yield "metrics", list(dict.fromkeys(one["type"] for one in results))
        name, revision = facts.held_out
        data = {
            "type": name if revision and name in on_hub else "held-out",
            "name": f"held-out prompts of {name}",
            "split": "held_out",
        }
        if revision:
            data["revision"] = revision
        task = {"type": "text-generation", "name": "Text generation"}
        yield "model-index", [{"name": facts.student, "results": [{"task": task, "dataset": data, "metrics": results}]}]


def _results(facts: ModelFacts) -> Iterator[dict[str, Any]]:
    """The metrics with their judge, interval and n in the name."""
    metrics = facts.report.students.get(facts.student) if facts.report is not None else None
    for column in COLUMNS if metrics is not None else ():
        value = column.value(metrics) if metrics is not None and column.key in PUBLISHED else None
        if isinstance(value, Mean):
            judge = f", judge: {_judge_name(facts)}" if column.is_win_rate else ""
            shown = f"{column.meaning}{judge}, 95% {interval(value)}, n={value.n}"
            yield {"type": column.key, "name": shown, "value": round(value.mean, 4)}


def _judge_name(facts: ModelFacts) -> str:
    judges = facts.report.judge if facts.report is not None else None
    judge = "none" if judges is None else judges.evaluation_kind or judges.kind
    models = [one.model for one in _evaluating(facts)]
    return f"{judge} ({', '.join(models)})" if models else judge


def _evaluating(facts: ModelFacts) -> Sequence[ModelOrigin]:
    """The models of the judge that compared the answers."""
    if facts.provenance is None:
        return ()
    stage = next((one for one in facts.provenance.stages if one.stage == "evaluation"), None)
    return [one for one in facts.provenance.origins.models if stage is not None and one.name in stage.models]


# ---------------------------------------------------------------------------------------------------------------- body


def _body(facts: ModelFacts) -> Iterator[str]:
    yield f"# {facts.student} of {facts.run}\n"
    if facts.report is not None:
        yield f"{plain(result_sentence(facts.report))}\n"
    base = facts.base.hub_name or f"the model '{facts.base.name}' of the run"
    yield f"A student of {base}, trained with `{facts.objective}` by aligndistill. {facts.base.why_no_link}".rstrip() + "\n"
    yield "## Use\n"
    yield from _use(facts)
    yield "## Training\n"
    yield from _training(facts)
    yield "## Teacher and judge\n"
    yield from _judge(facts)
    yield "## Evaluation\n"
    yield from _evaluation(facts)
    yield "## Limits\n"
    yield from _limits(facts)
    yield "## Reproduce\n"
    yield from _reproduce(facts)


def _use(facts: ModelFacts) -> Iterator[str]:
    adapter = facts.relation == "adapter"
    load = (
        "from peft import AutoPeftModelForCausalLM as Auto" if adapter else "from transformers import AutoModelForCausalLM as Auto"
    )
    turns = [dict(one) for one in facts.example[0]] if facts.example else [{"role": "user", "content": "..."}]
    ask = (
        f"messages = {turns!r}\ninputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, "
        'return_tensors="pt")'
        if facts.layout == "chat"
        else f'inputs = tokenizer({facts.asked!r}, return_tensors="pt")  # layout: {facts.layout}'
    )
    yield fenced(
        f"from transformers import AutoTokenizer\n{load}\n\nREPO = {facts.repo!r}\n"
        "model, tokenizer = Auto.from_pretrained(REPO), AutoTokenizer.from_pretrained(REPO)\n"
        f"{ask}\nwritten = model.generate(**inputs, max_new_tokens=256)\n"
        'print(tokenizer.decode(written[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))',
        "python",
    )
    if facts.example:
        yield "The prompt is a held-out one; in the evaluation the model answered:\n"
        yield fenced(facts.example[1], "text")


def _training(facts: ModelFacts) -> Iterator[str]:
    yield f"{facts.parameters:,} {'adapter ' if facts.relation == 'adapter' else ''}parameters in {facts.dtype}. Settings:\n"
    yield fenced(yaml.safe_dump(dict(facts.settings), sort_keys=False, allow_unicode=True), "yaml")
    rows = [(one.name, counts(one.made), counts(one.dropped), duration(one.wall_seconds)) for one in facts.stages]
    yield from table(("stage", "records", "dropped", "time"), rows)
    if facts.provenance is None:
        return
    used = [one.energy for one in facts.provenance.stages if one.energy is not None]
    if used:
        how = ", ".join(sorted({one.how for one in used}))
        hours = sum(one.watt_hours for one in used)
        yield f"Energy of the stages in which models wrote or judged: {hours:.2g} Wh ({plain(how)}).\n"
    sources = facts.provenance.origins.data
    rows_of_data = [(one.key, one.data, one.revision or one.hash or "", one.licence) for one in sources]
    yield from table(("data used as", "data", "revision or hash", "licence"), rows_of_data)


def _judge(facts: ModelFacts) -> Iterator[str]:
    if facts.provenance is None:
        yield "Not recorded.\n"
        return
    yield "Outputs of a model fall under its licence or terms; so may what learned from them.\n"
    rows = [
        (one.name, one.model, one.server or "here", one.revision or "", one.licence, one.outputs_may_train)
        for one in facts.provenance.origins.models
    ]
    yield from table(("name", "model", "server", "revision", "licence", "outputs may train others"), rows)
    asked = [one for one in facts.provenance.stages if not one.stage.startswith("answers-")]
    costs = [(s.stage, ", ".join(s.models), f"{s.requests:,}", f"{s.tokens:,}", f"{s.usd:.2f}", s.first, s.last) for s in asked]
    yield from table(("stage", "models", "requests", "tokens", "USD", "from", "to"), costs)
    judge = facts.report.judge if facts.report is not None else None
    if judge is not None:
        read = f"{judge.verdicts or 0:,} verdicts, {judge.unparsed:,} of them unreadable."
        yield f"Judge: {judge.kinds}. {read} {facts.orders}".rstrip() + "\n"
    for name, text in facts.templates.items():
        yield f"Prompt template `{plain(name)}`:\n"
        yield fenced(text, "text")


def _evaluation(facts: ModelFacts) -> Iterator[str]:
    report = facts.report
    if report is None:
        yield "Not measured: the run has no report yet.\n"
        return
    shown = [column for column in COLUMNS if column.key in PUBLISHED]
    models = {name: one for name, one in authors_of(report).items() if name in ("start", "teacher", facts.base.name, facts.student)}
    shown = [column for column in shown if any(column.value(one) is not None for one in models.values())]
    rows = []
    for name, metrics in models.items():
        values = [column.value(metrics) for column in shown]
        rows.append((name, *("not measured" if value is None else _value(value) for value in values)))
    yield "Means over held-out prompts with 95% intervals; n is the number of prompts.\n"
    yield from table(("model", *(column.title for column in shown)), rows)
    yield "; ".join(f"{column.title}: {column.meaning}" for column in shown) + f". Judge: {plain(_judge_name(facts))}.\n"
    if (found := facts.outcomes) is not None:
        asked = found.wins + found.ties + found.losses
        if asked:
            yield f"Against the start: {found.wins} wins, {found.ties} ties, {found.losses} losses (n = {asked}).\n"
        if found.below is not None:
            yield f"Worse than the start by the truth function on {found.below} of {found.prompts} prompts.\n"
    if report.audit is not None:
        yield "How far the judge can be trusted, by its audit:\n"
        audited = [(one.label, share(one.figure), str(one.figure.n), one.wanted) for one in audit_rows(report.audit)]
        yield from table(("metric", "share", "n", "compare with"), audited)
    votes = facts.votes
    if votes is not None and votes.agreement is not None:
        own = f"; voters repeat their choice in {share(votes.self_agreement)}" if votes.self_agreement else ""
        yield f"People's blind votes ({votes.headline:,}): the judge chooses as they do in {share(votes.agreement)}{own}.\n"


def _value(value: Mean | float) -> str:
    return f"{with_interval(value)}, n={value.n}" if isinstance(value, Mean) else number(value)


def _limits(facts: ModelFacts) -> Iterator[str]:
    languages = ", ".join(facts.terms.language) or "not stated"
    yield f"- Languages: {languages}."
    if facts.report is not None and facts.report.judge is not None:
        yield "- Win rates are by the judge named above: its preferences, such as for long answers, are part of them."
    yield from (f"- {plain(one)}" for one in [*(facts.report.warnings if facts.report is not None else ()), *facts.warnings])
    yield ""


def _reproduce(facts: ModelFacts) -> Iterator[str]:
    versions = facts.report.versions if facts.report is not None else {}
    seed = f" Seed {facts.report.seed}." if facts.report is not None else ""
    libraries = ", ".join(f"{name} {version}" for name, version in versions.items())
    yield f"Stage `student-{facts.student}`, fingerprint `{facts.fingerprint}`.{seed} {libraries}\n"
    yield fenced("aligndistill run config.yaml", "sh")
    yield f"<details><summary>config.yaml</summary>\n\n{fenced(facts.config, 'yaml')}\n</details>\n"
    if papers := list(citations(facts.objective, facts.lora)):
        yield "## Citations\n"
        yield from papers
