"""Converts settings to transformers' `TrainingArguments`."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from aligndistill.config.run import Runtime
from aligndistill.config.training import Training
from aligndistill.errors import ConfigError
from aligndistill.models.load import local_device
from aligndistill.processes.deepspeed import config_of, skip_unused_operator, wait_for_builds
from aligndistill.processes.ranks import world_size


def training_arguments(settings: Training, runtime: Runtime, output_dir: Path, run_name: str, seed: int) -> TrainingArguments:
    """Arguments for one training run.

    Raises:
        ConfigError: the batch cannot be split over the processes.
    """
    return TrainingArguments(**training_keywords(settings, runtime, output_dir, run_name, seed))


def training_keywords(settings: Training, runtime: Runtime, output_dir: Path, run_name: str, seed: int) -> dict[str, Any]:
    """The same as keyword arguments, for subclasses of `TrainingArguments`."""
    split = batch_split(settings.batch_size, runtime.per_device_train_batch_size, world_size())
    on_gpu = torch.cuda.is_available()
    if runtime.deepspeed:
        wait_for_builds()
        skip_unused_operator()
    return {
        "output_dir": str(output_dir),
        "run_name": run_name,
        "seed": seed,
        "data_seed": seed,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": settings.lr_scheduler_type,
        "warmup_steps": settings.warmup_ratio,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "num_train_epochs": settings.num_train_epochs,
        "max_steps": settings.max_steps,
        "per_device_train_batch_size": split.per_device,
        "gradient_accumulation_steps": split.accumulation,
        "activation_checkpointing": runtime.gradient_checkpointing,
        "bf16": trains_in_bf16(),
        "use_cpu": not on_gpu,
        "optim": "adamw_torch_fused",
        "save_strategy": "steps",
        "save_steps": runtime.save_steps,
        "save_total_limit": None,  # old checkpoints are deleted after the new one has its manifest (`checkpoints.keep_newest`)
        "logging_steps": runtime.logging_steps,
        "logging_nan_inf_filter": False,  # it would hide the non-finite loss that must stop the run
        "report_to": list(runtime.report_to) or "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": on_gpu,
        "deepspeed": config_of(runtime.deepspeed),
    }


def trains_in_bf16() -> bool:
    """Whether training on this machine runs under autocast to bfloat16."""
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported()


def rounded_as_in_training() -> AbstractContextManager[Any]:
    """The autocast of training, for log-probs that are compared with those of training: else rounding would look like learning."""
    return torch.autocast(local_device().type, torch.bfloat16) if trains_in_bf16() else nullcontext()


def within_tokens(runtime: Runtime, longest_row: int) -> Runtime:
    """The runtime with micro-batches (of one prompt at least) within `max_tokens_per_batch` for rows of this length."""
    if runtime.max_tokens_per_batch is None:
        return runtime
    most = min(runtime.per_device_train_batch_size, max(runtime.max_tokens_per_batch // longest_row, 1))
    return runtime.model_copy(update={"per_device_train_batch_size": most})


@dataclass(frozen=True)
class BatchSplit:
    """How the prompts of an optimiser step are split: `per_device` per micro-batch, `accumulation` micro-batches per process."""

    per_device: int
    accumulation: int


def batch_split(batch_size: int, most_per_device: int, processes: int) -> BatchSplit:
    """Split evenly: the largest micro-batch that divides each process's share."""
    if batch_size % processes:
        raise ConfigError(f"batch_size {batch_size} cannot be divided by {processes} processes; make it a multiple of {processes}.")
    share = batch_size // processes
    per_device = next(size for size in range(min(most_per_device, share), 0, -1) if share % size == 0)
    return BatchSplit(per_device, share // per_device)
