"""One command, and what its user finds afterwards."""

import json
import re
from typing import Any

import datasets
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from aligndistill.config.load import load_config
from tests.e2e.conftest import FinishedRun
from tests.e2e.small_run import DEMONSTRATIONS, PROMPTS, read_rows, small_config

MEAN = {"mean", "low", "high", "n"}
STUDENTS = ["best_of_n", "dpo", "pro"]


def report(small_run: FinishedRun) -> dict[str, Any]:
    return json.loads((small_run.folder / "runs/small/report.json").read_text())


def test_it_ends_well_and_shows_a_table_and_what_to_do_next(small_run: FinishedRun) -> None:
    assert small_run.ended.code == 0, small_run.ended.errors
    assert "Traceback" not in small_run.ended.errors
    for name in ("start", "teacher", *STUDENTS):
        assert re.search(rf"^{name}\b", small_run.ended.output, re.MULTILINE), name
    assert small_run.ended.output.rstrip().endswith("next     aligndistill view runs/small")


def test_the_report_has_the_documented_keys(small_run: FinishedRun) -> None:
    found = report(small_run)
    assert {"run", "seed", "start", "teacher", "judge", "reward_model", "students"} <= found.keys()
    assert (found["run"], found["seed"]) == ("small", 3)
    held_out = len({row["id"] for row in read_rows(small_run.made("prompts") / "prompts.jsonl") if row["split"] == "held_out"})
    for figure in (found["start"]["truth"], found["start"]["length_tokens"], found["teacher"]["truth"]):
        assert figure.keys() == MEAN
        assert figure["n"] == held_out
        assert figure["low"] <= figure["mean"] <= figure["high"]
    assert "kl_nats" not in found["start"]
    assert "win_rate" not in found["start"]
    assert found["judge"]["kind"] == "likelihood"
    assert found["judge"]["unparsed"] == 0
    assert found["judge"]["calls"] > PROMPTS
    for name in ("accuracy", "longer_wins", "ece"):
        assert found["reward_model"][name].keys() == MEAN
        assert 0 <= found["reward_model"][name]["mean"] <= 1


def test_every_student_has_its_metrics_and_best_of_n_is_added(small_run: FinishedRun) -> None:
    assert "best_of_n" not in small_config()["students"]
    students = report(small_run)["students"]
    assert list(students) == STUDENTS
    for name, student in students.items():
        assert {"objective", "model", "truth", "win_rate", "kl_nats", "length_tokens", "train_seconds"} <= student.keys()
        assert student["objective"] == name
        assert student["train_seconds"] > 0
        for figure in ("truth", "win_rate", "win_rate_lc", "kl_nats", "length_tokens"):
            assert student[figure].keys() == MEAN, (name, figure)
        assert student["win_rate_lc"]["n"] == student["win_rate"]["n"]
        assert 0 <= student["win_rate"]["mean"] <= 1
        assert 0 <= student["truth"]["mean"] <= 1


def test_its_provenance_names_the_author_of_every_row(small_run: FinishedRun) -> None:
    found = json.loads((small_run.folder / "runs/small/provenance.json").read_text())
    assert found["origins"] == report(small_run)["origins"]
    names = {one["name"] for one in found["origins"]["models"]}
    stages = {one["stage"]: one for one in found["stages"]}
    assert {"candidates", "verdicts", "answers-dpo"} <= stages.keys()
    assert {row["author"] for row in read_rows(small_run.made("candidates") / "candidates.jsonl")} <= names
    assert stages["verdicts"]["rows"]["verdicts"] == len(read_rows(small_run.made("verdicts") / "verdicts.jsonl"))
    for stage in stages.values():
        assert (small_run.store / stage["artifact"]).is_dir()
        assert stage["first"] <= stage["last"]
        assert stage["energy"]["watt_hours"] > 0
        assert stage["tokens"] == 0  # nothing was asked of a server


def test_a_student_and_the_reward_model_are_ordinary_hugging_face_folders(small_run: FinishedRun) -> None:
    run = small_run.folder / "runs/small"
    for student in report(small_run)["students"].values():
        model = AutoModelForCausalLM.from_pretrained(run / student["model"])
        tokenizer = AutoTokenizer.from_pretrained(run / student["model"])
        turns = [{"role": "user", "content": "What is the capital of France?"}]
        prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True, return_tensors="pt")
        written = model.generate(**prompt, max_new_tokens=4)
        assert written.shape[1] > prompt["input_ids"].shape[1]
    start = AutoModelForCausalLM.from_pretrained(small_run.made("start") / "model")
    trained = AutoModelForCausalLM.from_pretrained(run / "students/dpo")
    assert any(not torch.equal(a, b) for a, b in zip(start.parameters(), trained.parameters(), strict=True))
    reward_model = AutoModelForSequenceClassification.from_pretrained(small_run.made("reward_model") / "model")
    assert reward_model.config.num_labels == 1


