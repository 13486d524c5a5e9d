"""SOCKET PYTHON ARGUMENTS: as if it were Python with these arguments, but the process comes from the fork server at that socket.

It passes signals on, and ends as the process ends. Other command lines than `-m` and `-c` are Python's own (PYTHON).
"""

import json
import os
import signal
import socket
import sys
from contextlib import suppress

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCONT)


def main(address: str, python: str, *arguments: str) -> None:
    asked = arguments[1:] if arguments[:1] == ("-u",) else arguments
    if asked[:1] not in (("-m",), ("-c",)):
        os.execv(python, [python, *arguments])
    order = {"arguments": asked, "cwd": os.getcwd(), "environment": dict(os.environ), "whole": True, "file_size_limit": None}
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.connect(address)
        socket.send_fds(server, [json.dumps(order).encode()], [0, 1, 2])
        pid = int(server.recv(64))

        def pass_on(number: int, frame: object) -> None:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

        for number in PASSED_ON:
            signal.signal(number, pass_on)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
        status = os.waitstatus_to_exitcode(int(server.recv(64)))
    if status < 0:
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


if __name__ == "__main__":
    main(*sys.argv[1:])
