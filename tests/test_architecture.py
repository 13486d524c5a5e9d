"""What the architecture promises: imports point one way, files have one subject, asking for help costs nothing, and whatever a
config may say becomes stages with fingerprints.
"""

import ast
import importlib
import io
import json
import pkgutil
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest

import aligndistill
from aligndistill.config.judges import Judge
from aligndistill.config.load import load_config
from aligndistill.config.models import EndpointModel
from aligndistill.config.objectives import Objective
from aligndistill.config.schema import alternatives, is_section, kind_of, marks
from aligndistill.config.section import NotHashed, Section
from aligndistill.pipeline import pipeline
from aligndistill.store import stage
from aligndistill.store.stage import hashed
from tests.e2e.command import command
from tests.e2e.small_run import small_config, write_config, write_data
from tests.imports import HEAVY, TOLD, imported

PACKAGE = Path(aligndistill.__file__).parent

# Each package (or file at the root) and what it may import of ours; all may import `errors`.
BELOW_STAGES = {
    *(
        "chat",
        "config",
        "data",
        "elicitation",
        "evaluation",
        "judges",
        "models",
        "objectives",
        "preferences",
        "processes",
        "records",
        "reporting",
    ),
    *("store", "training"),
}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "records": set(),
    "objectives": set(),
    "config": set(),
    "processes": {"config"},
    "store": {"config", "records"},
    "data": {"config", "records"},
    "models": {"config", "records"},
    "evaluation": {"records"},
    "preferences": {"config", "records"},
    "reporting": {"evaluation", "records"},
    "chat": {"config", "models", "records"},
    "judges": {"chat", "config", "models", "preferences", "records", "store"},
    "elicitation": {"chat", "config", "data", "evaluation", "records"},
    "training": {"chat", "config", "models", "objectives", "processes", "records", "store"},
    "stages": BELOW_STAGES,
    "graph": {"config", "stages", "store"},
    "pipeline": {"config", "graph", "stages", "store"},
    "runs": {"chat", "config", "evaluation", "pipeline", "processes", "records", "reporting", "stages", "store"},
    "commands": {*BELOW_STAGES, "pipeline", "runs", "stages"},
    "cli": {"commands", "config", "processes", "reporting"},
    "__main__": {"cli"},
    "__init__": {"commands", "config", "processes", "runs"},  # on first use of a name
}
ROOT_FILES = {"__init__", "__main__", "errors", "pipeline", "records"}
PAIRWISE = {"kind": "pairwise", "model": "server", "comparisons": "all"}
VAGUE_NAMES = {"util", "utils", "helper", "helpers", "common", "misc", "manager", "managers", "base", "core"}


