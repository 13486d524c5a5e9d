"""`concurrency: auto` against fixed numbers, on simulated servers: `python -m benchmarks.concurrency`.

A server is a process of its own on this machine. It computes as many requests at a time as its capacity, the others wait; one
takes 0.1 s, give or take a fifth. With a rate limit it answers 429 and `Retry-After: 1` to what is over so many requests in a
second. Each time is from the first request to the last answer, of a new client that knows nothing of the server; medians of three.
Fewer requests are sent where a setting is slow, and the time is given for all in proportion.
"""

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass
from typing import Literal

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
    parser = argparse.ArgumentParser(prog="python -m benchmarks.concurrency", description=__doc__)
    parser.add_argument("--serve", nargs=2, type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve(*arguments.serve))
        return
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
    command = [sys.executable, "-m", "benchmarks.concurrency", "--serve", str(capacity), str(rate or 0)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        limit = limit_of(setting)
        chat = EndpointChat(EndpointModel(kind="endpoint", base_url=url, name="simulated", concurrency=setting), limit=limit)
        began = time.monotonic()
        replies = [one.reply for one in chat.answer(asked, SamplingParams(0.0, 4))]
        seconds = time.monotonic() - began
        assert len(replies) == sent
        return Timed(seconds * requests / sent, sum(bool(reply.problem) for reply in replies), limit.current)
    finally:
        server.terminate()
        server.wait()


async def serve(capacity: int, rate: int) -> None:
    """Answer every request with `A`."""
    completion = {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "A"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 20, "completion_tokens": 1},
    }
    answer = _response("200 OK", completion)
    too_many = _response("429 Too Many Requests", {"error": {"message": "rate limit"}}, "Retry-After: 1\r\n")
    places, chance = asyncio.Semaphore(capacity), random.Random(0)
    recent: deque[float] = deque()

    def refused() -> bool:
        now = time.monotonic()
        while recent and recent[0] <= now - 1:
            recent.popleft()
        if rate and len(recent) >= rate:
            return True
        recent.append(now)
        return False

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                (length,) = (line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                await reader.readexactly(int(length.partition(b":")[2]))
                if refused():
                    writer.write(too_many)
                else:
                    async with places:
                        await asyncio.sleep(LATENCY_SECONDS * chance.uniform(0.8, 1.2))
                    writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(connection, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def _response(status: str, content: object, headers: str = "") -> bytes:
    body = json.dumps(content).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


if __name__ == "__main__":
    main()
