"""A finished run's students and data as other tools load them, and on a stand-in of the Hub."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import yaml
from huggingface_hub import DatasetCard, ModelCard, constants
from huggingface_hub.utils import disable_progress_bars
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner, Result

from aligndistill.cli.app import app
from aligndistill.commands.share import weights
from aligndistill.commands.view.ballots import add_vote
from aligndistill.config.load import load_config
from aligndistill.data.trl_pairs import pairs_of
from aligndistill.evaluation.votes import Vote
from aligndistill.models.folder import has_bitsandbytes
from aligndistill.records import Ranking
from aligndistill.reporting.card_text import BEGIN, END
from aligndistill.reporting.report import read_report
from aligndistill.stages.scored_answers import answer_key
from aligndistill.store.jsonl import read_jsonl
from tests.commands.share.hub_server import TOKEN, Hub, StoredRepository, hub_stand_in
from tests.e2e.command import ForkServer, command
from tests.e2e.conftest import FinishedRun
from tests.e2e.small_run import write_config, write_data
from tests.imports import HEAVY, TOLD, imported
from tests.tiny_models import SIZES_FOR_BITS, write_tiny_model

DPO = "runs/small:dpo"
MIT = ("--license", "mit")


def call(*arguments: str | Path, answer: str | None = None) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=answer)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def done(*arguments: str | Path) -> str:
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def refused(*arguments: str | Path) -> str:
    result = call(*arguments)
    assert result.exit_code in (2, 3), result.output
    return result.stderr


@pytest.fixture
def run(small_run: FinishedRun, monkeypatch: pytest.MonkeyPatch) -> FinishedRun:
    monkeypatch.chdir(small_run.folder)
    return small_run


def logits_of(model: Any, tokenizer: Any) -> torch.Tensor:
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Please say the word blue."}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    with torch.inference_mode():
        logits: torch.Tensor = model(**ids).logits[0].float()
    return logits


def loaded(folder: Path) -> torch.Tensor:
    return logits_of(AutoModelForCausalLM.from_pretrained(folder, dtype="auto"), AutoTokenizer.from_pretrained(folder))


# ------------------------------------------------------------------------------------------------------------- students


def test_an_exported_student_is_the_student(run: FinishedRun, tmp_path: Path) -> None:
    printed = done("export", DPO, tmp_path / "whole", *MIT, "--language", "en")
    assert "20 logits agree within 0 %" in printed
    student = loaded(run.made("student-dpo") / "model")
    assert torch.equal(loaded(tmp_path / "whole"), student)
    done("export", DPO, tmp_path / "half", "--dtype", "bf16")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "half", dtype="auto")
    assert model.dtype == torch.bfloat16
    assert float((loaded(tmp_path / "half") - student).abs().max()) < 0.05 * float(student.abs().max())
    names = {file.name for file in (tmp_path / "whole").iterdir()}
    assert {"model.safetensors", "tokenizer.json", "chat_template.jinja", "generation_config.json", "README.md"} <= names


def test_its_card_has_what_the_run_measured(run: FinishedRun, tmp_path: Path) -> None:
    done("export", DPO, tmp_path / "out", *MIT, "--language", "en")
    card = ModelCard.load(tmp_path / "out" / "README.md")
    report = read_report(run.made("report") / "report.json")
    measured = report.students["dpo"]
    assert (card.data.license, card.data.language, card.data.library_name) == ("mit", ["en"], "transformers")
    assert card.data.base_model is None
    found = {one.metric_type: one for one in card.data.eval_results or ()}
    assert measured.win_rate is not None
    assert found["win_rate"].metric_value == round(measured.win_rate.mean, 4)
    assert f"n={measured.win_rate.n}" in str(found["win_rate"].metric_name)
    assert "judge: likelihood" in str(found["win_rate"].metric_name)
    assert found["win_rate"].dataset_split == "held_out"
    assert "base model" in card.text  # a new model has none, and the card says so
    text = card.text.partition("Against the start: ")[2].partition(" losses")[0]
    wins, ties, losses = (int(part.split()[0]) for part in (*text.split(", ")[:2], text.split(", ")[2] + " losses"))
    scored = [json.loads(line) for line in (run.made("evaluation") / "scored.jsonl").read_text().splitlines()]
    of_dpo = [row["win"] for row in scored if row["author"] == "dpo" and row["win"] is not None]
    assert wins + ties + losses == len(of_dpo) == measured.win_rate.n
    assert (wins + ties / 2) / len(of_dpo) == pytest.approx(measured.win_rate.mean)  # this judge is never in doubt
    written = card.text.partition("<summary>config.yaml</summary>\n\n```yaml\n")[2].partition("\n```")[0]
    (tmp_path / "again.yaml").write_text(written)
    assert load_config(tmp_path / "again.yaml") == load_config(run.folder / "runs/small/config.yaml")


def test_nothing_is_left_of_an_export_that_computes_something_else(
    run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = weights._copy

    def other_weights(source: Path, folder: Path) -> None:
        copy(run.made("student-pro") / "model" if source.name == "model" else source, folder)

    monkeypatch.setattr(weights, "_copy", other_weights)
    assert "computes other logits" in refused("export", DPO, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_is_refused(run: FinishedRun, tmp_path: Path) -> None:
    assert "no student 'dqo'; did you mean 'dpo'?" in refused("export", "runs/small:dqo", tmp_path / "out")
    assert "runs/small:dpo, runs/small:pro" in refused("export", "runs/small", tmp_path / "out")
    assert "quantised again" in refused("export", DPO, tmp_path / "out", "--dtype", "nf4")
    assert "no adapters to merge" in refused("export", DPO, tmp_path / "out", "--merge")
    assert "did you mean 'apache-2.0'" in refused("export", DPO, tmp_path / "out", "--license", "apache2.0")
    assert "'english' is no code of a language" in refused("export", DPO, tmp_path / "out", "--language", "english")
    assert "needs 'license_name'" in refused("export", DPO, tmp_path / "out", "--license", "other")
    (tmp_path / "file").write_text("mine")
    assert "exists already" in refused("export", DPO, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


@pytest.fixture(scope="module")
def adapted(small_run: FinishedRun, forked: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose student is adapters on a model in a folder."""
    folder = tmp_path_factory.mktemp("adapted")
    write_data(folder)
    write_tiny_model(folder / "start", **SIZES_FOR_BITS)
    settings = {
        "name": "adapted",
        "card": {"license": "mit"},
        "prompts": {"source": {"path": "prompts.jsonl", "limit": 12}, "held_out": 0.3},
        "start": {"model": "./start", "lora": {"r": 4}, "licence": "gemma"},
        "rankings": {"source": {"path": "preferences.jsonl"}, "held_out": 0.3},
        "students": {"pro": {"objective": {"kind": "pro"}, "batch_size": 8, "max_steps": 2, "learning_rate": 0.05}},
    }
    del settings["prompts"]
    rows = [{"prompt": f"Say {n}.", "responses": [f"{n}", "No."], "scores": [1.0, 0.0]} for n in range(12)]
    (folder / "preferences.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, quantize in (("adapted", None), ("bits", {"kind": "nf4", "export": "adapter"})):
        if quantize is None or has_bitsandbytes():
            start = {**settings["start"], **({"quantize": quantize} if quantize else {})}  # type: ignore[dict-item]
            write_config(folder / "c.yaml", {**settings, "name": name, "start": start})
            ended = forked.run(folder, "run", "c.yaml", "--until", "student-pro")
            assert ended.code == 0, ended.errors
    return folder


def test_a_student_of_adapters_is_exported_as_they_are_or_merged(
    adapted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(adapted)
    done("export", "runs/adapted:pro", tmp_path / "adapter")
    done("export", "runs/adapted:pro", tmp_path / "merged", "--merge")
    base = AutoModelForCausalLM.from_pretrained("start")
    with_adapter = PeftModel.from_pretrained(base, str(tmp_path / "adapter")).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "adapter")
    torch.testing.assert_close(logits_of(with_adapter, tokenizer), loaded(tmp_path / "merged"), rtol=1e-4, atol=1e-4)
    changed = logits_of(AutoModelForCausalLM.from_pretrained("start"), tokenizer) - loaded(tmp_path / "merged")
    assert float(changed.abs().max()) > 1e-3
    adapter, merged = (ModelCard.load(tmp_path / one / "README.md") for one in ("adapter", "merged"))
    assert (adapter.data.library_name, merged.data.library_name) == ("peft", "transformers")
    assert "local folder ('start'), so no base model is linked" in merged.text
    assert "the base model start is under gemma, and this is published under mit" in merged.text
    assert "2106.09685" in merged.text  # LoRA's paper


@pytest.mark.skipif(not has_bitsandbytes(), reason="bitsandbytes is not installed")
def test_adapters_of_a_quantised_start_are_merged_into_what_they_were_trained_on(
    adapted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(adapted)
    for options, folder in ((("--merge",), "merged"), ((), "adapter")):
        # Beside the student that was trained, whose base is in 4 bits; the base itself computes something else by far.
        assert "20 logits agree" in done("export", "runs/bits:pro", tmp_path / folder, *options)
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("start"), str(tmp_path / "adapter")).eval()
    merged = loaded(tmp_path / "merged")
    apart = (logits_of(plain, AutoTokenizer.from_pretrained(tmp_path / "adapter")) - merged).abs().max()
    assert float(apart) > 0.01 * float(merged.abs().max())


# ----------------------------------------------------------------------------------------------------------------- data


def test_data_loads_by_its_card(run: FinishedRun, tmp_path: Path) -> None:
    done("export", "runs/small", tmp_path / "out", "--data", "preferences", "--data", "verdicts", "--data", "rankings", *MIT)
    rankings = list(read_jsonl(run.made("rankings") / "rankings.jsonl", Ranking))
    pairs = datasets.load_dataset(str(tmp_path / "out"), "preferences", cache_dir=str(tmp_path / "cache"))
    for split in ("train", "held_out"):
        expected = [row for one in rankings if one.split == split for row in pairs_of(one, conversational=True)]
        assert [dict(row) for row in pairs[split]] == expected
    verdicts = datasets.load_dataset(str(tmp_path / "out"), "verdicts", cache_dir=str(tmp_path / "cache"))
    stored = (run.made("verdicts") / "verdicts.jsonl").read_text().splitlines()
    assert sum(len(rows) for rows in verdicts.values()) == len(stored)
    card = DatasetCard.load(tmp_path / "out" / "README.md")
    assert card.data.license == "mit"
    assert card.data.annotations_creators == ["machine-generated"]
    info = {one["config_name"]: one for one in card.data.to_dict()["dataset_info"]}
    assert [one["num_examples"] for one in info["preferences"]["splits"]] == [len(pairs["train"]), len(pairs["held_out"])]
    assert "both in the training and in the held-out rows: 0." in card.text


def test_openrlhf_gets_whole_conversations(run: FinishedRun, tmp_path: Path) -> None:
    done("export", "runs/small", tmp_path / "out", "--data", "preferences", "--format", "openrlhf")
    row = json.loads((tmp_path / "out/preferences/train.jsonl").read_text().splitlines()[0])
    assert set(row) == {"chosen", "rejected"}
    assert [turn["role"] for turn in row["chosen"]] == ["user", "assistant"]
    assert row["chosen"][:-1] == row["rejected"][:-1]
    assert row["chosen"][-1] != row["rejected"][-1]


def test_data_that_is_not_there_is_refused(run: FinishedRun, tmp_path: Path) -> None:
    assert "--data preferences or votes has it" in refused(
        "export", "runs/small", tmp_path / "a", "--data", "verdicts", "--format", "trl"
    )
    assert "did you mean 'votes'" in refused("export", "runs/small", tmp_path / "a", "--data", "vots")
    assert "has no votes yet" in refused("export", "runs/small", tmp_path / "a", "--data", "votes")
    assert not list(tmp_path.iterdir())


def test_exporting_data_imports_no_library_that_computes(run: FinishedRun, tmp_path: Path) -> None:
    ended = command(run.folder, "export", "runs/small", str(tmp_path / "out"), "--data", "preferences", environment=TOLD)
    assert ended.code == 0, ended.errors
    assert "pydantic" in imported(ended)
    assert not imported(ended) & HEAVY


def test_votes_are_exported_without_names_and_shown_on_the_card(
    copied_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copied_run.folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (scores,) = copied_run.store.glob("evaluation-*/scored.jsonl")
    rows = [json.loads(line) for line in scores.read_text().splitlines()]
    start, dpo = ({row["prompt_id"]: row["text"] for row in rows if row["author"] == name} for name in ("start", "dpo"))
    prompts = [prompt for prompt in start if start[prompt] != dpo[prompt]][:3]
    for number, (prompt, choice) in enumerate(zip(prompts, ("left", "right", "tie"), strict=True)):
        left, right = answer_key(prompt, start[prompt]), answer_key(prompt, dpo[prompt])
        decided = {"prompt": prompt, "left": left, "right": right, "vote": choice, "queue": "random", "milliseconds": 900}
        vote = Vote.model_validate({**decided, "id": f"{number:032x}", "time": 1.0 + number, "note": "by Ada"})
        add_vote(Path("runs/small"), "ada", vote)
    done("export", "runs/small", tmp_path / "votes", "--data", "votes")
    written = (tmp_path / "votes/votes/held_out.jsonl").read_text()
    assert [json.loads(line)["vote"] for line in written.splitlines()] == ["left", "right", "tie"]
    assert "ada" not in written.lower()
    done("export", "runs/small", tmp_path / "pairs", "--data", "votes", "--format", "trl")
    pairs = [json.loads(line) for line in (tmp_path / "pairs/votes/held_out.jsonl").read_text().splitlines()]
    assert [pair["chosen"][0]["content"] for pair in pairs] == [start[prompts[0]], dpo[prompts[1]]]
    assert [pair["rejected"][0]["content"] for pair in pairs] == [dpo[prompts[0]], start[prompts[1]]]
    done("export", DPO, tmp_path / "out")
    assert "People's blind votes (3): the judge chooses as they do in " in (tmp_path / "out/README.md").read_text()


# ------------------------------------------------------------------------------------------------------------------ push


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The stand-in, with this machine's Hub settings pointing at it; files go by LFS, not by Xet."""
    disable_progress_bars()
    with hub_stand_in() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.address)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield running


def test_a_student_is_pushed_privately_with_its_card(run: FinishedRun, hub: Hub) -> None:
    printed = done("push", DPO, "me/tiny", *MIT, "--yes")
    pushed = hub.repositories["models/me/tiny"]
    assert pushed.private
    assert "model me/tiny (new, private)" in printed
    assert "licence: mit" in printed
    assert "model.safetensors" in printed
    assert pushed.lfs == {"model.safetensors"}
    student = run.made("student-dpo") / "model"
    assert pushed.files["model.safetensors"] == (student / "model.safetensors").read_bytes()
    assert b"REPO = 'me/tiny'" in pushed.files["README.md"]
    assert "It began as a new model: the card names no base model." in printed


def test_an_existing_readme_keeps_what_is_not_ours(run: FinishedRun, hub: Hub) -> None:
    before = f"---\nlicense: cc0-1.0\nthumbnail: mine.png\ntags:\n- mine\n---\n# My model\n\n{BEGIN}\nold\n{END}\n\nMy notes.\n"
    hub.repositories["models/me/tiny"] = StoredRepository(True, {"README.md": before.encode(), "notes.txt": b"mine"})
    done("push", DPO, "me/tiny", *MIT, "--yes")
    files = hub.repositories["models/me/tiny"].files
    text = files["README.md"].decode()
    assert files["notes.txt"] == b"mine"
    assert "# My model\n\n" in text.partition(BEGIN)[0]
    assert text.partition(END)[2] == "\n\nMy notes.\n"
    assert "old" not in text.partition(BEGIN)[2].partition(END)[0].splitlines()
    front = yaml.safe_load(text.split("---\n")[1])
    assert (front["license"], front["thumbnail"], front["tags"][:2]) == ("mit", "mine.png", ["mine", "aligndistill"])


def test_data_is_pushed_as_a_data_set(run: FinishedRun, hub: Hub) -> None:
    done("push", "runs/small", "me/pairs", "--data", "preferences", *MIT, "--public", "--yes")
    pushed = hub.repositories["datasets/me/pairs"]
    assert not pushed.private
    assert set(pushed.files) == {"README.md", "preferences/train.jsonl", "preferences/held_out.jsonl"}


def test_nothing_is_pushed_without_a_licence_or_an_answer(run: FinishedRun, hub: Hub) -> None:
    assert "nothing is pushed without a licence" in refused("push", DPO, "me/tiny", "--yes")
    assert "give --yes" in refused("push", DPO, "me/tiny", *MIT)
    assert "OWNER/NAME" in refused("push", DPO, "tiny", *MIT, "--yes")
    hub.repositories["models/me/seen"] = StoredRepository(False)
    assert "exists and is public" in refused("push", DPO, "me/seen", *MIT, "--yes")
    assert set(hub.repositories) == {"models/me/seen"}
    assert not hub.repositories["models/me/seen"].files


def test_a_no_pushes_nothing(run: FinishedRun, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aligndistill.commands.share.push.can_ask", lambda: True)
    result = call("push", DPO, "me/tiny", *MIT, answer="n\n")
    assert "Push this to me/tiny?" in result.output
    assert "nothing was pushed" in result.stderr
    assert not hub.repositories


def test_secrets_are_not_pushed(run: FinishedRun, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SERVER_TOKEN", "Please say the word")
    said = refused("push", "runs/small", "me/pairs", "--data", "prompts", *MIT, "--yes")
    assert "the value of the environment variable MY_SERVER_TOKEN" in said
    assert ".jsonl, line " in said
    assert "Please say the word" not in said
    assert not hub.repositories


def test_adapters_of_a_local_model_are_not_pushed_alone(adapted: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(adapted)
    assert "Push the merged model with --merge" in refused("push", "runs/adapted:pro", "me/tiny", "--yes")
    assert "no base model is linked" in done("push", "runs/adapted:pro", "me/tiny", "--merge", "--yes")


def test_what_the_hub_says_is_passed_on(run: FinishedRun, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.refuses = (403, "You have no access.")
    assert "the Hub answered 403: You have no access. The token may not write there" in refused(
        "push", DPO, "me/tiny", *MIT, "--yes"
    )
    monkeypatch.setenv("HF_TOKEN", "another")
    assert "the Hub answered 401" in refused("push", DPO, "me/tiny", *MIT, "--yes")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "the Hub cannot be reached" in refused("push", DPO, "me/tiny", *MIT, "--yes")
