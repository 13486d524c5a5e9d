"""Checkpoints that can be trusted: a manifest of sizes and hashes, written last; resume takes the newest that verifies.

transformers writes a checkpoint straight into its folder and resumes from the biggest number without looking inside. A kill in
the middle of a save would then be resumed from.
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
    """Who wrote a checkpoint.

    Attributes:
        zero_stage: DeepSpeed's, whose optimiser states are cut into as many pieces as there were processes; None without it.
    """

    processes: int = 1
    zero_stage: int | None = None


def write_manifest(checkpoint: Path, made_by: CheckpointOrigin = CheckpointOrigin()) -> None:
    """Write a checkpoint's manifest: all that is in it is on disk now."""
    files = [file for file in sorted(checkpoint.rglob("*")) if file.is_file() and file.name != CHECKPOINT_MANIFEST]
    for file in files:
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    facts = {str(file.relative_to(checkpoint)): _facts(file) for file in files}
    manifest = {"made_by": asdict(made_by), "files": facts}
    write_last(checkpoint / CHECKPOINT_MANIFEST, json.dumps({**manifest, "sha256": _own_hash(manifest)}, indent=1))


def find_damage(checkpoint: Path) -> str | None:
    """Why a checkpoint cannot be used, or None when it verifies."""
    try:
        manifest = _read(checkpoint)
    except FileNotFoundError:
        return "it was not finished"
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
    """The checkpoint to resume from; says which newer ones were passed over, and why."""
    for checkpoint in reversed(all_checkpoints(folder)):
        reason = find_damage(checkpoint)
        if reason is None:
            return checkpoint
        say(f"  {checkpoint.name} is passed over: {reason}")
    return None


def keep_newest(newest: Path, count: int) -> None:
    """Delete all but the newest `count` sealed checkpoints up to the one just sealed.

    Later ones go too: the run that came to this one had passed them over as damaged.
    """
    checkpoints = all_checkpoints(newest.parent)
    before = checkpoints[: checkpoints.index(newest) + 1]
    kept = [checkpoint for checkpoint in before if (checkpoint / CHECKPOINT_MANIFEST).is_file()][-count:]
    for checkpoint in checkpoints:
        if checkpoint not in kept:
            shutil.rmtree(checkpoint)


def require_same_shards(checkpoint: Path, now: CheckpointOrigin) -> None:
    """Refuse a checkpoint whose optimiser states are cut for other processes than there are now.

    Weights, optimiser and the order of the samples do not depend on the number of processes without DeepSpeed.

    Raises:
        DataError: says what to start instead.
    """
    manifest = _read(checkpoint)
    assert manifest is not None, "it was verified"
    then = CheckpointOrigin(**manifest["made_by"])
    if then == now or (then.zero_stage is None and now.zero_stage is None):
        return
    raise DataError(
        f"{checkpoint} was saved by {_words(then)}, and this is {_words(now)}: the optimiser's shards do not fit. Start it as "
        f"it was started before, or delete {checkpoint.parent} to train this stage from its beginning."
    )


def _words(made_by: CheckpointOrigin) -> str:
    processes = "one process" if made_by.processes == 1 else f"{made_by.processes} processes"
    return f"{processes} {'without DeepSpeed' if made_by.zero_stage is None else f'under ZeRO-{made_by.zero_stage}'}"


def all_checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders, oldest first."""
    found = [path for path in folder.glob("checkpoint-*") if path.is_dir() and path.name.rpartition("-")[2].isdigit()]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def _read(checkpoint: Path) -> dict[str, Any] | None:
    """A checkpoint's manifest; None where that is not as it was written."""
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
