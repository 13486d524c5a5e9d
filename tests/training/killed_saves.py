"""Trains again and again, and kills each training at another write of its second checkpoint: `python -m ... FOLDER`.

FOLDER/saves.json lists, for each kill, the write before which it happened, and the checkpoint that a resumed run would use.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch

from aligndistill.training.checkpoints import newest_valid_checkpoint
from tests.training.killing import Prepare, in_a_child, kill, never
from tests.training.offline.interrupted import train

SECOND = "checkpoint-4"


def before_write(number: int, noted: Path) -> Prepare:
    """Audit events report files that Python opens, renames or removes; torch.save is patched; safetensors writes in between."""
    count = 0
    plain_save = torch.save

    def save(what: Any, path: Any, *rest: Any, **more: Any) -> None:
        hook("open", (path, "w"))
        plain_save(what, path, *rest, **more)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event not in {"open", "os.rename", "os.remove", "shutil.rmtree"} or f"/{SECOND}" not in str(arguments[0]):
            return
        if event == "open" and not (isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")):
            return
        count += 1
        if count == number:
            noted.write_text(f"{event} {str(arguments[0]).partition(SECOND)[2].strip('/') or SECOND}")
            kill()

    def prepare() -> None:
        torch.save = save
        sys.addaudithook(hook)

    return prepare


def main(folder: Path) -> None:
    import transformers.models.llama.modeling_llama  # noqa: F401

    saves = []
    for number in range(1, 100):
        here, noted = folder / str(number), folder / f"{number}.txt"
        if in_a_child(train, here, None, before_write(number, noted), never) == 0:
            break
        found = newest_valid_checkpoint(here)
        saves.append({"before": noted.read_text(), "resumes_from": found.name if found else None})
    (folder / "saves.json").write_text(json.dumps(saves, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
