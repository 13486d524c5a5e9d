"""Run a config: run the unfinished stages in order, and write the run's folder.

`<runs>/<name>/` holds `config.yaml` (resolved) and `plan.json` from the start, `events.jsonl` while it works, `artifacts.json`
(stage -> folder), `metrics.jsonl` (all training curves), the report, and `model_outputs/` for AlpacaEval. All of it is derived from
the store and rewritten when it differs, except `events.jsonl` and the files of `servers.py`.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from aligndistill.config.adapter_defaults import adapter_defaults_line
from aligndistill.config.load import ConfigFiles, as_config
from aligndistill.config.models import EndpointModel
from aligndistill.config.problems import did_you_mean, in_columns
from aligndistill.config.run import RunConfig
from aligndistill.errors import ConfigError, DataError, UserError
from aligndistill.pipeline import pipeline
from aligndistill.processes.deepspeed import choose_accelerator
from aligndistill.processes.devices import use_deterministic_kernels
from aligndistill.processes.energy import read_counters
from aligndistill.processes.environment import hide_library_warnings
from aligndistill.processes.launch import launch
from aligndistill.processes.monitor import monitored, wait_for_others
from aligndistill.processes.progress import RunProgress, run_progress, say
from aligndistill.processes.ranks import is_main_process, world_size
from aligndistill.reporting.writing import duration
from aligndistill.runs.events import Events, recorded
from aligndistill.runs.expected import begin_stage
from aligndistill.runs.files import EVENTS
from aligndistill.runs.folder import begin, gather
from aligndistill.runs.make import move_damaged_aside, not_run, run_stage
from aligndistill.runs.provenance import log_energy
from aligndistill.runs.results import Run
from aligndistill.runs.servers import Endpoints
from aligndistill.stages.context import StageContext
from aligndistill.stages.provenance import models_asked
from aligndistill.store.artifacts import Manifest, read_manifest
from aligndistill.store.stage import Pipeline, Stage
from aligndistill.store.version import claim_store

_FIRST_OF_ROUND = ("prompts-", "drafts-", "candidates-")
"""What the stages are called that a round may begin with."""


def run(config: RunConfig | ConfigFiles, until: str | None = None) -> Run:
    """Run every unfinished stage, up to `until`.

    Args:
        config: a config, or the file or files to load it from.
        until: the last stage to run, such as `rankings` or `student-dpo`, or one of `GROUPS`; by default the report.

    Raises:
        UserError: a stage failed. Finished work is kept.
    """
    config = as_config(config)
    whole = pipeline(config)
    stages = stages_until(whole, until)
    if is_main_process() and _missing(config, stages):
        _claim(config.runtime.store)
        if line := adapter_defaults_line(config):
            say(line)
    folder = config.runtime.runs / config.name
    if is_main_process():
        begin(config, whole, folder)
    with _recorded(config, stages, folder) as (events, endpoints):
        return _prepare_and_run(config, whole, stages, until, events, endpoints)


@contextmanager
def _recorded(config: RunConfig, stages: tuple[Stage, ...], folder: Path) -> Iterator[tuple[Events | None, Endpoints]]:
    """The run's servers, and its events: in the main process, and only if there is something to do."""
    endpoints = Endpoints(folder, config.budget)
    if not is_main_process() or not _missing(config, stages):
        yield None, endpoints
        return
    with recorded(folder / EVENTS, endpoints.spent) as events:
        yield events, endpoints


def _prepare_and_run(
    config: RunConfig, whole: Pipeline, stages: tuple[Stage, ...], until: str | None, events: Events | None, endpoints: Endpoints
) -> Run:
    if world_size() == 1:
        move_damaged_aside(stages, config.runtime.store)
    if world_size() > 1 or _missing(config, stages):  # imports torch, so a run with nothing to do skips it
        if is_main_process():
            say("loading torch and transformers")
        choose_accelerator()
        hide_library_warnings()
        if config.runtime.deterministic:
            use_deterministic_kernels()
    launched = _launched(config, stages, until)
    with monitored(config.runtime), _progress(config, stages, events, endpoints) as shown:
        if world_size() > 1:
            if is_main_process():
                move_damaged_aside(stages, config.runtime.store)
            wait_for_others("finished work is verified", range(1))
        return _run(config, whole, stages, launched, events, endpoints, shown)


@contextmanager
def _progress(
    config: RunConfig, stages: Sequence[Stage], events: Events | None, endpoints: Endpoints
) -> Iterator[RunProgress | None]:
    """Where the run is, shown where its events are recorded."""
    if events is None:
        yield None
        return
    limit = config.budget.usd

    def spent() -> str:
        text = endpoints.spending()
        return f"{text} of {limit:.2f}" if limit is not None and text.endswith(" USD") else text

    def usd() -> float | None:
        found = endpoints.spent()
        return found["usd"] if found is not None else None

    with run_progress(len(stages), spent, usd) as shown:
        yield shown


def _claim(store: Path) -> None:
    """Say so once where the store holds work that this version cannot use.

    Raises:
        DataError: the store's folder cannot be made.
    """
    try:
        holds_other_work = claim_store(store)
    except OSError as error:
        raise DataError(f"cannot write to {store} ({error.strerror}). Set runtime.store to a folder that can be written.") from None
    if holds_other_work:
        say(f"{store} holds work of another version of aligndistill. It is left as it is, and new work is started beside it.")


