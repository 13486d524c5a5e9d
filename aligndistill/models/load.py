"""From a name or a folder to a model ready to use: safetensors only, no remote code unless asked, dropout off."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils.logging import disable_progress_bar

from aligndistill.config.models import LocalModel
from aligndistill.errors import DataError
from aligndistill.models.attention import FLEX
from aligndistill.models.conversation import Conversation, Layout
from aligndistill.models.grouped_model import GroupedModel
from aligndistill.models.logprobs import token_logprobs, use_grouped_forward
from aligndistill.models.prompt_sharing import shares_prompt_exactly

disable_progress_bar()  # it loads in a moment, and another bar stands there already


MODEL_JSON = "model.json"


class ModelPointer(BaseModel):
    """Where a model is and how to speak to it: what a stage that makes or names a model writes as `model.json`.

    Attributes:
        path: a Hub name, an absolute folder, or a folder relative to the pointer's file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    revision: str | None = None
    layout: Layout
    dtype: str = "auto"
    attn_implementation: str | None = None
    trust_remote_code: bool = False

    def for_training(self, adapters: bool) -> "ModelPointer":
        """Full fine-tuning keeps float32 weights (autocast does the rest); under adapters the frozen base may be narrower."""
        return self if adapters else self.model_copy(update={"dtype": "float32"})

    def write(self, folder: Path) -> None:
        """Write `model.json` into a folder."""
        (folder / MODEL_JSON).write_text(self.model_dump_json(indent=2) + "\n")


def pointer_to(model: LocalModel) -> ModelPointer:
    """The pointer to a configured model that needs no training."""
    assert model.model is not None
    path = str(Path(model.model).absolute()) if Path(model.model).is_dir() else model.model
    return ModelPointer(
        path=path,
        revision=model.revision,
        layout=model.layout,
        dtype=model.dtype,
        attn_implementation=model.attn_implementation,
        trust_remote_code=model.trust_remote_code,
    )


def read_pointer(folder: Path) -> ModelPointer:
    """The pointer in a finished stage's folder, its path made absolute where it is one of the folder's own."""
    pointer = ModelPointer(**json.loads((folder / MODEL_JSON).read_text()))
    inside = folder / pointer.path
    return pointer.model_copy(update={"path": str(inside.absolute())}) if inside.is_dir() else pointer


@dataclass(frozen=True)
class LanguageModel(GroupedModel):
    """A causal language model with what is needed to use it."""


def local_device() -> torch.device:
    """The accelerator this process owns, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def load_language_model(pointer: ModelPointer) -> LanguageModel:
    """Load a causal language model and its tokenizer, in evaluation mode.

    Raises:
        DataError: no such model, no safetensors, no tokenizer, or no template where the layout is `chat`.
    """
    tokenizer = load_tokenizer(pointer)
    model = from_pretrained(AutoModelForCausalLM, pointer)
    model.to(local_device())
    return wrap_language_model(model, tokenizer, pointer.layout)


def wrap_language_model(model: Any, tokenizer: Any, layout: Layout) -> LanguageModel:
    """Prepare a model in memory as `load_language_model` does one on disk."""
    backbone = use_grouped_forward(model)
    conversation = Conversation(tokenizer, layout, generation_eos_ids(model))
    model.eval()
    backbone.verified = shares_prompt_exactly(model, conversation.pad_id, token_logprobs)
    return LanguageModel(model, conversation, shares_prompt=backbone.verified)


def load_tokenizer(pointer: ModelPointer) -> Any:
    """The tokenizer beside a model."""
    require_model(pointer)
    try:
        return AutoTokenizer.from_pretrained(
            pointer.path, revision=pointer.revision or "main", trust_remote_code=pointer.trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise DataError(f"cannot load the tokenizer of '{pointer.path}': {first_line(error)}") from None


def from_pretrained(auto_class: Any, pointer: ModelPointer, **kwargs: Any) -> Any:
    """`auto_class.from_pretrained` with our rules: safetensors, the dtype that suits the machine, dropout off."""
    require_model(pointer)
    _require_attention(pointer)
    common = {"revision": pointer.revision or "main", "trust_remote_code": pointer.trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(pointer.path, **common, **{k: kwargs.pop(k) for k in ("num_labels",) if k in kwargs})
        switch_dropout_off(config)
        return auto_class.from_pretrained(
            pointer.path,
            config=config,
            dtype=torch_dtype(pointer.dtype, config),
            use_safetensors=True,
            **({"attn_implementation": pointer.attn_implementation} if pointer.attn_implementation else {}),
            **common,
            **kwargs,
        )
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        raise DataError(f"cannot load the model '{pointer.path}': {first_line(error)}") from None


def require_model(pointer: ModelPointer) -> None:
    """Refuse, in plain words, a folder that is not there or holds no safetensors.

    Raises:
        DataError: says which, and what to do.
    """
    folder = Path(pointer.path)
    if not folder.is_dir():
        if folder.is_absolute() or pointer.path.startswith(".") or pointer.path.count("/") > 1:
            raise DataError(f"there is no model folder '{pointer.path}'.")
        return
    if not (folder / "config.json").is_file():
        raise DataError(f"'{pointer.path}' is no model folder: it has no config.json.")
    if not any(folder.glob("*.safetensors")):
        pickled = sorted(path.name for path in folder.iterdir() if path.suffix in {".bin", ".pt", ".pth", ".pkl"})
        found = f" It has {', '.join(pickled)}, which can run code when loaded and are never opened." if pickled else ""
        raise DataError(
            f"'{pointer.path}' has no *.safetensors.{found} Save the model with save_pretrained, which writes safetensors."
        )


def _require_attention(pointer: ModelPointer) -> None:
    if pointer.attn_implementation == FLEX and not torch.cuda.is_available():
        raise DataError(f"'{pointer.path}': {FLEX} cannot train on a CPU. Leave attn_implementation out, or set it to sdpa.")


def torch_dtype(name: str, config: Any) -> torch.dtype:
    """`auto`: bfloat16 on an accelerator that has it, else float32, which is far the fastest on a CPU."""
    if name != "auto":
        dtype: torch.dtype = getattr(torch, name)
        return dtype
    if torch.cuda.is_available() and torch.cuda.is_bf16_supported():
        return torch.bfloat16
    return torch.float32


def switch_dropout_off(config: Any) -> None:
    """Dropout would make policy and reference differ before the first step, and a score depend on the day."""
    for name, value in list(vars(config).items()):
        if ("dropout" in name or name.endswith("pdrop")) and isinstance(value, float):
            setattr(config, name, 0.0)


def generation_eos_ids(model: Any) -> frozenset[int]:
    """Every end id that the model's generation config names; it may be one, a list, or none."""
    settings = getattr(model, "generation_config", None) or GenerationConfig()
    eos = settings.eos_token_id
    if eos is None:
        eos = getattr(model.config, "eos_token_id", None)
    if eos is None:
        return frozenset()
    return frozenset(int(token) for token in (eos if isinstance(eos, list | tuple) else [eos]))


def first_line(error: Exception) -> str:
    """The first line of a library's message, which tends to say it all, and what to do where it says that later."""
    line = str(error).strip().split("\n")[0]
    return f"{line} Set trust_remote_code: true to run it." if "trust_remote_code" in str(error) else line
