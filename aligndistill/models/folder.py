"""What a model needs, known without loading it: files in its folder, packages; imports neither torch nor transformers."""

import importlib.util
import json
from pathlib import Path
from typing import Any

from aligndistill.config.paths import at_home
from aligndistill.errors import ConfigError, DataError

PICKLES = {".bin", ".pt", ".pth", ".pkl"}
INDEX = "model.safetensors.index.json"


def require_model(path: str) -> None:
    """Refuse a folder that does not exist or has no safetensors; a name on the Hub passes.

    Raises:
        DataError: the message says what is missing and what to do.
    """
    folder = Path(path)
    if not folder.is_dir():
        if names_a_folder(path):
            raise DataError(f"the model folder '{path}' does not exist.")
        return
    if not (folder / "config.json").is_file():
        raise DataError(f"'{path}' is not a model folder: it has no config.json. Give a folder that save_pretrained wrote.")
    if not any(folder.glob("*.safetensors")):
        pickled = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLES)
        found = f" It has {', '.join(pickled)}, which can run code when loaded and are therefore never opened." if pickled else ""
        raise DataError(f"'{path}' has no *.safetensors.{found} Save the model with save_pretrained, which writes safetensors.")
    shards = sorted({str(name) for name in read_json(folder / INDEX).get("weight_map", {}).values()})
    if missing := [name for name in shards if not (folder / name).is_file()]:
        raise DataError(f"'{path}' is incomplete: {INDEX} names {', '.join(missing)}. Copy or download the model again.")


NO_BITSANDBYTES = "not installed: pip install 'aligndistill[quantised]'"


def has_bitsandbytes() -> bool:
    """Whether models can be quantised."""
    return importlib.util.find_spec("bitsandbytes") is not None


def require_bitsandbytes() -> None:
    """Refuse quantised models where bitsandbytes is not installed.

    Raises:
        ConfigError: the message names the extra to install.
    """
    if not has_bitsandbytes():
        raise ConfigError(f"quantised models need bitsandbytes, which is {NO_BITSANDBYTES}")


def require_unquantised(path: str) -> None:
    """Refuse to train on a folder whose weights bitsandbytes has quantised: what is merged into them would be quantised again.

    Raises:
        DataError: the message says what to do.
    """
    found = read_json(Path(path) / "config.json").get("quantization_config")
    if isinstance(found, dict) and found.get("quant_method") == "bitsandbytes":
        raise DataError(f"'{path}' is quantised already: give the model in 16 or 32 bits, and set start.quantize.")


HEADS = "ensemble.safetensors"
"""In the folder of a reward model that was trained as an ensemble: the heads of its members; its own head is their mean."""


def require_heads(path: str) -> None:
    """Refuse a reward model without members, or one on the Hub.

    Raises:
        DataError: the message says what to do.
    """
    if not (Path(path) / HEADS).is_file():
        raise DataError(f"'{path}' has no {HEADS}: 'pessimism' needs a reward model that a run trained with reward_model.ensemble.")


LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
"""Names of the number of decoder layers in configs of transformers."""


def number_of_layers(path: str) -> int | None:
    """How many decoder layers the model in a folder has; None if its config does not say, or there is no such folder."""
    config = read_json(Path(path) / "config.json")
    text = config.get("text_config", config)
    return next((text[name] for name in LAYERS if isinstance(text.get(name), int)), None)


def ties_head(path: str) -> bool:
    """Whether the model in a folder says in its config that its head and its embeddings are one weight."""
    config = read_json(Path(path) / "config.json")
    return config.get("tie_word_embeddings", config.get("text_config", {}).get("tie_word_embeddings")) is True


def tied_weight_on_a_server() -> ConfigError:
    """The error for adapters on a tied weight, with a rollout server."""
    return ConfigError(
        "start.lora.target_modules names the head or the embeddings, which are one weight in this model and two after training: "
        "a rollout server cannot load the second. Leave them out, as all-linear does, or remove objective.server."
    )


def names_a_folder(name: str) -> bool:
    """Whether a name cannot be one on the Hub, which is `name` or `owner/name`."""
    return Path(name).is_absolute() or name.startswith(".") or name.count("/") > 1


def no_chat_template(name: str) -> DataError:
    """The error for a tokenizer without a chat template, with the layout `chat`."""
    return DataError(
        f"the tokenizer of '{name}' has no chat template, and layout is 'chat'. "
        "Set layout: transcript or layout: plain, or give a template with chat_template: FILE."
    )


def read_template(path: str) -> str:
    """The text of a file with a chat template.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return at_home(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"'{path}' cannot be read: {error}. Give a file with a Jinja template.") from None


def has_chat_template(folder: Path) -> bool:
    """Whether the folder's tokenizer has a chat template."""
    beside = any((folder / name).is_file() for name in ("chat_template.jinja", "chat_template.json"))
    return beside or bool(read_json(folder / "tokenizer_config.json").get("chat_template"))


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if there is none or it cannot be read, for which transformers reports the error later."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def end_ids_in(folder: Path) -> frozenset[int]:
    """The end ids that a model's generation config names, or else its config; empty if its folder has neither."""
    found = read_json(folder / "generation_config.json").get("eos_token_id")
    if found is None:
        found = read_json(folder / "config.json").get("eos_token_id")
    return frozenset(found if isinstance(found, list) else [] if found is None else [found])
