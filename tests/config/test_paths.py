"""`~` in a config is the home folder, whatever the path is of."""

from pathlib import Path
from typing import Any

import pytest

from aligndistill.config.judges import Pairwise
from aligndistill.config.load import load_config
from aligndistill.config.yaml import dump_yaml
from aligndistill.errors import ConfigError
from aligndistill.judges.domains import RUBRIC, domain_file
from aligndistill.judges.templates import PAIRWISE_FIELDS, load_template
from aligndistill.models.folder import require_model
from aligndistill.pipeline import pipeline
from aligndistill.store.stage import hashed


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a prompt, a judge's template and an empty model in it; another folder is the working directory."""
    home, here = tmp_path / "home", tmp_path / "here"
    for folder in (home / "model", here):
        folder.mkdir(parents=True)
    (home / "p.jsonl").write_text('{"prompt": "one"}\n')
    (home / "t.txt").write_text("{prompt} {first} {second}")
    for name in ("config.json", "model.safetensors"):
        (home / "model" / name).write_text("{}")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    return home


def write(file: Path, at: str, **sections: Any) -> None:
    values = {
        "name": "x",
        "prompts": {"source": {"path": f"{at}/p.jsonl"}},
        "start": {"model": f"{at}/model", "layout": "plain"},
        "teacher": {"model": f"{at}/model", "layout": "plain"},
        "judge": {"kind": "pairwise", "template": f"{at}/t.txt"},
        "evaluation": {"judge": {"kind": "reward_model", "model": f"{at}/model"}},
        "students": {"dpo": {"objective": {"kind": "dpo"}}},
        "models": {
            "server": {"kind": "endpoint", "base_url": "http://localhost/v1", "name": "m", "tokenizer": f"{at}/model"},
            "other": {"run": f"{at}/runs/other", "student": "dpo"},
        },
        "runtime": {"store": f"{at}/s", "runs": f"{at}/r", "deepspeed": f"{at}/zero.json"},
        **sections,
    }
    file.write_text(dump_yaml(values))


def test_it_is_read_as_the_whole_path_is(home: Path) -> None:
    write(home / "c.yaml", "~")
    write(Path("whole.yaml"), str(home))
    config, whole = load_config("~/c.yaml"), load_config("whole.yaml")
    assert config.prompts is not None
    assert config.prompts.source.path == "~/p.jsonl"  # is hashed as it was written, and always was
    same = config.prompts.model_copy(update={"source": config.prompts.source.model_copy(update={"path": f"{home}/p.jsonl"})})
    assert config.model_copy(update={"prompts": same}) == whole
    assert config.runtime.store == home / "s"
    assert config.start is not None
    assert isinstance(config.judge, Pairwise)
    require_model(str(config.start.model))
    assert load_template(config.judge.template, PAIRWISE_FIELDS).text.startswith("{prompt}")
    assert hashed(config.start)["model content"] == hashed(whole.start)["model content"] != ""


def test_the_home_of_nobody_is_a_path_where_nothing_is() -> None:
    with pytest.raises(ConfigError, match="there is no domain '~no-such-user/d'"):
        domain_file("~no-such-user/d", RUBRIC)
    write(Path("c.yaml"), "~no-such-user", models={})
    pipeline(load_config("c.yaml"))


@pytest.mark.parametrize("many", [64, 2000])
def test_a_text_in_the_place_of_a_path_is_named(many: int) -> None:
    """Longer than a file's name can be, or with slashes longer than a path."""
    text = " and/or "[: 8 if many > 64 else 4] * many
    label = {"model": "teacher", "instruction": text, "domain": text}
    judge = {"kind": "pairwise", "template": text, "domain": text}
    write(Path("c.yaml"), "~", judge=judge, sft={"demonstrations": {"label": label}}, start={"model": text, "layout": "plain"})
    with pytest.raises(ConfigError) as caught:
        load_config("c.yaml")
    found = {line.split(": ")[1] for line in str(caught.value).splitlines() if f"a name of {len(text)} characters" in line}
    of_label = {f"sft.demonstrations.label.{key}" for key in ("instruction", "domain")}
    assert found == {"start.model", "judge.template", "judge.domain", *of_label}


def test_the_longest_name_of_a_file_is_read(home: Path) -> None:
    name = "ä" * 125 + "t.txt"  # 255 bytes
    (home / "t.txt").rename(home / name)
    write(Path("c.yaml"), "~", judge={"kind": "pairwise", "template": f"~/{name}"})
    config = load_config("c.yaml")
    assert isinstance(config.judge, Pairwise)
    assert hashed(config.judge)["template content"] != ""
    assert hashed(config.judge.model_copy(update={"template": 2 * name}))["template content"] == ""
