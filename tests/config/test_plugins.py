"""Functions of users by `module:name`, in a process that lives on while the user edits them."""

import sys
from pathlib import Path

import pytest

from aligndistill.config.plugins import load_plugin, plugin_file
from aligndistill.errors import ConfigError


def test_an_edited_function_is_loaded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "edited_judge.py").write_text("def grade():\n    return 1\n")
    first = load_plugin("edited_judge:grade")
    assert first() == 1
    assert load_plugin("edited_judge:grade") is first
    (tmp_path / "edited_judge.py").write_text("def grade():\n    return 10 + 1\n")
    assert load_plugin("edited_judge:grade")() == 11
    assert plugin_file("edited_judge:grade") == tmp_path / "edited_judge.py"


@pytest.mark.parametrize("look", [load_plugin, plugin_file])
def test_a_function_of_the_notebook_itself_is_refused_in_words(look: object) -> None:
    assert callable(look)
    with pytest.raises(ConfigError, match=r"such as my_functions\.py, and write my_functions:grade"):
        look("__main__:grade")
