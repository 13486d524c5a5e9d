from pathlib import Path

import pytest

from aligndistill.commands.share.secret_scan import secrets_in
from tests.tiny_models import tiny_tokenizer

A, N = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJ", "0123456789"
SECRETS = [
    "hf_" + A[:34],
    "sk-" + A[:24] + N,
    "sk-proj-" + A + N,
    "ghp_" + A,
    "github_pat_" + A + N,
    "glpat-" + A[:20],
    "AKIA" + A[:16].upper(),
    "AIza" + A[:35],
    "xoxb-1234567890-" + A[:10],
    f"eyJ{A[:12]}.eyJ{A[:12]}.{A[:12]}",
    "-----BEGIN RSA PRIVATE KEY-----",
    "https://me:secret1@host/v1",
]


@pytest.mark.parametrize("secret", SECRETS, ids=lambda secret: secret[:12])
def test_every_form_is_found_with_its_place_and_is_not_shown(secret: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.jsonl").write_text('{"a": 1}\n{"a": "' + secret + '"}\n')
    (found,) = secrets_in(tmp_path, {})
    assert (found.file, found.line) == ("data/rows.jsonl", 2)
    assert secret not in found.what


@pytest.mark.parametrize(
    "text",
    [
        *(
            "sk-learn and risk-averse",
            "hf_hub_download(repo)",
            "https://host:8000/v1 and user@host",
            "the AKIA prefix",
            "eyJ",
            "task-" + A,
        ),
        *("0123456789abcdef0123456789abcdef01234567", "ghp_short", "mailto:me@example.org", "disk-" + A + N),
    ],
)
def test_ordinary_text_is_no_secret(text: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(text)
    assert secrets_in(tmp_path, {}) == []


def test_a_vocabulary_is_no_secret_and_weights_are_not_read(tmp_path: Path) -> None:
    tiny_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_text(SECRETS[0])
    assert secrets_in(tmp_path, {}) == []


def test_values_of_secret_variables_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\nmy words\n")
    environment = {"SERVER_API_KEY": "my words", "HOME": "one", "SHORT_TOKEN": "one"}
    (found,) = secrets_in(tmp_path, environment)
    assert (found.line, found.what) == (2, "the value of the environment variable SERVER_API_KEY")
