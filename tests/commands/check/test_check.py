"""What is known about a run without running it: each thing that is missing or damaged is one line with its place."""

import importlib.util
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aligndistill.commands.check import rows
from aligndistill.commands.check.check import Findings, examine
from aligndistill.commands.plan.plan import plan
from aligndistill.config.load import load_config, read_config
from aligndistill.errors import ConfigError, DataError
from tests.e2e.command import command
from tests.e2e.small_run import write_config, write_rows

Check = Callable[..., Findings]
QUESTIONS = [{"prompt": f"What is {n} plus {n}?"} for n in range(40)]
DEMONSTRATIONS = [{"prompt": row["prompt"], "completion": "A number."} for row in QUESTIONS]


def write_model(folder: Path, **numbers: Any) -> None:
    """What can be known of a model folder without loading it."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **numbers}))
    (folder / "model.safetensors").touch()
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))


def whole() -> dict[str, Any]:
    """A config of which everything is there."""
    return {
        "name": "x",
        "prompts": {"source": {"path": "prompts.jsonl"}, "held_out": 0.3},
        "start": {"model": "./start"},
        "sft": {"demonstrations": {"path": "demonstrations.jsonl"}},
        "judge": {"kind": "function", "function": "my_judge:grade"},
        "students": {"dpo": {"objective": {"kind": "dpo"}}},
        "evaluation": {"truth": "my_judge:truth"},
    }


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Check a config, with everything that `whole` names in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    write_rows(Path("prompts.jsonl"), QUESTIONS)
    write_rows(Path("demonstrations.jsonl"), DEMONSTRATIONS)
    write_model(Path("start"))
    Path("my_judge.py").write_text("import slow_library\n\ndef grade(prompt, responses): ...\n\ntruth = grade\n")

    def checked(*overrides: str, **sections: Any) -> Findings:
        write_config(Path("c.yaml"), {**whole(), **sections})
        loaded = read_config("c.yaml", overrides)
        return examine(loaded.config, loaded.where)

    return checked


def test_nothing_is_missing(check: Check) -> None:
    found = check()
    assert (found.errors, found.warnings, found.error) == ((), (), None)
    found.require_none()


# -------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("sections", "line", "code"),
    [
        (
            {"prompts": {"source": {"path": "promts.jsonl"}}},
            "prompts.source.path: promts.jsonl: no such file or folder; did you mean prompts.jsonl?",
            3,
        ),
        (
            {"prompts": {"source": {"path": "owner/data"}}},
            "prompts.source.path: 'owner/data' is not a local file or folder, so it is read as a data set on the Hub, which",
            2,
        ),
        ({"sft": {"demonstrations": {"path": "none.jsonl"}}}, "sft.demonstrations.path: none.jsonl: no such file or folder", 3),
        ({"audit": {"labels": {"path": "none.jsonl"}}}, "audit.labels.path: none.jsonl: no such file or folder", 3),
        ({"start": {"model": "./strat"}}, "start.model: the model folder './strat' does not exist.", 3),
        (
            {"teacher": {"model": "./start", "sft": {"demonstrations": {"path": "none.jsonl"}}}},
            "teacher.sft.demonstrations.path: none.jsonl: no such file or folder",
            3,
        ),
        ({"teacher": {"model": "/no/such/folder"}}, "teacher.model: the model folder '/no/such/folder' does not exist.", 3),
        ({"models": {"m": {"model": "./none"}}}, "models.m.model: the model folder './none' does not exist.", 3),
        (
            {"judge": {"kind": "reward_model", "model": "./none"}},
            "judge.model: the model folder './none' does not exist.",
            3,
        ),
        (
            {"judge": {"kind": "pairwise", "model": "start", "template": "none.txt"}},
            "judge.template: cannot read the judge template 'none.txt'",
            2,
        ),
        (
            {"judge": {"kind": "pairwise", "model": "start", "template": "half.txt"}},
            "judge.template: the judge template 'half.txt' is missing {second}",
            2,
        ),
        (
            {
                "judge": {
                    "kind": "rubric",
                    "model": {"kind": "endpoint", "base_url": "http://h/v1", "name": "m", "api_key_env": "NOKEY"},
                }
            },
            "judge.model.api_key_env: the environment variable NOKEY (api_key_env) is not set",
            2,
        ),
        (
            {"teacher": {"kind": "endpoint", "base_url": "http://h/v1", "name": "m", "tokenizer": "./none"}},
            "teacher.tokenizer: the tokenizer's folder './none' does not exist.",
            3,
        ),
        (
            {"judge": {"kind": "function", "function": "no_judge:grade"}},
            "judge.function: cannot import 'no_judge:grade': there is no module 'no_judge'.",
            2,
        ),
        (
            {"teacher": {"kind": "function", "function": "my_judge:great"}},
            "teacher.function: cannot import 'my_judge:great': module 'my_judge' has no 'great'.",
            2,
        ),
        (
            {"judge": {"kind": "function", "function": "my_judge:great"}},
            "judge.function: cannot import 'my_judge:great': module 'my_judge' has no 'great'.",
            2,
        ),
        ({"evaluation": {"truth": "my_judge:slow_librari"}}, "evaluation.truth: cannot import 'my_judge:slow_librari': module", 2),
        ({"runtime": {"deepspeed": "zero9.json"}}, "runtime.deepspeed: cannot read the DeepSpeed config 'zero9.json'", 2),
        ({"runtime": {"deepspeed": "c.yaml"}}, "runtime.deepspeed: the DeepSpeed config 'c.yaml' is not a JSON object", 2),
        ({"runtime": {"store": "prompts.jsonl/store"}}, "runtime.store: cannot write to 'prompts.jsonl/store': ", 3),
    ],
)
def test_what_is_missing_is_told_with_its_key_and_line(check: Check, sections: dict[str, Any], line: str, code: int) -> None:
    Path("half.txt").write_text("{prompt} {first}")
    found = check(**sections)
    (only,) = found.errors
    place, _, text = only.partition(": ")
    assert text.startswith(line)
    number = int(place.removeprefix("c.yaml:"))
    assert line.partition(":")[0].rpartition(".")[2] in Path("c.yaml").read_text().splitlines()[number - 1]
    with pytest.raises(DataError if code == 3 else ConfigError) as caught:
        found.require_none()
    assert caught.value.exit_code == code


def test_a_quantised_start_needs_the_extra(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    start = {"start": {"model": "./start", "lora": {"r": 4}, "quantize": "nf4"}, "sft": None}
    copies = {"evaluation": {"judge": None, "quantized": "int8"}, "students": {"a": {"objective": {"kind": "dpo"}}}}
    assert check(**start).errors == check(**copies).errors == ()
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "bitsandbytes" else find(name, *rest))
    (only,) = check(**start).errors
    assert (
        "start.quantize: quantised models need bitsandbytes, which is not installed: pip install 'aligndistill[quantised]'" in only
    )
    (only,) = check(**copies).errors
    assert "evaluation.quantized: quantised models need bitsandbytes, which is not installed" in only


def test_a_pessimistic_judge_needs_the_members_of_an_ensemble(check: Check) -> None:
    write_model(Path("rewards"))
    judge = {"kind": "reward_model", "model": "./rewards", "pessimism": 1}
    (line,) = check(judge=judge).errors
    assert "judge.pessimism: './rewards' has no ensemble.safetensors" in line
    Path("rewards/ensemble.safetensors").touch()
    assert check(judge=judge).errors == ()


def test_a_start_must_not_be_quantised_already(check: Check) -> None:
    (Path("start") / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": "bitsandbytes"}}))
    (only,) = check().errors
    assert "start.model: './start' is quantised already: give the model in 16 or 32 bits, and set start.quantize." in only


def test_a_key_that_is_set_and_models_on_the_hub_are_not_complained_of(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYKEY", "0123456789")
    teacher = {"kind": "endpoint", "base_url": "http://h/v1", "name": "m", "api_key_env": "MYKEY", "tokenizer": "owner/name"}
    assert check(teacher=teacher, models={"m": {"model": "owner/name"}}).errors == ()


def test_a_folder_of_a_model_is_looked_into(check: Check) -> None:
    write_model(Path("broken"))
    (Path("broken") / "tokenizer_config.json").write_text("{}")
    (only,) = check(models={"m": {"model": "./broken"}}).errors
    assert "models.m.layout: " in only
    assert "has no chat template, and layout is 'chat'. Set layout: transcript" in only
    assert check(models={"m": {"model": "./broken", "layout": "plain"}}).errors == ()
    (only,) = check(models={"m": {"model": "./broken", "chat_template": "mine.jinja"}}).errors
    assert "models.m.chat_template: 'mine.jinja' cannot be read: " in only
    Path("mine.jinja").write_text("{{ messages }}")
    assert check(models={"m": {"model": "./broken", "chat_template": "mine.jinja"}}).errors == ()

    (Path("broken") / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}})
    )
    (only,) = check(models={"m": {"model": "./broken", "layout": "plain"}}).errors
    assert "'./broken' is incomplete: model.safetensors.index.json names model-2.safetensors" in only

    (Path("broken") / "model.safetensors").rename("broken/pytorch_model.bin")
    (only,) = check(models={"m": {"model": "./broken", "layout": "plain"}}).errors
    assert "has no *.safetensors. It has pytorch_model.bin" in only


@pytest.mark.parametrize("form", ["bpe", "unigram"])
def test_a_teacher_that_is_distilled_has_the_starts_tokenizer(check: Check, form: str) -> None:
    """What is not known without loading them is compared when they are loaded."""

    def write_tokenizer(folder: str, *words: str) -> None:
        vocab: Any = {word: id for id, word in enumerate(words)} if form == "bpe" else [[word, -1.0] for word in words]
        added = [{"id": len(words), "content": "<|end|>"}]
        Path(folder, "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocab}, "added_tokens": added}))

    write_model(Path("teacher"))
    distilled = {"teacher": {"model": "./teacher"}, "students": {"kd": {"objective": {"kind": "distil", "on": "all"}}}}
    assert check(**distilled).errors == ()
    write_tokenizer("start", "a", "b", "c")
    assert check(**distilled).errors == ()
    write_tokenizer("teacher", "a", "b", "c")
    assert check(**distilled).errors == ()
    write_tokenizer("teacher", "a", "B", "C", "d")
    found = check(**distilled)
    (line,) = found.errors
    assert "students.kd.objective: the teacher has another tokenizer than the student: id 1 is 'B' in 'teacher' and 'b' in" in line
    assert isinstance(found.error, ConfigError)
    assert check(teacher={"model": "./teacher"}).errors == ()  # no student is distilled
    server = {"kind": "endpoint", "base_url": "http://h/v1", "name": "m", "tokenizer": "./teacher"}
    sampled = {"opd": {"objective": {"kind": "on_policy_distil", "form": "sampled"}}}
    (line,) = check(teacher=server, students=sampled).errors
    assert "students.opd.objective: the teacher has another tokenizer than the student: id 1 is 'B'" in line


@pytest.mark.parametrize("key", ["num_hidden_layers", "n_layer"])
def test_layers_whose_states_are_compared_exist(check: Check, key: str) -> None:
    """As the models' configs say, if they do."""
    write_model(Path("teacher"))
    objective = {"kind": "distil", "on": "all", "hidden": {"layers": [[1, 1], [2, 4]]}}
    distilled = {"teacher": {"model": "./teacher"}, "students": {"kd": {"objective": objective}}}
    assert check(**distilled).errors == ()
    for layers, problem in ((4, None), (3, "the teacher has no layer 4: its layers are 0 (the embeddings) to 3 (the last one)")):
        (Path("teacher") / "config.json").write_text(json.dumps({"text_config": {key: layers}}))
        errors = check(**distilled).errors
        assert [line.partition("students.kd.objective.hidden.layers: ")[2] for line in errors] == ([problem] if problem else [])
    (Path("start") / "config.json").write_text(json.dumps({key: 1}))
    (only,) = check(**distilled).errors
    assert "the student has no layer 2: its layers are 0 (the embeddings) to 1 (the last one)" in only


