"""The fenced blocks of a page, and the commands in them. `python -m tests.docs.blocks` counts those that are run and checked."""

import re
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("docs/**/*.md"), *ROOT.glob("*.md"), *(ROOT / f"{name}/README.md" for name in ("data", "launch"))])

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
MARK = re.compile(r"<!-- (run|not checked)(?:: (.+?))? -->\s*$")
ASSIGNMENT = re.compile(r"[A-Z_]+=.*", flags=re.DOTALL)
ENDS_OF_COMMANDS = {"|", "&&", "||", ";", ">", "2>&1", "&", "2>"}


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        line: of its first fence.
        mark: the comment right before it, `run` or `not checked`; empty if there is none.
        said: what the mark says behind a colon.
    """

    language: str
    text: str
    line: int
    mark: str = ""
    said: str = ""


def blocks(page: Path) -> Iterator[Block]:
    """All fenced blocks of a page. A mark may stand before the sentence that introduces the block."""
    text = page.read_text(encoding="utf-8")
    end = 0
    for found in FENCE.finditer(text):
        before = "\n\n".join(part for part in re.split(r"\n\n+", text[end : found.start()].strip())[-2:])
        mark = next((one for line in before.splitlines() if (one := MARK.match(line))), None)
        end = found.end()
        yield Block(
            found.group(1),
            found.group(2),
            text[: found.start()].count("\n") + 1,
            *((mark.group(1), mark.group(2) or "") if mark else ()),
        )


def commands(block: Block) -> Iterator[list[str]]:
    """The arguments of every `aligndistill` command in a block, and those that a script of `launch/` passes on."""
    text = block.text.replace("\\\n", " ")
    for line in text.splitlines():
        if block.language == "console":
            if not line.startswith("$ "):
                continue
            line = line[2:]
        for words in _commands_of(shlex.split(line.replace("$(", " ").replace(")", " "), comments=True)):
            if (arguments := _arguments(words)) is not None:
                yield arguments


def _commands_of(words: list[str]) -> Iterator[list[str]]:
    """The commands of a line."""
    command: list[str] = []
    for word in words:
        if word in ENDS_OF_COMMANDS:
            yield command
            command = []
        else:
            command.append(word)
    yield command


def _arguments(words: list[str]) -> list[str] | None:
    while words and (ASSIGNMENT.fullmatch(words[0]) or words[0] in ("export", "env", "sbatch")):
        words = words[1:]
    if not words:
        return None
    if Path(words[0]).name == "aligndistill":
        return words[1:]
    if words[:3] == ["python", "-m", "aligndistill"]:
        return words[3:]
    if words[0].startswith("launch/") and words[0].endswith(("local.sh", "multinode.sh", "judge_then_train.sh", "slurm.sbatch")):
        return ["run", *words[1:]] if words[1:] != ["--help"] else None
    return None


CHECKED = {"bash", "console", "json", "python", "yaml"}
"""Languages whose blocks a test of `test_blocks.py` reads; others are outputs and drawings."""


def counts() -> dict[str, int]:
    """How many blocks there are by what becomes of them: `yaml checked`, `console run`, `yaml not checked`, `text shown`."""
    every = [block for page in PAGES for block in blocks(page)]
    ends = (block.mark or ("checked" if block.language in CHECKED else "shown") for block in every)
    return dict(sorted(Counter(f"{block.language or 'plain'} {end}" for block, end in zip(every, ends, strict=True)).items()))


if __name__ == "__main__":
    for name, count in counts().items():
        print(f"{count:4} {name}")
