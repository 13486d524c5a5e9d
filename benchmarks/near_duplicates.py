"""Near duplicates here and by datasketch, which has to be installed: `python -m benchmarks.near_duplicates [PROMPTS]`.

Generated are texts of 40 words (Zipf's law over 30,000), a tenth of them copied with two words changed: a similarity of 0.73 or
more. `PROMPTS` is a data file; its first user turns are compared. Times are of the processor, from texts to duplicates.
"""

import argparse
import itertools
import random
import time
from collections.abc import Sequence
from pathlib import Path

from aligndistill.config.data import Source
from aligndistill.data.duplicates import UnitTable, near_duplicates
from aligndistill.data.loading import load_items
from aligndistill.data.overlap import jaccard, shingles, units

THRESHOLD = 0.7
GENERATED, WORDS, CHANGED, VOCABULARY = 20_000, 40, 2, 30_000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.near_duplicates", description=__doc__)
    parser.add_argument("prompts", nargs="?", type=Path)
    arguments = parser.parse_args()
    print("| texts | here | found | datasketch | found |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    if arguments.prompts is not None:
        report([one.messages[0].content for one in load_items(Source(path=str(arguments.prompts), on_bad_row="drop"))])
    report(generated())


def report(texts: Sequence[str]) -> None:
    started = time.process_time()
    table = UnitTable()
    for text in texts:
        table.add(units(text))
    found = near_duplicates(table, THRESHOLD)
    here = time.process_time() - started
    started = time.process_time()
    theirs = by_datasketch(texts)
    there = time.process_time() - started
    print(f"| {len(texts):,} | {here:.2f} | {len(found):,} | {there:.2f} | {theirs:,} |", flush=True)


def by_datasketch(texts: Sequence[str]) -> int:
    """MinHash with 128 permutations, LSH at the same threshold, candidates compared exactly."""
    from datasketch import MinHash, MinHashLSH  # type: ignore[import-not-found, import-untyped, unused-ignore]

    index, found, of_text = MinHashLSH(threshold=THRESHOLD, num_perm=128), 0, []
    for number, text in enumerate(texts):
        of_text.append(shingles(units(text)))
        signature = MinHash(num_perm=128)
        signature.update_batch([" ".join(one).encode() for one in of_text[-1]])
        if any(jaccard(of_text[-1], of_text[other]) >= THRESHOLD for other in index.query(signature)):
            found += 1
        else:
            index.insert(number, signature)
    return found


def generated() -> list[str]:
    """Texts, each tenth followed by its copy."""
    draw = random.Random(0)
    words = [f"w{number}" for number in range(VOCABULARY)]
    shares = list(itertools.accumulate(1 / (number + 1) for number in range(VOCABULARY)))
    texts: list[str] = []
    for number in range(GENERATED):
        text = draw.choices(words, cum_weights=shares, k=WORDS)
        texts.append(" ".join(text))
        if number % 10 == 0:
            places = set(draw.sample(range(WORDS), CHANGED))
            texts.append(" ".join("changed" if place in places else word for place, word in enumerate(text)))
    return texts


if __name__ == "__main__":
    main()
