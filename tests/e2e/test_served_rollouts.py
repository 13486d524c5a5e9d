"""A run whose rollouts a server samples: to its report, over a kill, and when the server is not there or fails midway."""

import os
import shutil
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chat.fault_server import Act, error
from tests.e2e.command import ForkServer
from tests.e2e.small_run import read_rows, write_config
from tests.e2e.test_processes import heartbeats, zero
from tests.training.on_policy.policy_server import PolicyServer

COMPLETIONS = "/v1/completions"


@pytest.fixture
def server(folder: Path) -> Iterator[PolicyServer]:
    with PolicyServer(folder / "start") as running:
        yield running


def served(config: dict[str, Any], server: dict[str, Any], **training: Any) -> dict[str, Any]:
    objective = {
        "kind": "ppo",
        "reward": {"kind": "function", "function": "counting_judge:grade"},
        "critic": "shared",
        "samples_per_prompt": 2,
        "ppo_epochs": 1,
        "server": server,
    }
    student = {"batch_size": 8, "max_steps": 4, "learning_rate": 1e-3, "max_response_tokens": 12, **training}
    return {**config, "students": {"ppo": {"objective": objective, **student}}}


def student_of(folder: Path) -> Path:
    (found,) = (folder / "runs/store").glob("student-ppo-*")
    return found


@pytest.mark.timeout(300)
def test_a_run_with_a_server_comes_to_its_report(
    forked: ForkServer, folder: Path, config: dict[str, Any], server: PolicyServer, tmp_path: Path
) -> None:
    between = folder / "between"
    address = {**server.rollouts(max_retries=0).model_dump(exclude={"weights"}), "weights": "between"}
    write_config(folder / "run.yaml", served(config, address))
    planned = forked.run(folder, "plan", "run.yaml")
    assert planned.code == 0, planned.errors
    assert not server.paths
    ended = forked.run(folder, "run", "run.yaml")
    assert ended.code == 0, ended.errors
    rows = [row for row in read_rows(folder / "runs/run/metrics.jsonl") if row["stage"] == "student-ppo"]
    assert [row["update"] for row in rows] == [1, 2, 3, 4]
    assert all(row["server_gap_nats"] < 1e-3 for row in rows)
    assert [path.parent.parent for path, _ in server.loaded] == [between] * 4
    assert not list(between.iterdir())
    assert server.stale == 0
    # A finished student stays finished when the server moves.
    write_config(folder / "run.yaml", served(config, {**address, "base_url": "http://127.0.0.1:9/v1", "concurrency": 3}))
    asked = len(server.paths)
    again = forked.run(folder, "run", "run.yaml")
    assert again.code == 0, again.errors
    assert len(server.paths) == asked


@pytest.mark.timeout(300)
def test_a_killed_run_asks_the_same_again(forked: ForkServer, folder: Path, config: dict[str, Any], server: PolicyServer) -> None:
    config["runtime"]["save_steps"] = 1
    write_config(folder / "run.yaml", served(config, server.rollouts().model_dump()))

    def kill_in_the_third_update(pid: int) -> None:
        deadline = time.monotonic() + 100
        while len(server.loaded) < 3 and time.monotonic() < deadline:
            time.sleep(0.005)
        os.kill(pid, signal.SIGKILL)

    killed = forked.run(folder, "run", "run.yaml", "--until", "student-ppo", meanwhile=kill_in_the_third_update)
    assert killed.code == -signal.SIGKILL
    before = Counter((body["seed"], *body["prompt"]) for body in server.bodies_of(COMPLETIONS))
    loaded = len(server.loaded)
    assert list((student_of(folder) / "scratch/weights").iterdir())
    resumed = forked.run(folder, "run", "run.yaml", "--until", "student-ppo")
    assert resumed.code == 0, resumed.errors
    assert "resuming from checkpoint-2" in resumed.errors + resumed.output
    asked = Counter((body["seed"], *body["prompt"]) for body in server.bodies_of(COMPLETIONS))
    folders = [path for path, _ in server.loaded]
    assert len(set(folders)) == len(folders) == loaded + 2
    whole = (student_of(folder) / "model/model.safetensors").read_bytes()
    shutil.rmtree(folder / "runs")
    uninterrupted = forked.run(folder, "run", "run.yaml", "--until", "student-ppo")
    assert uninterrupted.code == 0, uninterrupted.errors
    assert (student_of(folder) / "model/model.safetensors").read_bytes() == whole
    alone = Counter((body["seed"], *body["prompt"]) for body in server.bodies_of(COMPLETIONS)) - asked
    assert asked.keys() == alone.keys() >= before.keys()


@pytest.mark.timeout(300)
def test_a_server_that_is_not_there_ends_the_stage_before_it_begins(
    forked: ForkServer, folder: Path, config: dict[str, Any]
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = {"base_url": f"http://127.0.0.1:{closed.getsockname()[1]}/v1", "name": "policy"}
        write_config(folder / "run.yaml", served(config, address))
        ended = forked.run(folder, "run", "run.yaml", "--until", "student-ppo")
    assert ended.code == 1
    assert ended.complaint.startswith(f"the rollout server {address['base_url'][:-3]} (policy): POST /reset_prefix_cache ")
    assert "Check that it is running" in ended.complaint
    assert "Traceback" not in ended.errors
    assert [path.name for path in student_of(folder).iterdir()] in ([".lock"], [])


@pytest.mark.timeout(300)
def test_a_folder_for_weights_that_cannot_be_made(
    forked: ForkServer, folder: Path, config: dict[str, Any], server: PolicyServer
) -> None:
    write_config(folder / "run.yaml", served(config, {**server.rollouts().model_dump(), "weights": "prompts.jsonl"}))
    ended = forked.run(folder, "run", "run.yaml", "--until", "student-ppo")
    assert ended.code == 2
    assert ended.complaint.startswith("cannot create the folder for the rollout server's weights: ")
    assert "Set another folder in objective.server.weights." in ended.complaint


@pytest.mark.timeout(300)
def test_a_server_that_fails_the_first_of_two_processes_ends_both(folder: Path, config: dict[str, Any], forked: ForkServer) -> None:
    def in_the_second_update(path: str, body: dict[str, Any], number: int) -> Act | None:
        return error(500, "out of order") if path == "/collective_rpc" and len(server.loaded) else None

    with PolicyServer(folder / "start", instead=in_the_second_update) as server:
        config["runtime"] |= {"launcher": "deepspeed", "processes": 2, "save_steps": 1}
        write_config(folder / "run.yaml", served(config, server.rollouts(max_retries=0).model_dump()))
        ended = forked.run(folder, "run", "run.yaml", "--until", "student-ppo", zero(2))
    assert ended.code == 1, ended.errors
    last, resume = ended.errors.strip().splitlines()[-2:]
    assert resume.startswith("to resume: aligndistill run ")
    assert last.startswith("error: the rollout server http://127.0.0.1:")
    assert "HTTP 500: " in last
    assert (student_of(folder) / "scratch/checkpoint-1/aligndistill_checkpoint.json").is_file()
    found = heartbeats(folder)
    assert (found[0]["exit_code"], found[1]["exit_code"]) == (1, None)
    asked = [body["prompt"] for body in server.bodies_of(COMPLETIONS)]
    assert len(asked) == 2 + 8  # both ask whether it is ready; then each for its own prompts
