"""How many weights a model has, by the headers of its safetensors; nothing is loaded."""

import json
import struct
from math import prod
from pathlib import Path

from aligndistill.store.artifacts import read_manifest

POINTER = "model.json"


def parameters_of(stage: Path) -> int | None:
    """The parameters of the model that a finished stage points to; None if it is not in a folder here."""
    if read_manifest(stage) is None or not (stage / POINTER).is_file():
        return None
    path = json.loads((stage / POINTER).read_text()).get("path")
    return parameters_in(stage / path) if path else None


def parameters_in(folder: Path) -> int | None:
    """The parameters in a model's folder; None if it has no safetensors."""
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    return sum(map(_in_file, files)) if files else None


def _in_file(path: Path) -> int:
    """From the header: its length in 8 bytes, and the shape of each tensor as JSON."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    return sum(prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