def _missing(config: RunConfig, stages: tuple[Stage, ...]) -> list[Stage]:
    store = config.runtime.store
    ended = not_run(stages, store)
    return [one for one in stages if read_manifest(one.folder(store)) is None and one not in ended]


def _launched(config: RunConfig, stages: tuple[Stage, ...], until: str | None) -> list[str]:
    """Start the launcher, if the config names one, for the stages that several processes can share; returns the names of those it
    ran: these, and what they need.

    The launcher is given one name: that of the first stage that needs them all or is the last of them. A group of stages may have
    none; then it is the group's.
    """
    if config.runtime.launcher is None or world_size() > 1:
        return []
    missing = _missing(config, stages)
    shared = {stage for stage in missing if stage.together}
    if not shared:
        return []
    launch(config, next((one.name for one in stages if shared <= {*one.upstream, one}), until or "report"))
    return [one.name for one in missing if read_manifest(one.folder(config.runtime.store))]


def _run(
    config: RunConfig,
    whole: Pipeline,
    stages: tuple[Stage, ...],
    launched: list[str],
    events: Events | None,
    endpoints: Endpoints,
    shown: RunProgress | None,
) -> Run:
    made = list(launched)
    folder = config.runtime.runs / config.name

    def equip(context: StageContext) -> StageContext:
        limit = config.audit.stop.unparsed
        endpoints.at(context.name)
        return replace(context, open_endpoint=endpoints.open, spending=endpoints.spending, unreadable_limit=limit)

    done: list[Stage] = []
    said: set[str] = set()  # rounds that are not run
    ended = not_run(whole.stages, config.runtime.store)
    for stage in stages:
        if reason := ended.get(stage):
            _, _, round_ended = stage.name.rpartition("-r")
            if is_main_process() and round_ended.isdigit() and round_ended not in said:
                said.add(round_ended)
                say(f"round {round_ended} is not {'run' if stage.name.startswith(_FIRST_OF_ROUND) else 'finished'}; {reason}")
            continue
        finished = read_manifest(stage.folder(config.runtime.store)) is not None
        counters, started = read_counters() if not finished else None, time.monotonic()
        if shown is not None and not finished:
            begin_stage(shown, stages, stage, config.runtime.store)
        try:
            if events is None or finished:
                manifest = run_stage(stage, config.runtime, equip)
            else:
                with events.stage(stage.name) as summarised:
                    manifest = run_stage(stage, config.runtime, equip)
                    summarised(summary(manifest))
        except (UserError, KeyboardInterrupt):
            if is_main_process():  # `judge audit` and `open_run` read the unfinished run's folder
                gather(config, whole, done, folder)
            raise
        done.append(stage)
        if stage.may_end:
            ended = not_run(whole.stages, config.runtime.store)
        if not finished:
            made.append(stage.name)
            if shown is not None:
                _tell(shown, manifest, stage.folder(config.runtime.store))
                begin(config, whole, folder, {one.name for one in done})  # for `judge audit` beside this run, or if it is killed
                if counters is not None and models_asked(stage):
                    artifact, seconds = stage.folder(config.runtime.store).name, time.monotonic() - started
                    log_energy(config.runtime.store, artifact, counters, read_counters(), seconds)
    complete = stages[-1].name == "report"
    if is_main_process():
        gather(config, whole, done, folder)
    return Run(folder, config, tuple(made), complete)


def _tell(shown: RunProgress, manifest: Manifest, folder: Path) -> None:
    """Say what a finished stage made, and what it warns of."""
    shown.finish(summary(manifest), folder)
    for warning in manifest.metrics.get("warnings", ()):
        say(f"  warning: {warning}")


GROUPS = ("students", "answers")
"""Names for several last stages: `students` is every student; `answers` is everything that is trained, and the answers of the
models that run here to the held-out prompts, which is all that a run does with GPUs after its rankings, and asks no server.
"""


def stages_until(whole: Pipeline, until: str | None) -> tuple[Stage, ...]:
    """The stages to run.

    Args:
        until: the last stage, or one of `GROUPS`.

    Raises:
        ConfigError: the pipeline of this config has no such stage.
    """
    last = [stage for stage in whole.stages if _ends(stage, until)]
    if last:
        wanted = {needed for stage in last for needed in (*stage.upstream, stage)}
        return tuple(stage for stage in whole.stages if stage in wanted)
    try:
        return whole.upstream_of(until or "report")
    except KeyError:
        names = [stage.name for stage in whole.stages]
        raise ConfigError(
            f"this config has no stage '{until}'{did_you_mean(str(until), [*names, *GROUPS]) or '.'} Its stages are:\n"
            f"{in_columns(names)}\n'students' and 'answers' name all of a kind."
        ) from None


def _ends(stage: Stage, group: str | None) -> bool:
    match group:
        case "students":
            return stage.name.startswith("student-")
        case "answers":
            answers = stage.name.startswith("answers-") and not isinstance(stage.given["author"], EndpointModel)
            return answers or stage.trains
    return False


def summary(manifest: Manifest) -> str:
    """A finished stage in one line: counts, dropped records and time."""
    counts = ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in manifest.counts.items())
    dropped = ", ".join(f"{reason} ({number:,})" for reason, number in manifest.dropped.items())
    parts = [part for part in (counts, f"dropped: {dropped}" if dropped else "", duration(manifest.wall_seconds)) if part]
    return "; ".join(parts)
