"""Verdicts from a slow server, many at a time and one by one: `python -m benchmarks.endpoint`.

The server is a process of its own on this machine that takes 50 ms for every answer and any number of requests at once. The judge
is `pairwise`, reading its replies from text, with its cache on disk; what is timed is all of it.
"""

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.simulated_server import Server, running

LATENCY_SECONDS = 0.05
CANDIDATES = 5  # 10 pairs in both orders: 20 verdicts a prompt
VERDICTS_PER_TASK = CANDIDATES * (CANDIDATES - 1)


@dataclass(frozen=True)
class Timed:
    """One way of asking: how many verdicts, how long it took, and the processor time of this process."""

    verdicts: int
    seconds: float
    cpu_seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.endpoint", description=__doc__)
    parser.add_argument("--verdicts", type=int, default=2000)
    parser.add_argument("--one-by-one", type=int, default=2000, help="so many of them one by one, and the time in proportion")
    parser.add_argument("--concurrency", type=int, default=64)
    arguments = parser.parse_args()
    many = timed(arguments.verdicts, arguments.concurrency)
    single = timed(arguments.one_by_one, 1)
    alone_seconds = single.seconds * many.verdicts / single.verdicts
    print(
        f"{many.verdicts} verdicts, {arguments.concurrency} at a time: {many.seconds:.2f} s ({many.cpu_seconds:.2f} s of processor)"
    )
    print(f"{single.verdicts} verdicts one by one: {single.seconds:.2f} s; {many.verdicts} would take {alone_seconds:.1f} s")
    print(f"{alone_seconds / many.seconds:.1f} times faster")


def timed(verdicts: int, concurrency: int) -> Timed:
    """Ask a fresh server with a fresh cache."""
    from aligndistill.chat.endpoint import EndpointChat
    from aligndistill.config.models import EndpointModel
    from aligndistill.judges.pairwise import PairwiseJudge
    from aligndistill.judges.protocol import Task
    from aligndistill.judges.templates import PAIRWISE_FIELDS, load_template
    from aligndistill.records import Candidate, Message
    from aligndistill.store.cache import Cache

    tasks = []
    for number in range(-(-verdicts // VERDICTS_PER_TASK)):
        texts = [f"answer {n} to {number}: " + "some words of an answer " * 10 for n in range(CANDIDATES)]
        candidates = tuple(
            Candidate(id=f"{number}-{n}", prompt_id=str(number), text=text, author="start") for n, text in enumerate(texts)
        )
        tasks.append(Task(str(number), (Message(role="user", content=f"prompt {number}"),), candidates))
    with running(Server(LATENCY_SECONDS, prompt_tokens=200)) as url:
        chat = EndpointChat(EndpointModel(kind="endpoint", base_url=url, name="slow", concurrency=concurrency))
        with tempfile.TemporaryDirectory() as folder:
            cache = Cache(Path(folder) / "verdicts.sqlite")
            judge = PairwiseJudge("pairwise", chat, load_template("general", PAIRWISE_FIELDS), cache=cache)
            began, cpu_began = time.monotonic(), time.process_time()
            judged = [verdict for one in judge.judge(tasks) for verdict in one.verdicts]
            seconds, cpu_seconds = time.monotonic() - began, time.process_time() - cpu_began
            cache.close()
    assert len(judged) == len(tasks) * VERDICTS_PER_TASK
    assert all(verdict.reply == "A" for verdict in judged)
    return Timed(len(judged), seconds, cpu_seconds)


if __name__ == "__main__":
    main()
