"""Starts `aligndistill` commands, and programs of the tests, as processes of their own without the imports each time.

Reads one JSON object per line ({module, arguments, cwd, output, errors, environments, file_size_limit}), forks a child for each
environment, and answers with their pids, then, when all have ended, with the first wait status that is not 0, or 0. When one fails
the others are ended, as launchers do. A child runs what `python -m MODULE ARGUMENTS` runs.
"""

import gc
import importlib
import json
import os
import resource
import runpy
import signal
import sys
import traceback
from typing import Any

# What a run imports on its way, so that a child need not.
PRELOADED = (
    "aligndistill.runs.run",
    "aligndistill.chat.endpoint",
    "aligndistill.reporting.page",
    "aligndistill.reporting.table",
    "aligndistill.training.on_policy.ppo",
    "deepspeed",
    "peft",
    "transformers.models.llama.modeling_llama",
)


def main() -> None:
    for module in PRELOADED:
        importlib.import_module(module)
    gc.freeze()  # accelerate collects garbage at the start of each training, which takes long with so many modules
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        children = [_start(order, environment) for environment in order["environments"]]
        print(json.dumps(children), flush=True)
        print(_end_of(set(children)), flush=True)


def _end_of(children: set[int]) -> int:
    first = 0
    while children:
        child, status = os.wait()
        children.discard(child)
        if status and not first:
            first = status
            for other in children:
                os.kill(other, signal.SIGTERM)
    return first


def _start(order: dict[str, Any], environment: dict[str, str]) -> int:
    child = os.fork()
    if child == 0:
        _run(order, environment)
    return child


def _run(order: dict[str, Any], environment: dict[str, str]) -> None:
    code = 1
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the parent process may have ignored it
    try:
        os.chdir(order["cwd"])
        os.environ.update(environment)
        for number, key in ((0, None), (1, "output"), (2, "errors")):
            path = order[key] if key else os.devnull
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND), number)
        if order["file_size_limit"] is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_size_limit"],) * 2)
        sys.argv = [order["module"], *order["arguments"]]
        runpy.run_module(order["module"], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
