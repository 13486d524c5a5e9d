"""The judges against a real server that is not ours."""

from pathlib import Path

import pytest

from aligndistill.chat.endpoint import EndpointChat
from aligndistill.chat.http.capabilities import Capabilities, ServerCapabilities
from aligndistill.chat.protocol import Request, SamplingParams
from aligndistill.config.models import EndpointModel
from aligndistill.errors import JudgeError
from aligndistill.judges.pairwise import PairwiseJudge
from aligndistill.judges.rubric import RubricJudge
from aligndistill.judges.templates import PAIRWISE_FIELDS, RUBRIC_FIELDS, load_template
from aligndistill.records import Comparison, Grade, Message
from aligndistill.store.cache import Cache
from tests.judges.tasks import task
from tests.judges.tiny_judge import MARKER
from tests.judges.transformers_server import TransformersServer

TASKS = [
    task("who was old", f"the {MARKER} house", "a house on a hill", "more wind"),
    task("tell me more of birds", "the birds", f"birds in the wind and {MARKER} rain"),
    task("where", f"a {MARKER} door", f"the hill was {MARKER}"),
]


@pytest.fixture
def chat(transformers_server: TransformersServer) -> EndpointChat:
    return EndpointChat(
        EndpointModel(kind="endpoint", base_url=transformers_server.base_url, name=transformers_server.model, timeout_seconds=60)
    )


def texts(index: int) -> dict[str, str]:
    return {candidate.id: candidate.text for candidate in TASKS[index].candidates}


def test_pairwise_verdicts_follow_the_marker_in_both_orders_and_are_cached(
    transformers_server: TransformersServer, chat: EndpointChat, tmp_path: Path
) -> None:
    template = load_template(transformers_server.pairwise_template, PAIRWISE_FIELDS)
    judge = PairwiseJudge("teacher", chat, template, max_new_tokens=8, cache=Cache(tmp_path / "cache.sqlite"))
    judged = {one.prompt_id: one for one in judge.judge(TASKS)}
    assert len(judged) == 3
    verdicts = [verdict for one in judged.values() for verdict in one.verdicts]
    for index, one in enumerate(TASKS):
        shown = texts(index)
        for verdict in judged[one.prompt_id].verdicts:
            assert isinstance(verdict, Comparison)
            marked = (MARKER in shown[verdict.first], MARKER in shown[verdict.second])
            assert verdict.probability_first == {(True, False): 1.0, (False, True): 0.0}.get(marked, 0.5)
            assert verdict.reply in ("A", "B", "tie")
            assert verdict.usage.prompt_tokens > 10
            assert verdict.usage.completion_tokens >= 1

    # 6 + 2 + 2 comparisons, and one to find out that this server gives no log-probabilities.
    assert sum(verdict.usage.calls for verdict in verdicts) == 11

    class NoCalls(EndpointChat):
        """The same identity at an address without a server."""

        def __init__(self) -> None:
            super().__init__(EndpointModel(kind="endpoint", base_url="http://127.0.0.1:9/v1", name="x", max_retries=0))
            self.identity = chat.identity

    again = PairwiseJudge("teacher", NoCalls(), template, max_new_tokens=8, cache=Cache(tmp_path / "cache.sqlite"))
    found = {one.prompt_id: [verdict.model_dump() for verdict in one.verdicts] for one in again.judge(TASKS)}
    assert found == {prompt: [verdict.model_dump() for verdict in one.verdicts] for prompt, one in judged.items()}
    with pytest.raises(JudgeError):
        list(again.judge([task("where", "a door", "the hill")]))


def test_rubric_grades_follow_the_marker(transformers_server: TransformersServer, chat: EndpointChat) -> None:
    template = load_template(transformers_server.rubric_template, RUBRIC_FIELDS)
    judged = {one.prompt_id: one for one in RubricJudge("teacher", chat, template, max_new_tokens=8).judge(TASKS)}
    for index, one in enumerate(TASKS):
        grades = judged[one.prompt_id].verdicts
        assert [grade.value for grade in grades if isinstance(grade, Grade)] == [
            9.0 if MARKER in text else 2.0 for text in texts(index).values()
        ]


def test_answers_depend_on_the_sample_and_can_be_had_again(chat: EndpointChat) -> None:
    request = Request((Message(role="user", content="who was old"),), samples=(0, 1, 2))

    def answers(temperature: float) -> dict[int, str]:
        sampling = SamplingParams(temperature, max_new_tokens=12, seed=5)
        # One at a time: this server seeds one generator for all that it is doing.
        return {
            a.sample: a.reply.text
            for sample in request.samples
            for a in chat.answer([Request(request.messages, (sample,))], sampling)
        }

    hot = answers(10.0)
    assert len(set(hot.values())) > 1
    assert answers(10.0) == hot
    assert len(set(answers(0.0).values())) == 1


def test_a_model_that_the_server_does_not_have_is_rejected_with_its_message(transformers_server: TransformersServer) -> None:
    config = EndpointModel(kind="endpoint", base_url=transformers_server.base_url, name="somebody/else")
    with pytest.raises(JudgeError, match="pinned"):
        list(EndpointChat(config).answer([Request((Message(role="user", content="hi"),))], SamplingParams(0.0, 4)))


def test_what_this_server_ignores_is_detected(transformers_server: TransformersServer) -> None:
    """It takes `n`, `logprobs` and `response_format` with status 200 and honours none of them."""
    config = EndpointModel(kind="endpoint", base_url=transformers_server.base_url, name=transformers_server.model)
    capabilities = Capabilities()
    chat = EndpointChat(config, capabilities)
    conversation = (Message(role="user", content="who was old"),)
    assert [one.logprobs for one in chat.label_logprobs([conversation], ("A", "B"))] == [None]
    sampling = SamplingParams(0.0, 4, answer_schema={"type": "object"})
    answers = list(chat.answer([Request(conversation, (0, 1, 2))], sampling))
    assert sorted(answer.sample for answer in answers) == [0, 1, 2]
    assert sum(answer.reply.usage.calls for answer in answers) == 3
    assert capabilities.found == ServerCapabilities(answers=True, top_logprobs=0, several=False, answer_format="text")


def test_a_prompt_that_this_server_would_answer_with_nonsense_is_not_sent(transformers_server: TransformersServer) -> None:
    """It does not refuse one that is longer than its model's positions. The tokenizer is found by the model's name, a folder."""
    name = transformers_server.model
    config = EndpointModel(kind="endpoint", base_url=transformers_server.base_url, name=name, context_tokens=2048)
    long, short = ((Message(role="user", content=words),) for words in ("the old house " * 1500, "the old house"))
    replies = {
        one.request: one.reply for one in EndpointChat(config).answer([Request(long), Request(short)], SamplingParams(0.0, 4))
    }
    assert "tokens and 4 new ones exceed context_tokens (2048)" in replies[0].problem
    assert "about" not in replies[0].problem
    assert not replies[1].problem
