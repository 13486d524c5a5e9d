"""Checkpoints that can be trusted: a manifest of sizes and hashes, written last; resume takes the newest that verifies.

transformers writes a checkpoint straight into its folder and resumes from the biggest number without looking inside. A kill in
the middle of a save would then be resumed from.
"""

import hashlib
import json
import shutil
from pathlib import Path

from aligndistill.progress import say
from aligndistill.store.artifacts import write_last

CHECKPOINT_MANIFEST = "aligndistill_checkpoint.json"


def seal(checkpoint: Path) -> None:
    """Write a checkpoint's manifest: all that is in it is on disk now."""
    files = {
        str(file.relative_to(checkpoint)): {"size": file.stat().st_size, "sha256": _sha256(file)}
        for file in sorted(checkpoint.rglob("*"))
        if file.is_file()
    }
    write_last(checkpoint / CHECKPOINT_MANIFEST, json.dumps(files, indent=1))


def damage(checkpoint: Path) -> str | None:
    """Why a checkpoint cannot be used, or None when it verifies."""
    try:
        files = json.loads((checkpoint / CHECKPOINT_MANIFEST).read_text())
    except FileNotFoundError:
        return "it was not finished"
    except (json.JSONDecodeError, UnicodeDecodeError):
        return f"{CHECKPOINT_MANIFEST} is damaged"
    for name, entry in files.items():
        file = checkpoint / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != entry["size"] or _sha256(file) != entry["sha256"]:
            return f"{name} is damaged"
    return None


def newest_sound_checkpoint(folder: Path) -> Path | None:
    """The checkpoint to resume from; says which newer ones were passed over, and why."""
    for checkpoint in reversed(all_checkpoints(folder)):
        reason = damage(checkpoint)
        if reason is None:
            return checkpoint
        say(f"  {checkpoint.name} is passed over: {reason}")
    return None


def keep_newest(folder: Path, count: int) -> None:
    """Delete all but the newest `count` sealed checkpoints, and whatever is unsealed. Called after a seal only."""
    checkpoints = all_checkpoints(folder)
    sealed = [checkpoint for checkpoint in checkpoints if (checkpoint / CHECKPOINT_MANIFEST).is_file()]
    for checkpoint in checkpoints:
        if checkpoint not in sealed[-count:]:
            shutil.rmtree(checkpoint)


def all_checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders, oldest first."""
    found = [path for path in folder.glob("checkpoint-*") if path.is_dir() and path.name.rpartition("-")[2].isdigit()]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def _sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
