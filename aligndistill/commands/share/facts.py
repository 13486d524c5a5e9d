"""What a run knows of one of its students, for its card."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from aligndistill.commands.share.names import STUDENT, TrainedModel
from aligndistill.commands.share.weights import Exported
from aligndistill.config.judges import ChatJudge, Listwise, Pairwise, Panel
from aligndistill.config.load import dump_config
from aligndistill.config.models import LocalModel
from aligndistill.config.paths import at_home
from aligndistill.config.run import RunConfig
from aligndistill.config.schema import sections_in
from aligndistill.errors import DataError
from aligndistill.judges.templates import template_text
from aligndistill.models.folder import read_json
from aligndistill.records import Message, Prompt, as_dicts
from aligndistill.reporting.card_text import Terms
from aligndistill.reporting.licences import licence_warnings
from aligndistill.reporting.model_card import Base, ModelFacts, Outcomes, StageFacts
from aligndistill.reporting.provenance import read_provenance
from aligndistill.reporting.report import Report, read_report
from aligndistill.runs.provenance import PROVENANCE
from aligndistill.runs.votes import measured_votes
from aligndistill.stages.files import PROMPTS, SCORED, prompts_folder
from aligndistill.stages.scored_answers import ScoredAnswer, beside_start
from aligndistill.store.artifacts import read_manifest
from aligndistill.store.jsonl import read_jsonl

MAX_PROMPT_CHARACTERS = 400


def model_facts(student: TrainedModel, exported: Exported, terms: Terms) -> ModelFacts:
    """Everything that the card of an exported student says."""
    from aligndistill.models.conversation import text_of_prompt  # imports Jinja, which exports of data need not

    config, report = student.full_config, _report(student)
    settings, base = config.students[student.name], base_of(student)
    provenance = read_provenance(student.run / PROVENANCE)
    manifest = read_manifest(student.folder)
    scored = _scored(student)
    sources = provenance.origins.data if provenance is not None else ()
    held_out = next((one for one in sources if one.key in ("prompts.source", "rankings.source")), None)
    start = config.seen_by(student.name).start
    layout = start.layout if start is not None else "chat"
    example = _example(scored, student.name)
    turns = [Message.model_validate(turn) for turn in example[0]] if example is not None else list(held_out_prompt(student))
    warnings = licence_warnings(terms.license, provenance.origins, base.name) if provenance is not None else ()
    return ModelFacts(
        run=config.name,
        student=student.name,
        objective=settings.objective.kind,
        settings={**settings.model_dump(mode="json", exclude_none=True, exclude={"start"}), **_adapters(start)},
        terms=terms,
        base=base,
        relation="adapter" if exported.adapter else "finetune",
        parameters=exported.parameters,
        dtype=exported.dtype,
        layout=layout,
        lora=start is not None and start.lora is not None,
        held_out=(held_out.data, held_out.revision or held_out.hash) if held_out is not None else ("the run", None),
        config=dump_config(student.config),
        fingerprint=manifest.fingerprint if manifest is not None else "",
        stages=list(_stages(student)),
        report=report,
        provenance=provenance,
        outcomes=_outcomes(scored, student.name),
        example=example,
        asked=text_of_prompt(layout, turns) if layout != "chat" else "",
        templates=dict(judge_templates(student.config)),
        orders=_orders(student),
        votes=measured_votes(student.run),
        warnings=list(warnings),
    )


def base_of(student: TrainedModel) -> Base:
    """The model that the student was trained from, by its name on the Hub, or why it has none there."""
    name = student.author
    model = student.full_config.named_models[name]
    assert isinstance(model, LocalModel)
    if model.from_scratch is not None:
        return Base(name, None, why_no_link="It began as a new model: the card names no base model.")
    if model.run is not None:
        return Base(
            name, None, why_no_link=f"Its base is the student '{model.student}' of another run, so no base model is linked."
        )
    folder = at_home(str(model.model))
    if folder.is_dir() or str(model.model).startswith((".", "/", "~")):
        return Base(name, None, why_no_link=f"Its base is a local folder ('{folder.name}'), so no base model is linked.")
    return Base(name, model.model, model.revision)


def held_out_prompt(student: TrainedModel) -> tuple[Message, ...]:
    """A short held-out prompt of the run; of a run without, a greeting."""
    folder = prompts_folder(student.stages)
    found = read_jsonl(folder / PROMPTS, Prompt) if folder is not None and (folder / PROMPTS).is_file() else ()
    held_out = [one.messages for one in found if one.split == "held_out"]
    return min(
        held_out, key=lambda turns: sum(len(one.content) for one in turns), default=(Message(role="user", content="Hello."),)
    )


def _report(student: TrainedModel) -> Report | None:
    return read_report(student.stages["report"] / "report.json") if "report" in student.stages else None


def _adapters(start: Any) -> dict[str, Any]:
    given = {"lora": start.lora, "quantize": start.quantize} if start is not None else {}
    return {name: one.model_dump(mode="json") for name, one in given.items() if one is not None}


def _stages(student: TrainedModel) -> Iterator[StageFacts]:
    """The stages that this student came from or was measured by."""
    for name, folder in student.stages.items():
        of_another = name.startswith(STUDENT) and name != STUDENT + student.name
        if of_another or name.startswith(("answers-", "report", "model-")):
            continue
        if (manifest := read_manifest(folder)) is not None:
            yield StageFacts(name, manifest.counts, manifest.dropped, manifest.wall_seconds)


def _scored(student: TrainedModel) -> Mapping[str, list[ScoredAnswer]]:
    """The scored answers of the student and of the start."""
    found: dict[str, list[ScoredAnswer]] = {}
    if "evaluation" in student.stages:
        for row in read_jsonl(student.stages["evaluation"] / SCORED, ScoredAnswer):
            if row.author in (student.name, "start"):
                found.setdefault(row.author, []).append(row)
    return found


def _outcomes(scored: Mapping[str, list[ScoredAnswer]], name: str) -> Outcomes | None:
    if name not in scored:
        return None
    found = beside_start(scored[name], scored.get("start", ()), judged=False)
    worse = found.worse if found.truth is not None else None
    return Outcomes(
        wins=found.wins,
        ties=found.ties,
        losses=found.losses,
        below=round(worse.mean * worse.n) if worse is not None else None,
        prompts=worse.n if worse is not None else 0,
    )


def _example(scored: Mapping[str, list[ScoredAnswer]], name: str) -> tuple[list[dict[str, str]], str] | None:
    """The first held-out prompt, in the order of their ids, that is short enough to read."""
    for row in sorted(scored.get(name, ()), key=lambda one: one.prompt_id):
        if sum(len(one.content) for one in row.messages) <= MAX_PROMPT_CHARACTERS:
            return as_dicts(row.messages), row.text
    return None


def judge_templates(config: RunConfig) -> Iterator[tuple[str, str]]:
    """The texts of the templates of a config's judges, of files that are still there, by name."""
    for section in (config.judge, config.evaluation.judge, config.audit.second):
        if section is not None and section != "same":
            for _, inside in sections_in(section):
                name = getattr(inside, "template", None)
                if isinstance(inside, ChatJudge) and isinstance(name, str) and (text := template_text(name)):
                    yield name if not Path(name).is_absolute() else Path(name).name, text


def _orders(student: TrainedModel) -> str:
    config = student.full_config
    judge = config.judge or config.evaluation.judge
    members = [one.judge for one in judge.members.values()] if isinstance(judge, Panel) else [judge]
    said = []
    for one in members:
        if isinstance(one, Pairwise | Listwise):
            said.append("Each comparison in both orders." if one.both_orders else "Each comparison in one order.")
        if isinstance(one, ChatJudge) and one.samples > 1:
            said.append(f"{one.samples} replies a question.")
    return " ".join(dict.fromkeys(said))


def require_base_on_hub(student: TrainedModel, exported_adapter: Path) -> None:
    """Refuse to publish adapters whose base others cannot load.

    Raises:
        DataError: the base is a local folder.
    """
    base = str(read_json(exported_adapter / "adapter_config.json").get("base_model_name_or_path") or "")
    if base and Path(base).exists():
        raise DataError(
            f"{student.name}: the adapters need the model in {base}, which others do not have. Push the merged model with --merge."
        )
