"""Students of other runs as models of this one."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from aligndistill.commands.check.check import as_read
from aligndistill.config.load import dump_config, load_config
from aligndistill.config.models import LocalModel, Teacher
from aligndistill.config.run import RunConfig
from aligndistill.errors import ConfigError, DataError
from aligndistill.pipeline import pipeline
from aligndistill.stages.chains import chain_models, models_of_runs, require_one_tokenizer, with_folder, with_models_of_runs
from tests.stages.finished_runs import config_of, write_model, write_run

KD = {"run": "runs/medium", "student": "kd"}
SAVED = {"dtype": "bfloat16", "attn_implementation": None, "thinking": "off"}
ROUNDS = {"count": 2, "promotes": "kd"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory, with prompts and the start."""
    monkeypatch.chdir(tmp_path)
    Path("prompts.jsonl").write_text('{"prompt": "one"}\n')
    write_model(Path("start"))


def test_a_student_brings_its_folder_and_its_layout() -> None:
    student = write_run(config_of("medium"), **SAVED)
    config = with_models_of_runs(config_of("small", teacher=KD, models={"own": {**KD, "dtype": "float32"}}))
    for model, dtype in ((config.teacher, "bfloat16"), (config.models["own"], "float32")):
        assert isinstance(model, LocalModel)
        assert (model.model, model.layout, model.dtype, model.thinking) == (
            str(student.absolute() / "model"),
            "plain",
            dtype,
            "off",
        )


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"run": "runs/mediun", "student": "kd"}, "there is no run at 'runs/mediun': run its config first"),
        ({"run": "runs/medium", "student": "kb"}, "has no student 'kb' (it has best_of_n, kd)"),
        ({"run": "runs/medium", "student": "best_of_n"}, "has not finished its student 'best_of_n': run its config again"),
        ({"run": "runs/few", "student": "kd"}, "saved as adapters on a model in few bits: set start.quantize.export to 'merged'"),
        ({"run": "runs/half", "student": "kd"}, "has not finished its student 'kd'"),
    ],
)
def test_a_student_that_is_not_there(model: dict[str, str], said: str) -> None:
    write_run(config_of("medium"), **SAVED)
    write_run(config_of("few"), **{**SAVED, "adapter": "model"})
    write_run(config_of("half"), finished=False)
    with pytest.raises(DataError) as error:
        with_folder(Teacher.model_validate(model))
    assert said in str(error.value)
    with pytest.raises(DataError, match=r"^teacher: "):
        pipeline(config_of("small", teacher=model))


def test_a_student_whose_files_are_gone_is_not_finished() -> None:
    student = write_run(config_of("medium"), **SAVED)
    (student / "model" / "model.safetensors").unlink()
    with pytest.raises(DataError, match="has not finished its student 'kd'"):
        with_folder(Teacher.model_validate(KD))


@pytest.mark.parametrize("more", [{"layout": "plain"}, {"model": "./start"}, {"thinking": "on"}, {"student": None}])
def test_what_a_student_brings_cannot_be_set(more: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"brings its own|belong together"):
        Teacher.model_validate({**KD, **more})


def fingerprints(**sections: Any) -> dict[str, str]:
    return fingerprints_of(config_of("small", **sections))


def fingerprints_of(config: RunConfig) -> dict[str, str]:
    return {stage.name: stage.fingerprint for stage in pipeline(config).stages}


OWN = {"objective": {"kind": "dpo"}, "start": KD}
INLINE = {"kind": "pairwise", "model": KD}


@pytest.mark.parametrize(
    "sections",
    [
        {"start": KD},
        {"start": {**KD, "dtype": "auto", "attn_implementation": "eager"}},
        {"teacher": KD},
        {"models": {"judge": KD}, "judge": {"kind": "likelihood", "model": "judge"}},
        {"students": {"dpo": OWN}},
        {
            "judge": {
                "kind": "panel",
                "members": {"one": {"judge": INLINE}, "two": {"judge": {"kind": "pairwise", "model": "start"}}},
            }
        },
        {"reward_model": {"model": KD}},
    ],
)
def test_a_config_that_was_written_out_uses_what_the_student_brings(sections: dict[str, Any]) -> None:
    """The processes of a launcher read one, and so does who runs the config of a run's folder again."""
    write_run(config_of("medium"), **{**SAVED, "layout": "transcript", "thinking": "auto"})
    config = config_of("small", **sections)
    (folder := Path("written")).mkdir()
    for name, one in (("config", config), ("as_read", as_read(config))):
        (folder / f"{name}.yaml").write_text(dump_config(one))
        again = load_config(folder / f"{name}.yaml")
        assert again == one
        stages, now = fingerprints_of(one), fingerprints_of(again)
        assert now == stages
    for _, model in models_of_runs(with_models_of_runs(config)):
        assert model.layout == "transcript"


def test_the_content_of_the_model_decides_and_not_its_path() -> None:
    write_run(config_of("medium"), **SAVED)
    before = fingerprints(teacher=KD)
    write_run(config_of("same"), **SAVED)
    write_run(config_of("other"), weights=b"v", **SAVED)
    same, other = (fingerprints(teacher={"run": f"runs/{name}", "student": "kd"}) for name in ("same", "other"))
    assert before["student-kd"] == same["student-kd"] != other["student-kd"]
    as_start = [fingerprints(start={"run": f"runs/{name}", "student": "kd"})["start"] for name in ("medium", "same", "other")]
    assert as_start[0] == as_start[1] != as_start[2]


