"""What an exported model computes, beside the student that it was made from."""

import json
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aligndistill.commands.share.names import TrainedModel
from aligndistill.errors import DataError
from aligndistill.models.folder import read_json
from aligndistill.records import Message

if TYPE_CHECKING:
    from aligndistill.models.load import ModelPointer

COMPARED = 20
"""How many logits are compared: the largest after one prompt."""
TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 8e-2}
"""The largest difference that rounding to a dtype explains, as a share of the largest logit."""
ADAPTER_CONFIG = "adapter_config.json"
SAFETENSORS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def largest_difference(student: TrainedModel, pointer: "ModelPointer", folder: Path, prompt: tuple[Message, ...]) -> float:
    """The largest difference of the logits after a prompt, as a share of the largest logit.

    The student is loaded as it was evaluated, in float32; what was exported as transformers and peft load it.

    Raises:
        DataError: the exported tokenizer gives the prompt other ids.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from aligndistill.models.conversation import Conversation
    from aligndistill.models.load import from_pretrained

    trusted = {"trust_remote_code": pointer.trust_remote_code}
    own, exported = (
        Conversation(AutoTokenizer.from_pretrained(one, **trusted), pointer.layout, frozenset()).prompt_ids(prompt)
        for one in (student.folder / "model", folder)
    )
    if own != exported:
        raise DataError(
            f"{student.name}: the exported tokenizer gives a prompt other ids than the student's. Nothing was exported."
        )
    row_1T = torch.tensor([own])
    with torch.inference_mode():
        model = from_pretrained(AutoModelForCausalLM, pointer.model_copy(update={"dtype": "float32"}))
        expected_V = model(row_1T.to(model.device)).logits[0, -1].float().cpu()
        del model
        model = _as_others_load_it(student, pointer, folder)
        found_V = model(row_1T.to(model.device)).logits[0, -1].float().cpu()
    largest = expected_V.topk(min(COMPARED, len(expected_V))).indices
    return float((found_V[largest] - expected_V[largest]).abs().max() / expected_V.abs().max())


def _as_others_load_it(student: TrainedModel, pointer: "ModelPointer", folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    from aligndistill.models.load import from_pretrained

    adapters = read_json(folder / ADAPTER_CONFIG)
    if not adapters:
        trusted = {"trust_remote_code": pointer.trust_remote_code}
        return AutoModelForCausalLM.from_pretrained(folder, dtype="auto", use_safetensors=True, **trusted).eval()
    from peft import PeftModel  # only here: importing peft takes a second

    start = student.full_config.seen_by(student.name).start
    under = {
        "path": adapters["base_model_name_or_path"],
        "revision": adapters.get("revision"),
        "quantize": start.quantize if start is not None else None,
        "trust_remote_code": start is not None and start.trust_remote_code,
        "adapter": None,
        "dtype": "float32",
    }
    base = from_pretrained(AutoModelForCausalLM, pointer.model_copy(update=under))
    return PeftModel.from_pretrained(base, str(folder)).eval()


def weights_in(folder: Path) -> tuple[int, str]:
    """How many weights the safetensors in a folder have, and the dtype of most of them, without reading the weights."""
    of_dtype: dict[str, int] = {}
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as opened:
            header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
        for name, tensor in header.items():
            if name != "__metadata__":
                of_dtype[tensor["dtype"]] = of_dtype.get(tensor["dtype"], 0) + prod(tensor["shape"])
    if not of_dtype:
        raise DataError(f"{folder} has no weights.")
    return sum(of_dtype.values()), SAFETENSORS.get(max(of_dtype, key=lambda name: of_dtype[name]), "float32")
