"""The judge: its audit, each figure with a link to the rows that it counts, its work in numbers, and people beside it."""

from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from aligndistill.commands.view.ballots import human_metrics
from aligndistill.commands.view.index import CANARY, EVALUATION, LABELLING, REPEATED
from aligndistill.commands.view.query import Index
from aligndistill.commands.view.run_folder import RunFolder
from aligndistill.commands.view.sample_query import SampleQuery
from aligndistill.commands.view.site import Page, Site
from aligndistill.evaluation.audit import AuditMetrics
from aligndistill.reporting.audit_rows import audit_rows
from aligndistill.reporting.vote_rows import VOTES_SHOWN
from aligndistill.reporting.writing import share

ROWS_OF = {
    "unreadable verdicts": ("label_unreadable", "prompts with one"),
    "winner changes with the order": ("label_flip", "prompts with a flip"),
    "known-bad answers preferred": ("canary_won", "prompts where one won"),
}
SHOWN_FILTERS = {"flip": "order flips", "unreadable": "unreadable verdicts", "longer_lost": "longer answer lost"}
SCOPES = {LABELLING: "labelling", REPEATED: "asked twice", CANARY: "known-bad answers", EVALUATION: "evaluation"}
CACHED_OF = {LABELLING: "labelling", REPEATED: "asked again", CANARY: "canaries", EVALUATION: "evaluation"}
"""The names of the same in the manifests."""


def judge_page(site: Site, run: RunFolder) -> Page:
    """The page."""
    metrics = _metrics(run)
    with site.index(run) as index:
        rows = []
        for row in audit_rows(metrics) if metrics else []:
            link = _rows_behind(index, row.label)
            rows.append({"label": row.label, "share": share(row.figure), "n": row.figure.n, "wanted": row.wanted, "link": link})
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
                "warnings": run.manifest("audit").get("metrics", {}).get("warnings", []),
                "evaluation": in_evaluation,
                "work": work(run, index),
                "human": human_metrics(run, index),
                "human_rows": VOTES_SHOWN,
            },
        )


def _metrics(run: RunFolder) -> AuditMetrics | None:
    try:
        return AuditMetrics.model_validate(run.manifest("audit").get("metrics", {}).get("metrics"))
    except ValidationError:
        return None


def _rows_behind(index: Index, label: str) -> tuple[str, str] | None:
    if label not in ROWS_OF:
        return None
    name, words = ROWS_OF[label]
    query = SampleQuery(filters=(name,), split="all")
    count = index.count(query)
    return (f"{count} {words}", query.url()) if count else None


def work(run: RunFolder, index: Index) -> list[dict[str, Any]]:
    """What the judge was asked, part by part, and the sum."""
    rows = []
    for scope, name in SCOPES.items():
        count, unreadable = index.db.execute(
            "select count(*), coalesce(sum(unparsed), 0) from verdicts where scope = ?", (scope,)
        ).fetchone()
        if count:
            rows.append({"name": name, "verdicts": count, "unreadable": unreadable, "cached": _cached(run, CACHED_OF[scope])})
    return [*rows, _total(rows)] if rows else []


def _total(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    rows = list(rows)
    sums = {key: sum(row[key] for row in rows) for key in ("verdicts", "unreadable")}
    known = [row["cached"] for row in rows]
    return {"name": "together", **sums, "cached": None if None in known else sum(known)}


def _cached(run: RunFolder, purpose: str) -> int | None:
    """How many calls for a purpose were answered from the cache, of all rounds; None where no stage says."""
    said = [run.manifest(stage).get("metrics", {}).get("cached", {}) for stage in run.folders]
    found = [cached[purpose] for cached in said if isinstance(cached, dict) and purpose in cached]
    return sum(found) if found else None