def test_one_student_of_a_run_is_enough(tmp_path: Path) -> None:
    """Other stages of it may be deleted."""
    student = write_run(config_of("medium"), **SAVED)
    artifacts = tmp_path / "runs/medium/artifacts.json"
    artifacts.write_text(artifacts.read_text().replace("{", '{"candidates": "runs/store/gone", ', 1))
    assert with_folder(Teacher.model_validate(KD)).model == str(student.absolute() / "model")


# --------------------------------------------------------------------------------------------------------- tokenizers

SIZES = {"vocab_size": 320, "hidden_size": 32, "num_attention_heads": 2}
DATA = {"path": "demonstrations.jsonl"}
SFT = {"demonstrations": DATA}


def test_a_student_has_the_tokenizer_of_its_start() -> None:
    write_run(config_of("medium"), **SAVED)
    require_one_tokenizer(config_of("small", teacher=KD))
    write_model(Path("foreign"), {"b": 0, "a": 1})
    foreign = config_of("small", teacher=KD, start={"model": "./foreign"})
    with pytest.raises(ConfigError, match="another tokenizer than the student: id 0 is"):
        require_one_tokenizer(foreign)
    with pytest.raises(ConfigError, match="another tokenizer"):
        pipeline(foreign)


@pytest.mark.parametrize(
    ("start", "sft", "fits"),
    [
        ({"from_scratch": {**SIZES, "hidden_size": 16}}, SFT, True),
        ({"from_scratch": {**SIZES, "tokenizer_data": DATA}}, {"demonstrations": {"path": "others.jsonl"}}, True),
        ({"from_scratch": {**SIZES, "vocab_size": 400}}, SFT, False),
        ({"from_scratch": SIZES}, {"demonstrations": {"path": "others.jsonl"}}, False),
        ({"model": "./start"}, None, False),
    ],
)
def test_new_models_of_a_chain_have_one_tokenizer_by_their_settings(
    start: dict[str, Any], sft: dict[str, Any] | None, fits: bool
) -> None:
    write_run(config_of("medium", start={"from_scratch": SIZES}, sft=SFT, students={"kd": {"objective": {"kind": "dpo"}}}), **SAVED)
    config = config_of("small", teacher=KD, start=start, sft=sft)
    if fits:
        require_one_tokenizer(config)
    else:
        with pytest.raises(ConfigError, match="one 'vocab_size' and one 'tokenizer_data'"):
            require_one_tokenizer(config)
    by_text = config.model_copy(update={"students": {}})
    require_one_tokenizer(by_text)  # which judges, and is not distilled token by token


@pytest.mark.parametrize(
    ("more", "student", "vocab_size"),
    [
        ({}, "kd", 400),
        ({}, "other", 320),
        ({}, "best_of_n", 320),
        ({"seeds": [3, 4]}, "kd-s4", 400),
        ({"seeds": [3, 4]}, "other-s3", 320),
    ],
)
def test_a_student_with_a_start_of_its_own_has_that_ones_tokenizer(more: dict[str, Any], student: str, vocab_size: int) -> None:
    own = {"from_scratch": {**SIZES, "vocab_size": 400}, "sft": SFT}
    students = {"kd": {"objective": {"kind": "dpo"}, "start": own}, "other": {"objective": {"kind": "dpo"}}}
    write_run(config_of("medium", start={"from_scratch": SIZES}, sft=SFT, students=students, **more), **SAVED)
    teacher = {"run": "runs/medium", "student": student}
    sizes = {size: {"from_scratch": {**SIZES, "vocab_size": size}} for size in (320, 400)}
    require_one_tokenizer(config_of("small", teacher=teacher, start=sizes.pop(vocab_size), sft=SFT))
    (other,) = sizes.values()
    with pytest.raises(ConfigError, match="one 'vocab_size' and one 'tokenizer_data'"):
        require_one_tokenizer(config_of("small", teacher=teacher, start=other, sft=SFT))


# ------------------------------------------------------------------------------------------------------------ chain_models


def test_all_teachers_of_a_chain_are_listed() -> None:
    endpoint = {"kind": "endpoint", "base_url": "http://localhost:1/v1", "name": "large"}
    write_run(config_of("medium", teacher=endpoint, judge={"kind": "pairwise"}, students={}), **SAVED)
    found = chain_models(config_of("small", teacher=KD))
    assert [(one.run, one.role, one.model) for one in found] == [
        ("small", "start", "./start"),
        ("small", "teacher", "runs/medium: kd"),
        ("medium", "start", "./start"),
        ("medium", "teacher", "large at http://localhost:1/v1"),
    ]


def test_a_run_that_names_itself_ends() -> None:
    write_run(config_of("medium"), **SAVED)
    shutil.copy("runs/medium/config.yaml", "c.yaml")
    itself = config_of("medium", teacher=KD)
    assert len(chain_models(itself)) == 2
