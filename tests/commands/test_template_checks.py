from pathlib import Path

from aligndistill.commands.doctor import examine
from aligndistill.commands.output import Finding
from aligndistill.commands.template_checks import template_findings
from aligndistill.config.run import RunConfig
from tests.e2e.small_run import small_config
from tests.models.chat_families import tokenizer_of
from tests.tiny_models import write_tiny_model


def shown(config: RunConfig) -> dict[str, dict[str, str]]:
    """The lines of each model, by what they are about; those that end `doctor` with 1 begin with BAD."""
    found: dict[str, dict[str, str]] = {}
    name = ""
    for finding in template_findings(config):
        assert isinstance(finding, Finding)
        name = name if finding.what.startswith(" ") else finding.what
        found.setdefault(name, {})[finding.what.strip()] = finding.found if finding.passed else f"BAD {finding.found}"
    return found


def test_what_the_chat_templates_of_local_models_do_is_shown(tmp_path: Path) -> None:
    for family in ("qwen3", "gemma2", "deepseek_r1_distill", "llama3_2"):
        tokenizer_of(family).save_pretrained(write_tiny_model(tmp_path / family))
    settings = {
        **small_config(),
        "start": {"model": str(tmp_path / "deepseek_r1_distill")},
        "sft": None,
        "teacher": {"model": str(tmp_path / "qwen3")},
        "models": {
            "examiner": {"model": str(tmp_path / "deepseek_r1_distill")},
            "gemma": {"model": str(tmp_path / "gemma2")},
            "llama": {"model": str(tmp_path / "llama3_2")},
            "absent": {"model": "missing-owner/this-model"},
            "wrong": {"model": str(tmp_path / "qwen3"), "template_arguments": {"nothing": 1}},
            "text": {"model": str(tmp_path / "qwen3"), "layout": "plain"},
        },
    }
    config = RunConfig.model_validate(settings)
    found = shown(config)
    assert found["teacher"] == {
        "teacher": f"the chat template of {tmp_path / 'qwen3'}",
        "thinks": "no (thinking: auto)",
        "prompts end with": r"'<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n'",
        "answers end with": "'<|im_end|>'",
        "date": "none",
    }
    assert found["gemma"]["refuses"] == "a system turn, a later system turn, two user turns in a row, an assistant turn first"
    assert found["llama"]["date"] == "fixed"
    for name in ("start", "examiner"):
        assert found[name]["thinks"] == "yes (thinking: auto)"
        assert "ends its prompt with" in found[name]["training"]
    assert found["start"]["training"].startswith("BAD ")
    assert not found["examiner"]["training"].startswith("BAD ")  # it may judge, and is not trained
    assert "not on this machine yet" in found["absent"]["absent"]
    assert found["wrong"]["wrong"].startswith("BAD ")
    assert "no variable 'nothing'" in found["wrong"]["wrong"]
    assert "text" not in found

    lines: list[str] = []
    assert not examine(config, lines.append)
    assert any(line.startswith("BAD") and "ends its prompt with" in line for line in lines)
