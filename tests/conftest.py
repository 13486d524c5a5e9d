"""Fixtures that several packages' tests share. Imports are inside, so that light tests stay light."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

# No test is timed: beside other work, an example may take any time.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# Before torch is imported, here and in every process that a test starts: tiny models gain nothing from threads, and threads that
# spin while they wait slow down whatever runs beside them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

if TYPE_CHECKING:
    from tests.e2e.command import ForkServer
    from tests.judges.llama_server import LlamaServers
    from tests.judges.transformers_server import TransformersServer


@pytest.fixture(scope="session")
def forked() -> Iterator[ForkServer]:
    """Commands and programs of the tests without the seconds that imports take."""
    from tests.e2e.command import ForkServer

    with ForkServer() as server:
        yield server


@pytest.fixture(scope="session")
def transformers_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TransformersServer]:
    """`transformers serve` with the tiny judge, started once."""
    from tests.judges.transformers_server import tiny_judge_server

    with tiny_judge_server(tmp_path_factory.mktemp("transformers_server")) as server:
        yield server


@pytest.fixture(scope="session")
def llama_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaServers]:
    """llama.cpp's server with the tiny judge that thinks, with and without a switch, started once."""
    from tests.judges.llama_server import thinking_judge_servers

    with thinking_judge_servers(tmp_path_factory.mktemp("llama_servers")) as servers:
        yield servers


@pytest.fixture(autouse=True)
def _own_signals() -> Iterator[None]:
    """A command that a test calls here takes SIGINT and SIGTERM over, and would end a later test that is interrupted on purpose."""
    before = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    yield
    if any(signal.getsignal(number) != handler for number, handler in before):
        signal.set_wakeup_fd(-1)
        for number, handler in before:
            signal.signal(number, handler)


# ---------------------------------------------------------------------------------- what `make test` and `make test-fast` choose by

# A test in this folder, or with one of these fixtures, starts a process. Any other that does says so: `@pytest.mark.process`.
STARTS_PROCESSES = Path(__file__).parent / "e2e"
FIXTURES_OF_PROCESSES = {"forked", "small_run", "transformers_server", "llama_servers"}
# These share one server, and are run by one worker.
SHARE_SERVER = {
    "test_transformers_serve": "transformers_server",
    "test_endpoint_teacher": "transformers_server",
    "test_llama_server": "llama_servers",
    "test_llama_teacher": "llama_servers",
}
# The files that take longest, with the longest first: a worker that began with one of them last would end alone.
LONG = (
    *("test_several", "test_processes", "test_judge_then_train", "test_distil", "test_api", "test_gpu_rows", "test_kill"),
    *("test_endpoint_teacher", "test_llama_server", "test_served_rollouts", "test_online_processes", "test_trainer"),
)
# Set by `make test-fast`: a process that is started all the same is an error, so that the marks cannot go stale.
NO_PROCESSES = bool(os.environ.get("ALIGNDISTILL_TESTS_START_NO_PROCESS"))
STARTING = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system"}
started: list[str] = []


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts processes, and put the long files first."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if STARTS_PROCESSES in item.path.parents or FIXTURES_OF_PROCESSES & fixtures:
            item.add_marker(pytest.mark.process)
    processes = {item.path for item in items if item.get_closest_marker("process")}
    items.sort(key=lambda item: (LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG), item.path not in processes))


frozen = {"modules": 0}
"""How many modules there were at the last freeze."""


def pytest_collection() -> None:
    """There is hardly any garbage while modules are imported."""
    gc.disable()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Accelerate collects garbage at the start of each training, which takes a third of a second while it looks at all modules."""
    gc.enable()
    _freeze()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """The same for what tests imported, and for what pytest keeps of them."""
    if len(sys.modules) > frozen["modules"] + 20 or nextitem is None or nextitem.path != item.path:
        _freeze()


def _freeze() -> None:
    gc.collect()
    gc.freeze()
    frozen["modules"] = len(sys.modules)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep a file's tests in one worker: fixtures of a module, and of servers, are made once.

    The marks of `--dist loadgroup` have no effect: xdist 3.8 appends them to the nodes' ids, which pytest 9.2 no longer reads.
    """
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return SHARE_SERVER.get(Path(file).stem, file)

    return ByFile(config, log)


def _no_process(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "subprocess.Popen" and list(arguments[1])[:2] == ["file", "-b"]:
        return  # `platform.architecture`, which older releases of libraries call when they are imported
    if event in STARTING and "PYTEST_CURRENT_TEST" in os.environ:
        started.append(f"{event} {arguments[1] if event == 'subprocess.Popen' else ''}")
        raise RuntimeError(f"this test starts a process and is not marked `process`: {started[-1]}")


if NO_PROCESSES:
    sys.addaudithook(_no_process)


@pytest.fixture(autouse=NO_PROCESSES)
def _starts_no_process() -> Iterator[None]:
    """Fails where the error above was caught."""
    started.clear()
    yield
    assert not started
