"""Preparation for DeepSpeed: its configs by name, the accelerator, and waiting until no operator is being compiled."""

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from aligndistill.errors import ConfigError
from aligndistill.processes.devices import has_gpu
from aligndistill.processes.progress import say
from aligndistill.processes.ranks import is_main_process

STALE_BUILD_SECONDS = 600
POLL_SECONDS = 0.2


def build_locks() -> list[tuple[Path, float]]:
    """Lock files of the builds of torch's and DeepSpeed's operators, with their age in seconds."""
    folder = os.environ.get("TORCH_EXTENSIONS_DIR") or Path.home() / ".cache" / "torch_extensions"
    found = []
    for lock in Path(folder).glob("**/lock"):
        with suppress(FileNotFoundError):
            found.append((lock, time.time() - lock.stat().st_mtime))
    return found


def wait_for_builds() -> None:
    """Wait for operators that are being compiled, and remove the locks of builds that must have been killed.

    torch would wait for such a lock forever and silently. Compiling DeepSpeed's CPU Adam took three and a half minutes on two busy
    cores.
    """
    announced: set[Path] = set()
    while locks := build_locks():
        for lock, seconds in locks:
            if seconds > STALE_BUILD_SECONDS:
                lock.unlink(missing_ok=True)
            elif lock not in announced and is_main_process():
                announced.add(lock)
                left = STALE_BUILD_SECONDS - seconds
                say(f"  waiting for {lock.parent.name} to be compiled; {lock} will be removed in {left:.0f} s")
        time.sleep(POLL_SECONDS)


def skip_unused_operator() -> None:
    """Keep DeepSpeed on CPUs from compiling an all-reduce for tensor-parallel inference, which nothing here calls.

    Compiling it needs a compiler, and makes every process wait for a minute at the first start.
    """
    import deepspeed.ops  # only here: importing it takes seconds

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def choose_accelerator() -> None:
    """Set DeepSpeed's accelerator before anything imports it: without a GPU it would guess, and print a warning."""
    if not has_gpu():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


def connect_processes() -> None:
    """Tell DeepSpeed of the process group before a model is sharded: else it assumes a single process."""
    import deepspeed

    deepspeed.init_distributed(verbose=False)


def named_config(name: str) -> dict[str, Any]:
    """DeepSpeed's config for a name such as `zero2` or `zero3_offload`; the same as in `configs/deepspeed/`.

    `auto` values are filled by transformers' Trainer.
    """
    stage, offload = int(name[4]), name.endswith("_offload")
    zero: dict[str, Any] = {"stage": stage}
    if offload:
        in_host = {"device": "cpu", "pin_memory": True}
        zero |= {"offload_optimizer": in_host} | ({"offload_param": in_host} if stage == 3 else {})
    if stage > 0:
        zero |= {"overlap_comm": True, "contiguous_gradients": True, "reduce_bucket_size": "auto"}
    if stage == 3:
        zero |= {
            "stage3_prefetch_bucket_size": "auto",
            "stage3_param_persistence_threshold": "auto",
            "stage3_gather_16bit_weights_on_model_save": True,
        }
    batch = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
    precision = {kind: {"enabled": "auto"} for kind in ("bf16", "fp16")}
    return {**dict.fromkeys(batch, "auto"), "zero_allow_untested_optimizer": True, **precision, "zero_optimization": zero}


def config_of(setting: str | Path | None) -> dict[str, Any] | None:
    """DeepSpeed's config as `runtime.deepspeed` sets it: by name, or the content of a file.

    Raises:
        ConfigError: the file does not exist, or is not a JSON object.
    """
    if setting is None:
        return None
    if isinstance(setting, str):
        return named_config(setting)
    try:
        content = json.loads(setting.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the DeepSpeed config '{setting}': {error.strerror}.") from None
    except ValueError as error:
        raise ConfigError(f"the DeepSpeed config '{setting}' is not a JSON object ({error}).") from None
    if not isinstance(content, dict):
        raise ConfigError(f"the DeepSpeed config '{setting}' is not a JSON object.")
    return content