@pytest.mark.parametrize(
    ("targets", "refused"),
    [
        (["q_proj", "lm_head"], True),
        (["embed_tokens"], True),
        (".*(q_proj|embed_tokens)", True),
        (["q_proj"], False),
        (".*_proj", False),
        ("all-linear", False),
    ],
)
def test_adapters_on_a_tied_weight_are_not_for_a_rollout_server(targets: Any, refused: bool, check: Check) -> None:
    """As the model's config says, if it does; after `sft` the weight is no longer tied."""
    objective = {"kind": "ppo", "reward": "judge", "server": {"base_url": "http://h/v1", "name": "m"}}
    sections = {
        "start": {"model": "./start", "lora": {"target_modules": targets}},
        "students": {"ppo": {"objective": objective}},
    }
    fine_tuned = whole()["sft"]
    assert check(**sections, sft=None).errors == ()
    for tied in ({"tie_word_embeddings": True}, {"text_config": {"tie_word_embeddings": True}}):
        (Path("start") / "config.json").write_text(json.dumps({"model_type": "llama", **tied}))
        errors = check(**sections, sft=None).errors
        assert ["students.ppo.objective.server: start.lora.target_modules names" in line for line in errors] == [True] * refused
        assert check(**sections, sft=fine_tuned).errors == ()


