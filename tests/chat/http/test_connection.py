"""What one connection does with a server's responses."""

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from aligndistill.chat.http.connection import Connection


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

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.client_ports: list[int] = []


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_a_connection_is_reused_after_an_error_page(server: Server) -> None:
    url = f"http://127.0.0.1:{server.server_port}"
    connection = Connection(url, None, 30.0)

    async def requests() -> tuple[bytes | None, bytes]:
        async with connection.session() as session:
            return await connection.get(session, f"{url}/props"), await connection.post(session, f"{url}/chat", {})

    assert asyncio.run(requests()) == (None, b"{}")
    assert len(server.client_ports) == 2
    assert len(set(server.client_ports)) == 1
