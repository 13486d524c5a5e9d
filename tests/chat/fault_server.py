"""An OpenAI-like server on a real socket that misbehaves as told."""

import json
import math
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aligndistill.config.models import EndpointModel

Act = Callable[[BaseHTTPRequestHandler], None]
"""What the server does with one request."""


def send(status: int, body: bytes | Any, headers: Mapping[str, str] | None = None, content_type: str = "application/json") -> Act:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    def act(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Type": content_type, "Content-Length": str(len(data)), **(headers or {})}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)

    return act


def completion(text: str | None, finish: str = "stop", probabilities: Mapping[str, float] | None = None) -> Act:
    """A chat completion that cost 10 and 2 tokens; with `probabilities`, those of the likeliest first tokens."""
    choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    if probabilities is not None:
        top = [{"token": token, "logprob": math.log(p), "bytes": None} for token, p in probabilities.items()]
        choice["logprobs"] = {"content": [{**top[0], "top_logprobs": top}], "refusal": None}
    usage = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}
    return send(200, {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage})


def error(status: int, words: str = "no", code: str | None = None, headers: Mapping[str, str] | None = None) -> Act:
    return send(status, {"error": {"message": words, "type": code, "code": code}}, headers)


def html(status: int = 200) -> Act:
    return send(status, b"<html><body>Welcome to the gateway</body></html>", content_type="text/html")


def after(seconds: float, act: Act) -> Act:
    def late(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(seconds)
        act(handler)

    return late


def together(number: int, act: Act) -> Act:
    """Answers only when so many requests are under way at the same time."""
    barrier = threading.Barrier(number, timeout=10)

    def all_at_once(handler: BaseHTTPRequestHandler) -> None:
        barrier.wait()
        act(handler)

    return all_at_once


def reset(handler: BaseHTTPRequestHandler) -> None:
    """Break the connection off with RST."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True


def half_a_body(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.close_connection = True


def drip(handler: BaseHTTPRequestHandler) -> None:
    """A byte now and then, so that no single read ever takes long."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b" ")
        time.sleep(0.2)


class FaultServer:
    """Serves on 127.0.0.1. `behave(body, number)` says what to do with the request that has this number, from 0.

    Attributes:
        bodies, headers: of every request so far; header names in lower case.
        answered: requests that were acted on to the end.
        most_at_once: the largest number of requests under way at one time.
    """

    def __init__(self, behave: Callable[[dict[str, Any], int], Act]) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.answered = 0
        self.most_at_once = 0
        self._under_way = 0
        lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # headers and body are two writes: else every answer takes 40 ms

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    number = len(outer.bodies)
                    outer.bodies.append(body)
                    outer.headers.append({name.lower(): value for name, value in self.headers.items()})
                    outer._under_way += 1
                    outer.most_at_once = max(outer.most_at_once, outer._under_way)
                try:
                    behave(body, number)(self)
                    with lock:
                        outer.answered += 1
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True
                finally:
                    with lock:
                        outer._under_way -= 1

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # clients that are killed or give up leave broken connections behind

        self._server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def config(self, **settings: Any) -> EndpointModel:
        settings = {"timeout_seconds": 10, "max_retries": 2, **settings}
        return EndpointModel(kind="endpoint", base_url=self.base_url, name="teacher", **settings)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> "FaultServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def serve(*acts: Act) -> FaultServer:
    """Does each of these once, in turn, and the last one for ever."""
    return FaultServer(lambda body, number: acts[min(number, len(acts) - 1)])
