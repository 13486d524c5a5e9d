"""Rewards that go wrong while PPO learns from them. Tests copy this file into the working directory of a run."""

import os
import resource
from pathlib import Path

MORE_BYTES = 64 * 2**20
calls = 0


def raises_in_one_process(prompt: str, responses: list[str]) -> list[float]:
    """In the second process, in the second of its updates of four prompts each."""
    global calls
    calls += 1
    if calls > 4 and os.environ.get("RANK") == "1":
        raise ValueError("this one has no grade")
    return [float(len(response)) for response in responses]


def leaves_little_memory(prompt: str, responses: list[str]) -> list[float]:
    """From the first call on, the process may grow by so much and no more."""
    global calls
    calls += 1
    if calls == 1:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MORE_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return [float(len(response)) for response in responses]
