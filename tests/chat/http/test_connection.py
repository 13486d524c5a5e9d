"""What one connection does with a server's responses."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from aligndistill.chat.http.connection import Connection
from aligndistill.chat.http.retries import TransientError


class Handler(BaseHTTPRequestHandler):
    """404 with a body that is not received at once to GET, and `{}` to POST."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_GET(self) -> None:
        self._send(404, b"x" * 2_000_000)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._send(200, b"{}")

    def _send(self, status: int, body: bytes) -> None:
        self.server.client_ports.append(self.client_address[1])
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    """Notes the client's port of each request."""

    handler = Handler
    all_open: threading.Barrier

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), self.handler)
        self.client_ports: list[int] = []


@contextmanager
def running(server: Server) -> Iterator[Server]:
    with server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_connection_is_reused_after_an_error_page() -> None:
    with running(Server()) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        connection = Connection(url, None, 30.0)

        async def requests() -> tuple[bytes | None, bytes]:
            async with connection.session() as session:
                return await connection.get(session, f"{url}/props"), await connection.post(session, f"{url}/chat", {})

        assert asyncio.run(requests()) == (None, b"{}")
    assert len(server.client_ports) == 2
    assert len(set(server.client_ports)) == 1


class ClosingHandler(Handler):
    """Closes a connection when its second request arrives, without a reply."""

    requests = 0

    def do_POST(self) -> None:
        self.requests += 1
        if self.requests > 1:
            self.close_connection = True
            return
        self.server.all_open.wait()
        super().do_POST()


class ClosingServer(Server):
    """Answers the first three requests when it has all of them, so that there are three connections."""

    handler = ClosingHandler

    def __init__(self) -> None:
        super().__init__()
        self.all_open = threading.Barrier(3, timeout=30)


def test_after_a_failed_connection_others_that_were_kept_open_are_not_used() -> None:
    with running(ClosingServer()) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        connection = Connection(url, None, 30.0)

        async def requests() -> bytes:
            async with connection.session() as session:
                await asyncio.gather(*(connection.post(session, url, {}) for _ in range(3)))
                server.all_open = threading.Barrier(1)
                with pytest.raises(TransientError):
                    await connection.post(session, url, {})
                return await connection.post(session, url, {})

        assert asyncio.run(requests()) == b"{}"
        assert len(set(server.client_ports)) == 4