def modules() -> Iterator[tuple[str, Path]]:
    """Every module by its dotted name."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


@cache
def tree(path: Path) -> ast.Module:
    """A file, parsed once for all tests."""
    return ast.parse(path.read_text())


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports, wherever in it."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names) if node.module == "aligndistill" else (node.module,)


def package(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def test_every_package_imports_only_what_it_may() -> None:
    found: dict[str, set[str]] = {}
    for module, path in modules():
        of_ours = {package(name) for name in imports(path) if name.startswith("aligndistill.")}
        found.setdefault(package(module), set()).update(of_ours - {package(module), "errors"})
    assert found.keys() == MAY_IMPORT.keys(), "a new or removed package changes the picture"
    wrong = {name: packages - MAY_IMPORT[name] for name, packages in found.items() if packages - MAY_IMPORT[name]}
    assert not wrong


def test_the_root_holds_few_files() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == ROOT_FILES


def test_no_package_imports_what_imports_it() -> None:
    seen: set[str] = set()
    waiting = dict(MAY_IMPORT)
    while waiting:
        free = {name for name, needed in waiting.items() if needed <= seen}
        assert free, f"these import each other: {sorted(waiting)}"
        seen |= free
        waiting = {name: needed for name, needed in waiting.items() if name not in free}


def test_the_api_is_a_dozen_names_and_no_other_module_lists_its_own() -> None:
    assert len(aligndistill.__all__) <= 12
    assert {name for name, path in modules() if "__all__" in path.read_text()} == {"aligndistill"}
    for name in aligndistill.__all__:
        assert getattr(aligndistill, name).__doc__, name


def test_objectives_are_torch_and_nothing_else() -> None:
    for path in (PACKAGE / "objectives").glob("*.py"):
        for name in imports(path):
            assert name.split(".")[0] in {"torch", *sys.stdlib_module_names} or name.startswith("aligndistill.objectives"), (
                f"{path.name} imports {name}"
            )


def test_names_say_what_a_file_is_about() -> None:
    for module, path in modules():
        assert not VAGUE_NAMES & set(module.split(".")), module
        assert len(path.read_text().splitlines()) <= 500, f"{module} is about more than one thing"


@pytest.mark.parametrize("module", sorted(name for _, name, _ in pkgutil.walk_packages([str(PACKAGE)], "aligndistill.")))
def test_every_module_can_be_imported(module: str) -> None:
    if not module.endswith("__main__"):
        importlib.import_module(module)


@pytest.mark.process
def test_help_costs_nothing(tmp_path: Path) -> None:
    asked = command(tmp_path, "--help", environment=TOLD)
    assert "run" in asked.output
    assert "typer" in imported(asked)
    assert not imported(asked) & {*HEAVY, "pydantic"}


# ------------------------------------------------------------------------------------- sections, fingerprints and pipelines


def sections(of: type[Section] = Section) -> Iterator[type[Section]]:
    """Every section that the package defines."""
    for module in pkgutil.iter_modules([str(PACKAGE / "config")], "aligndistill.config."):
        importlib.import_module(module.name)
    for section in of.__subclasses__():
        if section.__module__.startswith("aligndistill."):
            yield section
            yield from sections(section)


PLAIN_VALUES: dict[Any, Any] = {str: "a", Any: "a", int: 1, float: 0.5, bool: True, Path: Path("a")}


def values_of(annotation: Any) -> Iterator[Any]:
    """A value of each alternative of a field's type."""
    for choice in alternatives(annotation):
        inside = get_args(choice)
        if is_section(choice):
            yield filled(choice)
        elif get_origin(choice) is Literal:
            yield inside[0]
        elif get_origin(choice) is tuple:
            yield from ((one,) for one in values_of(inside[0]))
        elif get_origin(choice) in (dict, Mapping):
            yield from ({"a": one} for one in values_of(inside[1]))
        else:
            yield PLAIN_VALUES[choice]


def filled(section: type[Section], **given: Any) -> Section:
    """A section in which nothing is null."""
    values = {name: next(values_of(field.annotation)) for name, field in section.model_fields.items()}
    return section.model_construct(**{**values, **given})


@pytest.mark.parametrize("section", sorted(set(sections()), key=str), ids=lambda section: section.__name__)
def test_whatever_a_section_says_has_a_fingerprint(section: type[Section]) -> None:
    """Each of its fields, in each of its alternatives, is told apart from null by its hash, or not looked at."""
    for name, field in section.model_fields.items():
        without = json.dumps(hashed(filled(section, **{name: None})))
        for value in values_of(field.annotation):
            told = json.dumps(hashed(filled(section, **{name: value}))) != without
            assert told == (NotHashed not in marks(section)[name]), (name, value)


CONFIGS = PACKAGE.parent / "configs"
RUNS = sorted(CONFIGS.glob("*.yaml"))
OVERLAYS = sorted([*CONFIGS.glob("objectives/*.yaml"), *CONFIGS.glob("judges/*.yaml"), *CONFIGS.glob("loops/*.yaml")])
OVERLAID = [CONFIGS / f"{name}.yaml" for name in ("quickstart", "hh", "ultrafeedback")]  # tests/config/test_shipped_configs.py
SHIPPED = [*((run,) for run in RUNS), *((run, overlay) for run in OVERLAID for overlay in OVERLAYS)]


