"""`import aligndistill as ad`: in a script, in a notebook's kernel, and as docs/python.md shows it."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

import aligndistill as ad
from aligndistill.runs.tables import TABLES
from tests.e2e.command import ENVIRONMENT, REPOSITORY, ForkServer
from tests.e2e.small_run import PROMPTS, read_rows, small_config, write_config, write_data

pytestmark = pytest.mark.process

DOCUMENTATION = (REPOSITORY / "docs/python.md").read_text()
STUDENTS = ["best_of_n", "dpo", "pro"]
LAZY = {"numpy", "pandas", "pydantic", "rich", "torch", "transformers", "typer"}

# Plans, is interrupted by what a notebook's stop button sends, resumes, and has nothing left to do.
SCRIPT = """
import json, os, signal, threading, time
from pathlib import Path
import aligndistill as ad

def interrupt():
    while not list(Path("runs/store").glob("reward_model-*")):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)

config = ad.load_config("my-run.yaml")
plan = ad.plan(config)
handler = signal.getsignal(signal.SIGINT)
threading.Thread(target=interrupt).start()
try:
    ad.run(config)
    interrupted = False
except KeyboardInterrupt:
    interrupted = True
part = ad.open_run("runs/my-run") if Path("runs/my-run").is_dir() else None
resumed = ad.run(config)
done = {
    "states": [stage.state for stage in plan.stages],
    "stages": [stage.name for stage in plan.stages],
    "requests": {row.stage: [row.prompts, row.requests] for row in plan.requests},
    "plan": str(plan),
    "interrupted": interrupted,
    "same_handler": signal.getsignal(signal.SIGINT) is handler,
    "resumed": resumed.made,
    "again": ad.run("my-run.yaml").made,
    "complete": resumed.complete,
}
Path("done.json").write_text(json.dumps(done))
"""


def python(folder: Path, code: str, program: str = sys.executable) -> subprocess.CompletedProcess[str]:
    environment = {**ENVIRONMENT, "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    return subprocess.run([program, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def folder(forked: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory in which `SCRIPT` was run."""
    folder = tmp_path_factory.mktemp("script")
    write_data(folder)
    write_config(folder / "my-run.yaml", {**small_config(), "name": "my-run"})
    ended = python(folder, SCRIPT, forked.python)
    assert ended.returncode == 0, ended.stderr
    return folder


@pytest.fixture(scope="module")
def done(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "done.json").read_text())


@pytest.fixture(scope="module")
def run(folder: Path) -> ad.Run:
    """Opened from another working directory than the one that it was made in."""
    return ad.open_run(folder / "runs/my-run")


def test_a_plan_is_data_and_a_text(done: dict[str, Any]) -> None:
    assert set(done["states"]) == {"to do"}
    assert {"prompts", "rankings", "student-dpo", "report"} <= set(done["stages"])
    assert done["requests"]["candidates"] == [PROMPTS, PROMPTS * 3]
    assert re.search(r"^candidates +start \(here\) +60 ", done["plan"], re.MULTILINE)
    assert re.search(r"^student-dpo( +[0-9.]+){6}$", done["plan"], re.MULTILINE)  # its memory


def test_an_interrupted_run_resumes_and_a_finished_one_does_nothing(done: dict[str, Any]) -> None:
    assert done["interrupted"]
    assert done["same_handler"]
    assert "rankings" not in done["resumed"]
    assert {"reward_model", "student-dpo", "report"} <= set(done["resumed"])
    assert (done["again"], done["complete"]) == ([], True)


def test_an_opened_run_is_what_was_run(folder: Path, run: ad.Run) -> None:
    assert run.config == ad.load_config(folder / "my-run.yaml")
    assert run.complete
    assert all((stage / "manifest.json").is_file() for stage in run.stages.values())
    assert run.report.model_dump(mode="json") == json.loads((folder / "runs/my-run/report.json").read_text())
    assert run.reward_model == run.stages["reward_model"] / "model"
    assert (run.reward_model / "model.safetensors").is_file()


def test_students_are_loaded_and_write(run: ad.Run) -> None:
    assert list(run.students) == STUDENTS
    student = run.students["dpo"]
    assert (student.objective, student.metrics) == ("dpo", run.report.students["dpo"])
    assert student.path.samefile(run.folder / run.report.students["dpo"].model)
    model, tokenizer = student.load()
    prompt = tokenizer("What is", return_tensors="pt")
    assert not model.training
    assert model.generate(**prompt, max_new_tokens=4, min_new_tokens=4).shape[1] == prompt["input_ids"].shape[1] + 4


