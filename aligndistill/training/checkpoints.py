"""Verified checkpoints: each has a manifest of sizes and hashes, written last, and training resumes from the newest valid one.

transformers writes a checkpoint directly into its folder and resumes from the highest number without verifying it. After a kill
during a save it would resume from an incomplete checkpoint.
"""

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aligndistill.errors import DataError
from aligndistill.processes.progress import say
from aligndistill.store.artifacts import write_last

CHECKPOINT_MANIFEST = "aligndistill_checkpoint.json"


@dataclass(frozen=True)
class CheckpointOrigin:
    """The kind of run that wrote a checkpoint.

    Attributes:
        zero_stage: DeepSpeed's; it shards the optimiser states over the processes. None without DeepSpeed.
    """

    processes: int = 1
    zero_stage: int | None = None


def write_manifest(checkpoint: Path, made_by: CheckpointOrigin = CheckpointOrigin()) -> None:
    """Write a checkpoint's manifest, after all its files are on disk."""
    files = [file for file in sorted(checkpoint.rglob("*")) if file.is_file() and file.name != CHECKPOINT_MANIFEST]
    for file in files:
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    facts = {str(file.relative_to(checkpoint)): _facts(file) for file in files}
    manifest = {"made_by": asdict(made_by), "files": facts}
    write_last(checkpoint / CHECKPOINT_MANIFEST, json.dumps({**manifest, "sha256": _own_hash(manifest)}, indent=1))


def find_damage(checkpoint: Path) -> str | None:
    """Why a checkpoint cannot be used; None if it is valid."""
    try:
        manifest = _read(checkpoint)
    except FileNotFoundError:
        return "it is incomplete"
    if manifest is None:
        return f"{CHECKPOINT_MANIFEST} is damaged"
    for name, facts in manifest["files"].items():
        file = checkpoint / name
        if not file.is_file():
            return f"{name} is missing"
        if _facts(file) != facts:
            return f"{name} is damaged"
    return None


def newest_valid_checkpoint(folder: Path) -> Path | None:
    """The checkpoint to resume from. Prints which newer ones are skipped, and why."""
    for checkpoint in reversed(all_checkpoints(folder)):
        reason = find_damage(checkpoint)
        if reason is None:
            return checkpoint
        say(f"  {checkpoint.name} is skipped: {reason}")
    return None


def keep_newest(newest: Path, count: int) -> None:
    """Delete all checkpoints except the newest `count` complete ones up to `newest`, which was just written.

    Checkpoints of later steps are deleted too: the run skipped them as damaged when it resumed.
    """
    checkpoints = all_checkpoints(newest.parent)
    before = checkpoints[: checkpoints.index(newest) + 1]
    to_keep = [checkpoint for checkpoint in before if (checkpoint / CHECKPOINT_MANIFEST).is_file()][-count:]
    for checkpoint in checkpoints:
        if checkpoint not in to_keep:
            shutil.rmtree(checkpoint)


def require_usable_shards(checkpoint: Path, now: CheckpointOrigin) -> bool:
    """Whether a checkpoint has to be converted, because its optimiser states are sharded for another number of processes.

    Without DeepSpeed, checkpoints do not depend on the number of processes.

    Raises:
        DataError: the checkpoint is of another ZeRO stage; the message says how to resume.
    """
    manifest = _read(checkpoint)
    assert manifest is not None, "it was verified"
    then = CheckpointOrigin(**manifest["made_by"])
    if then.zero_stage != now.zero_stage:
        raise DataError(
            f"{checkpoint} was saved by {_describe(then)}, and this run is {_describe(now)}: the optimiser's states do not fit. "
            f"Run with the same runtime.deepspeed as before, or delete {checkpoint.parent} to restart the training of this stage."
        )
    return then.zero_stage is not None and then.processes != now.processes


def _describe(made_by: CheckpointOrigin) -> str:
    processes = "one process" if made_by.processes == 1 else f"{made_by.processes} processes"
    return f"{processes} {'without DeepSpeed' if made_by.zero_stage is None else f'under ZeRO-{made_by.zero_stage}'}"


def all_checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders, oldest first."""
    found = [path for path in folder.glob("checkpoint-*") if path.is_dir() and path.name.rpartition("-")[2].isdigit()]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def _read(checkpoint: Path) -> dict[str, Any] | None:
    """A checkpoint's manifest; None if it is damaged."""
    try:
        manifest = json.loads((checkpoint / CHECKPOINT_MANIFEST).read_text())
    except (json.JSONDecodeError, UnicodeDecodeError, IsADirectoryError):
        return None
    if not isinstance(manifest, dict) or manifest.pop("sha256", None) != _own_hash(manifest):
        return None
    return manifest


def _own_hash(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _facts(file: Path) -> dict[str, int | str]:
    with file.open("rb") as handle:
        return {"size": file.stat().st_size, "sha256": hashlib.file_digest(handle, "sha256").hexdigest()}
