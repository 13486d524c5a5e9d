"""Blind votes: the page that takes them, the pairs that it shows, and what they say of judge and people."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from aligndistill.commands.view.ballots import (
    BATCH,
    Ballot,
    add_vote,
    answer_texts,
    as_vote,
    human_metrics,
    model_names,
    next_batch,
)
from aligndistill.commands.view.flags import CELL_FILTERS
from aligndistill.commands.view.pages.samples import prompt_text
from aligndistill.commands.view.run_folder import RunFolder
from aligndistill.commands.view.sample_query import NARROWS, SampleQuery
from aligndistill.commands.view.site import Page, Site
from aligndistill.reporting.vote_rows import VOTES_SHOWN
from aligndistill.runs.votes import read_votes


def vote_page(site: Site, run: RunFolder, values: Mapping[str, str]) -> Page:
    """The page without pairs: the script asks for them, so that nothing in it tells which is which."""
    chosen = {name: values[name] for name in NARROWS if values.get(name)}
    return Page("vote.html", {"run": run, "query": urlencode(chosen, errors="replace"), "batch": BATCH, "voter": site.voter})


def next_pairs(site: Site, run: RunFolder, values: Mapping[str, str]) -> dict[str, Any]:
    """The next batch: prompts, two texts each, and the ids that a ballot names. Names, figures and verdicts stay here."""
    with site.index(run) as index:
        query = SampleQuery.read(values, index.models)
        votes = read_votes(run.path).get(site.voter, [])
        pairs = []
        for shown in next_batch(index, site.voter, votes, query if query.narrows else None):
            texts = answer_texts(index, shown.prompt, (shown.left, shown.right))
            number = index.number_of(shown.prompt)
            if texts is None or number is None:
                continue
            (row,) = index.prompts([number])
            pairs.append(
                {
                    "prompt": shown.prompt,
                    "left": shown.left,
                    "right": shown.right,
                    "queue": shown.queue,
                    "text": prompt_text(row["record"]),
                    "texts": texts,
                }
            )
        return {"pairs": pairs}


def take_vote(site: Site, run: RunFolder, ballot: Ballot) -> bool | None:
    """Store a vote: True if it is new, False if it was stored before, None if it is about unknown answers."""
    with site.index(run) as index:
        vote = as_vote(index, ballot, model_names(index.students, run.config))
    return None if vote is None else add_vote(run.path, site.voter, vote)


def votes_page(site: Site, run: RunFolder) -> Page:
    """What the votes say."""
    with site.index(run) as index:
        metrics = human_metrics(run, index)
    counts = {voter: len(votes) for voter, votes in read_votes(run.path).items()}
    filters = {name: label for name, (_, label, _) in CELL_FILTERS.items() if name not in ("identical",)}
    return Page("votes.html", {"run": run, "human": metrics, "human_rows": VOTES_SHOWN, "voters": counts, "filters": filters})
