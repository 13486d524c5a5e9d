"""A process that puts into a cache until it is killed."""

import os
import signal
import subprocess
import sys


def put_until_killed(imports: str, opened: str) -> set[int]:
    """The numbers that it reported as stored under themselves, some of them after the signal was sent.

    Args:
        imports: what `opened` needs.
        opened: an expression that opens the cache.
    """
    code = f"""
from pathlib import Path
{imports}
cache = {opened}
number = 0
while True:
    cache.put(str(number), number)
    print(number, flush=True)
    number += 1
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        reported = [int(process.stdout.readline()) for _ in range(20)]
        os.kill(process.pid, signal.SIGKILL)
        reported += [int(line) for line in process.stdout.read().split()]
    return set(reported)
