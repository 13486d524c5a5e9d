"""Every file in configs/ can be used as it is, and every launch script passes its arguments on."""

import json
import math
import os
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import yaml
from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

from aligndistill.commands.check.check import examine
from aligndistill.commands.check.recipes import doubts
from aligndistill.commands.plan import stage_memory
from aligndistill.commands.plan.memory import GIB
from aligndistill.commands.plan.plan import plan
from aligndistill.config.data import Source
from aligndistill.config.load import dump_config, load_config
from aligndistill.config.models import EndpointModel
from aligndistill.config.offline_objectives import Dpo
from aligndistill.config.run import RunConfig, Runtime, ZeroName
from aligndistill.config.yaml import read_yaml_file
from aligndistill.errors import ConfigError
from aligndistill.processes.deepspeed import config_of
from aligndistill.processes.devices import Gpus
from aligndistill.training.arguments import batch_split

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
RUNS = sorted(CONFIGS.glob("*.yaml"))
OVERLAID = [CONFIGS / f"{name}.yaml" for name in ("quickstart", "hh", "ultrafeedback")]  # what overlays are meant for
OBJECTIVES = sorted(CONFIGS.glob("objectives/*.yaml"))
JUDGES = sorted(CONFIGS.glob("judges/*.yaml"))
LOOPS = sorted(CONFIGS.glob("loops/*.yaml"))
SHARDINGS = sorted(CONFIGS.glob("deepspeed/*.json"))
SCRIPTS = [ROOT / "launch" / name for name in ("local.sh", "multinode.sh", "judge_then_train.sh", "slurm.sbatch")]

LOCAL_TEACHER = "teacher={kind: local, model: some/teacher}"
GOES_BY_AUTHOR = {"author", "spin"}  # overlays with a judge that cannot be a reward
SAME_TOKENIZER = ["start={model: some/start, from_scratch: null}", "teacher={kind: local, model: some/teacher, from_scratch: null}"]


def fitting(run: Path, overlay: Path) -> list[str]:
    """What has to go from a config for an overlay."""
    return ["students.ppo_teacher=null"] if run.stem == "quickstart" and overlay.stem in GOES_BY_AUTHOR else []


@dataclass(frozen=True)
class Published:
    """A published run: its objective's settings, and how its batch is put together.

    Attributes:
        parts: rows of a GPU at a time, accumulated micro-batches, GPUs; None where only the batch is published.
    """

    rate: float
    beta: float
    batch: int
    epochs: float | None = None
    parts: tuple[int, int, int] | None = None
    shape: str = "qwen3-0.6b"
    gpus: int = 8