def test_a_pattern_of_layers_that_is_none(check: Check) -> None:
    (line,) = check(start={"model": "./start", "lora": {"target_modules": "[q"}}).errors
    assert "start.lora.target_modules: '[q' is no regular expression: unterminated character set" in line


def test_the_teachers_answers_are_read_where_it_is_the_first_author(check: Check) -> None:
    write_model(Path("teacher"))
    distilled = {"teacher": {"model": "./teacher", "licence": "mit"}, "students": {"kd": {"objective": {"kind": "distil"}}}}
    (warning,) = check(**distilled, candidates={"from": ["start", "teacher"]}).warnings
    assert "students.kd.objective.on: an answer that 'start' and the teacher both write counts as that of 'start'" in warning
    assert check(**distilled, candidates={"from": ["teacher", "start"]}).warnings == ()
    assert check("students.kd.objective.on=all", **distilled, candidates={"from": ["start", "teacher"]}).warnings == ()


def test_a_plan_from_python_has_it_too(check: Check) -> None:
    check()
    assert plan("c.yaml").problems == ()
    config = load_config("c.yaml", ["start.model=./none", "prompts.source.path=none.jsonl"])
    problems = plan(config).problems
    assert "start.model: the model folder './none' does not exist." in problems
    assert len(problems) == 2


