"""A judge whose every call is written down. Tests copy this file into the working directory of a run."""

import json
from pathlib import Path

CALLS = Path("judge_calls.jsonl")


def grade(prompt: str, responses: list[str]) -> list[float]:
    with CALLS.open("a") as file:
        file.write(json.dumps([prompt, *responses]) + "\n")
    return [sum(map(str.isalpha, response)) / 10 for response in responses]
