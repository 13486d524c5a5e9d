"""`aligndistill export RUN DIR --data KIND`: a run's data as files of other tools, with a card."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

from aligndistill.commands.share.facts import judge_templates
from aligndistill.commands.share.rows import Data, Rows, format_of, rows_of
from aligndistill.commands.share.student import CARD, terms
from aligndistill.commands.share.weights import completed
from aligndistill.config.load import load_config
from aligndistill.errors import DataError
from aligndistill.records import Ranking
from aligndistill.reporting.card_text import Terms
from aligndistill.reporting.dataset_card import DataFacts, DataPart, dataset_card
from aligndistill.reporting.licences import licence_warnings
from aligndistill.reporting.provenance import read_provenance
from aligndistill.runs.provenance import PROVENANCE
from aligndistill.stages.audit import AuditResult
from aligndistill.stages.files import AUDIT, RANKINGS
from aligndistill.store.jsonl import read_jsonl
from aligndistill.store.run_folder import finished_stages, last_round, of_rounds


def export_data(run: Path, folder: Path, kinds: Sequence[Data], form: str | None, given: Terms) -> DataFacts:
    """Write `KIND/SPLIT.jsonl` of each kind of data, and their card.

    Args:
        form: the format; by default each kind's own.
        given: what the command line says of the licence and the languages; the config's `card` says the rest.

    Raises:
        DataError: the run does not have such data, or too little is known of it for a card.
        ConfigError: a format that a kind does not have.
    """
    forms = {kind: format_of(kind, form) for kind in dict.fromkeys(kinds)}
    with completed(folder) as partial:
        parts = [write_part(partial, kind, one, rows_of(run, kind, one)) for kind, one in forms.items()]
        facts = data_facts(run, parts, given)
        (partial / CARD).write_text(dataset_card(facts), encoding="utf-8", errors="replace")
    return facts


def write_part(folder: Path, name: Data, form: str, rows: Rows) -> DataPart:
    """Write one kind of data, a file for each split.

    Raises:
        DataError: there are no rows.
    """
    (folder / name).mkdir(parents=True)
    files: dict[str, TextIO] = {}
    counts: Counter[str] = Counter()
    first: dict[str, Any] | None = None
    with ExitStack() as stack:
        for split, row in rows:
            if split not in files:
                files[split] = stack.enter_context((folder / name / f"{split}.jsonl").open("w", encoding="utf-8"))
            files[split].write(json.dumps(row) + "\n")
            counts[split] += 1
            first = first or row
    if first is None:
        raise DataError(f"the run has no {name} to export.")
    paths = {split: f"{name}/{split}.jsonl" for split in sorted(files, key=lambda split: split != "train")}
    return DataPart(
        name=name,
        form=form,
        files=paths,
        rows={split: counts[split] for split in paths},
        size_bytes={split: (folder / path).stat().st_size for split, path in paths.items()},
        columns=list(first),
        example=json.dumps(first, indent=2, ensure_ascii=False),
    )


def data_facts(run: Path, parts: Sequence[DataPart], given: Terms) -> DataFacts:
    """What a run knows of data that was exported from it.

    Raises:
        DataError: the run has no provenance.
    """
    provenance, config, folders = read_provenance(run / PROVENANCE), load_config(run / "config.yaml"), finished_stages(run)
    audit = last_round(folders).get("audit")
    if provenance is None:
        raise DataError(f"{run} has no {PROVENANCE}. Run its config again to write it; finished stages are skipped.")
    card, published = config.card, terms(config.card, given)
    authors, shared = _authors(folders)
    return DataFacts(
        provenance=provenance,
        terms=published,
        parts=parts,
        pretty_name=card.pretty_name if card is not None else None,
        audit=AuditResult.model_validate_json((audit / AUDIT).read_bytes()).metrics if audit is not None else None,
        authors=authors,
        shared=shared,
        templates=dict(judge_templates(config)),
        personal_data=card.personal_data if card is not None else None,
        warnings=list(licence_warnings(published.license, provenance.origins, base=None)),
    )


def _authors(folders: Mapping[str, Path]) -> tuple[Mapping[str, int], int | None]:
    """How many ranked answers each model wrote, and how many prompts are both in the training and in the held-out rankings."""
    rounds = of_rounds(folders, "rankings").values()
    if not rounds:
        return {}, None
    authors: Counter[str] = Counter()
    prompts: dict[str, set[str]] = {"train": set(), "held_out": set()}
    for ranking in chain.from_iterable(read_jsonl(folder / RANKINGS, Ranking) for folder in rounds):
        authors.update(one.author for one in ranking.responses)
        prompts[ranking.split].add(ranking.prompt_id)
    return dict(authors.most_common()), len(prompts["train"] & prompts["held_out"])
