"""Models that are read and not trained (PPO's reference, its reward models): under ZeRO-3 each process keeps a slice of them.

They have no optimiser and no hooks. Whoever reads one gathers it whole for that time: once per rollout, not once per layer and
token, so that processes may read it differently often.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


def shard_model(models: Sequence[Any], deepspeed_config: dict[str, Any]) -> None:
    """Cut the models' parameters up, in place, over all processes."""
    import deepspeed  # only here: importing it takes seconds

    deepspeed.init_distributed(verbose=False)  # else it takes this process for the only one
    for model in models:
        model.requires_grad_(False)
        deepspeed.zero.Init(module=model, mem_efficient_linear=False, config_dict_or_path=deepspeed_config)


@contextmanager
def gathered(models: Sequence[Any]) -> Iterator[None]:
    """Inside, sharded models are whole in every process; every process must come here. Other models are left as they are."""
    cut = [parameter for model in models for parameter in model.parameters() if hasattr(parameter, "ds_id")]
    if not cut:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(cut):
        yield