# Sources: alignment-handbook's config_full.yaml, open-instruct's docs/tulu3.md, Online-RLHF's configs/training.yaml, TRL's
# dpo.py with LoRA, DPO's authors' README for HH.
RECIPES = {
    "zephyr_dpo": Published(5e-7, 0.01, 128, 1, (8, 2, 8), "mistral-7b"),
    "tulu3_8b_dpo": Published(5e-7, 5, 128, 1, (1, 16, 8), "llama3-8b"),
    "online_dpo": Published(5e-7, 0.1, 128, 2, (1, 16, 8), "llama3-8b"),
    "one_gpu": Published(5e-6, 0.1, 16, 1, (2, 8, 1), gpus=1),
    "hh": Published(5e-7, 0.1, 64, 1),
    "ultrafeedback": Published(5e-7, 0.01, 128, 1),
}
SHAPES: dict[str, dict[str, Any]] = {
    "mistral-7b": {"model_type": "mistral", "intermediate_size": 14336, "num_hidden_layers": 32, "vocab_size": 32000},
    "llama3-8b": {"model_type": "llama", "intermediate_size": 14336, "num_hidden_layers": 32, "vocab_size": 128256},
    "qwen3-0.6b": {"model_type": "qwen3", "intermediate_size": 3072, "num_hidden_layers": 28, "vocab_size": 151936},
}
ATTENTION = {"hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8}
SMALL_ATTENTION = {"hidden_size": 1024, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128}


def by_name(path: Path) -> str:
    return path.stem


def test_the_shipped_files_are_found():
    quickstarts = {"quickstart", "quickstart-distil", "quickstart-knowledge", "quickstart-rounds"}
    assert {path.stem for path in RUNS} == {*quickstarts, "frontier", *RECIPES}
    assert {path.stem for path in OBJECTIVES} > {"dpo", "ipo"}  # one for each kind: tests/test_architecture.py
    assert {path.stem for path in JUDGES} > {"pairwise_endpoint", "pairwise_local"}
    assert {path.stem for path in LOOPS} == {"rejection_sampling", "self_rewarding", "spin", "sppo", "star"}
    assert {path.stem for path in SHARDINGS} == {"zero0", "zero1", "zero2", "zero3", "zero2_offload", "zero3_offload"}


@pytest.mark.parametrize("path", RUNS, ids=by_name)
def test_a_run_is_valid_and_its_dump_reads_back_equal(path: Path, tmp_path: Path):
    config = load_config([path])
    dumped = tmp_path / "config.yaml"
    dumped.write_text(dump_config(config), encoding="utf-8")
    assert load_config([dumped]) == config
    assert "authors" not in yaml.safe_load(dumped.read_text())["candidates"]


@pytest.mark.parametrize("run", OVERLAID, ids=by_name)
@pytest.mark.parametrize("overlay", OBJECTIVES, ids=by_name)
def test_an_objective_overlay_adds_a_student_of_its_name(run: Path, overlay: Path):
    overrides = SAME_TOKENIZER if overlay.stem.endswith("distil") else []
    before, after = load_config([run]), load_config([run, overlay], overrides)
    assert set(after.students) == set(before.students) | {overlay.stem}


def assert_holds(dumped: dict[str, Any], written: dict[str, Any]) -> None:
    """What is written is there, beside defaults; a model's own keys are tested with models."""
    for key in written.keys() - {"model"}:
        if isinstance(written[key], dict):
            assert_holds(dumped[key], written[key])
        else:
            assert dumped[key] == written[key]


@pytest.mark.parametrize("run", OVERLAID, ids=by_name)
@pytest.mark.parametrize("overlay", JUDGES, ids=by_name)
def test_a_judge_overlay_replaces_the_judge(run: Path, overlay: Path):
    teacher = load_config([run]).teacher
    local = [LOCAL_TEACHER] if isinstance(teacher, EndpointModel) else []
    judge = load_config([run, overlay], [*local, *fitting(run, overlay)]).judge
    assert judge is not None
    written = yaml.safe_load(overlay.read_text())["judge"]
    assert_holds(judge.model_dump(mode="json"), written)


def test_the_likelihood_overlay_says_why_it_cannot_use_an_endpoint():
    with pytest.raises(ConfigError, match=r"judge\.model: a likelihood judge needs log-probabilities of whole answers"):
        load_config([CONFIGS / "hh.yaml", CONFIGS / "judges/likelihood.yaml"])


@pytest.mark.parametrize(
    ("run", "reason"), [("hh", "which an endpoint does not provide"), ("quickstart", "distillation needs one tokenizer")]
)
def test_the_distillation_overlay_says_which_teachers_it_cannot_use(run: str, reason: str):
    with pytest.raises(ConfigError, match=rf"students\.distil\.objective\.kind: .*{reason}"):
        load_config([CONFIGS / f"{run}.yaml", CONFIGS / "objectives/distil.yaml"])


def test_the_command_that_ultrafeedback_gives_for_ready_made_preferences_is_valid():
    source = "{path: HuggingFaceH4/ultrafeedback_binarized, split: train_prefs, format: preference, revision: 0a1b}"
    overrides = ["prompts=null", "judge=null", "evaluation.against_teacher=false", f"rankings.source={source}"]
    config = load_config([CONFIGS / "ultrafeedback.yaml"], overrides)
    assert config.prompts is None
    assert config.rankings.source is not None
    assert config.rankings.source.revision == "0a1b"


@pytest.mark.parametrize("path", RUNS, ids=by_name)
def test_a_run_has_the_rates_and_betas_of_published_recipes(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MASTER_PORT", "0")  # always free
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert list(doubts(load_config([path]))) == []


BASE = """\
name: x
prompts: {source: {path: p.jsonl}}
start: {model: some/model}
teacher: {model: some/teacher}
judge: {kind: function, function: "a:b"}
reward_model: {}
"""


@pytest.mark.parametrize("overlay", OBJECTIVES, ids=by_name)
def test_an_objective_overlay_leaves_the_rate_to_what_is_trained(overlay: Path, tmp_path: Path):
    (tmp_path / "base.yaml").write_text(BASE)
    paths = [tmp_path / "base.yaml", overlay]
    whole, adapters = load_config(paths), load_config(paths, ["start.lora={r: 8}"])
    student = whole.students[overlay.stem]
    assert student.learning_rate == student.objective.default_learning_rate
    assert adapters.students[overlay.stem].learning_rate == student.adapter_learning_rate > student.learning_rate
    assert list(doubts(whole)) == list(doubts(adapters)) == []


@pytest.mark.parametrize(
    ("name", "rate", "settings"),
    [
        ("simpo", 5e-7, {"beta": 2.0, "gamma_beta_ratio": 0.5, "sft_weight": 0.0}),
        ("cpo", 1e-6, {"beta": 0.1, "sft_weight": 1.0}),
        ("orpo", 5e-6, {"odds_weight": 0.1}),
        ("kto", 1e-6, {"beta": 0.1, "desirable_weight": "auto", "undesirable_weight": "auto"}),
        ("sppo", 5e-7, {"eta": 1000.0}),
    ],
)
def test_an_objective_has_its_published_values_also_where_only_its_kind_is_given(
    name: str, rate: float, settings: dict[str, Any], tmp_path: Path
):
    (tmp_path / "base.yaml").write_text(BASE)
    overlaid = load_config([tmp_path / "base.yaml", CONFIGS / f"objectives/{name}.yaml"]).students[name]
    plain = load_config([tmp_path / "base.yaml"], [f"students.plain={{objective: {{kind: {name}}}}}"]).students["plain"]
    assert overlaid.objective == plain.objective
    assert overlaid.learning_rate == plain.learning_rate == rate
    assert_holds(plain.objective.model_dump(), settings)


@pytest.mark.parametrize("run", OVERLAID, ids=by_name)
@pytest.mark.parametrize("overlay", LOOPS, ids=by_name)
def test_a_loop_repeats_a_run_or_labels_its_start(run: Path, overlay: Path):
    written = read_yaml_file(overlay, 0).data
    config = load_config([run, overlay], SAME_TOKENIZER[:1] if overlay.stem == "star" else fitting(run, overlay))
    assert_holds(json.loads(config.model_dump_json(by_alias=True)), written)
    if overlay.stem == "star":
        assert config.sft is not None
        assert config.sft.label is not None
    else:
        assert config.rounds is not None
        assert config.rounds.promotes in written["students"]


@pytest.mark.parametrize("path", LOOPS, ids=by_name)
def test_a_loop_is_short_and_names_its_paper(path: Path):
    text = path.read_text()
    assert len(text.splitlines()) <= 30
    assert re.search(r"arXiv:\d{4}\.\d{5}", text)
    assert "What differs" in text


@pytest.mark.parametrize("path", [*RUNS, *OBJECTIVES, *JUDGES, *LOOPS], ids=by_name)
def test_every_file_begins_with_a_comment_on_when_to_use_it(path: Path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ")
    assert lines[1].startswith("#")


@pytest.mark.parametrize("path", RUNS, ids=by_name)
def test_files_that_a_run_names_are_there(path: Path):
    deepspeed = load_config([path]).runtime.deepspeed
    assert deepspeed is None or config_of(deepspeed)


# ------------------------------------------------------------------------------------------------------------- recipes


def conversation(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def stand_in(source: Source, folder: Path) -> dict[str, Any]:
    """60 rows with the columns of the source's data set, in a local file."""
    questions = [f"What is {number} plus {number}?" for number in range(60)]
    if source.format == "hh":
        rows: list[dict[str, Any]] = [
            {key: f"\n\nHuman: {question}\n\nAssistant: {key}" for key in ("chosen", "rejected")} for question in questions
        ]
    elif source.format == "preference":
        rows = [{key: conversation(question, key) for key in ("chosen", "rejected")} for question in questions]
    else:
        rows = [{source.columns["prompt"]: conversation(question, "")[:1]} for question in questions]
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"path": str(file), "revision": None}


@pytest.fixture
def with_stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunConfig]:
    """A recipe on the GPUs that it is for, with files of this machine in place of those of the Hub."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def load(name: str, overlay: Path | None = None, further: Sequence[str] = ()) -> RunConfig:
        published, config = RECIPES[name], load_config([CONFIGS / f"{name}.yaml"])
        monkeypatch.setattr(stage_memory, "find_gpus", lambda: Gpus(published.gpus, bf16=True))
        model = tmp_path / published.shape
        model.mkdir()
        attention = SMALL_ATTENTION if published.shape == "qwen3-0.6b" else ATTENTION
        (model / "config.json").write_text(json.dumps({**SHAPES[published.shape], **attention}))
        (model / "model.safetensors").touch()
        (model / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
        key = "prompts" if config.prompts is not None else "rankings"
        source = config.prompts.source if config.prompts is not None else config.rankings.source
        assert source is not None
        data = {f"{key}.source.{name}": value for name, value in stand_in(source, tmp_path).items()}
        overrides = [f"{key}={json.dumps(value)}" for key, value in {**data, "start.model": str(model)}.items()]
        paths = [CONFIGS / f"{name}.yaml", *([overlay] if overlay else [])]
        return load_config(paths, [*overrides, f"runtime.processes={published.gpus}", *further])

    return load


@pytest.mark.parametrize("overlay", LOOPS, ids=by_name)
def test_a_loop_passes_check_and_plan(with_stand_ins: Callable[..., RunConfig], tmp_path: Path, overlay: Path):
    """On `hh.yaml`. The files and the function that the configs ask for are the user's."""
    rows = [{"prompt": f"What is {one} plus {one}?", "completion": f"Twice.\nAnswer: {2 * one}"} for one in range(60)]
    for name in ("my_examples.jsonl", "my_answers.jsonl", "my_demonstrations.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    function = "sft.demonstrations.label.function=examples.quickstart.truth:truth"
    weak = ["rounds.prompts={per_round: 18, repeats: 1}", "rounds.weak=0.5"]  # nothing of it is known before the first round
    config = with_stand_ins("hh", overlay, {"star": [function], "sppo": weak}.get(overlay.stem, []))
    found = examine(config)
    assert (found.errors, found.warnings) == ((), ())
    planned = plan(config)
    assert (planned.problems, planned.no_estimate) == ((), None)
    assert "student-dpo" in planned.memory
    asked = {one.stage for one in planned.requests}
    assert {"star": "labels-hinted", "spin": "answers-spin-r3"}.get(overlay.stem, "verdicts-r2") in asked
    if overlay.stem == "sppo":
        prompts = {one.stage: one.prompts for one in planned.requests if one.stage.startswith("verdicts")}
        assert len(set(prompts.values())) == 1


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_passes_check_and_plan(with_stand_ins: Callable[..., RunConfig], name: str):
    config = with_stand_ins(name)
    found = examine(config)
    assert (found.errors, found.warnings) == ((), ())
    planned = plan(config)
    assert (planned.problems, planned.no_estimate) == ((), None)
    assert "student-dpo" in planned.memory
    head = (CONFIGS / f"{name}.yaml").read_text().partition("\nname: ")[0]
    assert "# Hardware: " in head
    assert "launch/" in head
    (gibibytes,) = re.findall(r"`plan` estimates (\d+) GiB (?:a GPU )?for\s+training", head.replace("\n# ", " "))
    assert max(memory.gpu for memory in planned.memory.values()) / GIB == pytest.approx(int(gibibytes), abs=0.5)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains_as_published(name: str):
    config, published = load_config([CONFIGS / f"{name}.yaml"]), RECIPES[name]
    dpo = config.students["dpo"]
    assert isinstance(dpo.objective, Dpo)
    assert dpo.objective.loss == ("sigmoid_norm" if name == "tulu3_8b_dpo" else "sigmoid")
    assert (dpo.learning_rate, dpo.objective.beta, dpo.num_train_epochs) == (published.rate, published.beta, published.epochs)
    split = batch_split(dpo.batch_size, config.runtime.per_device_train_batch_size, published.gpus)
    parts = (split.per_device, split.accumulation, published.gpus)
    assert math.prod(parts) == dpo.batch_size == published.batch
    assert published.parts in (None, parts)


def test_data_of_the_hub_has_its_commit_or_the_command_for_it():
    for name in RECIPES:
        config, text = load_config([CONFIGS / f"{name}.yaml"]), (CONFIGS / f"{name}.yaml").read_text()
        source = config.prompts.source if config.prompts is not None else config.rankings.source
        assert source is not None
        pinned = source.revision is not None and len(source.revision) == 40
        assert pinned != ("source.revision=<commit>" in text)


# ------------------------------------------------------------------------------------------------------------ sharding


@pytest.mark.parametrize("path", SHARDINGS, ids=by_name)
def test_the_trainer_fills_every_auto_value(path: Path):
    """With transformers' own code; the arguments are those it reads."""
    arguments = SimpleNamespace(
        world_size=4,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=8,
        max_grad_norm=0.5,
        learning_rate=1e-6,
        adam_beta1=0.9,
        adam_beta2=0.999,
        adam_epsilon=1e-8,
        weight_decay=0.0,
        save_on_each_node=False,
        fp16=False,
        fp16_full_eval=False,
        bf16=True,
        bf16_full_eval=False,
        get_warmup_steps=lambda steps: 0,
    )
    deepspeed = HfTrainerDeepSpeedConfig(str(path))
    deepspeed.trainer_config_process(arguments)
    deepspeed.trainer_config_finalize(arguments, SimpleNamespace(config=SimpleNamespace(hidden_size=64)), 100)
    assert '"auto"' not in json.dumps(deepspeed.config)
    assert deepspeed.config["train_batch_size"] == 4 * 2 * 8
    assert deepspeed.config["gradient_clipping"] == 0.5

    zero = deepspeed.config["zero_optimization"]
    assert zero["stage"] == int(path.stem[4])
    assert ("offload_optimizer" in zero) == path.stem.endswith("_offload")
    assert ("offload_param" in zero) == (path.stem == "zero3_offload")
    assert zero.get("stage3_gather_16bit_weights_on_model_save", False) == (zero["stage"] == 3)


@pytest.mark.parametrize("name", get_args(ZeroName))
def test_a_name_is_the_file_of_that_name(name: str):
    runtime = Runtime.model_validate({"deepspeed": name})
    assert config_of(runtime.deepspeed) == config_of(ROOT / "configs/deepspeed" / f"{name}.json")
    assert Runtime.model_validate({"deepspeed": f"{name}.json"}).deepspeed == Path(f"{name}.json")


# ------------------------------------------------------------------------------------------------------------- scripts


@pytest.fixture
def recorded(tmp_path: Path):
    """Run a script with programs in PATH that print their name and arguments, one a line."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("deepspeed", "srun"):
        program = programs / name
        program.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$(basename "$0")" "$@"\n')
        program.chmod(0o755)
    scontrol = programs / "scontrol"
    scontrol.write_text("#!/usr/bin/env bash\nprintf 'node-7\\nnode-9\\n'\n")
    scontrol.chmod(0o755)

    def run(script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": f"{programs}:{os.environ['PATH']}", **variables}
        command = [str(ROOT / "launch" / script), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20, check=False)

    return run


ARGUMENTS = ["configs/hh.yaml", "judge={kind: function, function: 'a:b'}"]


@pytest.mark.process
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_bash_and_stops_at_the_first_error(script: Path):
    assert subprocess.run(["bash", "-n", str(script)], capture_output=True, check=False).returncode == 0
    assert "set -euo pipefail" in script.read_text()
    assert os.access(script, os.X_OK)


@pytest.mark.process
@pytest.mark.parametrize("script", [path.name for path in SCRIPTS])
def test_a_script_explains_itself(recorded, script: str):
    asked, bare = recorded(script, "--help"), recorded(script)
    assert (asked.returncode, bare.returncode) == (0, 2)
    assert "CONFIG [CONFIG ...] [section.key=value ...]" in asked.stdout
    assert bare.stderr == asked.stdout


@pytest.mark.process
def test_with_judge_explains_itself_and_needs_a_server(recorded):
    asked, bare, unset = recorded("with_judge.sh", "--help"), recorded("with_judge.sh"), recorded("with_judge.sh", "true")
    assert (asked.returncode, bare.returncode, unset.returncode) == (0, 2, 2)
    assert bare.stderr == asked.stdout
    assert unset.stderr.startswith("error: set JUDGE to the command that starts")


@pytest.mark.process
def test_local_passes_arguments_on_whole(recorded):
    tail = ["--no_local_rank", "--module", "aligndistill", "run", *ARGUMENTS]
    assert recorded("local.sh", *ARGUMENTS).stdout.splitlines() == ["deepspeed", *tail]
    assert recorded("local.sh", *ARGUMENTS, NUM_GPUS="4").stdout.splitlines() == ["deepspeed", "--num_gpus", "4", *tail]


@pytest.mark.process
def test_multinode_with_and_without_ssh(recorded, tmp_path: Path):
    hosts = str(ROOT / "launch/hostfile.example")
    head, tail = ["deepspeed", "--hostfile", hosts], ["--no_local_rank", "--module", "aligndistill", "run", *ARGUMENTS]
    by_ssh = recorded("multinode.sh", *ARGUMENTS, HOSTFILE=hosts)
    assert by_ssh.stdout.splitlines() == [*head, "--master_port", "29500", *tail]

    alone = recorded("multinode.sh", *ARGUMENTS, HOSTFILE=hosts, NODE_RANK="0", MASTER_ADDR="w1", MASTER_PORT="29600")
    rank = ["--master_port", "29600", "--no_ssh", "--node_rank", "0", "--master_addr", "w1"]
    assert alone.stdout.splitlines() == [*head, *rank, *tail]


@pytest.mark.process
def test_multinode_refuses_what_deepspeed_would_let_pass(recorded):
    missing = recorded("multinode.sh", *ARGUMENTS, HOSTFILE="nowhere")
    assert (missing.returncode, missing.stdout) == (2, "")
    assert "there is no hostfile 'nowhere'" in missing.stderr
    unaddressed = recorded("multinode.sh", *ARGUMENTS, HOSTFILE=str(ROOT / "launch/hostfile.example"), NODE_RANK="1")
    assert (unaddressed.returncode, unaddressed.stdout) == (2, "")


@pytest.mark.process
def test_slurm_starts_one_torchrun_a_node_and_meets_on_the_first(recorded):
    job = {
        "SLURM_JOB_ID": "42",
        "SLURM_JOB_NODELIST": "node-[7,9]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_GPUS_ON_NODE": "8",
        "SLURM_CPUS_PER_TASK": "32",
    }
    lines = recorded("slurm.sbatch", *ARGUMENTS, **job).stdout.splitlines()
    assert lines[:4] == ["srun", "--kill-on-bad-exit=1", "--cpus-per-task=32", "torchrun"]
    assert lines[lines.index("--rdzv-endpoint") + 1] == "node-7:29500"
    assert lines[lines.index("--nnodes") + 1] == "2"
    assert lines[-5:] == ["--module", "aligndistill", "run", *ARGUMENTS]
    assert recorded("slurm.sbatch", *ARGUMENTS).returncode == 2
    trained = recorded("slurm.sbatch", "configs/hh.yaml", "--until", "answers", **job).stdout.splitlines()
    assert trained[-3:] == ["configs/hh.yaml", "--until", "answers"]
