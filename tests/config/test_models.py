from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from aligndistill.config.load import load_config
from aligndistill.config.models import LocalModel, StudentModel
from aligndistill.config.yaml import dump_yaml
from tests.e2e.small_run import small_config


@pytest.mark.parametrize("word", ["auto", "off", "on"])
def test_the_mode_of_thinking_is_a_word_in_yaml(word: str, tmp_path: Path) -> None:
    """YAML 1.1 would read `off` as false."""
    (tmp_path / "mine.yaml").write_text(dump_yaml({**small_config(), "start": {"model": "a/b"}}))
    config = load_config([tmp_path / "mine.yaml"], [f"start.thinking={word}", "start.template_arguments={a: true, b: 1, c: x}"])
    assert config.start == StudentModel(model="a/b", thinking=word, template_arguments={"a": True, "b": 1, "c": "x"})  # type: ignore[arg-type]
    (tmp_path / "whole.yaml").write_text(dump_yaml(config.model_dump(mode="json", by_alias=True)))
    assert load_config([tmp_path / "whole.yaml"]).start == config.start


@pytest.mark.parametrize("given", [{"thinking": "off"}, {"template_arguments": {"a": 1}}, {"chat_template": "mine.jinja"}])
def test_a_model_without_a_template_of_its_own_takes_no_settings_for_one(given: dict[str, Any]) -> None:
    (key,) = given
    with pytest.raises(ValidationError, match=f"'{key}' has no effect with layout 'plain'"):
        LocalModel(model="a/b", layout="plain", **given)
    with pytest.raises(ValidationError, match=f"'{key}' has no effect on a model from scratch"):
        LocalModel.model_validate({"from_scratch": {}, **given})
    assert LocalModel(model="a/b", **given)


@pytest.mark.parametrize("name", ["messages", "add_generation_prompt", "a-b", "a b", "", "_a", "é"])
def test_an_argument_is_a_variable_that_the_template_does_not_get_anyway(name: str) -> None:
    with pytest.raises(ValidationError, match="cannot be set: give one of the template's own variables"):
        LocalModel(model="a/b", template_arguments={name: 1})
