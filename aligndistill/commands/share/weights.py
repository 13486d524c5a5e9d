"""A trained student as a folder that other tools load: weights, tokenizer, chat template, generation config.

What is written is loaded again and its logits are compared with the student's before the folder gets its name.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aligndistill.commands.share.comparison import ADAPTER_CONFIG, TOLERANCE, largest_difference, weights_in
from aligndistill.commands.share.names import TrainedModel
from aligndistill.errors import ConfigError, DataError
from aligndistill.models.folder import read_json
from aligndistill.records import Message

if TYPE_CHECKING:
    from aligndistill.models.load import ModelPointer

DTYPES = {
    "float32": "float32",
    "fp32": "float32",
    "bfloat16": "bfloat16",
    "bf16": "bfloat16",
    "float16": "float16",
    "fp16": "float16",
}
LEFT_OUT = {"training_args.bin", "README.md"}


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        adapter: whether it is adapters that need their base.
        base: the model under the adapters; empty without adapters.
        dtype: of the weights.
        parameters: their number; of adapters, without the base.
        difference: the largest difference of the compared logits, as a share of the largest logit.
    """

    folder: Path
    adapter: bool
    base: str
    dtype: str
    parameters: int
    difference: float


def dtype_of(name: str | None) -> str | None:
    """A dtype by its usual names.

    Raises:
        ConfigError: it is none, or one of fewer bits.
    """
    if name is None or name in DTYPES:
        return DTYPES[name] if name else None
    raise ConfigError(
        f"--dtype {name}: use bf16, fp16 or fp32. A merged model that is quantised again keeps 2 % of a small LoRA delta; "
        "quantise the exported model with the tools of its server."
    )


@contextmanager
def completed(folder: Path) -> Iterator[Path]:
    """A new folder to write into, which gets its name when nothing failed.

    Raises:
        DataError: the folder exists and has files.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} exists already. Give another folder, or remove it.")
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_weights(student: TrainedModel, folder: Path, merge: bool, dtype: str | None, prompt: tuple[Message, ...]) -> Exported:
    """Write a student and compare what was written with it.

    Args:
        folder: an empty folder.
        merge: of adapters, write the model with them added; else the adapters alone.
        dtype: of the weights; by default as they were saved.
        prompt: after which logits are compared.

    Raises:
        DataError: the written model computes something else.
        ConfigError: there are no adapters to merge.
    """
    from aligndistill.models.load import read_pointer

    pointer = read_pointer(student.folder)
    source, beside = student.folder / "model", student.folder / "model-adapter"
    adapters = source if pointer.adapter is not None else beside if beside.is_dir() else None
    if merge and adapters is None:
        raise ConfigError(f"--merge: '{student.name}' was trained whole and has no adapters to merge. Leave --merge out.")
    if adapters is not None and not merge:
        _copy(adapters, folder)
        _copy_missing(source, folder)
        if dtype is not None:
            _cast_adapters(folder, dtype)
    elif pointer.adapter is not None:
        _merge(pointer, folder, dtype)
        _copy_missing(source, folder)
    elif dtype is None:
        _copy(source, folder)
    else:
        _cast(source, folder, dtype, pointer.trust_remote_code)
    difference = largest_difference(student, pointer, folder, prompt)
    parameters, written = weights_in(folder)
    if not difference <= TOLERANCE[written]:
        raise DataError(
            f"{student.name}: the exported model computes other logits (by {100 * difference:.3g} % of the largest). "
            "Nothing was exported. Try --dtype bf16 or fp32."
        )
    base = str(read_json(folder / ADAPTER_CONFIG).get("base_model_name_or_path") or "")
    return Exported(folder, (folder / ADAPTER_CONFIG).is_file(), base, written, parameters, difference)


def _copy(source: Path, folder: Path) -> None:
    for file in sorted(source.iterdir()):
        if file.is_file() and file.name not in LEFT_OUT:
            shutil.copyfile(file, folder / file.name)


def _copy_missing(source: Path, folder: Path) -> None:
    """Tokenizer, template and generation config, which adapters are saved without."""
    for file in sorted(source.iterdir()):
        is_weights = file.suffix == ".safetensors" or file.name.endswith(".safetensors.index.json")
        of_model = file.name in ("config.json", ADAPTER_CONFIG)
        if file.is_file() and not is_weights and not of_model and file.name not in LEFT_OUT and not (folder / file.name).exists():
            shutil.copyfile(file, folder / file.name)


def _cast(source: Path, folder: Path, dtype: str, trust_remote_code: bool) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    how = {"dtype": getattr(torch, dtype), "use_safetensors": True, "trust_remote_code": trust_remote_code}
    model = AutoModelForCausalLM.from_pretrained(source, **how)
    model.save_pretrained(folder)
    _copy_missing(source, folder)


def _cast_adapters(folder: Path, dtype: str) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    for file in folder.glob("*.safetensors"):
        save_file({name: one.to(getattr(torch, dtype)) for name, one in load_file(file).items()}, file, {"format": "pt"})


def _merge(pointer: "ModelPointer", folder: Path, dtype: str | None) -> None:
    """Adapters of a quantised model, added to the weights that they were trained on."""
    import torch
    from transformers import AutoModelForCausalLM

    from aligndistill.models.load import from_pretrained
    from aligndistill.models.quantised import dequantised_weights
    from aligndistill.training.save import merged_model

    assert pointer.adapter is not None
    base = pointer.model_copy(update={"adapter": None})
    weights = dequantised_weights(from_pretrained(AutoModelForCausalLM, base)) if base.quantize is not None else {}
    merged = merged_model(from_pretrained(AutoModelForCausalLM, base.unquantised()), Path(pointer.adapter), weights)
    merged.to(getattr(torch, dtype) if dtype else merged.dtype).save_pretrained(folder)
