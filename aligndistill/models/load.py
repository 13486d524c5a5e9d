"""Loads models by name or folder: safetensors only, no remote code unless requested, dropout disabled."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils.logging import disable_progress_bar

from aligndistill.config.models import LocalModel, Quantize, TemplateArguments, Thinking
from aligndistill.errors import ConfigError, DataError
from aligndistill.models.attention import FLEX
from aligndistill.models.chat_template import fix_template
from aligndistill.models.conversation import Conversation, Layout
from aligndistill.models.folder import read_template, require_model, require_unquantised
from aligndistill.models.grouped_model import GroupedModel
from aligndistill.models.library_imports import import_peft
from aligndistill.models.logprobs import token_logprobs, use_grouped_forward
from aligndistill.models.prompt_sharing import shares_prompt_exactly
from aligndistill.models.quantised import quantised_arguments, use_same_numbers

disable_progress_bar()  # loading is fast, and another bar is already shown
import_peft()  # before transformers' Trainer does


MODEL_JSON = "model.json"


class ModelPointer(BaseModel):
    """The location of a model and its conversation layout; stages write it as `model.json`.

    Attributes:
        path: a Hub name, an absolute folder, or a folder relative to the pointer's file.
        thinking, template_arguments: as in the config.
        chat_template: the text of a template that replaces the tokenizer's.
        quantize: as in the config.
        trust_remote_code: as in the config, and taken from there alone: no folder of a model says it.
        adapter: the folder of peft adapters on the model, absolute or relative to the pointer's file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    revision: str | None = None
    layout: Layout
    dtype: str = "auto"
    attn_implementation: str | None = None
    trust_remote_code: bool = False
    thinking: Thinking = "auto"
    template_arguments: TemplateArguments = {}
    chat_template: str | None = None
    quantize: Quantize | None = None
    adapter: str | None = None

    @property
    def exports_adapter(self) -> bool:
        """Whether what is trained on this model is saved as adapters alone."""
        return self.quantize is not None and self.quantize.export == "adapter"

    def unquantised(self) -> "ModelPointer":
        """The same model with all weights in its dtype."""
        return self.model_copy(update={"quantize": None})

    def for_training(self, adapters: bool) -> "ModelPointer":
        """The dtype for training: float32 weights for full fine-tuning (with autocast); under adapters the frozen base
        may have a narrower dtype.

        Raises:
            DataError: the folder is quantised already.
        """
        require_unquantised(self.path)
        return self if adapters else self.model_copy(update={"dtype": "float32"})

    def trained(self) -> "ModelPointer":
        """The pointer to the model that was trained from this one and saved in `model`. Its template has the settings in it, and
        code that came with the model is saved there with it.
        """
        if self.exports_adapter:
            return self.model_copy(update={"adapter": "model"})
        own: dict[str, Any] = {
            "path": "model",
            "revision": None,
            "template_arguments": {},
            "chat_template": None,
            "quantize": None,
        }
        return self.model_copy(update=own)

    def write(self, folder: Path) -> None:
        """Write `model.json` into a folder."""
        (folder / MODEL_JSON).write_text(self.model_dump_json(indent=2) + "\n")


def pointer_to(model: LocalModel) -> ModelPointer:
    """The pointer to a configured model.

    Raises:
        ConfigError: its chat template cannot be read.
    """
    assert model.model is not None
    path = str(Path(model.model).absolute()) if Path(model.model).is_dir() else model.model
    return ModelPointer(
        path=path,
        revision=model.revision,
        layout=model.layout,
        dtype=model.dtype,
        attn_implementation=model.attn_implementation,
        trust_remote_code=model.trust_remote_code,
        thinking=model.thinking,
        template_arguments=model.template_arguments,
        chat_template=_template_file(model.chat_template) if model.chat_template else None,
        quantize=getattr(model, "quantize", None),
    )


def _template_file(path: str) -> str:
    try:
        return read_template(path)
    except ConfigError as error:
        raise ConfigError(f"chat_template: {error}") from None


def read_pointer(folder: Path) -> ModelPointer:
    """The pointer in a finished stage's folder, with absolute paths where they are relative to the folder."""
    pointer = ModelPointer.model_validate_json((folder / MODEL_JSON).read_text())
    paths = {"path": pointer.path, "adapter": pointer.adapter}
    inside = {name: folder / path for name, path in paths.items() if path is not None}
    return pointer.model_copy(update={name: str(path.absolute()) for name, path in inside.items() if path.is_dir()})


@dataclass(frozen=True)
class LanguageModel(GroupedModel):
    """A causal language model with its tokenizer and settings."""


