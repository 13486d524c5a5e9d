"""`aligndistill eval-rm` as users give it, on a reward model that transformers reads by itself beside it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from typer.testing import CliRunner, Result

from aligndistill.cli.app import app
from aligndistill.models.load import ModelPointer
from aligndistill.models.reward import new_reward_model
from tests.tiny_models import ANSWERS, QUESTIONS, write_tiny_model

PAIRS: list[dict[str, Any]] = [
    {
        "prompt": question,
        "chosen": ANSWERS[n % 5],
        "chosen_model": "a",
        "rejected": ANSWERS[(n + 1 + n % 3) % 5],
        "rejected_model": "b",
        "subset": ("hard", "easy")[n % 2],
        "id": n,
    }
    for n, question in enumerate(QUESTIONS)
]
LISTS: list[dict[str, Any]] = [
    {
        "prompt": question,
        "chosen": [ANSWERS[n % 5]],
        "rejected": [ANSWERS[(n + k) % 5] for k in (1, 2, 3)],
        "num_correct": 1,
        "total_completions": 4,
        "subset": "focus",
        "id": str(n),
    }
    for n, question in enumerate(QUESTIONS)
]
TIES: list[dict[str, Any]] = [
    {"prompt": "Two?", "chosen": ["No."], "rejected": ["blue", "Paris."], "subset": "Ties", "id": "ref:0"},
    {"prompt": "Blue?", "chosen": ["No.", "blue"], "rejected": ["Gladly!", "Five."], "subset": "Ties", "id": "tied:0"},
]


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["eval-rm", *map(str, arguments)])


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reward")
    made = new_reward_model(ModelPointer(path=str(write_tiny_model(folder / "backbone")), layout="plain"), seed=3)
    made.model.save_pretrained(folder / "model")
    made.conversation.tokenizer.save_pretrained(folder / "model")
    ModelPointer(path="model", layout="plain").write(folder)
    return folder


def reward(model: Path, prompt: str, answer: str) -> float:
    """What transformers makes of one text by itself."""
    tokenizer = AutoTokenizer.from_pretrained(model / "model")
    classifier = AutoModelForSequenceClassification.from_pretrained(model / "model").eval()
    ids = [*tokenizer(prompt).input_ids, *tokenizer(answer).input_ids, tokenizer.eos_token_id]
    with torch.no_grad():
        return float(classifier(input_ids=torch.tensor([ids])).logits[0, 0])


def test_each_subset_is_scored_as_the_plain_model_scores_it(model: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", [*PAIRS, *LISTS, *TIES])
    done = call(model, "--dataset", file, "--output", tmp_path / "out.json", "--batch-size", "3")
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "out.json").read_text())

    right: dict[str, list[bool]] = {"easy": [], "hard": [], "focus": []}
    for row in [*PAIRS, *LISTS]:
        best, *rest = [
            reward(model, row["prompt"], answer)
            for column in ("chosen", "rejected")
            for answer in ([row[column]] if isinstance(row[column], str) else row[column])
        ]
        right[row["subset"]].append(best > max(rest))
    assert any(right["easy"] + right["hard"] + right["focus"])
    assert not all(right["easy"] + right["hard"] + right["focus"])
    for name, rows in right.items():
        assert found["subsets"][name]["mean"] == pytest.approx(sum(rows) / len(rows))
        assert f"{name}" in done.stdout
    assert found["accuracy"]["mean"] == pytest.approx(sum(map(sum, right.values())) / 16)
    assert found["accuracy"]["n"] == 8  # the same eight prompts in both versions
    assert found["rows"] == 18
    assert (found["left_out"], found["answers_cut"]) == ({}, 0)

    one, several = ({text: reward(model, row["prompt"], text) for text in row["chosen"] + row["rejected"]} for row in TIES)
    ref = one["No."] - max(one["blue"], one["Paris."])
    tied = min(several["No."], several["blue"]) - max(several["Gladly!"], several["Five."])
    spread = abs(several["No."] - several["blue"])
    expected = 0.3 * (ref > 0) + 0.3 * (tied > 0) + 0.2 * (tied > spread) + 0.2 * (min(ref, tied) > spread)
    expected += 0.01 * float(torch.tanh(torch.tensor(min(ref, tied) / spread - 1)))
    assert found["subsets"]["Ties"]["mean"] == pytest.approx(expected, abs=1e-4)


def test_the_model_may_be_a_runs_a_stages_or_anybodys(model: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "artifacts.json").write_text(json.dumps({"reward_model": str(model)}))
    file = write(tmp_path / "rows.jsonl", PAIRS)
    seen = [call(where, "--dataset", file).stdout for where in (model, tmp_path / "run")]
    seen.append(call(model / "model", "--dataset", file, "--layout", "plain").stdout)
    assert seen[0] == seen[1] == seen[2]
    assert "8 rows" in seen[0]


def test_rows_that_cannot_be_used_are_dropped_and_reported(model: Path, tmp_path: Path) -> None:
    long = {**PAIRS[0], "prompt": "blue " * 100}
    cut = {**PAIRS[1], "chosen": "blue " * 100, "subset": None}
    done = call(model, "--dataset", write(tmp_path / "rows.jsonl", [PAIRS[2], {**PAIRS[0], "rejected": ""}, long, cut]))
    assert done.exit_code == 0, done.output
    assert "dropped: 1 rows (empty response)" in done.stdout
    assert "dropped: 1 rows (prompt too long for the model)" in done.stdout
    assert "1 answers were too long" in done.stdout
    assert "\nall " in done.stdout  # the subset of a row that names none


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"prompt": "a"}], "all 1 rows were dropped"),
        ([{**TIES[0], "id": "7"}], "neither ref:N nor tied:N"),
        ([{**PAIRS[0], "prompt": "blue " * 100}], "every prompt is too long"),
    ],
)
def test_a_file_without_a_usable_row_is_refused(model: Path, tmp_path: Path, rows: list[Any], words: str) -> None:
    done = call(model, "--dataset", write(tmp_path / "rows.jsonl", rows))
    assert done.exit_code == 3
    assert words in done.stderr


def test_a_run_without_a_reward_model_says_so(tmp_path: Path) -> None:
    (tmp_path / "artifacts.json").write_text("{}")
    done = call(tmp_path, "--dataset", write(tmp_path / "rows.jsonl", PAIRS))
    assert done.exit_code == 3
    assert "has no reward model" in done.stderr
