"""Models in 4 and 8 bits: what they compute, how they are saved, and what they refuse."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from aligndistill.config.models import Quantize
from aligndistill.errors import ConfigError, DataError
from aligndistill.models.load import ModelPointer, from_pretrained, load_language_model, read_pointer
from aligndistill.models.quantised import dequantised_weights
from tests.tiny_models import SIZES_FOR_BITS, write_tiny_model

KINDS = ("nf4", "int8")
TOLERANCE = 1e-4
"""Logits are below 20 here: float32 sums in another order differ by some 1e-5."""


def pointer(folder: Path, kind: str = "nf4", **more: Any) -> ModelPointer:
    return ModelPointer(path=str(folder), layout="chat", dtype="float32", quantize=Quantize(kind=kind), **more)


def dequantised(quantised: Any, folder: Path) -> Any:
    """A copy with whole weights."""
    copy = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for name, weight in dequantised_weights(quantised).items():
        copy.get_submodule(name).weight.data.copy_(weight)
    return copy


def logits(model: Any, seed: int = 0) -> Tensor:
    ids_NT = torch.randint(5, 300, (3, 12), generator=torch.Generator().manual_seed(seed))
    found: Tensor = model(input_ids=ids_NT).logits
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny"), "llama", **SIZES_FOR_BITS)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_it_computes_what_its_dequantised_copy_does(kind: str, training: bool, folder: Path) -> None:
    model = from_pretrained(AutoModelForCausalLM, pointer(folder, kind))
    with torch.no_grad():  # bitsandbytes repacks 4-bit weights in the first such pass, and computes other numbers from then on
        logits(model.eval())
    model.train(training)
    copy = dequantised(model, folder)
    torch.testing.assert_close(logits(model), logits(copy), atol=TOLERANCE, rtol=0)
    whole = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert (logits(model) - logits(whole)).abs().max() > 100 * TOLERANCE, "it is quantised"
    assert model.lm_head.weight.dtype == torch.float32, "the head is not"


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_the_embeddings_after_an_evaluation(kind: str, folder: Path) -> None:
    model = from_pretrained(AutoModelForCausalLM, pointer(folder, kind)).eval()
    with torch.no_grad():
        logits(model)
    copy = dequantised(model, folder)
    for one in (model, copy):
        one.get_input_embeddings().weight.requires_grad_(True)
        logits(one).square().mean().backward()
    expected = copy.get_input_embeddings().weight.grad
    torch.testing.assert_close(
        model.get_input_embeddings().weight.grad, expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-3
    )


@pytest.mark.parametrize("kind", KINDS)
def test_it_scores_responses_alike_on_shared_and_separate_rows(kind: str, folder: Path) -> None:
    assert load_language_model(pointer(folder, kind)).shares_prompt


def test_without_double_quantisation_scales_are_exact(folder: Path) -> None:
    single = pointer(folder).model_copy(update={"quantize": Quantize(kind="nf4", double=False)})
    a, b = (dequantised_weights(from_pretrained(AutoModelForCausalLM, one)) for one in (single, pointer(folder)))
    errors = [(a[name] - b[name]).norm() / a[name].norm() for name in a]
    assert all(0 < error < 0.02 for error in errors)


@pytest.mark.parametrize(("share", "low", "high"), [(0.005, 0.0, 0.1), (0.2, 0.9, 1.1)])
def test_quantising_a_merged_model_again_loses_a_small_delta(share: float, low: float, high: float) -> None:
    """Why it is refused: a delta of a share of the weights' norm moves hardly any weight to the next of 16 levels."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    def rounded(weight: Tensor) -> Tensor:
        found: Tensor = dequantize_4bit(*quantize_4bit(weight, quant_type="nf4"))
        return found

    generator = torch.Generator().manual_seed(0)
    weight = rounded(torch.randn(256, 256, generator=generator))
    delta = torch.randn(256, 4, generator=generator) @ torch.randn(4, 256, generator=generator)
    delta *= share * weight.norm() / delta.norm()
    kept = float(((rounded(weight + delta) - weight) * delta).sum() / delta.square().sum())
    assert low <= kept <= high


def test_conv1d_layers_are_refused(tmp_path: Path) -> None:
    gpt2 = write_tiny_model(tmp_path, "gpt2", n_embd=64)
    with pytest.raises(DataError, match=r"Conv1D layers, as GPT-2 does, and cannot be quantised: remove start.quantize"):
        from_pretrained(AutoModelForCausalLM, pointer(gpt2))


def test_a_folder_that_is_quantised_already_is_refused(folder: Path, tmp_path: Path) -> None:
    from_pretrained(AutoModelForCausalLM, pointer(folder)).save_pretrained(tmp_path)
    with pytest.raises(DataError, match="it is quantised already"):
        from_pretrained(AutoModelForCausalLM, pointer(tmp_path, "int8"))
    with pytest.raises(DataError, match=r"is quantised already: give the model in 16 or 32 bits, and set start.quantize"):
        pointer(tmp_path).unquantised().for_training(adapters=True)


def test_without_bitsandbytes_the_error_names_the_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "bitsandbytes" else find(name, *rest))
    with pytest.raises(ConfigError, match=r"pip install 'aligndistill\[quantised\]'"):
        from_pretrained(AutoModelForCausalLM, pointer(folder))


def test_a_pointer_written_before_there_was_quantize_is_read(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text('{"path": "m", "layout": "chat"}')
    assert read_pointer(tmp_path).quantize is None
