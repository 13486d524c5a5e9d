"""`aligndistill doctor`: check versions, devices, DeepSpeed, disk space, chat templates, and whether the servers answer."""

import importlib.util
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from urllib.parse import urlsplit

from aligndistill.commands.gpu_checks import gpu_findings
from aligndistill.commands.output import Finding, print_json
from aligndistill.commands.server_checks import server_findings
from aligndistill.commands.template_checks import template_findings
from aligndistill.config.models import FunctionModel
from aligndistill.config.objectives import Ppo, RolloutServer
from aligndistill.config.plugins import load_plugin
from aligndistill.config.resolve import resolved
from aligndistill.config.run import RunConfig
from aligndistill.errors import UserError
from aligndistill.models.folder import NO_BITSANDBYTES, has_bitsandbytes
from aligndistill.processes.deepspeed import STALE_BUILD_SECONDS, build_locks
from aligndistill.store.artifacts import library_versions
from aligndistill.store.file_systems import file_system, is_on_network

LOW_DISK_GIB = 5


def examine(config: RunConfig | None, show: Callable[[str], None], as_json: bool = False) -> bool:
    """Run all checks and print a line for each as soon as it is known, or one JSON object; returns whether all passed."""
    findings: list[Finding] = []
    for finding in chain(_machine(config), _disk(config), _models(config)):
        findings.append(finding)
        if not as_json:
            show(f"{finding.mark:4} {finding.what:20} {finding.found}")
    passed = all(finding.passed for finding in findings)
    if as_json:
        print_json("doctor", {"passed": passed, "findings": [asdict(finding) for finding in findings]})
    return passed


def _machine(config: RunConfig | None) -> Iterator[Finding]:
    import torch

    yield Finding("python", platform.python_version())
    for name, version in library_versions().items():
        yield Finding(name, version)
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("cpu", f"{cpus} cores, torch threads: {torch.get_num_threads()}")
    yield from gpu_findings(config)
    if importlib.util.find_spec("deepspeed") is None:
        yield Finding("deepspeed", "not installed: pip install deepspeed", passed=False)
    elif shutil.which("c++") is None or shutil.which("ninja") is None:
        yield Finding("compiler", "no c++ or no ninja: offload to the host (configs/deepspeed/*_offload.json) needs both")
    for lock, seconds in build_locks():
        if seconds > STALE_BUILD_SECONDS:
            yield Finding(
                "operators",
                f"a build was killed {seconds / 60:.0f} min ago and left {lock}: the next DeepSpeed run removes it",
            )


def _disk(config: RunConfig | None) -> Iterator[Finding]:
    folder = config.runtime.store if config else Path("runs/store")
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free_gib = shutil.disk_usage(existing).free / 2**30
    yield Finding("disk", f"{free_gib:.0f} GiB free for {folder}", passed=free_gib >= LOW_DISK_GIB)
    yield Finding(
        "writing", f"{existing} {'is' if os.access(existing, os.W_OK) else 'is not'} writable", os.access(existing, os.W_OK)
    )
    if is_on_network(existing):
        yield Finding("file system", f"{file_system(existing)}: caches in {folder} are append-only files, not SQLite")


def _models(config: RunConfig | None) -> Iterator[Finding]:
    if config is None:
        return
    if config.start is not None and config.start.quantize is not None and not has_bitsandbytes():
        yield Finding("bitsandbytes", NO_BITSANDBYTES, passed=False)
    yield from template_findings(config)
    yield from server_findings(config)
    for name, function in resolved(config).functions.items():
        yield _function(name, function)
    for name, student in config.students.items():
        if isinstance(student.objective, Ppo) and student.objective.server is not None:
            yield _samples(f"student {name}", student.objective.server)


def _function(name: str, model: FunctionModel) -> Finding:
    """Import the function of a model, as a run does."""
    try:
        load_plugin(model.function)
    except UserError as error:
        return Finding(name, str(error), passed=False)
    return Finding(name, f"{model.function} can be imported")


def _samples(name: str, server: RolloutServer) -> Finding:
    """Check that a rollout server is ready for a policy."""
    from aligndistill.training.on_policy.rollout_server import RolloutServerClient

    try:
        RolloutServerClient(server).require_ready()
    except UserError as error:
        return Finding(name, str(error), passed=False)
    return Finding(name, f"{urlsplit(server.base_url).netloc} can sample and load weights")
