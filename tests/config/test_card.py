from pathlib import Path

import pytest
from pydantic import ValidationError

from aligndistill.config.card import Card
from aligndistill.config.load import load_config
from aligndistill.errors import ConfigError


def test_licences_are_those_that_the_hub_lists() -> None:
    assert Card(license="apache-2.0").license == "apache-2.0"
    with pytest.raises(ValidationError, match=r"did you mean 'apache-2.0'"):
        Card(license="Apache 2.0")
    with pytest.raises(ValidationError, match="license: other, with license_name"):
        Card(license="my own")


def test_another_licence_has_a_name() -> None:
    assert Card(license="other", license_name="mine", license_link="https://example.org").license_name == "mine"
    with pytest.raises(ValidationError, match="needs 'license_name'"):
        Card(license="other")
    with pytest.raises(ValidationError, match="belong to license: other"):
        Card(license="mit", license_name="mine")


@pytest.mark.parametrize("code", ["english", "EN", "e", ""])
def test_languages_are_codes(code: str) -> None:
    assert Card(language=("en", "zh-Hans", "gsw")).language[1] == "zh-Hans"
    with pytest.raises(ValidationError):
        Card(language=(code,))


def test_mistakes_in_a_config_are_messages(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("name: x\ncard:\n  license: apache\n  language: [english]\n  licence_name: mine\n")
    with pytest.raises(ConfigError) as raised:
        load_config(tmp_path / "c.yaml")
    said = str(raised.value)
    assert "c.yaml:3: card.license: 'apache' is no identifier of a licence on the Hub (did you mean 'apache-2.0'?)" in said
    assert "c.yaml:4: card.language: 'english' is no code of a language, such as en or zh-Hans" in said
    assert "c.yaml:5: card.licence_name: unknown key; did you mean 'license_name'?" in said