def test_all_is_told_at_once_in_the_order_of_the_file(check: Check) -> None:
    sections = {
        "prompts": {"source": {"path": "none.jsonl"}},
        "start": {"model": "./none"},
        "judge": {"kind": "function", "function": "none:none"},
    }
    assert [line.split(": ")[1] for line in check(**sections).errors] == ["prompts.source.path", "start.model", "judge.function"]


# --------------------------------------------------------------------------------------------------------------- rows


def test_a_step_that_needs_more_prompts_than_there_are(check: Check) -> None:
    """Of TRL's trainers; the others repeat prompts or have a smaller step."""
    students = {
        kind: {"objective": {"kind": kind, "reward": "judge"}, "batch_size": size}
        for kind, size in {"grpo": 64, "rloo": 8, "ppo": 64}.items()
    }
    (line,) = check(students=students).errors
    assert "students.grpo.batch_size: there are " in line
    assert "training prompts, fewer than the 64 of one step of grpo: lower batch_size, or add prompts" in line


def test_rounds_that_need_more_prompts_than_there_are(check: Check) -> None:
    """The 40 questions are the 40 prompts, of which about 28 are for training."""
    rounds = {"count": 3, "promotes": "dpo"}
    found = check(rounds={**rounds, "prompts": {"per_round": 20}})
    (line,) = found.errors
    assert "rounds.prompts: 3 rounds of 20 prompts need more than the" in line
    assert isinstance(found.error, DataError)
    enough = {**rounds, "prompts": {"per_round": 20, "repeats": 2}}
    assert check(rounds=enough).errors == ()
    assert "candidates-r3" in {stage.name for stage in plan("c.yaml").stages}


