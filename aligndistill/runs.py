"""A run from its config to its folder: makes what is missing, in order, and gathers the report.

`<runs>/<name>/` holds `config.yaml` (resolved), `artifacts.json` (stage -> folder), `metrics.jsonl` (all training curves), the
report, and `model_outputs/` for AlpacaEval. Everything in it is derived from the store, and written anew when it differs; but not
what `endpoints.py` keeps there.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from aligndistill.config import RunConfig
from aligndistill.config_files import dump_config
from aligndistill.endpoints import Endpoints
from aligndistill.errors import ConfigError, UserError
from aligndistill.launching import launch
from aligndistill.pipeline import Pipeline, pipeline
from aligndistill.progress import say
from aligndistill.stages.audit import PAGE
from aligndistill.stages.evaluation import MODEL_OUTPUTS
from aligndistill.stages.stage import Stage, run_stage, set_damaged_aside, wait_for_others
from aligndistill.stages.training_log import METRICS, read_log
from aligndistill.store.artifacts import Manifest, read_manifest
from aligndistill.training.distributed import choose_accelerator, is_main_process, world_size
from aligndistill.training.roll_call import called


@dataclass(frozen=True)
class Finished:
    """What a run came to.

    Attributes:
        folder: the run's folder.
        made: names of the stages that had to be made now; empty when all was there already.
        complete: whether the report was among the stages asked for.
    """

    folder: Path
    made: tuple[str, ...]
    complete: bool


def run(config: RunConfig, until: str | None = None) -> Finished:
    """Make every stage that is missing, up to `until`.

    Raises:
        UserError: whatever a stage found wrong. What was done stays done.
    """
    choose_accelerator()
    whole = pipeline(config)
    stages = stages_until(whole, until)
    if world_size() == 1:
        set_damaged_aside(stages, config.runtime.store)
    launched = _launched(config, stages)
    with called(config.runtime):
        if world_size() > 1:
            if is_main_process():
                set_damaged_aside(stages, config.runtime.store)
            wait_for_others("finished work is verified", range(1))
        return _run(config, whole, stages, launched)


def _launched(config: RunConfig, stages: tuple[Stage, ...]) -> list[str]:
    """Have the launcher make what several processes can share, if the config names one; what it made."""
    if config.runtime.launcher is None or world_size() > 1:
        return []
    missing = [stage for stage in stages if read_manifest(stage.folder(config.runtime.store)) is None]
    shared = [stage for stage in missing if stage.all_processes]
    if not shared:
        return []
    launch(config, shared[-1].name)
    return [stage.name for stage in missing[: missing.index(shared[-1]) + 1]]


def _run(config: RunConfig, whole: Pipeline, stages: tuple[Stage, ...], launched: list[str]) -> Finished:
    made = list(launched)
    folder = config.runtime.runs / config.name
    endpoints = Endpoints(folder, config.budget)
    for number, stage in enumerate(stages):
        finished = read_manifest(stage.folder(config.runtime.store)) is not None
        try:
            manifest = run_stage(stage, config.runtime, endpoints.open)
        except UserError:
            if is_main_process():  # what there is, is what `judge audit` looks at
                _gather(config, whole, stages[:number], folder, complete=False)
            raise
        if not finished:
            made.append(stage.name)
            if is_main_process():
                say(f"  {summary(manifest)}")
    complete = stages[-1].name == "report"
    if is_main_process():
        _gather(config, whole, stages, folder, complete)
    return Finished(folder, tuple(made), complete)


def stages_until(whole: Pipeline, until: str | None) -> tuple[Stage, ...]:
    """The stages to make.

    Raises:
        ConfigError: the pipeline of this config has no such stage.
    """
    try:
        return whole.upstream_of(until or "report")
    except KeyError:
        names = ", ".join(stage.name for stage in whole.stages)
        raise ConfigError(f"this config has no stage '{until}'. Its stages are: {names}.") from None


def summary(manifest: Manifest) -> str:
    """One line of what a stage made."""
    counts = ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in manifest.counts.items())
    dropped = ", ".join(f"{number} {reason}" for reason, number in manifest.dropped.items())
    parts = [part for part in (counts, f"dropped: {dropped}" if dropped else "", f"{manifest.wall_seconds:.1f} s") if part]
    return "; ".join(parts)


def _gather(config: RunConfig, whole: Pipeline, stages: tuple[Stage, ...], folder: Path, complete: bool) -> None:
    """Write the run's folder: of the stages made now, and of all others of this config that are finished in the store."""
    folder.mkdir(parents=True, exist_ok=True)
    of_all = {stage.name: stage.folder(config.runtime.store) for stage in whole.stages}
    made = {stage.name for stage in stages}
    folders = {name: path for name, path in of_all.items() if name in made or read_manifest(path) is not None}
    _write(folder / "config.yaml", dump_config(config))
    _write(folder / "artifacts.json", json.dumps({name: str(path) for name, path in folders.items()}, indent=2) + "\n")
    entries = [
        json.dumps({"stage": name, **entry})
        for name, path in folders.items()
        if (path / METRICS).is_file()
        for entry in read_log(path)
    ]
    _write(folder / "metrics.jsonl", "".join(entry + "\n" for entry in entries))
    if complete:
        for name in ("report.html", "report.json"):
            _write(folder / name, (folders["report"] / name).read_text(encoding="utf-8"))
    if "audit" in folders:
        _write(folder / PAGE, (folders["audit"] / PAGE).read_text(encoding="utf-8"))
    if "evaluation" in folders:
        for file in sorted((folders["evaluation"] / MODEL_OUTPUTS).glob("*.json")):
            _write(folder / MODEL_OUTPUTS / file.name, file.read_text(encoding="utf-8"))


def _write(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
