"""What a run would do, but probably should not: settings far from published recipes, batches that processes cannot share."""

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

from aligndistill.commands.plan.decoder_shapes import shape_from_numbers
from aligndistill.config.models import LocalModel
from aligndistill.config.offline_objectives import Distil, Dpo, Simpo
from aligndistill.config.problems import Problem
from aligndistill.config.resolve import with_baseline
from aligndistill.config.run import RunConfig
from aligndistill.config.schema import KeyPath
from aligndistill.config.training import Training
from aligndistill.errors import ConfigError
from aligndistill.models.folder import read_json
from aligndistill.processes.devices import count_device_files
from aligndistill.processes.ranks import world_size

LARGE_BILLIONS = 6.0
"""From this size on, published DPO recipes with one epoch have `SMALL_BETA`: Zephyr (7B), SimPO's baselines (7B to 9B)."""
SMALL_BETA = 0.01

LEAST_SIMPO_BETA = 1.0
"""Well below every published run of SimPO, and well above betas that are meant for DPO."""

MEETING_PORT = 29500
"""Where the processes of a launcher meet by default."""


def doubts(config: RunConfig) -> Iterator[Problem]:
    """Settings to think about again; a run works with them."""
    yield from _adapter_rates(config)
    yield from _betas(config)
    yield from _shared_answers(config)
    count = launched_processes(config)
    if not _is_certain(config):
        yield from (Problem(key, text) for key, text in _uneven_batches(config, count))
    yield from _meeting_port(config)


def impossible_batches(config: RunConfig) -> Iterator[tuple[KeyPath, ConfigError]]:
    """Batches that the processes of the run cannot share, if their number is certain."""
    if _is_certain(config):
        for key, text in _uneven_batches(config, launched_processes(config)):
            yield key, ConfigError(text)


def _adapter_rates(config: RunConfig) -> Iterator[Problem]:
    for path, section in config.adapter_sections.items():
        rate, full = section.learning_rate, section.full_learning_rate
        if section.has_default_rate or rate > full:
            continue
        published = f"published rates for adapters are about {section.adapter_learning_rate:g}"
        yield Problem((*path, "learning_rate"), f"learning_rate {rate:g} with lora: {published}")


# --------------------------------------------------------------------------------------------------------------- beta


def _betas(config: RunConfig) -> Iterator[Problem]:
    for name, student in config.students.items():
        if isinstance(student.objective, Simpo) and student.objective.beta < LEAST_SIMPO_BETA:
            text = f"beta {student.objective.beta:g} for simpo, which compares log-probabilities per token"
            yield Problem(("students", name, "objective", "beta"), f"{text}: published runs have 2 to 10")
    billions = billion_parameters(config.start) if config.start is not None else None
    if billions is None or billions < LARGE_BILLIONS:
        return
    for name, student in config.students.items():
        objective, epochs = student.objective, student.num_train_epochs
        if isinstance(objective, Dpo) and objective.loss == "sigmoid" and objective.beta >= 0.1 and epochs <= 1:
            passes = f"{epochs:g} epoch{'' if epochs == 1 else 's'}"
            text = f"beta {objective.beta:g} and {passes} at {billions:.0f}B: published recipes use {SMALL_BETA:g}"
            yield Problem(("students", name, "objective", "beta"), f"{text} (Zephyr, SimPO's baselines)")


def _shared_answers(config: RunConfig) -> Iterator[Problem]:
    """Candidates with one text are one candidate: of the first author, see `stages/candidates.py`."""
    authors = config.candidates.authors
    if config.judge is None or authors[0] == "teacher":
        return
    for name, student in config.students.items():
        if isinstance(student.objective, Distil) and student.objective.on == "teacher":
            text = f"an answer that '{authors[0]}' and the teacher both write counts as that of '{authors[0]}', and is not read"
            yield Problem(("students", name, "objective", "on"), f"{text}: name 'teacher' first in candidates.from")


def billion_parameters(model: LocalModel) -> float | None:
    """A model's size in billions of parameters by its config.json, or by its name, such as Qwen3-8B; None if neither says it."""
    if model.model is None:
        return None
    shape = shape_from_numbers(read_json(Path(model.model) / "config.json"))
    if shape is not None:
        return shape.parameters / 1e9
    named = re.search(r"(?<![\w.])(\d+(?:\.\d+)?)b(?![a-z0-9])", Path(model.model).name, re.IGNORECASE)
    return float(named[1]) if named else None


# ---------------------------------------------------------------------------------------------------------- processes


def launched_processes(config: RunConfig) -> int:
    """How many processes train, as far as that is known without starting them; 1 if nothing says more."""
    if world_size() > 1:
        return world_size()
    runtime = config.runtime
    if runtime.launcher is None and runtime.deepspeed is None:
        return 1
    return runtime.processes or count_device_files() or 1


def _is_certain(config: RunConfig) -> bool:
    return world_size() > 1 or (config.runtime.launcher is not None and config.runtime.processes is not None)


def _uneven_batches(config: RunConfig, processes: int) -> Iterator[tuple[KeyPath, str]]:
    for path, section in _trained(config):
        if section.batch_size % processes:
            yield (*path, "batch_size"), f"batch_size {section.batch_size} is no multiple of {processes} processes"


def _trained(config: RunConfig) -> Iterator[tuple[KeyPath, Training]]:
    if config.sft is not None:
        yield ("sft",), config.sft
    for name, model in config.local_models.items():
        if (sft := getattr(model, "sft", None)) is not None:
            yield (("teacher", "sft") if name == "teacher" else ("models", name, "sft")), sft
    if config.reward_model is not None:
        yield ("reward_model",), config.reward_model
    for name, student in with_baseline(config).items():
        yield ("students", name), student


def _meeting_port(config: RunConfig) -> Iterator[Problem]:
    """`runtime.launcher` takes a free port; a launcher that is started by hand has the default or the one given to it."""
    runtime = config.runtime
    if runtime.deepspeed is None or runtime.launcher is not None or world_size() > 1:
        return
    given = os.environ.get("MASTER_PORT", "")
    port = int(given) if given.isdigit() else MEETING_PORT
    if _is_taken(port):
        advice = "give the launcher another one with --master_port"
        yield Problem(("runtime", "deepspeed"), f"port {port}, where the launched processes would meet, is in use: {advice}")


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return True
    return False
