"""Starts Python programs as processes of their own without the imports each time.

Listens at the Unix socket SOCKET. A connection stands for one process. It sends an order, in JSON, with the descriptors of standard
input, output and errors: the arguments of Python's own command line (`-m MODULE ...` or `-c CODE ...`), cwd, environment (whole, or
what differs from the server's) and file_size_limit. It receives the pid, and when the process has ended its wait status. Where it
is closed before, the process is killed.

PYTHON is the program that asks for a process here as if it were Python (`forked_python.py`). It is the `sys.executable` of what is
started here, so that what that starts comes from here too.
"""

import atexit
import gc
import importlib
import json
import os
import resource
import runpy
import selectors
import signal
import socket
import sys
import threading
import traceback
from contextlib import suppress
from typing import Any

# What a run imports on its way, so that a child need not.
PRELOADED = (
    "aligndistill.chat.endpoint",
    "aligndistill.cli.app",
    "aligndistill.commands.check",
    "aligndistill.commands.plan.plan",
    "aligndistill.commands.run",
    "aligndistill.evaluation.calibration",
    "aligndistill.judges.likelihood",
    "aligndistill.models.from_scratch",
    "aligndistill.preferences.strengths",
    "aligndistill.reporting.page",
    "aligndistill.reporting.table",
    "aligndistill.runs.run",
    "aligndistill.stages.distilled_student",
    "aligndistill.stages.offline_student",
    "aligndistill.stages.ppo_student",
    "aligndistill.stages.trl_student",
    "aligndistill.training.on_policy.trl",
    "deepspeed",
    "deepspeed.launcher.launch",
    "deepspeed.launcher.runner",
    "deepspeed.module_inject.auto_ep_layer",
    "deepspeed.runtime.zero.muon.muon_optimizer",  # torch's compiler
    "distutils.ccompiler",
    "peft",
    "torch.distributed.run",
    "transformers.models.llama.modeling_llama",
    "trl",
)
LONGEST_ORDER_BYTES = 2**17


def main(address: str, python: str) -> None:
    for module in PRELOADED:
        importlib.import_module(module)
    gc.freeze()  # accelerate collects garbage at the start of each training, which takes long with so many modules
    sys.executable = python
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening, selectors.DefaultSelector() as selector:
        listening.bind(address)
        listening.listen()
        print("ready", flush=True)
        selector.register(listening, selectors.EVENT_READ, lambda: _start(selector, listening))
        selector.register(sys.stdin, selectors.EVENT_READ, sys.exit)  # the tests have ended
        while True:
            for key, _ in selector.select():
                if selector.get_map().get(key.fd) == key:  # not ended by another event of the same turn
                    key.data()


def _start(selector: selectors.BaseSelector, listening: socket.socket) -> None:
    connection, _ = listening.accept()
    message, descriptors, _, _ = socket.recv_fds(connection, LONGEST_ORDER_BYTES, 3)
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # the parent process may have ignored it
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
        for descriptor in {*descriptors, *selector.get_map(), connection.fileno()} - {0}:
            os.close(descriptor)
        selector.close()
        _run(json.loads(message))
    for descriptor in descriptors:
        os.close(descriptor)
    connection.send(str(child).encode())
    ended = os.pidfd_open(child)

    def end() -> None:
        status = os.waitpid(child, 0)[1]
        for descriptor in (connection, ended):
            selector.unregister(descriptor)
        os.close(ended)
        with connection, suppress(BrokenPipeError):  # who asked for it has ended
            connection.send(str(status).encode())

    selector.register(ended, selectors.EVENT_READ, end)
    selector.register(connection, selectors.EVENT_READ, lambda: (os.kill(child, signal.SIGKILL), end()))


def _run(order: dict[str, Any]) -> None:
    code: Any = 1
    try:
        os.chdir(order["cwd"])
        if order["whole"]:
            os.environ.clear()
        os.environ.update(order["environment"])
        if order["file_size_limit"] is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_size_limit"],) * 2)
        sys.path[:0] = [order["cwd"], *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        kind, what, *arguments = order["arguments"]
        sys.argv = [what if kind == "-m" else "-c", *arguments]
        if kind == "-m":
            runpy.run_module(what, run_name="__main__")
        else:
            exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
        code = 0
    except SystemExit as end:
        code = end.code
        if code is not None and not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit((code or 0) & 255)


if __name__ == "__main__":
    main(*sys.argv[1:])
