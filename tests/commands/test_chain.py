"""What is known of a chain before anything runs."""

from pathlib import Path
from typing import Any

import pytest

from aligndistill.commands.chain import Link, check_chain
from aligndistill.config.load import read_config
from aligndistill.config.models import Teacher
from aligndistill.errors import ConfigError, DataError
from tests.stages.finished_runs import config_of, write_run


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def link(name: str, **sections: Any) -> Link:
    return Link(Path(f"{name}.yaml"), config_of(name, **sections))


def student(run: str, name: str = "kd") -> dict[str, str]:
    return {"run": f"runs/{run}", "student": name}


def test_later_runs_may_name_students_of_earlier_and_of_finished_ones() -> None:
    write_run(config_of("finished"), dtype="auto", attn_implementation=None, thinking="auto")
    rounds = {"count": 2, "promotes": "kd"}
    check_chain([
        link("large", teacher=student("finished"), rounds=rounds),
        link("medium", teacher=student("large", "kd-r2")),
        link("small", teacher=student("large", "best_of_n"), start=student("medium")),
    ])  # fmt: skip
    assert not Path("runs/large").exists()


def test_the_shipped_chain_goes_from_large_to_small_beside_the_direct_way() -> None:
    folder = Path(__file__).parents[2] / "configs/chain"
    links = [
        Link(folder / f"{name}.yaml", read_config(folder / f"{name}.yaml", []).config) for name in ("medium", "small", "direct")
    ]
    check_chain(links)
    medium, small, direct = (one.config for one in links)
    assert medium.teacher == direct.teacher
    assert isinstance(small.teacher, Teacher)
    assert (small.teacher.run, small.teacher.student) == ("runs/quickstart-medium", "kd")
    same = {"name", "teacher"}
    assert small.model_dump(exclude=same) == direct.model_dump(exclude=same)
    widths = [one.from_scratch.hidden_size for one in (direct.teacher, medium.start, small.start) if one and one.from_scratch]
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize(
    ("links", "said"),
    [
        ([link("a"), link("b", teacher=student("a", "kt"))], r"b\.yaml: teacher\.student: the run 'runs/a' has no student 'kt'"),
        ([link("a", teacher=student("b")), link("b")], r"a\.yaml: teacher\.run: 'runs/b' is the run of b\.yaml, which does"),
        ([link("a", teacher=student("a"))], r"a\.yaml: teacher\.run: 'runs/a' is the run of a\.yaml"),
        ([link("a"), link("a")], r"a\.yaml: name: an earlier run of the chain is called 'a'"),
        ([link("a"), link("b", start=student("gone"))], r"b\.yaml: there is no run at 'runs/gone'"),
    ],
)  # fmt: skip
def test_a_chain_that_cannot_be_run(links: list[Link], said: str) -> None:
    with pytest.raises((ConfigError, DataError), match=f"^{said}"):
        check_chain(links)


def test_other_vocabularies_are_found_before_the_first_run() -> None:
    sizes, sft = {"vocab_size": 320, "hidden_size": 32}, {"demonstrations": {"path": "d.jsonl"}}
    large = link("large", start={"from_scratch": sizes}, sft=sft)
    check_chain([large, link("small", start={"from_scratch": {**sizes, "hidden_size": 16}}, sft=sft, teacher=student("large"))])
    other = link("small", start={"from_scratch": {**sizes, "vocab_size": 400}}, sft=sft, teacher=student("large"))
    with pytest.raises(ConfigError, match=r"^small\.yaml: .* one 'vocab_size' and one 'tokenizer_data'"):
        check_chain([large, other])
