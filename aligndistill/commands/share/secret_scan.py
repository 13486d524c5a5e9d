"""Finds keys and tokens in what is about to be published."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from aligndistill.config.secrets import names_a_secret

FORMS = {
    "a Hugging Face token": r"hf_[A-Za-z0-9]{30,}",
    "an API key": r"sk-(?:[A-Za-z]+-)*[A-Za-z0-9_]{20,}",
    "a GitHub token": r"gh[opusr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,}",
    "a GitLab token": r"glpat-[A-Za-z0-9_-]{20,}",
    "an AWS key": r"(?:AKIA|ASIA)[0-9A-Z]{16}",
    "a Google key": r"AIza[A-Za-z0-9_-]{35}",
    "a Slack token": r"xox[abprs]-[A-Za-z0-9-]{10,}",
    "a web token": r"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
    "a private key": r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----",
    "a password in an address": r"[a-z]+://[^/\s:@\"']+:[^/\s:@\"']{4,}@",
}
"""Forms long enough not to be in a vocabulary or a text by accident."""
_ANY = re.compile("|".join(f"(?<![A-Za-z0-9])(?P<f{number}>{form})" for number, form in enumerate(FORMS.values())))
WEIGHTS = {".safetensors"}
MIN_VALUE = 8
"""Shorter values of environment variables are in texts by accident."""


@dataclass(frozen=True)
class FoundSecret:
    """Where something that looks like a secret is, and what it looks like; never the secret itself."""

    file: str
    line: int
    what: str


def secrets_in(folder: Path, environment: Mapping[str, str] | None = None) -> list[FoundSecret]:
    """What looks like a secret in the files of a folder, weights aside, and values of this machine's secret variables."""
    variables = os.environ if environment is None else environment
    own = {name: value for name, value in variables.items() if names_a_secret(name) and len(value) >= MIN_VALUE}
    found = []
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.suffix not in WEIGHTS:
            text = file.read_text(encoding="utf-8", errors="replace")
            for place, what in _in_text(text, own):
                found.append(FoundSecret(file.relative_to(folder).as_posix(), text.count("\n", 0, place) + 1, what))
    return found


def _in_text(text: str, own: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    kinds = list(FORMS)
    for match in _ANY.finditer(text):
        assert match.lastgroup is not None
        yield match.start(), kinds[int(match.lastgroup[1:])]
    for name, value in own.items():
        if (place := text.find(value)) >= 0:
            yield place, f"the value of the environment variable {name}"
