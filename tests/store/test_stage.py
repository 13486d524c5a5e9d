"""What a fingerprint depends on, and what it does not."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aligndistill.config.data import Source
from aligndistill.config.judges import DOMAINS, TEMPLATES, Function, Listwise, Pairwise, Rubric
from aligndistill.config.labels import Labels, Revise
from aligndistill.config.models import EndpointModel, LocalModel
from aligndistill.config.objectives import Ppo, RolloutServer
from aligndistill.config.offline_objectives import Dpo
from aligndistill.config.run import RunConfig
from aligndistill.config.schema import marks
from aligndistill.config.section import NotHashed, Section
from aligndistill.config.students import Student
from aligndistill.store.stage import Stage, StageResult, hashed, stage, together, trains, with_folders

STUDENT = Student(objective=Dpo(kind="dpo", beta=0.1))
SERVER = EndpointModel(kind="endpoint", base_url="http://localhost:1/v1", name="m")


def make(context: Any, **given: Any) -> StageResult:
    return StageResult()


def make_other(context: Any, **given: Any) -> StageResult:
    return StageResult()


def of(function: Any = make, version: int = 1, **given: Any) -> str:
    return stage("s", function, version=version, **given).fingerprint


PROMPTS = stage("prompts", make, path="p")


@pytest.mark.process
def test_the_same_work_has_the_same_fingerprint_in_every_process() -> None:
    assert of(a=STUDENT, b={"b": 1, "a": Path("x")}) == of(b={"a": Path("x"), "b": 1}, a=STUDENT)
    code = (
        "from tests.store.test_stage import of, STUDENT, PROMPTS, SERVER;"
        "print(of(settings=STUDENT, prompts=PROMPTS, models={'teacher': SERVER}))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment).stdout
    assert printed.strip() == of(settings=STUDENT, prompts=PROMPTS, models={"teacher": SERVER})
    assert len(printed.strip()) == 16


@pytest.mark.parametrize(
    "other",
    [
        of(make_other, settings=STUDENT, prompts=PROMPTS),
        of(version=2, settings=STUDENT, prompts=PROMPTS),
        of(settings=STUDENT.model_copy(update={"learning_rate": 1e-3}), prompts=PROMPTS),
        of(settings=STUDENT.model_copy(update={"objective": Dpo(kind="dpo", beta=0.2)}), prompts=PROMPTS),
        of(settings=STUDENT, prompts=stage("prompts", make, path="q")),
        of(settings=STUDENT, prompts=stage("prompts", make_other, path="p")),
        of(settings=STUDENT, prompt=PROMPTS),
        of(settings=STUDENT, prompts=PROMPTS, more=PROMPTS),
        of(settings=STUDENT, prompts=PROMPTS, seed=0),
        of(settings=(STUDENT, 1), prompts=PROMPTS),
        of(settings=STUDENT, prompts={"prompts": PROMPTS}),
    ],
)
def test_whatever_changes_the_result_changes_the_fingerprint(other: str) -> None:
    assert other != of(settings=STUDENT, prompts=PROMPTS)


def test_names_and_what_is_waited_for_change_nothing() -> None:
    one, other = stage("one", make, prompts=PROMPTS), stage("other", make, prompts=PROMPTS, waits_for=PROMPTS)
    assert one.fingerprint == other.fingerprint
    renamed = stage("other name", make, path="p")
    assert of(prompts=renamed) == of(prompts=PROMPTS)


def test_what_is_not_hashed_reaches_the_function_and_changes_nothing() -> None:
    strict = stage("s", make, prompts=PROMPTS, not_hashed={"strict": True})
    assert strict.given == {"prompts": PROMPTS, "strict": True}
    assert strict.fingerprint == of(prompts=PROMPTS)


def test_equal_stages_share_the_folder_of_the_first(tmp_path: Path) -> None:
    one, other = stage("one", make, n=1), stage("other", make, n=1)
    assert other.folder(tmp_path) == tmp_path / f"other-{one.fingerprint}"
    (tmp_path / f"one-{one.fingerprint}.damaged-1").mkdir()
    assert other.folder(tmp_path) == tmp_path / f"other-{one.fingerprint}"
    one.folder(tmp_path).mkdir()
    assert other.folder(tmp_path) == one.folder(tmp_path) == tmp_path / f"one-{one.fingerprint}"


@pytest.mark.parametrize("change", [{"concurrency": 99}, {"timeout_seconds": 1.0}, {"max_retries": 0}, {"api_key_env": "OTHER"}])
def test_how_a_server_is_reached_changes_nothing(change: dict[str, Any]) -> None:
    other = SERVER.model_copy(update=change)
    assert of(model=other) == of(model=SERVER)
    assert of(models={"teacher": [other]}) == of(models={"teacher": [SERVER]})
    judges = [Pairwise(kind="pairwise", model=model) for model in (other, SERVER)]
    assert of(judge=judges[0]) == of(judge=judges[1])


@pytest.mark.parametrize("change", [{"name": "n"}, {"base_url": "http://localhost:2/v1"}])
def test_another_server_or_model_is_another_teacher(change: dict[str, Any]) -> None:
    assert of(model=SERVER.model_copy(update=change)) != of(model=SERVER)


def test_whether_a_server_samples_counts_and_not_which() -> None:
    def ppo(url: str | None) -> str:
        server = RolloutServer(base_url=url, name="m") if url else None
        return of(settings=Student(objective=Ppo(kind="ppo", server=server)))

    assert ppo("http://one/v1") == ppo("http://two/v1") != ppo(None)


def test_few_sections_have_fields_that_are_not_hashed() -> None:
    """Most fields are hashed; those that are not were marked one by one."""
    sections = [Section]
    for section in sections:
        sections += section.__subclasses__()
    assert RunConfig in sections
    ours = [section for section in sections if section.__module__.startswith("aligndistill.")]
    not_hashed = {section.__name__ for section in ours if any(NotHashed in found for found in marks(section).values())}
    weights_alone = {"LocalModel", "StudentModel", "Teacher", "OwnStart"}  # a model of another run is hashed by its content
    hashed_by_stages = {"Prompts", "FilteredPrompts", "StartSft", "Student"}  # as arguments of the stages that they decide on
    licences = {"Source", "LabelExamples"}
    asked = {"Candidates", "EndpointModel", "Evaluation", "FunctionModel", "RolloutServer"}
    described = {"RunConfig"}  # its `card` is what is published with a student
    assert not_hashed == asked | weights_alone | hashed_by_stages | licences | described


def test_a_key_that_was_added_later_counts_only_if_it_is_set(tmp_path: Path) -> None:
    """The keys of chat templates: configs without them keep their fingerprints."""
    template = tmp_path / "mine.jinja"
    template.write_text("a")
    plain = hashed(LocalModel(model="a/b"))
    assert not {"thinking", "template_arguments", "chat_template", "chat_template content"} & set(plain)
    assert hashed(LocalModel(model="a/b", thinking="auto", template_arguments={})) == plain
    given: list[dict[str, Any]] = [
        {"thinking": "off"},
        {"thinking": "on"},
        {"template_arguments": {"a": 1}},
        {"template_arguments": {"a": 2}},
        {"chat_template": str(template)},
    ]
    found = [of(settings=LocalModel(model="a/b", **one)) for one in given]
    template.write_text("b")
    found.append(of(settings=LocalModel(model="a/b", chat_template=str(template))))
    assert len({of(settings=LocalModel(model="a/b")), *found}) == 7


def test_a_file_that_a_section_names_counts_by_its_content(tmp_path: Path) -> None:
    data, template = tmp_path / "rows.jsonl", tmp_path / "template.txt"
    data.write_text("{}\n")
    template.write_text("{prompt}")
    source, judge = Source(path=str(data)), Pairwise(kind="pairwise", template=str(template))
    before = of(source=source), of(judge=judge), of(judge=Pairwise(kind="pairwise", template="general"))
    data.write_text("[]\n")
    template.write_text("{prompt}!")
    after = of(source=source), of(judge=judge), of(judge=Pairwise(kind="pairwise", template="general"))
    assert [one == other for one, other in zip(before, after, strict=True)] == [False, False, True]


BUILT_IN = [
    *(Pairwise(kind="pairwise", template=name) for name in TEMPLATES),
    *(Rubric(kind="rubric", domain=name) for name in DOMAINS),
    Listwise(kind="listwise", domain="law"),
    *(Labels(domain=name) for name in DOMAINS),
    Labels(domain="code").request,
    *(Revise(domain=name) for name in DOMAINS),
]
OF_ONES_OWN = [
    Pairwise(kind="pairwise", template="mine"),
    Rubric(kind="rubric", domain="mine"),
    Labels(domain="mine"),
    Labels(domain="mine").request,
    Labels(instruction="code", domain="code"),
    Revise(domain="mine"),
    Revise(principles="code", domain="code"),
]


def prints_with_files(settings: Section) -> list[str]:
    """Without, and with two contents of, files in the working directory that have the names of all that is built in."""
    found = [of(settings=settings)]
    for content in ("a", "b"):
        for name in ("mine", *TEMPLATES, *DOMAINS):
            Path(name).write_text(content)
        found.append(of(settings=settings))
    return found


@pytest.mark.parametrize(("settings", "different"), [*((one, 1) for one in BUILT_IN), *((one, 3) for one in OF_ONES_OWN)])
def test_a_file_counts_unless_its_name_is_that_of_something_built_in(
    settings: Section, different: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`domain: code` beside one's own code/: the built-in one is read."""
    monkeypatch.chdir(tmp_path)
    assert len(set(prints_with_files(settings))) == different


