"""Warnings that libraries give about each other are not shown."""

import warnings

from aligndistill.config.models import Lora
from aligndistill.processes.environment import hide_library_warnings
from aligndistill.training.adapters import with_adapters
from tests.tiny_models import tiny_model


def test_what_peft_reads_from_transformers_warns_nobody() -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with_adapters(tiny_model(), Lora(r=2), "CAUSAL_LM", seed=0)
        assert any("is_gradient_checkpointing" in str(one.message) for one in shown), "peft has changed: remove the filter"
        before = len(shown)
        hide_library_warnings()
        with_adapters(tiny_model(), Lora(r=2), "CAUSAL_LM", seed=0)
        assert not [one for one in shown[before:] if "gradient_checkpointing" in str(one.message)]


def test_a_tied_head_warns_nobody() -> None:
    lora = Lora(r=2, target_modules=("lm_head",))
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with_adapters(tiny_model(), lora, "CAUSAL_LM", seed=0)
        assert any("tie_word_embeddings" in str(one.message) for one in shown), "peft has changed: remove the filter"
        before = len(shown)
        hide_library_warnings()
        with_adapters(tiny_model(), lora, "CAUSAL_LM", seed=0)
        assert not [one for one in shown[before:] if "tie_word_embeddings" in str(one.message)]


def test_other_warnings_are_shown() -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        hide_library_warnings()
        warnings.warn("`learning_rate` is deprecated", FutureWarning, stacklevel=1)
        warnings.warn("`is_gradient_checkpointing` is deprecated", FutureWarning, stacklevel=1)
    assert [str(one.message) for one in shown] == ["`learning_rate` is deprecated"]
