"""All runs, and one run: what they are doing, what they found, and where to look next."""

from collections.abc import Sequence
from typing import Any

from aligndistill.commands.view.ballots import human_metrics
from aligndistill.commands.view.flags import CELL_FILTERS, PROMPT_FILTERS
from aligndistill.commands.view.graph import stage_graph
from aligndistill.commands.view.query import Index
from aligndistill.commands.view.rows import rows_of
from aligndistill.commands.view.run_folder import RunFolder, RunState
from aligndistill.commands.view.sample_query import SampleQuery
from aligndistill.commands.view.site import Page, Site
from aligndistill.reporting.checks import by_kind
from aligndistill.reporting.columns import COLUMNS, authors_of, measured
from aligndistill.reporting.headline import result_sentence
from aligndistill.reporting.report import Check, Report, best_student
from aligndistill.reporting.rows import table_rows
from aligndistill.runs.files import SPENT


def runs_page(site: Site) -> Page:
    """Every run in a row."""
    return Page("runs.html", {"rows": [_summary(run) for run in site.runs.values()]})


def _summary(run: RunFolder) -> dict[str, Any]:
    state, report = run.state(), run.report
    leading = best_student(report.students) if report else None
    metrics = report.students[leading] if report and leading else None
    return {
        "run": run,
        "state": state,
        "leading": leading,
        "figure": (metrics.truth or metrics.win_rate_lc or metrics.win_rate) if metrics else None,
        "measure": "truth" if metrics and metrics.truth else "win rate",
        "judge": _judge(run),
        "seconds": sum(float(stage.manifest.get("wall_seconds", 0)) for stage in state.stages),
        "spent": _spent(run),
        "changed": run.changed_at,
    }


def _judge(run: RunFolder) -> str:
    judge = run.config.get("judge")
    if not isinstance(judge, dict):
        return "none"
    model = judge.get("model") or judge.get("function") or ""
    return " ".join(filter(None, (str(judge.get("kind", "")), str(model))))


def _spent(run: RunFolder) -> dict[str, float]:
    spent = [row for _, _, row in rows_of(run.path / SPENT)]
    return {name: sum(float(one.get(name) or 0) for one in spent) for name in ("requests", "tokens", "usd")}


def run_page(site: Site, run: RunFolder) -> Page:
    """One run: its stages, which change while it runs, its result, and what to check."""
    report = run.report
    with site.index(run) as index:
        samples = _samples(index)
        checks = [(title, _with_links(some, index)) for title, some in by_kind(report.checks)] if report else []
        human = human_metrics(run, index)
    columns = measured(COLUMNS, list(authors_of(report).values())) if report else []
    series = {name: None if name in ("start", "teacher") else n for n, name in enumerate(authors_of(report))} if report else {}
    values = {
        "run": run,
        "report": report,
        "checks": checks,
        "samples": samples,
        "result": result_sentence(report) if report else "",
        "human": human,
        "columns": columns,
        "rows": table_rows(report, columns, series) if report else [],
        "facts": _facts(run, report),
        **live_values(run),
    }
    return Page("run.html", values)


def live_values(run: RunFolder) -> dict[str, Any]:
    """What changes while a run works: the part of its page that is sent again."""
    state = run.state()
    return {
        "run": run,
        "state": state,
        "spent": _spent(run),
        "left": _seconds_left(state),
        "written": newest_rows(run, state),
        "graph": stage_graph(state.stages),
    }


def _seconds_left(state: RunState) -> float | None:
    running = state.running
    return running.event.get("eta_s") if running else None


def newest_rows(run: RunFolder, state: RunState) -> list[str]:
    """The last lines that the running stage has written so far, shortened."""
    running = state.running
    if running is None:
        return []
    found: list[str] = []
    for file in sorted((running.folder / "scratch").glob("*.jsonl")):
        with file.open("rb") as handle:
            handle.seek(max(0, file.stat().st_size - 20_000))
            lines = handle.read().split(b"\n")[:-1]
        found += [f"{file.name}: {line.decode(errors='replace')[:300]}" for line in lines[-2:]]
    return found[-6:]


def _with_links(checks: Sequence[Check], index: Index) -> list[dict[str, str]]:
    """What the report found, with the query of the samples behind it."""
    models = index.models
    return [
        {
            "text": one.text,
            "samples": one.samples,
            "query": SampleQuery(filters=(one.samples,), model=one.student if one.student in models else "").url(),
        }
        for one in checks
    ]


def _samples(index: Index) -> list[dict[str, Any]]:
    """Samples to look at: each filter that finds something, with the number of prompts, for each student if it is about answers."""
    of_model: dict[str, list[tuple[str, int, str]]] = {}
    for model, name, number in index.cell_counts():
        if number and name not in ("near_tie", "identical"):
            of_model.setdefault(name, []).append((model, number, SampleQuery(filters=(name,), model=model).url()))
    held_out, every = index.count(SampleQuery(split="held_out")), index.count(SampleQuery(split="all"))
    found = [
        {"label": label, "meaning": meaning, "total": held_out, "found": of_model[name]}
        for name, (_, label, meaning) in CELL_FILTERS.items()
        if name in of_model
    ]
    for name, (_, label, meaning) in PROMPT_FILTERS.items():
        of_answers = name == "disagree"  # the others are about candidates
        query = SampleQuery(filters=(name,), split="held_out" if of_answers else "all")
        if number := index.count(query):
            total = held_out if of_answers else every
            found.append({"label": label, "meaning": meaning, "total": total, "found": [("", number, query.url())]})
    return found


def _place(run: RunFolder) -> str:
    """Where a run is, from the folder that its command was given in: an export does not tell the rest."""
    path = run.path.absolute()
    return str(path.relative_to(run.base)) if path.is_relative_to(run.base) else run.name


def _facts(run: RunFolder, report: Report | None) -> list[tuple[str, str]]:
    config = run.config
    facts = [("folder", _place(run)), ("judge", _judge(run)), ("seed", str(config.get("seed", "")))]
    for role in ("start", "teacher"):
        model = config.get(role)
        if isinstance(model, dict):
            named = model.get("model") or model.get("name") or "from scratch"
            facts.append((role, " ".join(filter(None, (str(named), str(model.get("revision") or ""))))))
    source = ((config.get("prompts") or config.get("rankings") or {}).get("source") or {}) if config else {}
    if source.get("path"):
        facts.append(("data", " ".join(filter(None, (str(source["path"]), str(source.get("revision") or ""))))))
    if report:
        facts += [(name, version) for name, version in report.versions.items()]
    return facts
