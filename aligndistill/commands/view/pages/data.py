"""The data of a run: how many records each stage made and dropped, and the rankings and pairs that the students learned from."""

from collections.abc import Mapping
from math import ceil
from typing import Any

from aligndistill.commands.view.pages.samples import prompt_text
from aligndistill.commands.view.query import Index
from aligndistill.commands.view.run_folder import RunFolder
from aligndistill.commands.view.sample_query import SampleQuery
from aligndistill.commands.view.site import Page, Site

ROWS = 20
COUNTED = ("prompts", "candidates", "verdicts", "rankings", "audit", "reward_model")


def data_page(site: Site, run: RunFolder, values: Mapping[str, str]) -> Page:
    """The page: counts, then the rankings, twenty prompts at a time."""
    with site.index(run) as index:
        page = SampleQuery.read(values, index.models).page
        (total,) = index.db.execute("select count(*) from rankings").fetchone()
        rows = index.rows("select * from rankings order by prompt limit ? offset ?", (ROWS, (page - 1) * ROWS))
        return Page(
            "data.html",
            {
                "run": run,
                "stages": [(name, run.manifest(name)) for name in run.folders if name.split("-r")[0] in COUNTED],
                "rankings": [_ranking(index, row) for row in rows],
                "total": total,
                "page": page,
                "pages": max(1, ceil(total / ROWS)),
            },
        )


def _ranking(index: Index, row: Mapping[str, Any]) -> dict[str, Any]:
    record = row["record"]
    pairs = index.rows("select file, offset, size from pairs where prompt = ?", (row["prompt"],))
    return {
        "id": index.prompt_id(row["prompt"]),
        "prompt": prompt_text(record),
        "split": record["split"],
        "responses": record["responses"],
        "pairs": [_pair(pair["record"]) for pair in pairs],
    }


def _pair(record: Mapping[str, Any]) -> dict[str, Any]:
    """A pair as it is trained: the turns of the prompt, and the two responses, which carry the loss. Without a chat template all
    three are plain strings."""
    prompt, is_plain = record["prompt"], isinstance(record["prompt"], str)
    texts = {name: record[name] if is_plain else record[name][-1]["content"] for name in ("chosen", "rejected")}
    return {
        "prompt": [{"role": "prompt", "content": prompt}] if is_plain else prompt,
        "sides": [(name, text, record.get(f"score_{name}")) for name, text in texts.items()],
    }
