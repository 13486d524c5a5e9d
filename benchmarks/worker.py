"""A side's process: waits for the number of a round on stdin, does that round, answers with a line of JSON.

    python -m benchmarks.worker MODULE FUNCTION WORLD SETTINGS

`FUNCTION(world: Path, settings: dict) -> dict` does one round. What it prints goes to stderr.
"""

import ctypes
import gc
import importlib
import json
import os
import sys
from pathlib import Path

import torch


def main() -> None:
    """See above."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    module, function, world, settings = sys.argv[1:]
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    do_round = getattr(importlib.import_module(module), function)
    answers.write(json.dumps({"ready": True}) + "\n")
    answers.flush()
    for line in sys.stdin:
        result = do_round(Path(world), {**json.loads(settings), "round": int(line)})
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # the side whose turn is next works on the same GPU
        if sys.platform == "linux":
            ctypes.CDLL("libc.so.6").malloc_trim(0)  # gives back what the allocator keeps, so that a later round can be compared
        answers.write(json.dumps(result) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
