"""Which process this is, by what the launchers (deepspeed, torchrun, accelerate) put into the environment."""

import os

import torch


def world_size() -> int:
    """How many processes a launcher started; one without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this is the first process of all."""
    return int(os.environ.get("RANK", "0")) == 0


def choose_accelerator() -> None:
    """Tell DeepSpeed where it runs before anything imports it: without a GPU it would guess, and warn that it did."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
