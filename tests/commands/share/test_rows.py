"""What exports, tables and the audit read of a run with two rounds, beside each of them alone as a run."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from aligndistill.commands.audit import audit_run
from aligndistill.commands.share.data import data_facts
from aligndistill.commands.share.rows import Data, rows_of
from aligndistill.evaluation.audit import AuditMetrics
from aligndistill.reporting.card_text import Terms
from aligndistill.reporting.provenance import Origins, Provenance
from aligndistill.runs.provenance import PROVENANCE
from aligndistill.runs.tables import read_table
from aligndistill.store.run_folder import finished_stages, last_round, of_rounds
from tests.commands.view.fake_run import write_run

REPEATED = ("candidates", "verdicts", "second_verdicts", "audit", "rankings")


@dataclass(frozen=True)
class Runs:
    """A run with two rounds, and runs that have one of them as their only round."""

    both: Path
    first: Path
    second: Path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """The second round has the first ten prompts of the first, and its judge changed its mind on all of them."""
    base = tmp_path_factory.mktemp("rounds")
    made = write_run(base, "first", prompts=16)
    prompts = {one.id for one in made.prompts[:10]}
    artifacts = json.loads((made.folder / "artifacts.json").read_text())
    second = {}
    for name in REPEATED:
        second[name] = artifacts[name].replace(name, f"{name}-r2")
        folder = base / second[name]
        shutil.copytree(base / artifacts[name], folder)
        for file in folder.glob("*.jsonl"):
            rows = [row for row in map(json.loads, file.read_text().splitlines()) if row.get("prompt_id") in prompts]
            for row in rows:
                if name == "verdicts" and row.get("probability_first") is not None:
                    row["probability_first"] = 1 - row["probability_first"]
                    row["outcome"] = {"first": "second", "second": "first"}.get(row["outcome"], row["outcome"])
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    alone = artifacts | second
    both = artifacts | {f"{name}-r2": folder for name, folder in second.items()}
    for name, stages in (("second", alone), ("both", both)):
        shutil.copytree(made.folder, made.folder.parent / name)
        (made.folder.parent / name / "artifacts.json").write_text(json.dumps(stages))
    found = Runs(*(made.folder.parent / name for name in ("both", "first", "second")))
    audit = base / second["audit"] / "audit.json"
    audit.write_text(
        json.dumps({"metrics": audit_run(found.second, None).metrics.model_dump(mode="json"), "warnings": [], "stops": []})
    )
    return found


@pytest.mark.parametrize(
    ("data", "form"),
    [
        ("preferences", "trl"),
        ("rankings", "rankings"),
        ("rankings", "distilabel"),
        ("rankings", "ultrafeedback"),
        ("verdicts", "verdicts"),
        ("answers", "messages"),
    ],
)
def test_exports_have_the_rows_of_every_round(runs: Runs, data: Data, form: str) -> None:
    first, second = (list(rows_of(run, data, form)) for run in (runs.first, runs.second))
    assert 0 < len(second) < len(first)
    assert list(rows_of(runs.both, data, form)) == first + second


@pytest.mark.parametrize("name", ["candidates", "verdicts", "rankings"])
def test_tables_have_the_rows_of_every_round(runs: Runs, name: str) -> None:
    both, first, second = (read_table(name, run, finished_stages(run)) for run in (runs.both, runs.first, runs.second))
    assert list(both["round"]) == [1] * len(first) + [2] * len(second)
    of_second = both[both["round"] == 2].drop(columns="round").reset_index(drop=True)
    assert of_second.to_json() == second.drop(columns="round").to_json()


def test_a_table_of_something_else_has_no_rounds(runs: Runs) -> None:
    assert "round" not in read_table("answers", runs.both, finished_stages(runs.both)).columns


def test_the_audit_is_that_of_the_last_round(runs: Runs) -> None:
    both, first, second = (audit_run(run, None).metrics for run in (runs.both, runs.first, runs.second))
    assert both == second != first
    assert both.verdicts == sum(1 for _ in (finished_stages(runs.both)["verdicts-r2"] / "verdicts.jsonl").open())


def test_so_is_that_of_the_card_and_its_counts_are_of_all_rounds(runs: Runs) -> None:
    (runs.both / PROVENANCE).write_text(Provenance(run="both", origins=Origins(models=(), data=()), stages=()).model_dump_json())
    facts = data_facts(runs.both, [], Terms())
    assert facts.audit == audit_run(runs.second, None).metrics
    assert isinstance(facts.audit, AuditMetrics)
    assert facts.authors == {"start": 2 * (16 + 10)}


def test_an_unfinished_round_is_not_the_last(tmp_path: Path) -> None:
    """As in the report: the last one that has every stage of the first."""
    names = ("prompts", "candidates", "verdicts", "audit", "rankings", "reward_model", "candidates-r2", "verdicts-r2", "audit-r2")
    folders = {name: tmp_path / name for name in (*names, "rankings-r2", "candidates-r10", "student-r2")}
    assert last_round(folders)["verdicts"] == tmp_path / "verdicts"
    assert last_round(folders | {"reward_model-r2": tmp_path})["verdicts"] == tmp_path / "verdicts-r2"
    assert list(of_rounds(folders, "candidates")) == [1, 2, 10]
    assert of_rounds(folders, "student") == {2: tmp_path / "student-r2"}
