"""A server of a language model that only waits: `python -m benchmarks.simulated_server '{"latency_seconds": 0.05}'`."""

import asyncio
import json
import random
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Server:
    """How a server behaves. It answers every request with `A`.

    Attributes:
        latency_seconds: what one request takes.
        spread: the share by which that varies, both ways.
        capacity: requests that are computed at a time, the others wait; None for any number.
        rate: requests per second; what is over is answered with 429 and `Retry-After: 1`. None for no limit.
        prompt_tokens: as reported.
    """

    latency_seconds: float
    spread: float = 0.0
    capacity: int | None = None
    rate: int | None = None
    prompt_tokens: int = 20


@contextmanager
def running(server: Server) -> Iterator[str]:
    """Run it in a process of its own on this machine, yielding its base URL."""
    command = [sys.executable, "-m", "benchmarks.simulated_server", json.dumps(asdict(server))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.terminate()
        process.wait()


async def serve(server: Server) -> None:
    """Print the port, and answer until the process is ended."""
    completion = {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "A"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": server.prompt_tokens, "completion_tokens": 1},
    }
    answer = _response("200 OK", completion)
    too_many = _response("429 Too Many Requests", {"error": {"message": "rate limit"}}, "Retry-After: 1\r\n")
    places, chance = asyncio.Semaphore(server.capacity or sys.maxsize), random.Random(0)
    recent: deque[float] = deque()

    def refused() -> bool:
        now = time.monotonic()
        while recent and recent[0] <= now - 1:
            recent.popleft()
        if server.rate is not None and len(recent) >= server.rate:
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
                        await asyncio.sleep(server.latency_seconds * chance.uniform(1 - server.spread, 1 + server.spread))
                    writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    listening = await asyncio.start_server(connection, "127.0.0.1", 0, backlog=1024)
    print(listening.sockets[0].getsockname()[1], flush=True)
    await listening.serve_forever()


def _response(status: str, content: object, headers: str = "") -> bytes:
    body = json.dumps(content).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


if __name__ == "__main__":
    asyncio.run(serve(Server(**json.loads(sys.argv[1]))))
