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
    files = [file for file in sorted(checkpoint.rglob("*")) if file.is_file() and file.name != CHECKPOINT_MANIFEST]
    facts = {str(file.relative_to(checkpoint)): _facts(file) for file in files}
    write_last(checkpoint / CHECKPOINT_MANIFEST, json.dumps(facts, indent=1))


def damage(checkpoint: Path) -> str | None:
    """Why a checkpoint cannot be used, or None when it verifies."""
    try:
        files = json.loads((checkpoint / CHECKPOINT_MANIFEST).read_text())
    except FileNotFoundError:
        return "it was not finished"
    except (json.JSONDecodeError, UnicodeDecodeError):
        files = None
    if not isinstance(files, dict):
        return f"{CHECKPOINT_MANIFEST} is damaged"
    for name, facts in files.items():
        file = checkpoint / name
        if not file.is_file():
            return f"{name} is missing"
        if _facts(file) != facts:
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


def all_checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders, oldest first."""
    found = [path for path in folder.glob("checkpoint-*") if path.is_dir() and path.name.rpartition("-")[2].isdigit()]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def _facts(file: Path) -> dict[str, int | str]:
    with file.open("rb") as handle:
        return {"size": file.stat().st_size, "sha256": hashlib.file_digest(handle, "sha256").hexdigest()}
