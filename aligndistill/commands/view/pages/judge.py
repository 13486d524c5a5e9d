"""The judge: its audit, each figure with a link to the rows that it counts, its work in numbers, and people beside it."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from aligndistill.commands.view.ballots import human_metrics
from aligndistill.commands.view.index import CANARY, EVALUATION, LABELLING, REPEATED, SECOND
from aligndistill.commands.view.query import Index
from aligndistill.commands.view.run_folder import RunFolder
from aligndistill.commands.view.sample_query import SampleQuery
from aligndistill.commands.view.site import Page, Site
from aligndistill.evaluation.audit import AuditMetrics
from aligndistill.models.folder import read_json
from aligndistill.reporting.audit_rows import audit_rows
from aligndistill.reporting.vote_rows import VOTES_SHOWN
from aligndistill.reporting.writing import share
from aligndistill.store.artifacts import MANIFEST
from aligndistill.store.run_folder import last_round

ROWS_OF = {
    "unreadable verdicts": ("label_unreadable", "prompts with one"),
    "winner changes with the order": ("label_flip", "prompts with a flip"),
    "known-bad answers preferred": ("canary_won", "prompts where one won"),
    "agrees with the second judge": ("judges_differ", "prompts where the two prefer different answers"),
}
SHOWN_FILTERS = {"flip": "order flips", "unreadable": "unreadable verdicts", "longer_lost": "longer answer lost"}
SCOPES = {
    LABELLING: "labelling",
    REPEATED: "asked twice",
    CANARY: "known-bad answers",
    SECOND: "second judge",
    EVALUATION: "evaluation",
}


def judge_page(site: Site, run: RunFolder) -> Page:
    """The page."""
    metrics = _metrics(run)
    with site.index(run) as index:
        rows = []
        for row in audit_rows(metrics) if metrics else []:
            link = _rows_behind(index, row.label)
            values = {"label": row.label.strip(), "part": row.label.startswith(" "), "share": share(row.figure), "n": row.figure.n}
            rows.append({**values, "wanted": row.wanted, "link": link})
        in_evaluation = [
            {"label": f"{model}: {SHOWN_FILTERS[name]}", "count": number, "url": SampleQuery(filters=(name,), model=model).url()}
            for model, name, number in index.cell_counts()
            if name in SHOWN_FILTERS and number
        ]
        return Page(
            "judge.html",
            {
                "run": run,
                "metrics": metrics,
                "rows": rows,
                "warnings": _audit(run).get("warnings", []),
                "evaluation": in_evaluation,
                "held_out": index.count(SampleQuery(split="held_out")),
                "evaluated": bool(_reported(run)),
                "work": _reported(run) or _so_far(index),
                "human": human_metrics(run, index),
                "human_rows": VOTES_SHOWN,
            },
        )


def _audit(run: RunFolder) -> Mapping[str, Any]:
    """What the audit says; with rounds that of the last one, as in the report."""
    folder = last_round(run.folders).get("audit")
    found: Mapping[str, Any] = read_json(folder / MANIFEST).get("metrics", {}) if folder is not None else {}
    return found


def _metrics(run: RunFolder) -> AuditMetrics | None:
    try:
        return AuditMetrics.model_validate(_audit(run).get("metrics"))
    except ValidationError:
        return None


def _rows_behind(index: Index, label: str) -> tuple[str, str] | None:
    if label not in ROWS_OF:
        return None
    name, words = ROWS_OF[label]
    query = SampleQuery(filters=(name,), split="all")
    count = index.count(query)
    return (f"{count} {words}", query.url()) if count else None


def _reported(run: RunFolder) -> list[dict[str, Any]]:
    """What the judge did, part by part, and the sum, as the report has it; nothing before there is one."""
    judge = run.report.judge if run.report else None
    if judge is None:
        return []
    rows = [
        {
            "name": one.purpose,
            "counts": {
                "verdicts": one.verdicts,
                "unreadable": one.unparsed,
                "model calls": one.calls,
                **({} if judge.cached is None else {"of these cached": one.cached}),
                "prompt tokens": one.prompt_tokens,
                "completion tokens": one.completion_tokens,
            },
        }
        for one in judge.work
    ]
    return _with_sum(rows)


def _so_far(index: Index) -> list[dict[str, Any]]:
    """The verdicts that are stored, part by part, and the sum."""
    rows = []
    for scope, name in SCOPES.items():
        count, unreadable = index.db.execute(
            "select count(*), coalesce(sum(unparsed), 0) from verdicts where scope = ?", (scope,)
        ).fetchone()
        if count:
            rows.append({"name": name, "counts": {"verdicts": count, "unreadable": unreadable}})
    return _with_sum(rows)


def _with_sum(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if not rows:
        return []
    return [*rows, {"name": "sum", "counts": {name: sum(row["counts"][name] for row in rows) for name in rows[0]["counts"]}}]
