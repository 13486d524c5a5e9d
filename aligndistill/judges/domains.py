"""Domains: folders with the principles, criteria, instruction and worked examples of a field, built in or the user's own.

`domain: finance` on a chat judge uses `rubric.txt` (criteria, one per line); on what models write, `principles.txt` (one per line),
`instruction.txt` and `examples.jsonl` (rows with a prompt and a completion).
"""

from pathlib import Path

from aligndistill.config.judges import DOMAINS
from aligndistill.config.paths import at_home
from aligndistill.errors import ConfigError

RUBRIC, PRINCIPLES, INSTRUCTION, EXAMPLES = "rubric.txt", "principles.txt", "instruction.txt", "examples.jsonl"

GENERAL = "general"

_FOLDER = Path(__file__).parent / "templates" / "domains"


def domain_file(domain: str, name: str) -> Path:
    """A file of a domain: a built-in one by its name, or one in a folder.

    Raises:
        ConfigError: there is no such domain, or its folder lacks the file.
    """
    folder = _FOLDER / domain if domain in DOMAINS else at_home(domain)
    if not folder.is_dir():
        raise ConfigError(f"there is no domain '{domain}': give the path of a folder, or one of {', '.join(DOMAINS)}.")
    if not (folder / name).is_file():
        raise ConfigError(f"the domain's folder '{domain}' has no file {name}: add it. The built-in domains show its form.")
    return folder / name


def lines_of(path: Path, what: str) -> tuple[str, ...]:
    """The lines of a text file that are not blank and do not begin with `#`.

    Raises:
        ConfigError: the file cannot be read, or has no such lines.
    """
    found = tuple(line.strip() for line in text_of(path, what).splitlines() if line.strip() and not line.startswith("#"))
    if not found:
        raise ConfigError(f"'{path}' has no {what}: write one per line.")
    return found


def text_of(path: Path, what: str) -> str:
    """The text of a file.

    Raises:
        ConfigError: it cannot be read, or is empty.
    """
    try:
        text = at_home(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the {what} in '{path}': {error}.") from None
    if not text:
        raise ConfigError(f"'{path}' has no {what}: it is empty.")
    return text


def criteria(domain: str) -> str:
    """The criteria of a domain as a list, for a judge's template.

    Raises:
        ConfigError: see `domain_file`.
    """
    return "\n".join(f"- {line}" for line in lines_of(domain_file(domain, RUBRIC), "criteria"))
