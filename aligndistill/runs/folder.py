"""The folder of a run: its contents, and where its stages are."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path

from aligndistill.config.load import dump_config
from aligndistill.config.resolve import resolved
from aligndistill.config.run import RunConfig
from aligndistill.runs.events import plan_text
from aligndistill.runs.files import PLAN
from aligndistill.runs.provenance import PROVENANCE, provenance
from aligndistill.runs.report_files import link_students, write_report_files, write_verdicts
from aligndistill.stages.files import METRICS, MODEL_OUTPUTS, read_log
from aligndistill.store.artifacts import read_manifest
from aligndistill.store.run_folder import ARTIFACTS
from aligndistill.store.stage import Pipeline, Stage


def begin(config: RunConfig, whole: Pipeline, folder: Path, made: Collection[str] = ()) -> dict[str, Path]:
    """Write what is known before the first stage: `config.yaml`, `plan.json`, and which stages are finished (`artifacts.json`).

    Args:
        made: the names of stages that are known to be finished.

    Returns:
        The folders of all finished stages, by name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "config.yaml", dump_config(config))
    _write(folder / PLAN, plan_text(whole, config.runtime.store))
    of_all = {stage.name: stage.folder(config.runtime.store) for stage in whole.stages}
    finished = {name: path for name, path in of_all.items() if name in made or read_manifest(path) is not None}
    _write(folder / ARTIFACTS, json.dumps({name: str(path) for name, path in finished.items()}, indent=2) + "\n")
    return finished


def gather(config: RunConfig, whole: Pipeline, stages: Sequence[Stage], folder: Path) -> None:
    """Write the run's folder, from the stages of this call and all other stages of this config that are finished in the store."""
    folders = begin(config, whole, folder, {stage.name for stage in stages})  # again: stages that turned out equal share a folder
    entries = [
        json.dumps({"stage": name, **entry})
        for name, path in folders.items()
        if (path / METRICS).is_file()
        for entry in read_log(path)
    ]
    _write(folder / "metrics.jsonl", "".join(entry + "\n" for entry in entries))
    _write(folder / PROVENANCE, provenance(config, whole, folder).model_dump_json(indent=2) + "\n")
    link_students(folder, folders)
    write_verdicts(config.name, folder, folders)
    if "report" in folders:
        write_report_files(resolved(config), folder, folders)
    if "evaluation" in folders:
        for file in sorted((folders["evaluation"] / MODEL_OUTPUTS).glob("*.json")):
            _write(folder / MODEL_OUTPUTS / file.name, file.read_text(encoding="utf-8"))


def _write(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