@pytest.mark.parametrize("paths", SHIPPED, ids=lambda paths: "-".join(path.stem for path in paths))
def test_every_shipped_config_is_a_pipeline_of_stages_that_can_be_called(
    paths: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files that they name need not be here."""
    monkeypatch.setattr(stage, "content_fingerprint", lambda path: "its content")
    asks_server = paths[-1].stem == "likelihood" and isinstance(load_config(paths[:1]).teacher, EndpointModel)
    is_distilled = paths[-1].stem.endswith("distil")  # needs one tokenizer for both models
    teacher = ["teacher={kind: local, model: some/teacher, from_scratch: null}"] if asks_server or is_distilled else []
    needs_model = is_distilled or paths[-1].stem == "star"  # a start from scratch has nothing to label with
    graded = ["students.ppo_teacher=null"] if paths[0].stem == "quickstart" and paths[-1].stem in ("author", "spin") else []
    start = ["start={model: some/start, from_scratch: null}"] if needs_model else []
    config = load_config(paths, [*teacher, *graded, *start])
    stages = pipeline(config).stages
    names = [one.name for one in stages]
    assert len(set(names)) == len(names)
    assert {f"student-{name}" for name in config.students} <= set(names)
    for number, one in enumerate(stages):
        assert set(one.upstream) <= set(stages[:number])
        assert len(one.fingerprint) == 16


@pytest.mark.process
@pytest.mark.parametrize("about", ["check", "plan"])
def test_what_only_looks_imports_no_library_that_computes(tmp_path: Path, about: str) -> None:
    """With models here and behind servers, judges that compare and that score, students that rank and that sample.

    What a run with nothing to do imports: tests/e2e/test_again.py.
    """
    write_data(tmp_path)
    config = small_config()
    config["models"] = {"server": {"kind": "endpoint", "base_url": "http://localhost/v1", "name": "m"}}
    config["judge"] = {"kind": "panel", "members": {"one": {"judge": config["judge"]}, "two": {"judge": PAIRWISE}}}
    config["students"]["ppo"] = {"objective": {"kind": "ppo"}, "batch_size": 16, "max_steps": 4}
    write_config(tmp_path / "small.yaml", config)
    ended = command(tmp_path, about, "small.yaml", environment={**TOLD, "CUDA_VISIBLE_DEVICES": ""})
    assert ended.code == 0, ended.output
    if about == "plan":
        assert "student-ppo" in ended.output.partition("training memory per process")[2]
    assert "pydantic" in imported(ended)
    assert not imported(ended) & HEAVY


@pytest.mark.process
def test_the_audit_of_a_run_loads_neither_judges_nor_reports() -> None:
    """It reads verdicts and prints a table: in less than a second of a processor's time, with the schema."""
    code = "import sys, aligndistill.commands.audit; print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    found = set(ended.stdout.split())
    assert "aligndistill.stages.audit" in found
    assert not found & {"aligndistill.judges.pairwise", "aligndistill.stages.verdicts", "aligndistill.runs.report_files", *HEAVY}


@pytest.mark.process
def test_the_package_itself_loads_none_of_its_modules() -> None:
    code = "import sys, aligndistill; sys.exit(any(name.startswith('aligndistill.') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, timeout=60, check=False).returncode == 0


@pytest.mark.process
def test_a_pipeline_is_built_without_torch() -> None:
    code = "import sys, aligndistill.pipeline; sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, timeout=60, check=False).returncode == 0


# --------------------------------------------------------------------------------------------------------- sizes and names


def definitions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node


def test_files_and_functions_are_short() -> None:
    files = {module: len(path.read_text().splitlines()) for module, path in modules()}
    assert {module: lines for module, lines in files.items() if lines > 330} == {}
    functions = {
        f"{module}.{node.name}": length
        for module, path in modules()
        for node in definitions(path)
        if not isinstance(node, ast.ClassDef) and (length := (node.end_lineno or 0) - node.lineno + 1) > 60
    }
    assert functions == {}


def test_the_pipeline_can_be_read_in_one_go() -> None:
    """A new stage adds a line or two, so the limit leaves room for some."""
    assert len((PACKAGE / "pipeline.py").read_text().splitlines()) <= 110


def test_a_public_class_name_means_one_thing() -> None:
    places: dict[str, list[str]] = {}
    for module, path in modules():
        for node in tree(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(module)
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def kinds_of(union: Any) -> set[str]:
    return {kind for choice in alternatives(union) if (kind := kind_of(choice))}


def test_every_kind_has_an_overlay_and_a_place_in_the_docs() -> None:
    objectives, judges = kinds_of(Objective), kinds_of(Judge)
    assert objectives <= {path.stem for path in (CONFIGS / "objectives").glob("*.yaml")}
    assert judges <= {path.stem.removesuffix("_endpoint").removesuffix("_local") for path in (CONFIGS / "judges").glob("*.yaml")}
    for page, kinds in (("objectives", objectives), ("judges", judges)):
        text = (PACKAGE.parent / f"docs/{page}.md").read_text()
        assert {kind for kind in kinds if f"`{kind}`" not in text and f"kind: {kind}" not in text} == set()


# ------------------------------------------------------------------------------------------------------------------ words

REPLACED_WORDS = (
    *("mend", "mends", "mended", "anew", "heed", "heeds", "heeded", "whoever", "beforehand", "nobody", "perhaps", "learnt"),
    *("sign of life", "without a word", "for want of", "to the letter", "made again", "goes on from", "go on from"),
    *("same command goes on", "give the same command", "given the same command", "taken up", "takes up again", "told again"),
    *("roll call", "heard of for", "died without", "smallworld", "small world", "half a question", "set aside", "sets aside"),
    *("passed over", "passes over", "what came of it", "at work in", "going on from", "only its echo", "our own mistakes"),
    *("fault of ours", "cannot be said", "takes it away", "take this section out", "say false", "rooms meet"),
)
"""Not in messages, docstrings and docs."""

REPLACED_NAMES = {
    *("RollCall", "Presence", "Made", "Work", "Manner", "PLAINLY", "Opinion", "Opinions", "Asking", "WorkedExample", "Standing"),
    *("Contest", "Delivery", "Order", "Written", "KeptGrades", "Found", "GaveUp", "Denied", "Refused", "Transient", "HELLO"),
    *("Pace", "Turn", "Spent", "Payment", "Watched", "Watch", "MadeBy", "Served", "ServedPolicy", "Gap", "Picked", "LaidOut"),
    *("LazySequence", "Exchange", "ScoredExchange", "LaunchedError", "HERE", "SHARED_OUT", "MOST_MADE_UP"),
    *("SECONDS_BETWEEN_LOOKS", "SECONDS_BETWEEN_BEATS", "SECONDS_FOR_THE_OTHERS_TO_LEAVE", "_teach_head"),
    *("keep_in_flight", "hand_over", "whole_weights", "make_taught_model", "went_unanswered", "mark_for", "hardened"),
    *("_leave_word", "_told_again", "has_said", "own_wins", "same_again", "newest_sound_checkpoint", "judge_advantage"),
}
"""Not among identifiers."""

REPOSITORY = PACKAGE.parent
CHECKED_FILES = sorted(
    path
    for pattern in (
        "aligndistill/**/*.py",
        "benchmarks/**/*.py",
        "examples/**/*.py",
        "**/*.md",
        "**/*.yaml",
        "aligndistill/**/*.j2",
    )
    for path in REPOSITORY.glob(pattern)
    if not {".venv", "runs", "results", "shared"} & set(path.relative_to(REPOSITORY).parts[:-1])
)


@cache
def tokens(path: Path) -> list[tokenize.TokenInfo]:
    """A Python file's tokens: slow, so only of a file that may hold what must not come back."""
    return list(tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline))


@cache
def single_words(path: Path) -> frozenset[str]:
    """All words of a file, identifiers among them."""
    return frozenset(re.findall(r"\w+", path.read_text(encoding="utf-8")))


def words_of(path: Path) -> str:
    """What people read in a file: all of it; of Python the texts and comments, identifiers in backticks aside."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        kinds = {tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
        text = "\n".join(token.string for token in tokens(path) if token.type in kinds)
    elif path.name == "CHANGELOG.md":  # it names what was renamed
        text = re.sub(r"`[^`\n]+`", "", text)
    return re.sub(r"\s+(?:# )?", " ", text)


@pytest.mark.parametrize("path", CHECKED_FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_replaced_words_do_not_come_back(path: Path) -> None:
    there = {word.lower() for word in single_words(path)}
    possible = [phrase for phrase in REPLACED_WORDS if there.issuperset(phrase.split())]
    text = words_of(path).lower() if possible else ""
    assert not [phrase for phrase in possible if re.search(rf"\b{re.escape(phrase)}\b", text)]


@pytest.mark.parametrize(
    "path", [one for one in CHECKED_FILES if one.suffix == ".py"], ids=lambda path: str(path.relative_to(REPOSITORY))
)
def test_replaced_names_do_not_come_back(path: Path) -> None:
    possible = single_words(path) & REPLACED_NAMES
    names = {token.string for token in tokens(path) if token.type == tokenize.NAME} if possible else set()
    assert not sorted(possible & names)
