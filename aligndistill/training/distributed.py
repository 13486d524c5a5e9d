"""Which process this is, by what the launchers (deepspeed, torchrun, accelerate) put into the environment."""

import os


def world_size() -> int:
    """How many processes a launcher started; one without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this is the first process of all."""
    return int(os.environ.get("RANK", "0")) == 0
