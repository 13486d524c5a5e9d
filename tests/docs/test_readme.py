"""The README is one screen, in two languages with the same commands."""

import re
import struct

import pytest

from tests.docs.blocks import ROOT, blocks

ENGLISH, CHINESE = ROOT / "README.md", ROOT / "README.zh-CN.md"
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"")


def test_it_has_at_most_700_words() -> None:
    assert len(ENGLISH.read_text().split()) <= 700


def test_both_languages_show_the_same_commands_and_configs() -> None:
    def code(text: str) -> list[str]:
        return [re.sub(r"\s*#.*", "", line).rstrip() for line in text.splitlines()]

    english, chinese = ([(block.language, code(block.text)) for block in blocks(page)] for page in (ENGLISH, CHINESE))
    assert english == chinese


def test_both_languages_have_the_same_headings_tables_and_links() -> None:
    def outline(text: str) -> tuple[list[str], int, list[str]]:
        links = ["".join(one) for one in LINK.findall(text)]
        return re.findall(r"^(#+) ", text, flags=re.MULTILINE), len(re.findall(r"^\|", text, flags=re.MULTILINE)), links

    assert outline(ENGLISH.read_text()) == outline(CHINESE.read_text())


def test_the_chinese_one_is_chinese() -> None:
    prose = re.sub(r"^```.*?^```$|`[^`]+`|\]\([^)]+\)", "", CHINESE.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert len(re.findall(r"[\u4e00-\u9fff]", prose)) > 500


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pictures_are_of_moderate_size(scheme: str) -> None:
    picture = (ROOT / f"docs/pictures/quickstart-{scheme}.png").read_bytes()
    assert len(picture) < 300_000
    assert struct.unpack(">I", picture[16:20]) == (1600,)
