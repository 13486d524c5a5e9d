"""A judge of one's own, in a dozen lines: does a small story end well?

`python -m examples.happy_endings > prompts.jsonl` writes openings to continue; `examples/stories.yaml` uses both.
"""

import itertools
import json
import re
import sys

HAPPY = {"happy", "happily", "smiled", "laughed", "hugged", "loved", "friends", "fun", "proud", "glad", "safe", "thanked", "kind"}
SAD = {"sad", "cried", "cry", "scared", "hurt", "angry", "lost", "alone", "died", "broke", "mean", "sorry", "afraid", "bad"}
LAST_WORDS = 25

HEROES = ["a little girl named Lily", "a boy named Tim", "a big dog named Max", "a small cat", "a little bird", "an old man"]
OPENINGS = ["Once upon a time, there was {}.", "One day, {} went for a walk.", "{} lived in a small house.", "{} liked to play."]
TURNS = ["", " One day, it was raining.", " Then something fell down.", " It was a very hot day.", " There was a loud noise."]
TURNS += [
    " A friend came to visit.",
    " They found a red box.",
    " The sun was shining.",
    " It was time for bed.",
    " There was a tree.",
]


def ends_well(prompt: str, responses: list[str]) -> list[float]:
    """Happy words less sad words among the last words, squeezed into [0, 1]; half of that for a story cut in mid-sentence."""
    return [_grade(response) for response in responses]


def _grade(response: str) -> float:
    words = re.findall(r"[a-z]+", response.lower())[-LAST_WORDS:]
    balance = len(HAPPY & set(words)) - len(SAD & set(words))
    grade = min(max(balance, 0), 3) / 3
    return grade if response.rstrip().endswith((".", "!", '"')) else grade / 2


def main() -> None:
    """Write the openings."""
    for hero, opening, turn in itertools.product(HEROES, OPENINGS, TURNS):
        text = opening.format(hero) + turn
        sys.stdout.write(json.dumps({"prompt": text[0].upper() + text[1:]}) + "\n")


if __name__ == "__main__":
    main()
