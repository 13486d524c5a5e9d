"""`concurrency: auto` against fixed numbers, on simulated servers: `python -m benchmarks.concurrency`.

A server is a process of its own on this machine. It computes as many requests at a time as its capacity, the others wait; one
takes 0.1 s, give or take a fifth. With a rate limit it answers 429 and `Retry-After: 1` to what is over so many requests in a
second. Each time is from the first request to the last answer, of a new client that knows nothing of the server; medians of three.
Fewer requests are sent where a setting is slow, and the time is given for all in proportion.
"""

import argparse
import statistics
import time
from dataclasses import dataclass
from typing import Literal

from benchmarks.simulated_server import Server, running

LATENCY_SECONDS = 0.1
REPEATS = 3
Setting = int | Literal["auto"]
SETTINGS: tuple[Setting, ...] = (8, 64, "auto")
# Capacity, requests per second or no limit, requests to send.
SERVERS = ((4, None, 150), (32, None, 1500), (256, None, 4000), (4, 20, 80), (32, 100, 400), (256, 150, 600))
MOST_SECONDS = 6.0  # of one run, about


@dataclass(frozen=True)
class Timed:
    """One run: its time in proportion to all requests, and how many were not answered in the end."""

    seconds: float
    unanswered: int
    concurrency: int


def main() -> None:
    argparse.ArgumentParser(prog="python -m benchmarks.concurrency", description=__doc__).parse_args()
    print("| capacity | requests/s | requests | fixed 8 | fixed 64 | auto | auto / best fixed | auto ends at | unanswered |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for capacity, rate, requests in SERVERS:
        runs = {setting: [timed(capacity, rate, requests, setting) for _ in range(REPEATS)] for setting in SETTINGS}
        median = {setting: statistics.median(run.seconds for run in of_one) for setting, of_one in runs.items()}
        ratio = median["auto"] / min(median[8], median[64])
        ends = sorted(run.concurrency for run in runs["auto"])[REPEATS // 2]
        unanswered = "/".join(str(sum(run.unanswered for run in runs[setting])) for setting in SETTINGS)
        shown = " | ".join(f"{median[setting]:.2f} s" for setting in SETTINGS)
        print(f"| {capacity} | {rate or 'no limit'} | {requests} | {shown} | {ratio:.2f} | {ends} | {unanswered} |", flush=True)


def timed(capacity: int, rate: int | None, requests: int, setting: Setting) -> Timed:
    """Ask a fresh server."""
    from aligndistill.chat.endpoint import EndpointChat
    from aligndistill.chat.http.adaptive import limit_of
    from aligndistill.chat.protocol import Request, SamplingParams
    from aligndistill.config.models import EndpointModel
    from aligndistill.records import Message

    per_second = min(capacity, setting if setting != "auto" else capacity) / LATENCY_SECONDS
    sent = min(requests, int(min(per_second, rate or per_second) * MOST_SECONDS))
    asked = [Request((Message(role="user", content=f"question {number}"),)) for number in range(sent)]
    with running(Server(LATENCY_SECONDS, spread=0.2, capacity=capacity, rate=rate)) as url:
        limit = limit_of(setting)
        chat = EndpointChat(EndpointModel(kind="endpoint", base_url=url, name="simulated", concurrency=setting), limit=limit)
        began = time.monotonic()
        replies = [one.reply for one in chat.answer(asked, SamplingParams(0.0, 4))]
        seconds = time.monotonic() - began
    assert len(replies) == sent
    return Timed(seconds * requests / sent, sum(bool(reply.problem) for reply in replies), limit.current)


if __name__ == "__main__":
    main()
