"""`transformers serve` with the tiny judge: a real server, found on this machine only."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.judges.tiny_judge import PAIRWISE, RUBRIC, build_tiny_judge

START_SECONDS = 120


@dataclass(frozen=True)
class TransformersServer:
    """A running server. Its model knows no other templates than these two, which are paths."""

    base_url: str
    model: str
    pairwise_template: str
    rubric_template: str


@contextmanager
def serve_transformers(model: Path, home: Path) -> Iterator[str]:
    """Serve a model folder, yielding the base URL once the server is healthy."""
    (home / "hub").mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(model), "--device", "cpu", "--dtype", "float32"]
    environment = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    with (home / "server.log").open("w+") as log:
        server = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port), "--default-seed", "0"],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            deadline = time.monotonic() + START_SECONDS
            while not _healthy(port):
                if server.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise RuntimeError(f"transformers serve did not start:\n{log.read()}")
                time.sleep(0.25)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


@contextmanager
def tiny_judge_server(folder: Path) -> Iterator[TransformersServer]:
    """Train the tiny judge and serve it."""
    model = folder / "tiny-judge"
    build_tiny_judge(model)
    for name, template in (("pairwise", PAIRWISE), ("rubric", RUBRIC)):
        (folder / f"{name}.txt").write_text(template.text)
    with serve_transformers(model, folder / "home") as base_url:
        yield TransformersServer(base_url, str(model), str(folder / "pairwise.txt"), str(folder / "rubric.txt"))
