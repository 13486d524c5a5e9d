"""By a tokenizer where there is one, by length elsewhere; and transformers is not even imported to look for it."""

import subprocess
import sys
from pathlib import Path

import pytest

from aligndistill.chat.http.token_counts import BYTES_PER_TOKEN, TOKENS_PER_MESSAGE, token_count
from aligndistill.config.models import EndpointModel
from tests.tiny_models import tiny_tokenizer, user

LOOKING = """
import sys
from aligndistill.chat.http.token_counts import token_count
from aligndistill.config.models import EndpointModel
found = token_count(EndpointModel(kind="endpoint", base_url="http://localhost/v1", name="nobody/has-this"))
sys.exit(found.exact or "transformers" in sys.modules)
"""


def endpoint(name: str) -> EndpointModel:
    return EndpointModel(kind="endpoint", base_url="http://localhost/v1", name=name)


def test_a_server_that_is_named_after_a_folder_here_is_counted_by_its_tokenizer(tmp_path: Path) -> None:
    tiny_tokenizer().save_pretrained(tmp_path)
    found = token_count(endpoint(str(tmp_path)))
    turns = [{"role": "user", "content": "No."}]
    assert found.exact
    assert found.count(user("No.")) == len(tiny_tokenizer().apply_chat_template(turns, add_generation_prompt=True)["input_ids"])


def test_any_other_is_counted_by_length() -> None:
    found = token_count(endpoint("nobody/has-this"))
    assert not found.exact
    assert found.count(user("a" * BYTES_PER_TOKEN * 5)) == 5 + TOKENS_PER_MESSAGE


@pytest.mark.process
def test_looking_for_a_tokenizer_that_is_not_here_takes_no_time() -> None:
    assert subprocess.run([sys.executable, "-c", LOOKING], timeout=60, check=False).returncode == 0
