"""A viewer on a real socket, in a thread, and requests to it as a browser or an attacker would send them."""

import http.client
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aligndistill.commands.view.run_folder import find_runs
from aligndistill.commands.view.server import Viewer
from aligndistill.commands.view.site import Site


@dataclass(frozen=True)
class Reply:
    """A response."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def value(self) -> Any:
        return json.loads(self.text)


class Client:
    """Sends requests with the cookie of a viewer, or without."""

    def __init__(self, viewer: Viewer) -> None:
        self.viewer, self.port = viewer, viewer.port
        self.host = f"127.0.0.1:{self.port}"
        self.path_with_token = viewer.address.partition(self.host)[2]
        self.cookie = self.send("GET", self.path_with_token, cookie="").headers["set-cookie"].partition(";")[0]

    def send(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str | None] | None = None,
        body: bytes | None = None,
        cookie: str | None = None,
    ) -> Reply:
        """A request; a header of None is left out."""
        sent = {"host": self.host, "cookie": self.cookie if cookie is None else cookie, **(headers or {})}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in sent.items():
            if value is not None and value != "":
                connection.putheader(name, value)
        if body is not None and "content-length" not in sent and "transfer-encoding" not in sent:
            connection.putheader("content-length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        text = answer.read().decode("utf-8")
        connection.close()
        return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, text)

    def get(self, path: str) -> str:
        """The text of a page that is there."""
        reply = self.send("GET", path)
        assert reply.status == 200, (path, reply.status, reply.text[-2000:])
        return reply.text

    def post(self, path: str, value: Any, headers: Mapping[str, str | None] | None = None) -> Reply:
        """A POST as the viewer's own page sends it."""
        own = {"origin": f"http://{self.host}", "sec-fetch-site": "same-origin", "content-type": "application/json"}
        return self.send(
            "POST", path, {**own, **(headers or {})}, value if isinstance(value, bytes) else json.dumps(value).encode()
        )


@contextmanager
def served(runs: Path, read_only: bool = False, voter: str = "ann", port: int = 0) -> Iterator[Client]:
    """A viewer of the runs in a folder."""
    viewer = Viewer(Site(find_runs([], runs), voter, read_only), port)
    thread = threading.Thread(target=viewer.serve)
    thread.start()
    try:
        deadline = time.monotonic() + 30
        while not viewer.started:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield Client(viewer)
    finally:
        viewer.stop()
        thread.join()
        viewer.close()
