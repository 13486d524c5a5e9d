"""Saves a trained model, sharded or wrapped, as a Hugging Face folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from aligndistill.models.load import ModelPointer, from_pretrained
from aligndistill.models.quantised import dequantised_weights
from aligndistill.models.reward import pooling_of, set_pooling
from aligndistill.training.adapters import adapts_tied_weights, untie_head
from aligndistill.training.fit import Trained


def save_model(trained: Trained, folder: Path, base: ModelPointer | None, lora: bool, auto_class: Any) -> None:
    """Write `folder` so that `auto_class.from_pretrained(folder)` loads it.

    With LoRA, the adapter is saved as `<folder>-adapter`, and merged into a fresh copy of the base model: of a quantised one, into
    the dequantised weights that it was trained on. Where the base `exports_adapter`, the adapter is all that is saved, in `folder`.

    Args:
        base: the model under the adapters; None without LoRA.
    """
    trainer = trained.trainer
    trainer.model.config.use_cache = True  # the Trainer disables it for training, and would save it like that
    merges = lora and not (base is not None and base.exports_adapter)
    target = folder.with_name(folder.name + "-adapter") if merges else folder
    trainer.save_model(str(target))
    unset_hf_deepspeed_config()  # else every model loaded after this would be sharded over all processes, and only one loads here
    if not trainer.args.should_save:
        return
    (target / "training_args.bin").unlink(missing_ok=True)  # a pickle file
    if merges:
        assert base is not None
        policy = getattr(trainer.model, "policy", trainer.model)  # PPO trains a policy and its critic as one module
        base_weights = dequantised_weights(policy) if base.quantize is not None else {}
        classifier = policy.config if "SequenceClassification" in auto_class.__name__ else None
        _merge(target, folder, base.unquantised(), base_weights, trainer.processing_class, auto_class, classifier)
    trainer.processing_class.save_pretrained(folder)


def _merge(
    adapter: Path,
    folder: Path,
    base: ModelPointer,
    base_weights: Mapping[str, Tensor],
    tokenizer: Any,
    auto_class: Any,
    classifier: Any | None,
) -> None:
    model = from_pretrained(auto_class, base, **({} if classifier is None else {"num_labels": classifier.num_labels}))
    if classifier is not None:
        set_pooling(model, pooling_of(classifier))
        if tokenizer.pad_token_id >= model.get_input_embeddings().num_embeddings:  # as `give_padding_token` did
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.config.pad_token_id = tokenizer.pad_token_id
    merged_model(model, adapter, base_weights).save_pretrained(folder)


def merged_model(model: Any, adapter: Path, base_weights: Mapping[str, Tensor]) -> Any:
    """A model with adapters added to its weights.

    If the adapters are on a head or embeddings that share one weight, the merged model has a weight for each: it would be added to
    both otherwise, and the trained model added it to one.

    Args:
        base_weights: weights that replace the model's own first, by layer: those that the adapters were trained on.
    """
    from peft import PeftModel  # only here: importing peft takes a second

    for layer, weight in base_weights.items():
        model.get_submodule(layer).weight.data.copy_(weight)
    adapted = PeftModel.from_pretrained(model, str(adapter))
    if adapts_tied_weights(model):
        untie_head(model)
    return adapted.merge_and_unload()
