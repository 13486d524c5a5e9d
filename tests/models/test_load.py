import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from aligndistill.config.from_scratch import FromScratch
from aligndistill.errors import ConfigError, DataError
from aligndistill.models.from_scratch import write_new_model
from aligndistill.models.load import ModelPointer, load_language_model, load_tokenizer, read_pointer
from tests.tiny_models import TEXTS, tiny_model, tiny_tokenizer, user, write_tiny_model


def pointer(folder: Path) -> ModelPointer:
    return ModelPointer(path=str(folder), layout="chat")


def test_a_folder_becomes_a_model_ready_to_use(tmp_path: Path) -> None:
    lm = load_language_model(pointer(write_tiny_model(tmp_path / "model", seed=3)))
    assert not lm.model.training
    assert lm.shares_prompt
    assert lm.max_positions == 64
    assert next(lm.model.parameters()).dtype == torch.float32
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(lm.model(input_ids=ids).logits, tiny_model(seed=3)(input_ids=ids).logits)


def test_weights_in_a_pickle_are_named_and_not_opened(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "model")
    opened = tmp_path / "opened"

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (opened,))  # type: ignore[return-value]

    torch.save({"lm_head.weight": Trap()}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"no \*\.safetensors\. It has pytorch_model\.bin, .*save_pretrained"):
        load_language_model(pointer(folder))
    assert not opened.exists()


def test_a_pickle_beside_safetensors_is_not_opened(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "model")
    (folder / "pytorch_model.bin").write_bytes(b"no pickle at all")
    load_language_model(pointer(folder))


def test_what_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the model folder '.*nowhere' does not exist"):
        load_language_model(pointer(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"the model folder './nowhere' does not exist"):
        load_tokenizer(ModelPointer(path="./nowhere", layout="chat"))
    folder = write_tiny_model(tmp_path / "model")
    (folder / "config.json").rename(tmp_path / "config.json")
    with pytest.raises(DataError, match=r"has no config\.json"):
        load_language_model(pointer(folder))


def test_a_truncated_weight_file_is_a_data_error(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "model")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"cannot load the model '.*model'"):
        load_language_model(pointer(folder))


def test_a_model_without_a_tokenizer_is_a_data_error(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path / "model")
    with pytest.raises(DataError, match="tokenizer"):
        load_language_model(pointer(tmp_path / "model"))


def test_dropout_is_off(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "model", "gpt2")
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "resid_pdrop": 0.5, "embd_pdrop": 0.5, "attn_pdrop": 0.5}))
    lm = load_language_model(pointer(folder))
    lm.model.train()
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(lm.model(input_ids=ids).logits, lm.model(input_ids=ids).logits)
    # Without our rule it would not be so: the file's probabilities are real.
    theirs = AutoModelForCausalLM.from_pretrained(folder).train()
    assert not torch.equal(theirs(input_ids=ids).logits, theirs(input_ids=ids).logits)


@pytest.mark.parametrize("model_type", ["llama", "somebodys_own"])
def test_code_that_comes_with_a_model_is_not_run(tmp_path: Path, model_type: str) -> None:
    folder = write_tiny_model(tmp_path / "model")
    ran = tmp_path / "ran"
    (folder / "own.py").write_text(
        f"from pathlib import Path\nPath({str(ran)!r}).touch()\n"
        "from transformers import LlamaConfig as OwnConfig, LlamaForCausalLM as OwnModel\n"
    )
    settings = json.loads((folder / "config.json").read_text())
    auto_map = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    (folder / "config.json").write_text(json.dumps({**settings, "model_type": model_type, "auto_map": auto_map}))
    if model_type == "llama":  # transformers has a class of its own for it
        load_language_model(pointer(folder))
    else:
        with pytest.raises(DataError, match="trust_remote_code"):
            load_language_model(pointer(folder))
    assert not ran.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="they may be there")
@pytest.mark.parametrize(
    ("attention", "says"),
    [("flash_attention_2", "FlashAttention2 .* doesn't seem to be installed"), ("flex_attention", "cannot train on a CPU.* sdpa")],
)
def test_attention_that_this_machine_lacks_is_refused_in_plain_words(tmp_path: Path, attention: str, says: str) -> None:
    there = pointer(write_tiny_model(tmp_path / "model")).model_copy(update={"attn_implementation": attention})
    with pytest.raises(DataError, match=says):
        load_language_model(there)


def test_a_pointer_survives_its_folder_being_moved(tmp_path: Path) -> None:
    (tmp_path / "stage" / "model").mkdir(parents=True)
    ModelPointer(path="model", layout="plain").write(tmp_path / "stage")
    (tmp_path / "stage").rename(tmp_path / "moved")
    assert read_pointer(tmp_path / "moved").path == str(tmp_path / "moved" / "model")
    (tmp_path / "hub").mkdir()
    ModelPointer(path="somebody/model", revision="abc", layout="chat").write(tmp_path / "hub")
    assert read_pointer(tmp_path / "hub") == ModelPointer(path="somebody/model", revision="abc", layout="chat")


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt_neox", "mistral"])
def test_a_new_model_is_loaded_as_any_other(tmp_path: Path, architecture: str) -> None:
    sizes = FromScratch(
        architecture=architecture,
        vocab_size=320,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
    )
    for folder in ("one", "again"):
        write_new_model(tmp_path / folder, sizes, TEXTS, seed=5)
    lm = load_language_model(pointer(tmp_path / "one"))
    again = load_language_model(pointer(tmp_path / "again"))
    assert all(torch.equal(a, b) for a, b in zip(lm.model.parameters(), again.model.parameters(), strict=True))
    conversation = lm.conversation
    assert conversation.pad_id not in conversation.eos_ids
    assert conversation.end_of_turn == tiny_tokenizer().eos_token_id
    ids = conversation.response_ids("The capital of France is Paris.")
    assert conversation.response_text(conversation.prompt_ids(user("Hi")), ids) == "The capital of France is Paris."
    assert max(ids) < lm.model.get_input_embeddings().num_embeddings


def test_impossible_architectures_are_config_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot create a 'no_such_thing'"):
        write_new_model(tmp_path, FromScratch(architecture="no_such_thing"), TEXTS, seed=0)