def test_bad_rows_are_told_by_number(check: Check) -> None:
    lines = Path("prompts.jsonl").read_text().splitlines()
    for number in (2, 6, 9, 11, 20, 30, 31):
        lines[number - 1] = '{"prompt": 5}' if number == 6 else '{"prompt": '
    Path("prompts.jsonl").write_text("\n".join(lines) + "\n")
    (only,) = check().errors
    assert only.startswith("c.yaml:4: prompts.source.path: prompts.jsonl row 2: not valid JSON (")
    assert [number for number in range(1, 41) if f"prompts.jsonl row {number}: " in only] == [2, 6, 9, 11, 20]
    assert "; and 2 more. Fix the rows, or set `on_bad_row: drop`" in only

    dropped = check("prompts.source.on_bad_row=drop")
    assert dropped.errors == ()
    (warning,) = dropped.warnings
    assert "prompts.source.path: rows that would be dropped: prompts.jsonl row 2: not valid JSON (" in warning


def test_demonstrations_and_preferences_are_read_as_what_they_are(check: Check) -> None:
    write_rows(Path("demonstrations.jsonl"), [*DEMONSTRATIONS, {"prompt": "No answer?"}])
    (only,) = check().errors
    assert "sft.demonstrations.path: demonstrations.jsonl row 41: " in only
    write_rows(Path("pairs.jsonl"), [{"prompt": row["prompt"], "chosen": "Yes.", "rejected": "Yes."} for row in QUESTIONS[:1]])
    sections = {"prompts": None, "judge": None, "sft": None, "evaluation": {"judge": None}}
    (only,) = check(**sections, rankings={"source": {"path": "pairs.jsonl"}}).errors
    assert "rankings.source.path: pairs.jsonl row 1: chosen equals rejected" in only


def test_scores_that_are_no_probabilities(check: Check) -> None:
    write_rows(Path("ranked.jsonl"), [{"prompt": row["prompt"], "responses": ["A", "B"], "scores": [7, 3]} for row in QUESTIONS])
    sections = {"prompts": None, "judge": None, "sft": None, "evaluation": {"judge": None}}
    (only,) = check(**sections, rankings={"source": {"path": "ranked.jsonl"}, "scores": "probabilities"}).errors
    assert "rankings.source.path: rankings.scores is 'probabilities', but rankings.source has the score 7." in only
    assert check(**sections, rankings={"source": {"path": "ranked.jsonl"}}).errors == ()


def test_data_of_which_nothing_would_be_left(check: Check) -> None:
    (only,) = check("prompts.held_out=0.00001").errors
    assert "prompts.source.path: prompts.jsonl: no held-out prompts" in only
    Path("prompts.jsonl").write_text('{"prompt": 5}\n')
    (only,) = check("prompts.source.on_bad_row=drop").errors
    assert "prompts.jsonl: no usable rows: all 1 rows were dropped" in only
    Path("prompts.jsonl").write_text("")
    (only,) = check().errors
    assert "prompts.jsonl: no usable rows: it has no rows" in only


