"""By a tokenizer where there is one, by length elsewhere; and transformers is not even imported to look for it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aligndistill.chat.endpoint import EndpointChat
from aligndistill.chat.http.token_counts import BYTES_PER_TOKEN, TOKENS_PER_MESSAGE, token_count
from aligndistill.chat.protocol import Request, SamplingParams
from aligndistill.config.models import EndpointModel
from aligndistill.records import Message
from tests.chat.fault_server import Act, FaultServer, completion, error
from tests.models.chat_families import tokenizer_of
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


def test_a_conversation_that_the_template_refuses_is_counted_by_its_texts_and_left_to_the_server(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("gemma2")  # refuses a system turn
    tokenizer.save_pretrained(tmp_path)
    refused = (Message(role="system", content="Be brief."), *user("Say something."))
    texts = sum(len(tokenizer.encode(message.content)) for message in refused)
    assert token_count(endpoint(str(tmp_path))).count(refused) == texts + 2 * TOKENS_PER_MESSAGE

    def behave(body: dict[str, Any], _: int) -> Act:
        return error(400, "System role not supported") if body["messages"][0]["role"] == "system" else completion("Something.")

    with FaultServer(behave) as server:
        chat = EndpointChat(server.config(tokenizer=str(tmp_path)))
        answered = chat.answer([Request(user("Say something.")), Request(refused)], SamplingParams(1.0, 16))
        replies = {one.request: one.reply for one in answered}
    assert (replies[0].text, replies[0].problem) == ("Something.", "")
    assert "System role not supported" in replies[1].problem


def test_any_other_is_counted_by_length() -> None:
    found = token_count(endpoint("nobody/has-this"))
    assert not found.exact
    assert found.count(user("a" * BYTES_PER_TOKEN * 5)) == 5 + TOKENS_PER_MESSAGE


@pytest.mark.process
def test_looking_for_a_tokenizer_that_is_not_here_takes_no_time() -> None:
    assert subprocess.run([sys.executable, "-c", LOOKING], timeout=60, check=False).returncode == 0
