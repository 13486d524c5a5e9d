"""Authors that think before they answer: thoughts are kept apart, and replies without an answer are counted and limited."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aligndistill.chat.protocol import CUT_IN_THOUGHTS, NO_ANSWER, Answered, Reply, Request, SamplingParams
from aligndistill.chat.scripted import ScriptedChat
from aligndistill.config.candidates import Candidates
from aligndistill.config.run import AnswerSampling, Runtime
from aligndistill.elicitation.asking import AuthorRequest
from aligndistill.errors import DataError
from aligndistill.models.chat_template import fix_template
from aligndistill.models.load import ModelPointer
from aligndistill.processes.progress import bar
from aligndistill.records import Answer, Candidate, Message, Prompt, Usage, prompt_id
from aligndistill.stages import answers, candidates
from aligndistill.stages.asking import CachingAsk
from aligndistill.stages.context import StageContext
from aligndistill.stages.files import ANSWERS, CANDIDATES, PROMPTS
from aligndistill.stages.sampling import SamplingJob, sample_answers
from aligndistill.store.jsonl import read_jsonl, write_jsonl
from aligndistill.store.stage import StageResult
from tests.chat.fault_server import Act, FaultServer, send
from tests.models.chat_families import tokenizer_of
from tests.tiny_models import tiny_model, user

START = Path("start")


def write_prompts(folder: Path, count: int, system: bool = False) -> Path:
    instructions = (Message(role="system", content="Be brief."),) if system else ()
    folder.mkdir()
    turns = [(*instructions, *user(f"What is {n}?")) for n in range(1, count + 1)]
    records = [
        Prompt(id=prompt_id(messages), messages=messages, source=f"mine.jsonl row {n}", split="held_out" if n % 2 else "train")
        for n, messages in enumerate(turns, 1)
    ]
    write_jsonl(folder / PROMPTS, records)
    return folder


def scripted(tmp_path: Path, answer: Callable[[int], str]) -> StageContext:
    """A stage whose author answers prompt number n with `answer(n)`."""

    def script(messages: tuple[Message, ...], _: int) -> str:
        return answer(int(messages[-1].content.split()[-1][:-1]))

    (tmp_path / "stage").mkdir(exist_ok=True)
    chat = ScriptedChat(script)
    return StageContext("candidates", tmp_path / "stage", tmp_path / "caches", Runtime(), open_model=lambda _: chat)


def sampled(context: StageContext, prompts: Path, per_prompt: int = 1) -> StageResult:
    settings = Candidates(per_prompt=per_prompt, max_new_tokens=50)
    return candidates.make(context, settings=settings, authors={"start": START}, prompts=prompts, seed=0)


def test_thoughts_are_no_part_of_a_candidate(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts", 4)
    context = scripted(tmp_path, lambda n: f"<think>\nAbout {n}.\n</think>\n\nIt is {n}." if n > 1 else "One.")
    result = sampled(context, prompts)
    assert not result.dropped
    found = {one.text: one for one in read_jsonl(context.folder / CANDIDATES, Candidate)}
    assert {text: one.thoughts for text, one in found.items()} == {
        "One.": "",
        "It is 2.": "About 2.",
        "It is 3.": "About 3.",
        "It is 4.": "About 4.",
    }
    lines = (context.folder / CANDIDATES).read_text().splitlines()
    assert ["thoughts" in json.loads(line) for line in lines] == [False, True, True, True]  # as older records, without any


def test_answers_that_differ_only_in_thoughts_are_one(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts", 1)
    context = scripted(tmp_path, lambda n: "Same.")
    numbers = iter(range(9))
    chat = ScriptedChat(lambda messages, sample: f"<think>{next(numbers)}</think>Same.")
    result = sampled(replace(context, open_model=lambda _: chat), prompts, per_prompt=3)
    assert result.dropped == {"duplicate": 2}


def test_a_reply_that_ends_inside_its_thoughts_is_counted_and_no_candidate(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts", 11)
    context = scripted(tmp_path, lambda n: f"It is {n}." if n > 2 else ("<think>Well" if n == 1 else "<think>So</think>"))
    result = sampled(context, prompts)  # 2 of 11 are less than a fifth
    assert result.dropped == {"no answer": 2}
    assert result.counts["candidates"] == 9


@pytest.mark.parametrize("problem", [f"{CUT_IN_THOUGHTS} (50 tokens)", NO_ANSWER])
def test_a_server_that_says_so_is_counted_alike_and_a_refusal_is_not(problem: str, tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts", 12)

    class Server(ScriptedChat):
        def answer(self, requests: Sequence[Request], sampling: SamplingParams) -> Iterator[Answered]:
            for answered in super().answer(requests, sampling):
                given = [Reply("", "length", Usage(), problem, "Well"), Reply("", "stop", Usage(), "refused by the model", "Well")]
                yield replace(answered, reply=given[answered.request]) if answered.request < 2 else answered

    context = scripted(tmp_path, lambda n: f"It is {n}.")
    result = sampled(replace(context, open_model=lambda _: Server(lambda messages, _: messages[-1].content)), prompts)
    assert result.dropped == {"no answer": 1, "refused": 1}


def test_a_fifth_of_such_replies_stop_the_stage(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts", 10)
    context = scripted(tmp_path, lambda n: f"It is {n}." if n > 2 else "<think>Well")
    with pytest.raises(
        DataError, match=r"start thinks .* 2 of 10 replies ended inside .* thinking: off .* raise max_new_tokens \(50\)"
    ):
        sampled(context, prompts)
    with pytest.raises(DataError, match="2 of 10"):  # the replies are kept: the same command asks nothing again
        sampled(replace(context, open_model=lambda _: ScriptedChat(lambda *_: pytest.fail("asked again"))), prompts)
    assert DataError.exit_code == 3


def test_many_of_them_stop_it_before_all_prompts_were_asked(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts", 300)
    asked = []

    def answer(number: int) -> str:
        asked.append(number)
        return "<think>Well"

    with pytest.raises(DataError, match="64 of 64 replies"):
        sampled(scripted(tmp_path, answer), prompts)
    assert len(asked) == 64


def test_the_evaluations_answers_are_cut_and_limited_alike(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts", 20)  # every second one is held out
    sampling = AnswerSampling(None, 1, 1.0, 100, 50)

    def made(context: StageContext) -> list[Answer]:
        result = answers.make(context, name="start", author=START, sampling=sampling, prompts=prompts, seed=0)
        assert result.counts == {"prompts": 10, "answers": 10, "ended inside thoughts": 1}
        return list(read_jsonl(context.folder / ANSWERS, Answer))

    found = made(scripted(tmp_path, lambda n: f"[THINK]Hm.[/THINK]It is {n}." if n > 1 else "[THINK]Hm."))
    assert sorted(one.text for one in found) == ["", *sorted(f"It is {n}." for n in range(3, 21, 2))]
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(DataError, match=r"2 of 10 replies ended inside"):
        made(scripted(other, lambda n: f"[THINK]Hm.[/THINK]It is {n}." if n > 3 else "[THINK]Hm."))


def test_a_row_that_a_template_refuses_is_named(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("gemma2")
    fix_template(tokenizer, "auto", {}, None)
    model = tmp_path / "start"
    tiny_model(vocab_size=len(tokenizer)).save_pretrained(model / "model")
    tokenizer.save_pretrained(model / "model")
    ModelPointer(path="model", layout="chat").write(model)
    prompts = write_prompts(tmp_path / "prompts", 2, system=True)
    context = StageContext("candidates", tmp_path / "stage", tmp_path / "caches", Runtime(), identities={model: "m"})
    with pytest.raises(DataError, match=r"^mine.jsonl row 1: the chat template of .* System role not supported"):
        candidates.make(context, settings=Candidates(), authors={"start": model}, prompts=prompts, seed=0)


def thinking_server() -> FaultServer:
    """Long questions take 3,000 tokens of thoughts, and are cut off by lower limits."""

    def behave(body: dict[str, Any], _: int) -> Act:
        cut = "long" in body["messages"][0]["content"] and body["max_tokens"] < 3000
        message = {"content": None if cut else "fine", "reasoning": "Hm. "}
        return send(200, {"choices": [{"message": message, "finish_reason": "length" if cut else "stop"}]})

    return FaultServer(behave)


QUESTIONS = [f"{'long' if number % 3 == 0 else 'short'} {number}" for number in range(12)]


def asked_of(server: FaultServer, since: int) -> list[str]:
    return sorted(text for body in server.bodies[since:] if (text := body["messages"][0]["content"]) in QUESTIONS)


def test_more_thinking_tokens_ask_again_for_exactly_the_answers_that_were_cut_off(tmp_path: Path) -> None:
    context = StageContext("candidates", tmp_path, tmp_path / "caches", Runtime())
    prompts = [Prompt(id=prompt_id(one), messages=one, source="x", split="train") for one in map(user, QUESTIONS)]
    job = SamplingJob({one.id: one for one in prompts}, 1, 999, SamplingParams(1.0, 16))
    with thinking_server() as server:
        for limit, expected in ((1000, QUESTIONS), (1000, []), (8000, QUESTIONS[::3]), (9000, [])):
            since, author = len(server.bodies), server.config(thinking="on", thinking_tokens=limit)
            partial = context.scratch / "sampled.jsonl"
            if limit == 1000:
                with pytest.raises(DataError, match=r"4 of 12 .* thinking: off .* raise thinking_tokens \(1000\)"):
                    sample_answers(context, "teacher", author, job, partial)
            else:
                found = sample_answers(context, "teacher", author, job, partial)
                assert [one.text for one in found.samples.values()] == ["fine"] * 12
            assert asked_of(server, since) == sorted(expected)


def test_more_thinking_tokens_ask_again_for_exactly_the_cached_replies_that_were_cut_off(tmp_path: Path) -> None:
    context = StageContext("prompts", tmp_path, tmp_path / "caches", Runtime())
    requests = [AuthorRequest("teacher", user(text)) for text in QUESTIONS]
    with thinking_server() as server:
        for limit, expected in ((1000, QUESTIONS), (1000, []), (8000, QUESTIONS[::3]), (9000, [])):
            since, author = len(server.bodies), server.config(thinking="on", thinking_tokens=limit)
            with bar("x") as running:
                replies = CachingAsk(context, {"teacher": author}, 0, running)(requests, temperature=1.0, max_new_tokens=16)
            assert sum(one.problem.startswith(CUT_IN_THOUGHTS) for one in replies) == (4 if limit == 1000 else 0)
            assert asked_of(server, since) == sorted(expected)
