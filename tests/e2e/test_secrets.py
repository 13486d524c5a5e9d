"""The key goes to the server that it is for, and nowhere else."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.chat.fault_server import Act, FaultServer, completion, error
from tests.e2e.command import ForkServer
from tests.e2e.small_run import write_config

CANARY = "canary-6f1d0b7e9a-kept-secret"


def files_that_hold(folder: Path, text: str) -> Iterator[Path]:
    yield from (path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes())


def test_the_key_is_in_no_file_and_no_output(folder: Path, forked: ForkServer, config: dict[str, Any]) -> None:
    def behave(body: dict[str, Any], number: int) -> Act:
        if number < 2:
            return error(500, f"worker crashed on Authorization: Bearer {CANARY}")
        return completion("A", probabilities={"A": 0.6, "B": 0.4}) if body.get("logprobs") else completion("B")

    config["candidates"] |= {"per_prompt": 2, "from": ["start", "teacher"]}
    config["judge"] = {"kind": "pairwise"}
    config["reward_model"] = {"max_steps": 2, "batch_size": 16}
    environment = {"JUDGE_KEY": CANARY, "OPENAI_API_KEY": CANARY}
    outputs = []
    with FaultServer(lambda body, number: error(401, f"Incorrect API key provided: {CANARY}")) as refusing:
        config["teacher"] = {**refusing.config().model_dump(), "api_key_env": "JUDGE_KEY"}
        write_config(folder / "run.yaml", config)
        ended = forked.run(folder, "run", "run.yaml", environment=environment)
        assert ended.code == 4, ended.errors
        assert "JUDGE_KEY" in ended.complaint
        outputs.append(ended)
    # In one order only: a judge that always prefers the first answer would else find all equal.
    with FaultServer(behave) as server:
        config["teacher"] = {**server.config().model_dump(), "api_key_env": "JUDGE_KEY"}
        write_config(folder / "run.yaml", config)
        ended = forked.run(folder, "run", "run.yaml", "judge.both_orders=false", environment=environment)
        assert ended.code == 0, ended.errors
        outputs.append(ended)
        outputs.append(forked.run(folder, "doctor", "run.yaml", environment=environment))
        assert {headers["authorization"] for headers in server.headers} == {f"Bearer {CANARY}"}
    assert (folder / "runs/run/report.html").is_file()
    assert list((folder / "runs/store").rglob("*.sqlite"))
    assert list(files_that_hold(folder, CANARY)) == []
    assert list(files_that_hold(folder, "JUDGE_KEY"))  # the search finds what is there
    for ended in outputs:
        assert CANARY not in ended.output + ended.errors
