"""All filters that need no model on generated prompts: `python -m benchmarks.filters [ROWS ...]`.

Prompts have 8 to 40 words (Zipf's law over 30,000), every tenth is held out, and one in ten is Chinese. Planted are copies with one
word changed (5 %), prompts that contain a held-out one (1 %), refusals (1 %), cut texts (1 %) and German (1 %). Each size is a
process of its own; the time is of the whole stage, from `prompts.jsonl` to `prompts.jsonl` and `dropped.jsonl`. Memory is the
highest resident memory of the stage over that before it.
"""

import argparse
import itertools
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from aligndistill.config.filters import Filters
from aligndistill.config.run import Runtime
from aligndistill.data.split import split_of
from aligndistill.records import Dropped, Message, Prompt, prompt_id
from aligndistill.stages import filters
from aligndistill.stages.context import StageContext
from aligndistill.stages.files import DROPPED, PROMPTS
from aligndistill.store.jsonl import read_jsonl, write_jsonl
from benchmarks.probe import Memory

SIZES = (10_000, 100_000, 1_000_000)
VOCABULARY = 30_000
SETTINGS = Filters(
    length=(4, 150), duplicates=0.7, language=("en", "zh"), refusals=True, self_references=True, cut_off=True
)  # fmt: skip
REASON = {
    "copy": ("near duplicate", "near duplicate of a held-out row", "contains a held-out prompt"),
    "contains": ("contains a held-out prompt",),
    "refusal": ("refusal",),
    "cut": ("cut off",),
    "german": ("another language",),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.filters", description=__doc__)
    parser.add_argument("rows", nargs="*", type=int, default=SIZES)
    parser.add_argument("--one", action="store_true", help="measure in this process, and print JSON")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measured(arguments.rows[0])))
        return
    print("| rows | seconds | of one core | per 10,000 rows | MiB added | planted, found | dropped that were not planted |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for rows in arguments.rows:
        command = [sys.executable, "-m", "benchmarks.filters", "--one", str(rows)]
        one = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        each, added = one["cpu_seconds"] / rows * 10_000, one["added_bytes"] / 2**20
        share = f"{one['found']:,} of {one['planted']:,}"
        times = f"{one['seconds']:.1f} | {one['cpu_seconds']:.1f} | {each:.2f}"
        print(f"| {rows:,} | {times} | {added:,.0f} | {share} | {one['others']:,} |", flush=True)


def measured(rows: int) -> dict[str, float]:
    """Generate prompts, filter them, and compare with what was planted."""
    with tempfile.TemporaryDirectory() as folder:
        inputs, out = Path(folder, "in"), Path(folder, "out")
        inputs.mkdir()
        out.mkdir()
        planted: dict[str, str] = {}
        write_jsonl(inputs / PROMPTS, generated(rows, planted))
        context = StageContext(name="filters", folder=out, caches=Path(folder), runtime=Runtime())
        memory, started = Memory(resident=True), time.perf_counter()
        cpu = time.process_time()
        filters.prompts(context, settings=SETTINGS, prompts=inputs, models={}, seed=0)
        cpu_seconds = time.process_time() - cpu
        seconds, added = time.perf_counter() - started, memory.added_bytes()
        found = {one.id: one for one in read_jsonl(out / DROPPED, Dropped)}
    right = others = 0
    for identity, drop in found.items():
        # Of a copy and its original the one with the larger hash is dropped, and names the other.
        kinds = [planted.get(identity), planted.get(drop.nearest or "")]
        right += any(kind is not None and drop.reason in REASON[kind] for kind in kinds)
        others += not any(kind is not None and drop.reason in REASON[kind] for kind in kinds)
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "added_bytes": added,
        "planted": len(planted),
        "found": right,
        "others": others,
    }


def generated(rows: int, planted: dict[str, str]) -> Iterator[Prompt]:
    """Prompts, all different; `planted` gets the kind of each that should be dropped, or whose original should."""
    draw = random.Random(0)
    words = [f"{chr(97 + number % 26)}word{number}" for number in range(VOCABULARY)]
    shares = list(itertools.accumulate(1 / (number + 1) for number in range(VOCABULARY)))
    characters = [chr(0x4E00 + number) for number in range(3000)]
    held_out: list[str] = []
    before: list[str] = words[:20]
    seen: set[str] = set()
    counts: Counter[str] = Counter()
    while len(seen) < rows:
        kind = draw.choices(("plain", *REASON), (91, 5, 1, 1, 1, 1))[0]
        fresh = draw.choices(words, cum_weights=shares, k=draw.randrange(8, 41))
        if kind == "plain" and len(seen) % 10 == 0:
            text = "".join(draw.choices(characters, k=draw.randrange(12, 60)))
        elif kind == "copy" and len(before) >= 22:
            place = draw.randrange(1, len(before) - 1)
            text, before = " ".join([*before[:place], "changed", *before[place + 1 :]]), []
        elif kind == "contains" and held_out:
            text = f"{' '.join(fresh[:6])} {draw.choice(held_out)} {' '.join(fresh[6:10])}"
        elif kind == "refusal":
            text = f"I'm sorry, but I can't help with {' '.join(fresh)}"
        elif kind == "cut":
            text = f"{' '.join(fresh)} and the"
        elif kind == "german":
            text = f"Schreibe bitte einen Text über das {fresh[0]} und die {fresh[1]}, der nicht zu lang ist"
        else:
            kind, text, before = "plain", " ".join(fresh), fresh
        messages = (Message(role="user", content=text),)
        identity = prompt_id(messages)
        if identity in seen:
            continue
        seen.add(identity)
        counts[kind] += 1
        split = split_of(identity, 0.1)
        if kind == "contains" and split == "held_out":
            kind = "plain"  # only training rows must not contain held-out ones
        if kind != "plain":
            planted[identity] = kind
        elif split == "held_out" and len(held_out) < 1000 and text.isascii():
            held_out.append(text)
        yield Prompt(id=identity, messages=messages, source="generated", split=split)


if __name__ == "__main__":
    main()
