"""Verdicts from a slow server, many at a time and one by one: `python -m benchmarks.endpoint`.

The server is a process of its own on this machine that takes 50 ms for every answer and any number of requests at once. The judge
is `pairwise`, reading its replies from text, with its cache on disk; what is timed is all of it.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

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
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--verdicts", type=int, default=2000)
    parser.add_argument("--one-by-one", type=int, default=2000, help="so many of them one by one, and the time in proportion")
    parser.add_argument("--concurrency", type=int, default=64)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve())
        return
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
    server = subprocess.Popen([sys.executable, "-m", "benchmarks.endpoint", "--serve"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
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
    finally:
        server.terminate()
        server.wait()


async def serve() -> None:
    """Answer every request with `A`, 50 ms after it has arrived."""
    body = json.dumps(
        {
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "A"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 200, "completion_tokens": 1},
        }
    ).encode()
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                (length,) = (line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                await reader.readexactly(int(length.partition(b":")[2]))
                await asyncio.sleep(LATENCY_SECONDS)
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(connection, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    main()
