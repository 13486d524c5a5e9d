"""Frozen models (PPO's reference and reward models): under ZeRO-3 each process keeps a shard of them.

They have no optimiser and no hooks. Their weights are gathered while they are read: once per rollout, not once per layer and token,
so that processes may make different numbers of forward passes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from aligndistill.processes.deepspeed import connect_processes


def shard_model(models: Sequence[Any], deepspeed_config: dict[str, Any]) -> None:
    """Shard the models' parameters over all processes, in place."""
    import deepspeed  # only here: importing it takes seconds

    connect_processes()
    for model in models:
        model.requires_grad_(False)
        deepspeed.zero.Init(module=model, mem_efficient_linear=False, config_dict_or_path=deepspeed_config)


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
