"""`provenance.json` of a run: what is known of its models and data, and of every stage in which models wrote or judged."""

from collections import defaultdict
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from pydantic import ValidationError

from aligndistill.config.resolve import resolved
from aligndistill.config.run import RunConfig
from aligndistill.processes.energy import Counters, watt_hours
from aligndistill.reporting.provenance import Energy, Provenance
from aligndistill.runs.servers import spent_so_far
from aligndistill.stages.provenance import origins, stage_origin
from aligndistill.store.append_log import AppendLog, entries_in, whole_lines
from aligndistill.store.stage import Pipeline

PROVENANCE = "provenance.json"
ENERGY = Path("caches", "energy.jsonl")
"""In the store: an artifact belongs to all runs that use it."""


def provenance(config: RunConfig, whole: Pipeline, folder: Path) -> Provenance:
    """What is known so far. `folder` is the run's, with what was spent and used."""
    spent = spent_by_stage(folder)
    used = _energy(config.runtime.store)
    made = (
        stage_origin(one, one.folder(config.runtime.store), spent[one.name], used.get(one.folder(config.runtime.store).name))
        for one in whole.stages
    )
    return Provenance(run=config.name, origins=origins(resolved(config)), stages=tuple(one for one in made if one is not None))


def spent_by_stage(folder: Path) -> defaultdict[str, defaultdict[str, float]]:
    """What the requests of each stage of a run cost: `requests`, `tokens`, `usd`; 0 of a stage that sent none."""
    spent: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    for entry in spent_so_far(folder):
        for name in ("requests", "tokens", "usd"):
            spent[entry.stage][name] += getattr(entry, name)
    return spent


def log_energy(store: Path, artifact: str, before: Counters, after: Counters, wall_seconds: float) -> None:
    """Keep what a call of a stage used, for all runs of a store; several calls add up."""
    hours, how = watt_hours(before, after, wall_seconds)
    with closing(AppendLog(store / ENERGY)) as log:
        log.add({"artifact": artifact, "watt_hours": hours, "how": how})


def _energy(store: Path) -> Mapping[str, Energy]:
    found: dict[str, Energy] = {}
    path = store / ENERGY
    for entry in entries_in(whole_lines(path.read_bytes())) if path.exists() else ():
        try:
            one = Energy.model_validate({name: entry[name] for name in ("watt_hours", "how")})
        except (KeyError, ValidationError):
            continue  # a line that another version wrote
        before = found.get(str(entry.get("artifact")))
        hours = one.watt_hours + (before.watt_hours if before is not None else 0.0)
        found[str(entry.get("artifact"))] = one.model_copy(update={"watt_hours": hours})
    return found
