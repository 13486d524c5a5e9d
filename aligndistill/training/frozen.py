"""Frozen models (PPO's reference and reward models, a teacher): under ZeRO-3 each process keeps a shard of them.

They have no optimiser and no hooks of DeepSpeed's. Their weights are gathered while they are read. PPO gathers them once per
rollout, not once per layer and token, so that processes may make different numbers of forward passes. A teacher is read once per
micro-batch in every process, so it is gathered a layer at a time: no process ever holds all of it.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from aligndistill.models.layer_states import decoder_layers
from aligndistill.processes.deepspeed import connect_processes


def zero3_config(accelerator: Any) -> dict[str, Any] | None:
    """DeepSpeed's config if an accelerator trains under ZeRO-3, else None."""
    plugin = getattr(accelerator.state, "deepspeed_plugin", None)
    if plugin is None or plugin.zero_stage != 3:
        return None
    config: dict[str, Any] = plugin.deepspeed_config
    return config


def shard_model(models: Sequence[Any], deepspeed_config: dict[str, Any]) -> None:
    """Shard the models' parameters over all processes, in place."""
    import deepspeed  # only here: importing it takes seconds

    connect_processes()
    for model in models:
        model.requires_grad_(False)
        deepspeed.zero.Init(module=model, mem_efficient_linear=False, config_dict_or_path=deepspeed_config)


def shard_layers(model: Any, deepspeed_config: dict[str, Any]) -> None:
    """Shard the decoder layers of a causal language model, in place; each is gathered while it runs.

    Embeddings and head stay whole: the head is read again in the student's backward pass. Every process must then make the same
    number of forward passes.
    """
    layers = decoder_layers(model)
    shard_model(layers, deepspeed_config)
    for layer in layers:
        _gather_while_it_runs(layer)


def _gather_while_it_runs(layer: Any) -> None:
    running = ExitStack()

    def before(module: Any, inputs: Any) -> None:
        running.enter_context(gathered([module]))

    def after(module: Any, inputs: Any, output: Any) -> None:
        running.close()

    layer.register_forward_pre_hook(before)
    layer.register_forward_hook(after)


@contextmanager
def gathered(models: Sequence[Any]) -> Iterator[None]:
    """Inside the block, sharded models are gathered in every process. A collective call. Other models do not change."""
    cut = [parameter for model in models for parameter in model.parameters() if hasattr(parameter, "ds_id")]
    if not cut:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(cut):
        yield
