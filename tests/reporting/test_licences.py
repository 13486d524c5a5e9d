import pytest

from aligndistill.reporting.licences import licence_warnings
from aligndistill.reporting.provenance import DataOrigin, ModelOrigin, Origins


def warned(license: str | None, base: str | None = "start", **of_start: str) -> list[str]:
    start = ModelOrigin.model_validate({"name": "start", "model": "org/base", "licence": "apache-2.0", **of_start})
    return list(licence_warnings(license, Origins(models=(start,)), base))


@pytest.mark.parametrize(
    ("base", "license", "said"),
    [
        ("apache-2.0", "mit", None),
        ("gemma", "gemma", None),
        ("gemma", "apache-2.0", "org/base is under gemma, and this is published under apache-2.0"),
        ("cc-by-nc-4.0", None, "published under no licence"),
        ("unknown", "mit", "the licence of the base model org/base is not known"),
    ],
)
def test_a_base_whose_licence_asks_for_more_is_named(base: str, license: str | None, said: str | None) -> None:
    found = warned(license, licence=base)
    assert len(found) == (said is not None)
    assert said is None or said in found[0]


def test_teachers_are_about_their_outputs_and_not_about_their_licence() -> None:
    of_teacher = {"licence": "gemma"}
    assert warned("mit", None, outputs_may_train="yes", **of_teacher) == []
    assert "may not train other models" in warned("mit", None, outputs_may_train="no", **of_teacher)[0]
    assert "it is not known whether" in warned("mit", None, **of_teacher)[0]


def test_data_and_new_models() -> None:
    new = ModelOrigin(name="start", model="from scratch", licence="none: trained in this run", outputs_may_train="yes")
    data = [DataOrigin(key="prompts.source", data=name, licence=name) for name in ("cc-by-4.0", "cc-by-nc-4.0", "unknown")]
    found = list(licence_warnings("cc-by-4.0", Origins(models=(new,), data=tuple(data)), "start"))
    assert found == [
        "the data cc-by-nc-4.0 (prompts.source) is under cc-by-nc-4.0, and this is published under cc-by-4.0.",
        "the licence of the data unknown (prompts.source) is not known: give 'licence' under 'prompts.source' in the config.",
    ]