@pytest.mark.parametrize(
    ("table", "stage", "file"),
    [
        ("prompts", "prompts", "prompts.jsonl"),
        ("candidates", "candidates", "candidates.jsonl"),
        ("verdicts", "verdicts", "verdicts.jsonl"),
        ("answers", "evaluation", "scored.jsonl"),
    ],
)
def test_a_table_has_a_row_for_each_record(run: ad.Run, table: str, stage: str, file: str) -> None:
    rows = read_rows(run.stages[stage] / file)
    found = run.table(table)
    assert len(found) == len(rows) > 0
    assert found["prompt_id"].tolist() == [row.get("prompt_id", row.get("id")) for row in rows]
    for column in set(rows[0]) & set(found) & {"text", "author", "value", "truth", "source"}:
        assert found[column].tolist() == [row[column] for row in rows]


def test_rankings_are_a_row_for_each_answer_best_first(run: ad.Run) -> None:
    rankings = run.table("rankings")
    rows = read_rows(run.stages["rankings"] / "rankings.jsonl")
    assert rankings["text"].tolist() == [response["text"] for row in rows for response in row["responses"]]
    for _, ranking in rankings.groupby("prompt_id", sort=False):
        assert ranking["rank"].tolist() == list(range(1, len(ranking) + 1))
        assert ranking["score"].is_monotonic_decreasing


def test_training_curves_are_a_table(folder: Path, run: ad.Run) -> None:
    curves = run.table("metrics")
    assert len(curves) == len(read_rows(folder / "runs/my-run/metrics.jsonl"))
    assert {"start", "teacher", "reward_model", *(f"student-{name}" for name in STUDENTS)} == set(curves["stage"])
    assert curves["loss"].notna().all()


def test_tables_have_the_documented_columns(run: ad.Run) -> None:
    documented = re.findall(r"^\| `(\w+)` \| an? .*? \| (`prompt_id`.*?) \|$", DOCUMENTATION, re.MULTILINE)
    assert [name for name, _ in documented] == ["prompts", "demonstrations", "candidates", "verdicts", "rankings", "answers"]
    for name, columns in documented:  # this run has read its demonstrations from a file
        found = TABLES[name].columns if name == "demonstrations" else run.table(name).columns
        assert re.findall(r"`(\w+)`", columns) == list(found)


def test_what_is_not_there_is_an_error(run: ad.Run, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ad.DataError, match=r"no table 'samples'.*prompts, demonstrations, candidates, verdicts, rankings, answers, metrics"
    ):
        run.table("samples")
    with pytest.raises(ad.DataError, match=r"nowhere.*artifacts\.json"):
        ad.open_run(tmp_path / "nowhere")
    with pytest.raises(ad.ConfigError, match="no such file"):
        ad.run(tmp_path / "nowhere.yaml")
    with pytest.raises(ad.ConfigError, match=r"no stage 'rankins'.*rankings"):
        ad.run(folder / "my-run.yaml", until="rankins")
    shutil.copytree(folder / "runs/my-run", tmp_path / "alone")
    with pytest.raises(ad.DataError, match="does not exist"):
        ad.open_run(tmp_path / "alone")


def test_a_run_without_a_report_says_how_to_get_one(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "runs", tmp_path / "runs")
    artifacts = tmp_path / "runs/my-run/artifacts.json"
    stages = json.loads(artifacts.read_text())
    artifacts.write_text(json.dumps({name: stages[name] for name in ("prompts", "rankings", "student-pro")}))
    part = ad.open_run(tmp_path / "runs/my-run")
    assert not part.complete
    assert {name: student.metrics for name, student in part.students.items()} == {"pro": None}
    assert part.reward_model is None
    with pytest.raises(ad.DataError, match=r"no report yet.*without `until`"):
        _ = part.report
    with pytest.raises(ad.DataError, match=r"no table 'answers'.*'evaluation' is not finished.*prompts, rankings"):
        part.table("answers")
    assert len(part.table("prompts")) == PROMPTS


