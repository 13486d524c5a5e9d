"""Starts `aligndistill` commands as processes of their own without the imports each time.

Reads one JSON object a line ({arguments, cwd, output, errors, environment, file_size_limit}), forks, and answers with the pid,
then, when the child has ended, with its wait status. The child runs what `python -m aligndistill` runs.
"""

import importlib
import json
import os
import resource
import signal
import sys
import traceback
from typing import Any

# What a run imports on its way, so that a child need not.
PRELOADED = (
    "aligndistill.runs.run",
    "aligndistill.chat.endpoint",
    "aligndistill.reporting.table",
    "deepspeed",
    "transformers.models.llama.modeling_llama",
)


def main() -> None:
    for module in PRELOADED:
        importlib.import_module(module)
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            _run(order)
        print(child, flush=True)
        print(os.waitpid(child, 0)[1], flush=True)


def _run(order: dict[str, Any]) -> None:
    from aligndistill import cli

    code = 1
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the parent process may have ignored it
    try:
        os.chdir(order["cwd"])
        os.environ.update(order["environment"])
        for number, key in ((0, None), (1, "output"), (2, "errors")):
            path = order[key] if key else os.devnull
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND), number)
        if order["file_size_limit"] is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_size_limit"],) * 2)
        sys.argv = ["aligndistill", *order["arguments"]]
        cli.main()
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