def test_the_module_of_a_function_counts_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("def score(prompt, responses): return [0.0]")
    judge = Function(kind="function", function="mine:score")
    before = of(judge=judge)
    (tmp_path / "mine.py").write_text("def score(prompt, responses): return [1.0]")
    assert of(judge=judge) != before


def test_what_has_no_fingerprint_is_refused() -> None:
    with pytest.raises(AssertionError, match="has no fingerprint"):
        hashed({"one": object()})


def test_upstream_comes_in_an_order_in_which_it_can_be_made() -> None:
    first = stage("first", make, n=1)
    second = stage("second", make, models={"a": first})
    audit = stage("audit", make, n=2)
    last = stage("last", make, inputs={"x": {"y": second}}, also=first, waits_for=audit)
    assert [one.name for one in last.upstream] == ["first", "second", "audit"]
    assert [one.name for one in last.inputs] == ["second", "first"]


def test_folders_take_the_place_of_stages() -> None:
    given = with_folders({"a": PROMPTS, "b": [1], "server": SERVER}, lambda one: Path(one.name))
    assert given == {"a": Path("prompts"), "b": [1], "server": SERVER}


def test_marks_on_functions() -> None:
    @together
    def shared(context: Any) -> StageResult:
        return StageResult()

    @trains
    def training(context: Any) -> StageResult:
        return StageResult()

    built: list[Stage] = [stage("s", function) for function in (make, shared, training)]
    assert [(one.together, one.trains) for one in built] == [(False, False), (True, False), (True, True)]


def test_sources_are_hashed_by_their_settings() -> None:
    assert of(source=Source(path="a.jsonl", columns={"prompt": "q"})) != of(source=Source(path="a.jsonl", columns={"prompt": "r"}))
    assert of(source=Source(path="a.jsonl", limit=5)) != of(source=Source(path="a.jsonl"))
