"""A judge whose every call is written down. Tests copy this file into the working directory of a run."""

import json
import time
from pathlib import Path

CALLS = Path("judge_calls.jsonl")


SECONDS = 0.005
"""How long a call takes, so that there is time to kill it."""


def grade(prompt: str, responses: list[str]) -> list[float]:
    time.sleep(SECONDS)
    with CALLS.open("a") as file:
        file.write(json.dumps([prompt, *responses]) + "\n")
    return [sum(map(str.isalpha, response)) / 10 for response in responses]