def test_the_report_says_how_it_was_made_and_what_the_judge_did(small_run: FinishedRun) -> None:
    found = report(small_run)
    assert found["about"]["command"].startswith("aligndistill run small.yaml")
    assert "CPU core" in found["about"]["machine"]
    assert [one["stage"] for one in found["about"]["stages"]][-1] == "report"
    sizes = {one["name"]: one["parameters"] for one in found["about"]["models"]}
    start = AutoModelForCausalLM.from_pretrained(small_run.made("start") / "model")
    assert sizes["start"] == sum(one.numel() for one in start.parameters())
    assert found["judge"]["verdicts"] == sum(one["verdicts"] for one in found["judge"]["work"])
    evaluated = read_rows(small_run.made("evaluation") / "verdicts.jsonl")
    assert {one["purpose"]: one["verdicts"] for one in found["judge"]["work"]}["evaluation"] == len(evaluated)
    for name in STUDENTS:
        beside = found["students"][name]["against_start"]
        assert beside["wins"] + beside["ties"] + beside["losses"] + beside["unreadable"] == found["students"][name]["win_rate"]["n"]
        truth = found["students"][name]["truth"]["mean"] - found["start"]["truth"]["mean"]
        assert beside["truth"]["mean"] == pytest.approx(truth)


def test_nothing_is_trained_on_a_held_out_prompt(small_run: FinishedRun) -> None:
    held_out = {
        row["messages"][0]["content"]
        for row in read_rows(small_run.made("prompts") / "prompts.jsonl")
        if row["split"] == "held_out"
    }
    pairs = read_rows(small_run.made("rankings") / "pairs.jsonl")
    assert held_out
    assert not held_out & {pair["prompt"][0]["content"] for pair in pairs}
    manifest = json.loads((small_run.made("start") / "manifest.json").read_text())
    assert manifest["counts"]["demonstrations"] + manifest["dropped"]["prompt is held out"] == DEMONSTRATIONS


def test_the_page_needs_nothing_but_itself(small_run: FinishedRun) -> None:
    page = (small_run.folder / "runs/small/report.html").read_text()
    assert page.lstrip().lower().startswith("<!doctype html>")
    for name in STUDENTS:
        assert name in page
    fetched = re.findall(r"""(?:src|href)\s*=\s*["']([^"']+)""", page) + re.findall(r"url\(([^)]+)\)", page)
    beside = {address.partition("#")[0] for address in fetched} - {""}
    assert beside == {"verdicts.html"}
    assert (small_run.folder / "runs/small/verdicts.html").is_file()


def test_pairs_load_as_a_data_set(small_run: FinishedRun) -> None:
    loaded = datasets.load_dataset(
        "json", data_files=str(small_run.made("rankings") / "pairs.jsonl"), split="train", cache_dir=str(small_run.folder / "hf")
    )
    manifest = json.loads((small_run.made("rankings") / "manifest.json").read_text())
    assert len(loaded) == manifest["counts"]["pairs"] > 0
    assert {"prompt", "chosen", "rejected"} <= set(loaded.column_names)
    for row in loaded:
        assert row["prompt"][-1]["role"] == "user"
        assert row["chosen"][0]["role"] == row["rejected"][0]["role"] == "assistant"
        assert row["chosen"] != row["rejected"]
        assert row["score_chosen"] > row["score_rejected"]


def test_the_runs_folder_says_what_was_run_and_where_everything_is(small_run: FinishedRun) -> None:
    folder = small_run.folder / "runs/small"
    assert load_config([folder / "config.yaml"]) == load_config([small_run.folder / "small.yaml"])
    assert yaml.safe_load((folder / "config.yaml").read_text())["students"].keys() == {"dpo", "pro"}
    artifacts = json.loads((folder / "artifacts.json").read_text())
    assert {"start", "teacher", "prompts", "candidates", "verdicts", "rankings", "reward_model", "evaluation", "report"} <= set(
        artifacts
    )
    for path in artifacts.values():
        assert (small_run.folder / path / "manifest.json").is_file()
    curves = read_rows(folder / "metrics.jsonl")
    assert {"start", "teacher", "reward_model", *(f"student-{name}" for name in STUDENTS)} == {row["stage"] for row in curves}
    assert all(isinstance(row["loss"], float) for row in curves)


def test_model_outputs_are_what_alpaca_eval_reads(small_run: FinishedRun) -> None:
    prompts = {
        row["id"]: row["messages"][0]["content"]
        for row in read_rows(small_run.made("prompts") / "prompts.jsonl")
        if row["split"] == "held_out"
    }
    for author in ("start", *STUDENTS):
        rows = json.loads((small_run.folder / f"runs/small/model_outputs/{author}.json").read_text())
        assert all(row.keys() == {"instruction", "output", "generator", "dataset", "datasplit"} for row in rows)
        assert {row["generator"] for row in rows} == {author}
        answers = {
            prompts[row["prompt_id"]]: row["text"] for row in read_rows(small_run.made(f"answers-{author}") / "answers.jsonl")
        }
        assert {row["instruction"]: row["output"] for row in rows} == answers
        assert len(rows) == len(prompts)
