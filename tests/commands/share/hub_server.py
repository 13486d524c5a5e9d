"""A stand-in of the Hugging Face Hub: the part of its HTTP interface that creates, reads and commits to repositories."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "stand-in-token"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class StoredRepository:
    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    lfs: set[str] = field(default_factory=set)
    """Paths that came by LFS."""


@dataclass
class Hub:
    """What the stand-in has, and what was asked of it.

    Attributes:
        refuses: (status, message) of every commit, instead of taking it.
    """

    address: str = ""
    repositories: dict[str, StoredRepository] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    agents: set[str] = field(default_factory=set)
    refuses: tuple[int, str] | None = None


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""

    def _answer(self, status: int, body: Any = None, headers: dict[str, str] | None = None, send: bool = True) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body if body is not None else {}).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if send:
            self.wfile.write(content)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _path(self) -> list[str]:
        path = self.path.partition("?")[0]
        self.hub.requests.append(f"{self.command} {path}")
        self.hub.agents.add(self.headers.get("User-Agent", ""))
        return path.strip("/").split("/")

    def _is_allowed(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        self._answer(401, {"error": "Invalid username or password."})
        return False

    def _read(self, send: bool) -> None:
        path = self._path()
        if not self._is_allowed():
            return
        if path[0] == "api":
            name = "/".join(path[2:4])
            found = self.hub.repositories.get(f"{path[1]}/{name}")
            if found is None:
                self._answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
                return
            siblings = [{"rfilename": one} for one in found.files]
            self._answer(200, {"id": name, "private": found.private, "sha": COMMIT, "siblings": siblings, "tags": []})
            return
        kind = "datasets" if path[0] == "datasets" else "models"
        path = path[1:] if kind == "datasets" else path
        content = self.hub.repositories[f"{kind}/{path[0]}/{path[1]}"].files.get("/".join(path[4:]))
        if content is None:
            self._answer(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, send)
            return
        tag = f'"{hashlib.sha256(content).hexdigest()}"'
        self._answer(200, content, {"ETag": tag, "X-Repo-Commit": COMMIT}, send)

    def do_GET(self) -> None:
        self._read(send=True)

    def do_HEAD(self) -> None:
        self._read(send=False)

    def do_PUT(self) -> None:
        content, path = self._body(), self._path()
        self.hub.uploads[path[-1]] = content
        self._answer(200)

    def do_POST(self) -> None:
        body, path = self._body(), self._path()
        if not self._is_allowed():
            return
        if path == ["api", "repos", "create"]:
            self._create(json.loads(body))
        elif path == ["api", "validate-yaml"]:
            self._answer(200, {"errors": [], "warnings": []})
        elif path[-3:] == ["lfs", "objects", "batch"]:
            objects = json.loads(body)["objects"]
            href = {one["oid"]: f"{self.hub.address}/upload/{one['oid']}" for one in objects}
            actions = [{**one, "actions": {"upload": {"href": href[one["oid"]]}}} for one in objects]
            self._answer(200, {"transfer": "basic", "objects": actions})
        elif path[4] == "preupload":
            files = [one["path"] for one in json.loads(body)["files"]]
            modes = {one: "lfs" if one.endswith(".safetensors") else "regular" for one in files}
            self._answer(200, {"files": [{"path": p, "uploadMode": m, "shouldIgnore": False} for p, m in modes.items()]})
        elif path[4] == "commit":
            self._commit(f"{path[1]}/{path[2]}/{path[3]}", [json.loads(line) for line in body.splitlines()])
        else:
            self._answer(404)

    def _create(self, wanted: dict[str, Any]) -> None:
        kind = f"{wanted.get('type') or 'model'}s"
        name = f"{wanted['organization']}/{wanted['name']}"
        prefix = "datasets/" if kind == "datasets" else ""
        known = f"{kind}/{name}" in self.hub.repositories
        private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
        self.hub.repositories.setdefault(f"{kind}/{name}", StoredRepository(private))
        self._answer(409 if known else 200, {"url": f"{self.hub.address}/{prefix}{name}"})

    def _commit(self, repository: str, lines: list[dict[str, Any]]) -> None:
        if self.hub.refuses is not None:
            self._answer(self.hub.refuses[0], {"error": self.hub.refuses[1]})
            return
        found = self.hub.repositories[repository]
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                found.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                found.files[value["path"]] = self.hub.uploads[value["oid"]]
                found.lfs.add(value["path"])
        name = repository.replace("models/", "", 1)
        self._answer(200, {"commitUrl": f"{self.hub.address}/{name}/commit/{COMMIT}", "commitOid": COMMIT, "hookOutput": ""})


@contextmanager
def hub_stand_in() -> Iterator[Hub]:
    """A running stand-in on this machine."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
