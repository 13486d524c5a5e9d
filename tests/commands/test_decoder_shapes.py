"""Counted from a config's numbers, against transformers' own modules on the meta device."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from aligndistill.commands.plan import stage_memory
from aligndistill.commands.plan.decoder_shapes import DECODERS, shape_from_numbers
from aligndistill.commands.plan.memory import shape_of
from aligndistill.config.from_scratch import FromScratch
from aligndistill.config.models import LocalModel

SIZES = {"vocab_size": 50, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 4}
GQA = {**SIZES, "num_key_value_heads": 2}
GPT2 = {"vocab_size": 50, "n_embd": 24, "n_layer": 3, "n_head": 4, "n_positions": 16}
CHANGES: tuple[dict[str, Any], ...] = (
    {},
    {"num_key_value_heads": None},
    {"num_key_value_heads": 4},
    {"num_key_value_heads": 1, "head_dim": 10},
    {"tie_word_embeddings": True},
    {"tie_word_embeddings": False, "head_dim": 16},
    {"attention_bias": True},
    {"mlp_bias": True},
    {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False},
    {"num_hidden_layers": 1, "vocab_size": 31},
)


@pytest.mark.parametrize("changes", CHANGES)
@pytest.mark.parametrize("kind", DECODERS)
def test_gated_decoders(kind: str, changes: dict[str, Any]) -> None:
    if kind not in {"llama", "qwen2", "qwen3"} and changes.get("num_key_value_heads", 2) is None:
        pytest.skip("transformers cannot make this")
    sizes = GQA | changes
    assert shape_from_numbers({"model_type": kind, **sizes}) == shape_of(AutoConfig.for_model(kind, **sizes))


@pytest.mark.parametrize(
    "changes", [{}, {"n_inner": 40}, {"tie_word_embeddings": False}, {"n_inner": None, "intermediate_size": 40}, {"n_layer": 1}]
)
def test_gpt2(changes: dict[str, Any]) -> None:
    sizes = GPT2 | changes
    assert shape_from_numbers({"model_type": "gpt2", **sizes}) == shape_of(AutoConfig.for_model("gpt2", **sizes))


@pytest.mark.parametrize("kind", [*DECODERS, "gpt2"])
def test_what_a_config_leaves_out_is_as_in_transformers(kind: str) -> None:
    """Of the keys that may be missing; a file that transformers wrote has the others."""
    whole = AutoConfig.for_model(kind, num_hidden_layers=1, layer_types=None).to_dict()
    shortened = {name: value for name, value in whole.items() if name not in {"tie_word_embeddings", "attention_bias", "mlp_bias"}}
    assert shape_from_numbers(shortened) == shape_from_numbers(whole)
    if whole.get("head_dim"):
        del shortened["head_dim"]
        assert shape_from_numbers(shortened) == shape_from_numbers(whole)


@pytest.mark.parametrize(
    "numbers",
    [
        {},
        {"model_type": "gpt_neox", **GQA},
        {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text", **GQA}},
        {"model_type": "llama", **SIZES},  # it may be older than grouped keys
        {"model_type": "llama", **GQA, "per_layer_config": {"0": {"intermediate_size": 8}}},
        {"model_type": "gpt2", **GPT2, "add_cross_attention": True},
    ],
)
def test_all_else_is_left_to_transformers(numbers: dict[str, Any]) -> None:
    assert shape_from_numbers(numbers) is None


@pytest.fixture
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(model: Any) -> None:
        raise AssertionError(f"{model} was counted by torch")

    monkeypatch.setattr(stage_memory, "_shape_by_torch", refuse)


@pytest.mark.usefixtures("no_torch")
@pytest.mark.parametrize("kind", [*DECODERS, "gpt2"])
def test_a_folder_that_transformers_wrote_needs_no_torch(kind: str, tmp_path: Path) -> None:
    config = AutoConfig.for_model(kind, **(GPT2 if kind == "gpt2" else GQA))
    config.save_pretrained(tmp_path)
    assert stage_memory._shape(LocalModel(model=str(tmp_path))) == shape_of(config)


@pytest.mark.usefixtures("no_torch")
@pytest.mark.parametrize("kind", [*DECODERS, "gpt2"])
def test_a_new_model_needs_no_torch(kind: str) -> None:
    settings = FromScratch(architecture=kind, vocab_size=300, hidden_size=24, num_attention_heads=4, num_hidden_layers=1)
    sizes = settings.model_dump(exclude={"architecture"}, exclude_none=True)
    config = AutoConfig.for_model(kind, **sizes, intermediate_size=96, num_key_value_heads=4)
    assert stage_memory._shape(LocalModel(from_scratch=settings)) == shape_of(config)


def test_other_folders_are_read_by_transformers(tmp_path: Path) -> None:
    config = AutoConfig.for_model("gpt_neox", **SIZES)
    config.save_pretrained(tmp_path)
    assert stage_memory._shape(LocalModel(model=str(tmp_path))) == shape_of(config)
    (tmp_path / "config.json").write_text(json.dumps([1]))
    with pytest.raises((OSError, TypeError, AttributeError, ValueError)):
        stage_memory._shape(LocalModel(model=str(tmp_path)))