def local_device() -> torch.device:
    """The accelerator of this process, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def load_language_model(pointer: ModelPointer, tokenizer: Any = None) -> LanguageModel:
    """Load a causal language model and its tokenizer, in evaluation mode.

    Args:
        tokenizer: the model's tokenizer, if it is in memory already: loading one can take as long as loading a small model.

    Raises:
        DataError: no such model, no safetensors, no tokenizer, or no chat template with the layout `chat`.
    """
    tokenizer = load_tokenizer(pointer) if tokenizer is None else tokenizer
    model = from_pretrained(AutoModelForCausalLM, pointer)
    model.to(local_device())
    return wrap_language_model(model, tokenizer, pointer.layout)


def wrap_language_model(model: Any, tokenizer: Any, layout: Layout) -> LanguageModel:
    """Prepare a model that is already in memory, like `load_language_model`."""
    backbone = use_grouped_forward(model)
    conversation = Conversation(tokenizer, layout, generation_eos_ids(model))
    model.eval()
    backbone.verified = shares_prompt_exactly(model, conversation.pad_id, token_logprobs)
    return LanguageModel(model, conversation, shares_prompt=backbone.verified)


def load_tokenizer(pointer: ModelPointer, *, download: bool = True, alone: bool = False) -> Any:
    """Load the tokenizer of a model. With the layout `chat`, its template has the pointer's settings written into it.

    Args:
        alone: its folder need not have the model.
    """
    if not alone:
        require_model(pointer.path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            pointer.path,
            revision=pointer.revision or "main",
            trust_remote_code=pointer.trust_remote_code,
            local_files_only=not download,
        )
    except (OSError, ValueError) as error:
        raise DataError(f"cannot load the tokenizer of '{pointer.path}': {first_line(error)}") from None
    if pointer.layout == "chat":
        fix_template(tokenizer, pointer.thinking, pointer.template_arguments, pointer.chat_template)
    return tokenizer


def from_pretrained(auto_class: Any, pointer: ModelPointer, **kwargs: Any) -> Any:
    """`auto_class.from_pretrained` with safetensors only, the dtype that suits the machine, and dropout disabled.

    Raises:
        DataError: it cannot be loaded.
        ConfigError: it is quantised, and bitsandbytes is not installed.
    """
    require_model(pointer.path)
    _require_attention(pointer)
    common = loading_keywords(pointer)
    try:
        config = AutoConfig.from_pretrained(pointer.path, **common, **{k: kwargs.pop(k) for k in ("num_labels",) if k in kwargs})
        switch_dropout_off(config)
        if pointer.quantize is not None and getattr(config, "quantization_config", None) is not None:
            raise ValueError("it is quantised already. Give the model in 16 or 32 bits, or remove start.quantize.")
        dtype = torch_dtype(pointer.dtype, config)
        model = auto_class.from_pretrained(
            pointer.path,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            **({"attn_implementation": pointer.attn_implementation} if pointer.attn_implementation else {}),
            **(quantised_arguments(pointer.quantize, dtype, local_device()) if pointer.quantize else {}),
            **common,
            **kwargs,
        )
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        raise DataError(f"cannot load the model '{pointer.path}': {first_line(error)}") from None
    if pointer.quantize is not None:
        use_same_numbers(model, pointer.path)
    return model if pointer.adapter is None else _with_adapter(model, pointer.adapter)


def loading_keywords(pointer: ModelPointer) -> dict[str, Any]:
    """Which version of a model `from_pretrained` loads, and whether it may run the code in its folder."""
    return {"revision": pointer.revision or "main", "trust_remote_code": pointer.trust_remote_code}


def _with_adapter(model: Any, folder: str) -> Any:
    """The transformers model itself, with frozen adapters in its layers."""
    from peft import PeftModel  # only here: importing peft takes a second

    return PeftModel.from_pretrained(model, folder).get_base_model()


def _require_attention(pointer: ModelPointer) -> None:
    if pointer.attn_implementation == FLEX and not torch.cuda.is_available():
        raise DataError(f"'{pointer.path}': {FLEX} cannot train on a CPU. Remove attn_implementation, or set it to sdpa.")


def torch_dtype(name: str, config: Any) -> torch.dtype:
    """`auto` is bfloat16 on an accelerator that supports it, else float32, which is by far the fastest on a CPU."""
    if name != "auto":
        dtype: torch.dtype = getattr(torch, name)
        return dtype
    if torch.cuda.is_available() and torch.cuda.is_bf16_supported():
        return torch.bfloat16
    return torch.float32


def switch_dropout_off(config: Any) -> None:
    """Disable dropout: it would make policy and reference differ before the first step, and make scores random."""
    for name, value in list(vars(config).items()):
        if ("dropout" in name or name.endswith("pdrop")) and isinstance(value, float):
            setattr(config, name, 0.0)


def generation_eos_ids(model: Any) -> frozenset[int]:
    """The end ids in the model's generation config, which may have one, a list, or none."""
    settings = getattr(model, "generation_config", None) or GenerationConfig()
    eos = settings.eos_token_id
    if eos is None:
        eos = getattr(model.config, "eos_token_id", None)
    if eos is None:
        return frozenset()
    return frozenset(int(token) for token in (eos if isinstance(eos, list | tuple) else [eos]))


def first_line(error: Exception) -> str:
    """The first line of a library's message, which is usually enough, and advice if the message has that further down."""
    line = str(error).strip().split("\n")[0]
    return f"{line} Set trust_remote_code: true to run it." if "trust_remote_code" in str(error) else line