def test_of_long_files_the_first_rows_are_read(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_ROWS", 35)
    lines = Path("prompts.jsonl").read_text().splitlines()
    Path("prompts.jsonl").write_text("\n".join([*lines[:-1], "{"]) + "\n")
    found = check(sft=None)
    assert found.errors == ()
    assert found.warnings == ("c.yaml:4: prompts.source.path: only the first 35 rows were checked",)
    assert check("prompts.source.limit=30", sft=None).warnings == ()


# ------------------------------------------------------------------------------------------------------------ recipes


LORA = {"model": "./start", "lora": {"r": 4}}


def warnings(found: Findings) -> list[str]:
    assert found.errors == ()
    return [line.split(": ", 1)[1] for line in found.warnings]


def test_a_rate_for_all_weights_with_adapters(check: Check) -> None:
    def told(rate: float, start: dict[str, Any] = LORA) -> list[str]:
        return warnings(check(start=start, students={"a": {"objective": {"kind": "dpo"}, "learning_rate": rate}}))

    text = "students.a.learning_rate: learning_rate {} with lora: published rates for adapters are {}"
    assert told(5e-7) == [text.format("5e-07", "about 5e-06")]
    assert told(1e-7) == [text.format("1e-07", "about 5e-06")]
    assert told(5e-6) == told(1e-6) == told(5e-7, {"model": "./start"}) == []
    sections = {"sft": {**whole()["sft"], "learning_rate": 2e-5}, "reward_model": {"lora": {"r": 4}, "learning_rate": 1e-5}}
    assert warnings(check(start=LORA, **sections)) == [
        "sft.learning_rate: learning_rate 2e-05 with lora: published rates for adapters are about 0.0002",
        "reward_model.learning_rate: learning_rate 1e-05 with lora: published rates for adapters are about 0.0001",
    ]
    assert warnings(check(start=LORA)) == []  # the default is that of adapters


SIZES = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}


def test_a_beta_of_dpo_is_too_small_for_simpo(check: Check) -> None:
    def told(beta: float) -> tuple[str, ...]:
        return check(students={"a": {"objective": {"kind": "simpo", "beta": beta}}}).warnings

    (line,) = told(0.1)
    assert line.endswith(
        "students.a.objective.beta: beta 0.1 for simpo, which compares log-probabilities per token: published runs have 2 to 10"
    )
    assert told(2.0) == told(10.0) == ()


def test_a_beta_that_published_recipes_for_this_size_do_not_have(check: Check) -> None:
    write_model(Path("llama"), **SIZES)  # Llama 3 8B: 8.03 billion

    def told(model: str, epochs: float = 1, **objective: Any) -> list[str]:
        students = {"a": {"objective": {"kind": "dpo", **objective}, "num_train_epochs": epochs}}
        return warnings(check(start={"model": model}, students=students))

    def text(passes: str, size: str) -> list[str]:
        return [f"students.a.objective{passes} at {size}: published recipes use 0.01 (Zephyr, SimPO's baselines)"]

    assert told("./llama", beta=0.1) == text(".beta: beta 0.1 and 1 epoch", "8B")
    assert told("alignment-handbook/zephyr-7b-sft-full", beta=0.2) == text(".beta: beta 0.2 and 1 epoch", "7B")
    assert told("Qwen/Qwen3-8B", epochs=0.5, beta=0.1) == text(".beta: beta 0.1 and 0.5 epochs", "8B")
    for model in ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-4B-Instruct-2507", "some/model", "google/gemma-3-270m", "./start"):
        assert told(model, beta=0.1) == []
    assert told("./llama", beta=0.01) == told("./llama", beta=0.1, epochs=3) == told("./llama", beta=0.1, loss="ipo") == []


