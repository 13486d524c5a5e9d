"""What a user gets for a mistake: an exit code, a paragraph that says what, where and what to do, and no traceback."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aligndistill.chat.http.probe import QUESTION
from tests.chat.fault_server import FaultServer, completion, serve
from tests.e2e.command import Ended, ForkServer, command
from tests.e2e.small_run import read_rows, write_config, write_rows
from tests.imports import HEAVY, TOLD, imported

Run = Callable[..., Ended]


@pytest.fixture
def run(folder: Path, forked: ForkServer) -> Run:
    """Write a config and run it."""

    def write_and_run(config: dict[str, Any], *arguments: str, **options: Any) -> Ended:
        write_config(folder / "run.yaml", config)
        return forked.run(folder, "run", "run.yaml", *arguments, **options)

    return write_and_run


def assert_complaint(ended: Ended, code: int, *words: str) -> None:
    assert ended.code == code, ended.errors
    assert "Traceback" not in ended.errors
    message = ended.complaint
    assert message, ended.errors
    assert "\n\n" not in message.strip()
    assert len(message) < 1500, message
    for word in words:
        assert word in message, message


def manifest(folder: Path, stage: str) -> dict[str, Any]:
    (path,) = (folder / "runs/store").glob(f"{stage}-*/manifest.json")
    return json.loads(path.read_text())


# -------------------------------------------------------------------------------------------------------------- config


def test_a_misspelt_key_is_reported_with_a_suggestion(folder: Path, config: dict[str, Any]) -> None:
    config["students"]["pro"]["learning_rat"] = config["students"]["pro"].pop("learning_rate")
    write_config(folder / "run.yaml", config)
    ended = command(folder, "run", "run.yaml")
    assert_complaint(ended, 2, "run.yaml:", "students.pro.learning_rat", "did you mean 'learning_rate'")
    told = command(folder, "run", "run.yaml", environment=TOLD)
    assert "pydantic" in imported(told)
    assert not imported(told) & HEAVY, "a misspelt key must be reported before heavy imports"


def test_a_value_of_another_type(run: Run, config: dict[str, Any]) -> None:
    config["candidates"]["per_prompt"] = "four"
    assert_complaint(run(config), 2, "run.yaml:", "candidates.per_prompt", "expected", "four")


def test_a_key_given_twice(folder: Path, run: Run, forked: ForkServer, config: dict[str, Any]) -> None:
    write_config(folder / "run.yaml", config)
    with (folder / "run.yaml").open("a") as file:
        file.write("seed: 7\n")
    assert_complaint(forked.run(folder, "run", "run.yaml"), 2, "run.yaml:", "seed", "duplicate", "run.yaml:2")


def test_a_config_that_is_not_there(folder: Path, run: Run, forked: ForkServer, config: dict[str, Any]) -> None:
    write_config(folder / "run.yaml", config)
    assert_complaint(forked.run(folder, "run", "runn.yaml"), 2, "runn.yaml", "no such file", "run.yaml")


def test_an_unknown_command_is_wrong_use(folder: Path, forked: ForkServer) -> None:
    ended = forked.run(folder, "rum")
    assert ended.code == 2
    assert "Traceback" not in ended.errors


# ---------------------------------------------------------------------------------------------------------------- data


def test_a_data_file_that_is_not_there(run: Run, config: dict[str, Any]) -> None:
    config["prompts"]["source"]["path"] = "promts.jsonl"
    assert_complaint(run(config), 3, "promts.jsonl", "no such file", "did you mean prompts.jsonl")


def test_rows_without_the_columns(folder: Path, run: Run, config: dict[str, Any]) -> None:
    write_rows(folder / "prompts.jsonl", [{"question": "What is two plus two?"}])
    assert_complaint(run(config), 3, "prompts.jsonl row 1", "question", "columns: {prompt: question}")


def test_a_row_that_cannot_be_read_and_leaving_it_out(folder: Path, run: Run, config: dict[str, Any]) -> None:
    lines = (folder / "prompts.jsonl").read_text().splitlines()
    lines[6], lines[9] = '{"prompt": "What', '{"prompt": 5}'
    (folder / "prompts.jsonl").write_text("\n".join(lines) + "\n")
    assert_complaint(run(config), 3, "prompts.jsonl row 7", "on_bad_row: drop")
    config["prompts"]["source"]["on_bad_row"] = "drop"
    ended = run(config, "--until", "prompts")
    assert ended.code == 0, ended.errors
    assert sum(manifest(folder, "prompts")["dropped"].values()) == 2
    assert manifest(folder, "prompts")["counts"]["rows"] == len(lines)
    assert "dropped" in ended.errors


def test_no_prompts_at_all(folder: Path, run: Run, config: dict[str, Any]) -> None:
    (folder / "prompts.jsonl").write_text("")
    assert_complaint(run(config), 3, "prompts.jsonl", "no rows")


def test_no_held_out_prompts(folder: Path, run: Run, config: dict[str, Any]) -> None:
    config["prompts"]["held_out"] = 1e-4
    assert_complaint(run(config), 3, "prompts.jsonl", "no held-out prompts", "held_out")


def test_a_pair_of_equal_answers(folder: Path, run: Run, config: dict[str, Any]) -> None:
    rows = [{"prompt": f"What is {n}?", "chosen": "It is a number.", "rejected": "No."} for n in range(30)]
    rows[3]["rejected"] = rows[3]["chosen"]
    write_rows(folder / "pairs.jsonl", rows)
    del config["prompts"], config["judge"], config["candidates"]
    config["rankings"] = {"source": {"path": "pairs.jsonl"}, "held_out": 0.3}
    assert_complaint(run(config), 3, "pairs.jsonl row 4", "chosen equals rejected", "on_bad_row: drop")
    config["rankings"]["source"]["on_bad_row"] = "drop"
    assert run(config, "--until", "rankings").code == 0
    assert manifest(folder, "rankings")["dropped"] == {"chosen equals rejected": 1}


def test_a_prompt_longer_than_the_model_is_dropped_and_counted(folder: Path, run: Run, config: dict[str, Any]) -> None:
    long = [{"prompt": f"{n} " + "What is the opposite of hot? " * 20} for n in range(10)]
    write_rows(folder / "prompts.jsonl", [*read_rows(folder / "prompts.jsonl"), *long])
    ended = run(config)
    assert ended.code == 0, ended.errors
    assert manifest(folder, "candidates")["dropped"]["prompt too long"] == 10
    held_out = manifest(folder, "prompts")["counts"]["held_out"]
    answered = manifest(folder, "answers-pro")
    assert answered["counts"]["prompts"] + answered["dropped"].get("prompt too long", 0) == held_out
    assert "prompt too long (10)" in ended.errors


def test_only_prompts_that_are_too_long(run: Run, config: dict[str, Any]) -> None:
    config["candidates"]["max_prompt_tokens"] = 3
    assert_complaint(run(config), 3, "no candidates are left", "60 prompt too long", "limits")


def test_empty_candidates_are_dropped_and_counted(folder: Path, run: Run, config: dict[str, Any]) -> None:
    with FaultServer(lambda body, number: completion(f"answer {number}" if body["seed"] % 2 else " \n")) as server:
        model = {"kind": "endpoint", "base_url": server.base_url, "name": "m"}
        ended = run(
            {**config, "models": {"other": model}, "candidates": {"per_prompt": 4, "from": ["other"]}}, "--until", "verdicts"
        )
        empty = sum(body["seed"] % 2 == 0 for body in server.bodies if body["messages"][0]["content"] != QUESTION[0].content)
    assert ended.code == 0, ended.errors
    assert manifest(folder, "candidates")["dropped"] == {"empty": empty}
    assert manifest(folder, "candidates")["counts"] == {"prompts": 60, "sampled": 240, "candidates": 240 - empty}
    assert all(row["text"].strip() for row in read_rows(next((folder / "runs/store").glob("candidates-*/candidates.jsonl"))))


def test_a_judge_that_finds_all_answers_equal_leaves_nothing_to_learn(folder: Path, run: Run, config: dict[str, Any]) -> None:
    (folder / "indifferent.py").write_text("def grade(prompt, responses):\n    return [1.0] * len(responses)\n")
    config["judge"]["function"] = "indifferent:grade"
    assert_complaint(run(config), 3, "no training rankings are left", "60 all tied")


def test_answers_that_are_all_equal_are_enough_for_soft_labels(folder: Path, run: Run, config: dict[str, Any]) -> None:
    (folder / "indifferent.py").write_text("def grade(prompt, responses):\n    return [1.0] * len(responses)\n")
    config["judge"]["function"] = "indifferent:grade"
    training = config["students"]["pro"]
    config["students"] = {"soft": {**training, "objective": {"kind": "dpo", "labels": "soft"}}}
    ended = run(config)
    assert ended.code == 0, ended.errors
    assert manifest(folder, "rankings")["counts"]["train"] == 0
    assert manifest(folder, "student-soft")["counts"]["rankings"] == len(
        read_rows(next(folder.glob("runs/store/rankings-*/ties.jsonl")))
    )
    assert list(json.loads((folder / "runs/run/report.json").read_text())["students"]) == ["best_of_n", "soft"]


# -------------------------------------------------------------------------------------------------------------- models


def test_a_model_folder_without_safetensors(folder: Path, run: Run, config: dict[str, Any]) -> None:
    (folder / "start/model.safetensors").rename(folder / "start/pytorch_model.bin")
    assert_complaint(run(config), 3, "start", "safetensors", "pytorch_model.bin", "save_pretrained")


def test_a_model_folder_that_is_not_there(run: Run, config: dict[str, Any]) -> None:
    config["start"]["model"] = "./strat"
    assert_complaint(run(config), 3, "strat", "does not exist")


def test_weights_that_were_cut_short(folder: Path, run: Run, config: dict[str, Any]) -> None:
    weights = folder / "start/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert_complaint(run(config), 3, "start", "model")


def test_a_tokenizer_without_a_chat_template(folder: Path, run: Run, config: dict[str, Any]) -> None:
    (folder / "start/chat_template.jinja").unlink()
    assert_complaint(run(config), 3, "start", "no chat template", "layout: plain")


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(folder: Path, run: Run, config: dict[str, Any]) -> None:
    config["students"]["pro"] |= {"learning_rate": 1e30, "lr_scheduler_type": "constant", "warmup_ratio": 0.0, "max_steps": 12}
    config["runtime"] |= {"save_steps": 1, "logging_steps": 1}
    ended = run(config)
    assert_complaint(ended, 1, "not finite at step", "of 12", "learning_rate", "checkpoint is kept")
    assert list((folder / "runs/store").glob("student-pro-*/scratch/checkpoint-*/aligndistill_checkpoint.json"))
    assert not list((folder / "runs/store").glob("student-pro-*/manifest.json"))


# --------------------------------------------------------------------------------------------------------------- judge


def endpoint_judge(server: FaultServer | None = None, **more: Any) -> dict[str, Any]:
    base_url = server.base_url if server else "http://127.0.0.1:9/v1"
    return {"kind": "pairwise", "model": {"kind": "endpoint", "base_url": base_url, "name": "judge", "max_retries": 0, **more}}


def test_a_judge_that_cannot_be_reached(run: Run, config: dict[str, Any]) -> None:
    config["judge"] = endpoint_judge()
    assert_complaint(run(config), 4, "http://127.0.0.1:9/v1", "base_url", "saved")


def test_a_key_that_is_not_in_the_environment(run: Run, config: dict[str, Any]) -> None:
    config["judge"] = endpoint_judge(api_key_env="NOWHERE_KEY")
    assert_complaint(run(config), 2, "NOWHERE_KEY", "api_key_env", "export")


def test_a_judge_that_never_gives_a_verdict(folder: Path, run: Run, config: dict[str, Any]) -> None:
    config["candidates"]["per_prompt"] = 2
    with serve(completion("I would rather not say.")) as server:
        config["judge"] = endpoint_judge(server, concurrency=8)
        assert_complaint(run(config), 4, "none of the judge's first 8 verdicts", "I would rather not say.", "template")
        asked = len(server.bodies)
        assert asked <= 1 + 3 + 2 * (8 + 8)  # the server's abilities; and twice each of 8 verdicts, with 8 requests in flight
        assert_complaint(run(config), 4, "none of the judge's first 8 verdicts")
        assert len(server.bodies) <= 2 * (1 + 3 + 2 * (8 + 8))  # the resumed run asks again


def test_a_judge_function_that_fails(folder: Path, run: Run, config: dict[str, Any]) -> None:
    (folder / "broken_judge.py").write_text("def grade(prompt, responses):\n    return [1 / 0]\n")
    config["judge"]["function"] = "broken_judge:grade"
    assert_complaint(run(config), 4, "broken_judge:grade", "ZeroDivisionError")
    config["judge"]["function"] = "brocken_judge:grade"
    assert_complaint(run(config), 2, "brocken_judge", "no module")


def test_a_store_that_cannot_be_written(folder: Path, run: Run, config: dict[str, Any]) -> None:
    (folder / "occupied").write_text("a file where the store should be")
    assert_complaint(run(config, "runtime.store=occupied/store"), 3, "occupied")


def test_a_folder_of_runs_that_is_no_run(folder: Path, forked: ForkServer) -> None:
    assert_complaint(forked.run(folder, "compare", "runs/none"), 3, "runs/none is not a run")


def test_a_copy_of_the_template_may_be_edited(folder: Path, run: Run, config: dict[str, Any]) -> None:
    """Another text of the template is another judge: its verdicts are asked for again."""
    template = folder / "mine.txt"
    shutil.copy(Path(__file__).parents[2] / "aligndistill/judges/templates/general.txt", template)
    with serve(completion("A")) as server:
        config["candidates"]["per_prompt"] = 2
        config["judge"] = {**endpoint_judge(server), "template": "mine.txt"}
        assert run(config, "--until", "verdicts").code == 0
        asked = len(server.bodies)
        assert run(config, "--until", "verdicts").code == 0
        assert len(server.bodies) == asked
        template.write_text(template.read_text() + "\nTake your time.")
        assert run(config, "--until", "verdicts").code == 0
        assert len(server.bodies) > asked
        assert "Take your time." in server.bodies[-1]["messages"][0]["content"]
