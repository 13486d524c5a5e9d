import pytest
from pydantic import ValidationError

from aligndistill.config.card import Card


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