def test_batches_that_processes_cannot_share(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    students = {"a": {"objective": {"kind": "dpo"}, "batch_size": 64}}
    launched = {"launcher": "deepspeed", "processes": 6}
    errors = check(students=students, runtime=launched).errors
    assert {line.split(": ", 1)[1] for line in errors} == {
        "sft.batch_size: batch_size 32 is no multiple of 6 processes",
        "students.best_of_n.batch_size: batch_size 32 is no multiple of 6 processes",
        "students.a.batch_size: batch_size 64 is no multiple of 6 processes",
    }
    assert check(students=students, runtime={**launched, "processes": 8}).errors == ()
    # How many GPUs there will be is a guess.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,4,5")
    told = warnings(check(students=students, runtime={"launcher": "deepspeed"}))
    assert "students.a.batch_size: batch_size 64 is no multiple of 6 processes" in told
    assert warnings(check(students=students)) == []


def test_a_meeting_port_that_is_taken(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("zero.json").write_text("{}")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        monkeypatch.setenv("MASTER_PORT", str(port))
        assert warnings(check(runtime={"deepspeed": "zero.json"})) == [
            f"runtime.deepspeed: port {port}, where the launched processes would meet, is in use: "
            "give the launcher another one with --master_port"
        ]
        assert warnings(check(runtime={"deepspeed": "zero.json", "launcher": "deepspeed", "processes": 1})) == []
    assert warnings(check(runtime={"deepspeed": "zero.json"})) == []


# ----------------------------------------------------------------------------------------------------------- commands


@pytest.mark.process
def test_check_and_plan_tell_it_and_end_with_its_code(check: Check, tmp_path: Path) -> None:
    check(students={"a": {"objective": {"kind": "dpo"}, "learning_rate": 5e-7}}, start=LORA)
    ended = command(tmp_path, "check", "c.yaml")
    assert ended.code == 0
    assert ended.output.splitlines() == [
        "learning_rate: 0.0002 for sft (higher by default, because lora trains adapters)",
        "x: the config is valid.",
    ]
    assert ended.errors.startswith("warning: c.yaml:")
    for what in ("check", "plan"):
        ended = command(tmp_path, what, "c.yaml", "prompts.source.path=none.jsonl", "start.model=./none")
        assert ended.code == 3
        assert "error: argument prompts.source.path=...: prompts.source.path: none.jsonl: no such file or folder" in ended.errors
        assert "argument start.model=...: start.model: the model folder './none' does not exist" in ended.errors
        assert ("student-a" in ended.output) == (what == "plan")
        assert "Traceback" not in ended.errors


@pytest.mark.process
def test_a_split_override_is_one_message(check: Check, tmp_path: Path) -> None:
    check()
    ended = command(tmp_path, "check", "c.yaml", "start.lora={r:", "32}")
    assert ended.code == 2
    assert ended.errors.splitlines() == [
        "error: argument start.lora=...: the shell split this value at its spaces: put the argument in quotes, "
        "as in 'start.lora={...}'"
    ]


@pytest.mark.parametrize(
    ("content", "changes", "message"),
    [
        (None, {}, "c.yaml:10: prompts.elicit[0].topics: cannot read the topics in 'topics.txt': No such file or directory"),
        ("# a category alone\n", {}, "c.yaml:10: prompts.elicit[0].topics: topics.txt: no topics"),
        ("# law\nrent\n", {"shares": {"art": 1.0}}, "the topic 'rent' is of the category 'law', which has no share"),
        ("rent\n", {"personas": "no.txt"}, "prompts.elicit[0].personas: cannot read the personas in 'no.txt'"),
        ("rent\n", {}, None),
    ],
)
def test_files_of_topics_and_personas(check: Check, content: str | None, changes: dict[str, Any], message: str | None) -> None:
    if content is not None:
        Path("topics.txt").write_text(content)
    step = {"name": "topics", "kind": "curate", "model": "start", "topics": "topics.txt", **changes}
    found = check(prompts={**whole()["prompts"], "elicit": [step]})
    assert len(found.errors) == (message is not None)
    if message is not None:
        assert message in found.errors[0]
