"""`aligndistill doctor`: check versions, devices, DeepSpeed, disk space, chat templates, and whether the servers answer."""

import importlib.util
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from aligndistill.commands.server_checks import Finding, server_findings
from aligndistill.config.models import LocalModel
from aligndistill.config.objectives import Ppo, RolloutServer
from aligndistill.config.resolve import resolved
from aligndistill.config.run import RunConfig
from aligndistill.errors import UserError
from aligndistill.processes.deepspeed import STALE_BUILD_SECONDS, build_locks
from aligndistill.store.artifacts import library_versions
from aligndistill.store.file_systems import file_system, is_on_network

LOW_DISK_GIB = 5


def examine(config: RunConfig | None, show: Callable[[str], None]) -> bool:
    """Run all checks and print a line for each; returns whether all passed."""
    findings = [*_machine(), *_disk(config), *_templates(config), *_endpoints(config)]
    for finding in findings:
        show(f"{'ok ' if finding.passed else 'BAD'}  {finding.what:20} {finding.found}")
    return all(finding.passed for finding in findings)


def _machine() -> Iterator[Finding]:
    import torch

    yield Finding("python", platform.python_version())
    for name, version in library_versions().items():
        yield Finding(name, version)
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("cpu", f"{cpus} cores, {torch.get_num_threads()} torch threads")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16: float32 will be used"
            yield Finding(f"gpu {index}", f"{device.name}, {device.total_memory / 2**30:.0f} GiB, {bf16}")
    else:
        yield Finding("gpu", "none: training runs on the CPU in float32")
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


def _templates(config: RunConfig | None) -> Iterator[Finding]:
    """The chat templates of local models, as their settings make them."""
    if config is None:
        return
    models: dict[str, LocalModel] = dict(resolved(config).local_models)
    if config.reward_model is not None and config.reward_model.model is not None:
        models["reward_model"] = config.reward_model.model
    for name, model in models.items():
        if model.layout == "chat" and model.model is not None:
            yield _template(name, model, learns=name in ("start", "reward_model") or getattr(model, "sft", None) is not None)


def _template(name: str, model: LocalModel, learns: bool) -> Finding:
    from aligndistill.chat.http.token_counts import is_local
    from aligndistill.models.chat_template import answer_place, refused_turns, writes_date
    from aligndistill.models.conversation import Conversation
    from aligndistill.models.load import load_tokenizer, pointer_to

    assert model.model is not None
    if not is_local(model.model):
        return Finding(name, f"{model.model} is not on this machine yet: its chat template cannot be checked")
    try:
        tokenizer = load_tokenizer(pointer_to(model), download=False)
        conversation = Conversation(tokenizer, "chat")
        place, refused = answer_place(tokenizer, tokenizer.get_chat_template()), refused_turns(tokenizer)
    except UserError as error:
        return Finding(name, str(error), passed=False)
    parts = (
        f"prompts end with {place.tail!r}",
        f"answers begin with {place.lead!r}" if place.lead else "",
        f"answers end with {tokenizer.convert_ids_to_tokens(conversation.end_of_turn)!r}",
        "thinks before it answers" if conversation.thinks else "does not think before it answers",
        "writes a fixed date" if writes_date(tokenizer.get_chat_template()) else "writes no date",
        f"refuses {', '.join(refused)}" if refused else "",
        place.mismatch,
    )
    return Finding(name, "; ".join(part for part in parts if part), passed=not (learns and place.mismatch))


def _endpoints(config: RunConfig | None) -> Iterator[Finding]:
    if config is None:
        return
    yield from server_findings(config)
    for name, student in config.students.items():
        if isinstance(student.objective, Ppo) and student.objective.server is not None:
            yield _samples(f"student {name}", student.objective.server)


def _samples(name: str, server: RolloutServer) -> Finding:
    """Check that a rollout server is ready for a policy."""
    from aligndistill.training.on_policy.rollout_server import RolloutServerClient

    try:
        RolloutServerClient(server).require_ready()
    except UserError as error:
        return Finding(name, str(error), passed=False)
    return Finding(name, f"{urlsplit(server.base_url).netloc} can sample and load weights")
