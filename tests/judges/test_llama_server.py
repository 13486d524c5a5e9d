"""A real llama.cpp server whose model thinks: what the first questions find, and that verdicts are the model's own."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from aligndistill.chat.endpoint import EndpointChat
from aligndistill.chat.http.capabilities import Capabilities
from aligndistill.chat.local import LocalChat
from aligndistill.chat.protocol import Request, SamplingParams
from aligndistill.chat.user_turns import LocalUserTurns, ServedUserTurns
from aligndistill.commands.server_checks import server_findings
from aligndistill.config.models import EndpointModel
from aligndistill.config.run import RunConfig
from aligndistill.errors import JudgeError
from aligndistill.judges.pairwise import PairwiseJudge
from aligndistill.judges.protocol import Judged
from aligndistill.models.load import ModelPointer, load_language_model
from aligndistill.records import Comparison, Message
from tests.judges.llama_server import CONTEXT_TOKENS, SLOTS, LlamaServers, serve_llama
from tests.judges.tasks import task
from tests.judges.tiny_judge import MARKER, NEVER_THINKING_TEMPLATE, PAIRWISE, THOUGHTS, VERDICTS

TASKS = [
    task("who was old", f"the {MARKER} house", "a house on a hill", "more wind"),
    task("tell me more of birds", "the birds", f"birds wind {MARKER} rain"),
    task("where", f"a {MARKER} door", f"the hill was {MARKER}"),
]
LISTED_NATS = -6.0  # less likely labels may not be among the 20 most likely tokens, and have an upper bound instead


def looked(base_url: str, **settings: Any) -> tuple[EndpointChat, Capabilities]:
    capabilities = Capabilities()
    config = EndpointModel(kind="endpoint", base_url=base_url, name="tiny", max_retries=0, **settings)
    chat = EndpointChat(config, capabilities, looks=True)
    chat.look()
    chat.find_answer_format()
    return chat, capabilities


def judged(chat: Any) -> list[Comparison]:
    by_prompt: dict[str, Judged] = {
        one.prompt_id: one for one in PairwiseJudge("teacher", chat, PAIRWISE, max_new_tokens=32).judge(TASKS)
    }
    verdicts = [verdict for one in TASKS for verdict in by_prompt[one.prompt_id].verdicts]
    return [verdict for verdict in verdicts if isinstance(verdict, Comparison)]


def marked(comparison: Comparison) -> tuple[bool, bool]:
    texts = {candidate.id: candidate.text for one in TASKS for candidate in one.candidates}
    return MARKER in texts[comparison.first], MARKER in texts[comparison.second]


@pytest.mark.parametrize("thinking", ["auto", "off"])
def test_thinking_is_switched_off_and_log_probabilities_are_those_of_the_same_weights_here(
    llama_servers: LlamaServers, tmp_path: Path, thinking: str
) -> None:
    chat, capabilities = looked(llama_servers.with_switch, thinking=thinking)
    found = capabilities.found
    assert (found.thinks, found.switch, found.answer_format) == (True, "chat_template_kwargs", "json_schema")
    assert (found.top_logprobs, found.context_tokens) == (20, CONTEXT_TOKENS)
    assert found.label_mass == pytest.approx(1.0, abs=0.05)

    exact, served = judged(local_chat(llama_servers, tmp_path)), judged(chat)
    assert len(exact) == len(served) == 6 + 2 + 2
    for one, other in zip(exact, served, strict=True):
        assert (one.first, one.second) == (other.first, other.second)
        clear = marked(one)[0] != marked(one)[1]
        assert clear == (one.label_mass is not None) == (other.label_mass is not None)  # `tie` is none of the labels
        if clear:
            assert one.outcome == other.outcome == ("first" if marked(one)[0] else "second")
            assert other.probability_first == pytest.approx(one.probability_first, abs=1e-3)
            assert other.label_mass == pytest.approx(one.label_mass, abs=1e-3)


def test_log_probabilities_equal_those_here_where_the_model_is_unsure(llama_servers: LlamaServers, tmp_path: Path) -> None:
    chat, _ = looked(llama_servers.with_switch)
    local = local_chat(llama_servers, tmp_path)
    unusual = ["A or B?", "B", "who was old A or B? the old house", f"{MARKER} A: B: {MARKER} tie", "which one of them, now?"]
    conversations = [(Message(role="user", content=words),) for words in unusual]
    compared = 0
    for labels in (("A", "B"), ("A", "t")):
        here = {one.request: one.logprobs or () for one in local.label_logprobs(conversations, labels)}
        for served in chat.label_logprobs(conversations, labels):
            assert served.logprobs is not None
            for exact_nats, served_nats in zip(here[served.request], served.logprobs, strict=True):
                if exact_nats > LISTED_NATS:
                    assert served_nats == pytest.approx(exact_nats, abs=1e-3)
                    compared += 1
    assert compared >= 8


def local_chat(llama_servers: LlamaServers, folder: Path) -> LocalChat:
    """The same weights in this process, with thinking switched off."""
    here = folder / "model"
    shutil.copytree(llama_servers.model, here, dirs_exist_ok=True)
    (here / "chat_template.jinja").write_text(NEVER_THINKING_TEMPLATE)
    return LocalChat(load_language_model(ModelPointer(path=str(here), layout="chat")), "here", batch_size=8)


@pytest.mark.parametrize("thinking", ["on", "auto"])
def test_thoughts_that_stay_on_are_kept_and_verdicts_are_read_from_the_text_behind_them(
    llama_servers: LlamaServers, thinking: str
) -> None:
    server = llama_servers.with_switch if thinking == "on" else llama_servers.without_switch
    chat, capabilities = looked(server, thinking=thinking, thinking_tokens=200)
    assert (capabilities.found.thinks, capabilities.found.switch) == (True, None)
    # llama.cpp applies a schema behind the thoughts only if it knows the template's markers; else there would be none.
    assert capabilities.found.answer_format == ("json_schema" if thinking == "on" else "text")
    for comparison in judged(chat):
        assert comparison.label_mass is None
        assert comparison.thoughts.strip() == THOUGHTS
        winner = VERDICTS[marked(comparison)]
        assert json.loads(comparison.reply or "") == {"winner": winner}
        assert comparison.outcome == {"A": "first", "B": "second"}.get(winner, "tie")


def test_a_template_without_a_switch_cannot_be_switched_off(llama_servers: LlamaServers) -> None:
    with pytest.raises(JudgeError, match=r"thinking: off was asked for, but the server ignores every known switch .*prefill"):
        looked(llama_servers.without_switch, thinking="off")


def test_a_prompt_longer_than_the_context_fails_alone_with_the_words_of_the_server(llama_servers: LlamaServers) -> None:
    chat, _ = looked(llama_servers.with_switch)
    long, short = ((Message(role="user", content=words),) for words in ("the old house " * 2000, "the old house"))
    replies = {one.request: one.reply for one in chat.answer([Request(long), Request(short)], SamplingParams(0.0, 8))}
    assert "exceeds the available context size (1024 tokens)" in replies[0].problem
    assert replies[0].text == replies[1].problem == ""
    (labelled,) = chat.label_logprobs([long], ("A", "B"))
    assert labelled.logprobs is None


def test_a_prompt_that_the_template_rejects_fails_alone_without_retries(llama_servers: LlamaServers, tmp_path: Path) -> None:
    """llama.cpp answers 500 to it."""
    template = "{% if 'wind' in messages[0].content %}{{ raise_exception('no wind') }}{% endif %}" + NEVER_THINKING_TEMPLATE
    with serve_llama(llama_servers.model, tmp_path / "server", template) as base_url:
        chat = EndpointChat(EndpointModel(kind="endpoint", base_url=base_url, name="tiny", max_retries=50))
        requests = [Request((Message(role="user", content=words),)) for words in ("the wind", "the rain")]
        replies = {one.request: one.reply for one in chat.answer(requests, SamplingParams(0.0, 8))}
    assert "no wind" in replies[0].problem
    assert replies[0].usage.calls == 1
    assert not replies[1].problem


def test_several_samples_and_as_many_as_the_server_has_slots(llama_servers: LlamaServers) -> None:
    """It answers 400 to a larger `n`, after which samples are requested one by one."""
    for count in (SLOTS, SLOTS + 1):
        chat, capabilities = looked(llama_servers.with_switch)
        request = Request((Message(role="user", content="the old house"),), tuple(range(count)))
        answers = list(chat.answer([request], SamplingParams(1.0, 8)))
        assert sorted(answer.sample for answer in answers) == list(range(count))
        assert not any(answer.reply.problem for answer in answers)
        assert capabilities.found.several is (count == SLOTS)


@pytest.mark.parametrize(
    ("thinking", "thoughts"),
    [
        ("auto", "yes, switched off by chat_template_kwargs"),
        ("off", "yes, switched off by chat_template_kwargs"),
        ("on", "yes, with"),
    ],
)
def test_doctor_finds_the_same(llama_servers: LlamaServers, thinking: str, thoughts: str) -> None:
    findings = list(server_findings(run_config(llama_servers, llama_servers.with_switch, thinking)))
    assert all(finding.passed for finding in findings)
    found = {finding.what.strip(): finding.found for finding in findings}
    assert found["thinks"].startswith(thoughts)
    assert found["answer format"] == "JSON schema"
    assert found["context"] == f"{CONTEXT_TOKENS} tokens"
    assert found["a verdict"].startswith("prefers the right answer (2 questions")


def test_doctor_says_that_nothing_switches_it_off(llama_servers: LlamaServers) -> None:
    (finding,) = server_findings(run_config(llama_servers, llama_servers.without_switch, "off"))
    assert not finding.passed
    assert "ignores every known switch" in finding.found
    findings = list(server_findings(run_config(llama_servers, llama_servers.without_switch, "auto")))
    assert all(finding.passed for finding in findings)
    assert findings[1].found == "yes, with up to 200 tokens (thinking: auto)"


def run_config(llama_servers: LlamaServers, base_url: str, thinking: str) -> RunConfig:
    model = {"kind": "endpoint", "base_url": base_url, "name": "tiny", "thinking": thinking, "thinking_tokens": 200}
    return RunConfig.model_validate(
        {
            "name": "doctor",
            "prompts": {"source": {"path": "prompts.jsonl"}},
            "start": {"model": "./start"},
            "judge": {"kind": "pairwise", "model": model, "template": llama_servers.pairwise_template},
            "students": {},
        }
    )


def test_a_users_turn_that_the_server_writes_is_that_of_the_same_weights_here(llama_servers: LlamaServers) -> None:
    """Magpie: the template up to the user's turn as token ids, at temperature 0."""
    local = load_language_model(ModelPointer(path=str(llama_servers.model), layout="chat"))
    sampling, requests = SamplingParams(temperature=0.0, max_new_tokens=12), [Request((), (0, 1))]
    config = EndpointModel(kind="endpoint", base_url=llama_servers.with_switch, name="tiny", max_retries=0)
    served = ServedUserTurns(EndpointChat(config).server, local.conversation, "tiny")
    here = [one.reply for one in LocalUserTurns(local, "tiny", 2).answer(requests, sampling)]
    there = [one.reply for one in served.answer(requests, sampling)]
    assert here[0].text
    assert {reply.text for reply in there} == {reply.text for reply in here}
    assert {reply.finish for reply in there} == {reply.finish for reply in here}
    assert {reply.usage.prompt_tokens for reply in there} == {len(local.conversation.user_turn_ids)}