def test_one_file_or_several_and_one_override_or_several(tmp_path: Path) -> None:
    write_config(tmp_path / "whole.yaml", small_config())
    (tmp_path / "seed.yaml").write_text("seed: 8\n")
    assert ad.load_config(tmp_path / "whole.yaml").seed == 3
    assert ad.load_config(str(tmp_path / "whole.yaml"), "seed=5").seed == 5
    both = ad.load_config([tmp_path / "whole.yaml", str(tmp_path / "seed.yaml")], ["candidates.per_prompt=2"])
    assert (both.seed, both.candidates.per_prompt) == (8, 2)
    assert isinstance(both, ad.RunConfig)
    with pytest.raises(ad.UserError, match=r"learning_rat.*did you mean 'learning_rate'"):
        ad.load_config(tmp_path / "whole.yaml", ["students.dpo.learning_rat=1"])


def test_what_the_documentation_shows_works(folder: Path, forked: ForkServer, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "docs")
    snippets = re.findall(r"^```python\n(.*?)^```$", DOCUMENTATION, re.MULTILINE | re.DOTALL)
    assert len(snippets) > 5
    ended = python(tmp_path / "docs", "\n".join(snippets), forked.python)
    assert ended.returncode == 0, ended.stderr


def test_the_notebook_runs_offline_and_shows_progress_in_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(REPOSITORY / "examples/quickstart.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "it is kept without outputs"
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(REPOSITORY / "examples")}}).execute()
    cells = {cell.source.partition("\n")[0]: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    outputs = cells["run = ad.run(config)"]
    printed = "".join(output.text for output in outputs if output.get("name") == "stdout")
    first, *others = printed.splitlines()
    assert first == "loading torch and transformers"
    assert all(line.startswith("  warning: ") for line in others)  # of the audit
    (progress,) = (output.data["text/plain"] for output in outputs if output.output_type == "display_data")
    names = [line.split()[0] for line in progress.splitlines()]
    assert {"start", "verdicts", "student-dpo"} < set(names)
    assert names[-1] == "report"
    assert "run" not in names  # the line of what is going on is gone
    assert cells["again = ad.run(config)"][0].data["text/plain"] == "()"
    assert "text/html" in cells['rankings = run.table("rankings")'][0].data
    views = {
        "run  # the result in short; report.html has all of it": "Leading student of 3",
        'worse = run.samples("worse", student="dpo")': "dpo, worse:",
        "learning_rate = 3e-3": "/other",
    }
    for first, shown in views.items():
        (view,) = (output.data["text/html"] for output in cells[first] if "text/html" in output.get("data", {}))
        assert 'class="aligndistill"' in view
        assert shown in view
        assert len(view) < 100_000


def test_the_import_is_instant_and_names_come_on_first_use(tmp_path: Path) -> None:
    ended = python(
        tmp_path,
        f"""
import os, sys
import aligndistill as ad
lazy = {LAZY!r}
assert not lazy & set(sys.modules), lazy & set(sys.modules)
assert "OMP_WAIT_POLICY" not in os.environ
assert set(dir(ad)) == {{*ad.__all__, "__version__"}}
assert not lazy & set(sys.modules)
assert issubclass(ad.BudgetError, ad.UserError)
assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE" and os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"
assert not lazy & set(sys.modules)
ad.load_config, ad.RunConfig, ad.run, ad.plan, ad.open_run, ad.Run
assert not {{"torch", "transformers", "pandas"}} & set(sys.modules)
from aligndistill import *
assert load_config is ad.load_config
try:
    ad.nothing
except AttributeError as error:
    assert "no attribute 'nothing'" in str(error)
else:
    raise AssertionError
""",
    )
    assert ended.returncode == 0, ended.stderr


def test_telemetry_is_off_even_where_the_hub_client_was_imported_before(tmp_path: Path) -> None:
    code = """
import os
import huggingface_hub.constants as constants
before = constants.HF_HUB_DISABLE_TELEMETRY
import aligndistill as ad
ad.UserError
print(before, constants.HF_HUB_DISABLE_TELEMETRY)
"""
    assert python(tmp_path, code).stdout.split() == ["False", "True"]
    chosen = code.replace("import os", "import os; os.environ['HF_HUB_DISABLE_TELEMETRY'] = '0'", 1)
    assert python(tmp_path, chosen).stdout.split() == ["False", "False"]
