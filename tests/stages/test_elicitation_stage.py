"""A step of `prompts.elicit` as a stage: what it writes, what it asks again after an interruption, what it costs."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from aligndistill.chat.protocol import Answered, Reply, Request, SamplingParams
from aligndistill.chat.scripted import ScriptedChat
from aligndistill.commands.plan.chats import Ungraded
from aligndistill.config.budget import Price
from aligndistill.config.elicitation import Curate, Evolve, Expand
from aligndistill.config.models import EndpointModel
from aligndistill.config.run import Runtime
from aligndistill.elicitation.asking import AuthorRequest
from aligndistill.errors import BudgetError, DataError
from aligndistill.processes.progress import bar
from aligndistill.records import Dropped, Message, Prompt, Usage
from aligndistill.reporting.written_data import ElicitationMetrics
from aligndistill.stages import elicitation
from aligndistill.stages.asking import CachingAsk
from aligndistill.stages.context import StageContext
from aligndistill.stages.files import DROPPED, ELICITATION, PROMPTS
from aligndistill.store.jsonl import read_jsonl, write_jsonl
from aligndistill.store.stage import StageResult
from tests.elicitation.prompts import HELD_OUT, TRAIN, all_prompts
from tests.elicitation.scripted_teacher import reply_to

TEACHER = EndpointModel(kind="endpoint", base_url="http://localhost:1/v1", name="m")
EXPAND = Expand(name="more", kind="expand", target=60)
EVOLVE = Evolve(name="harder", kind="evolve", rounds=2)


class CountedChat(ScriptedChat):
    """The scripted teacher; `asked` counts each request, `left` is after how many replies the budget is spent."""

    def __init__(self, left: int | None = None, problem_at: int | None = None) -> None:
        super().__init__(lambda messages, sample: reply_to(messages[-1].content, sample))
        self.asked: Counter[tuple[str, int]] = Counter()
        self.left = left
        self.problem_at = problem_at

    def answer(self, requests: Sequence[Request], sampling: SamplingParams) -> Iterator[Answered]:
        for one in super().answer(requests, sampling):
            if self.left is not None and self.asked.total() >= self.left:
                raise BudgetError("the budget is spent.")
            self.asked[requests[one.request].messages[-1].content, one.sample] += 1
            if self.asked.total() == self.problem_at:
                yield Answered(one.request, one.sample, Reply("", "stop", Usage(calls=1), "no reply after 6 attempts: 503"))
            else:
                yield one


def given(folder: Path) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    write_jsonl(folder / PROMPTS, all_prompts())
    return folder


def made(folder: Path, step: Any, chat: ScriptedChat, **changes: Any) -> StageResult:
    (folder / "stage").mkdir(exist_ok=True, parents=True)
    context = StageContext(
        "prompts-x", folder / "stage", folder / "caches", Runtime(), open_endpoint=lambda _: chat, spending=lambda: "1 USD"
    )
    arguments = {"models": {"teacher": TEACHER}, "prompts": given(folder / "prompts"), "seed": 0, "prices": {}, **changes}
    return elicitation.make(context, settings=step, **arguments)


def prompts_in(folder: Path) -> list[Prompt]:
    return list(read_jsonl(folder / "stage" / PROMPTS, Prompt))


def test_the_new_prompts_follow_those_that_were_there(tmp_path: Path) -> None:
    result = made(tmp_path, EXPAND, CountedChat())
    found = prompts_in(tmp_path)
    assert found[: len(all_prompts())] == all_prompts()
    assert {one.split for one in found[len(all_prompts()) :]} == {"train"}
    assert result.counts["new"] == len(found) - len(all_prompts()) == 60
    assert (result.counts["train"], result.counts["held_out"]) == (len(TRAIN) + 60, len(HELD_OUT))
    dropped = list(read_jsonl(tmp_path / "stage" / DROPPED, Dropped))
    assert Counter(one.reason for one in dropped) == result.dropped
    assert result.counts["parsed"] == 60 + len(dropped)


@pytest.mark.parametrize("step", [EXPAND, EVOLVE, Curate(name="t", kind="curate", topics={"generate": 3}, subtopics=2)])
def test_an_interrupted_step_ends_as_if_it_had_not_been_and_asks_nothing_twice(
    tmp_path: Path, step: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = CountedChat()
    result = made(tmp_path / "whole", step, whole)
    total = whole.asked.total()
    asked: Counter[tuple[str, int]] = Counter()
    for left in (1, total // 3, total // 3):
        chat = CountedChat(left)
        with pytest.raises(BudgetError):
            made(tmp_path / "cut", step, chat)
        asked += chat.asked
    last = CountedChat()
    capsys.readouterr()
    resumed = made(tmp_path / "cut", step, last)
    assert f"resuming after {asked.total()} replies that are known" in capsys.readouterr().err
    assert prompts_in(tmp_path / "cut") == prompts_in(tmp_path / "whole")
    assert asked + last.asked == whole.asked
    assert (resumed.counts, resumed.dropped) == (result.counts, result.dropped)
    files = [tmp_path / place / "stage" / ELICITATION for place in ("whole", "cut")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_changed_rule_asks_nothing_again(tmp_path: Path) -> None:
    first, again = CountedChat(), CountedChat()
    made(tmp_path, EVOLVE, first)
    strict = made(tmp_path, EVOLVE.model_copy(update={"max_similarity": 0.1}), again)
    assert first.asked.total() > 0 == again.asked.total()
    assert strict.dropped["too similar to a held-out prompt"] > 0


def test_another_seed_asks_again(tmp_path: Path) -> None:
    made(tmp_path, EVOLVE, CountedChat())
    again = CountedChat()
    made(tmp_path, EVOLVE, again, seed=1)
    assert again.asked.total() > 0


def test_a_request_that_failed_is_asked_again_by_the_next_run(tmp_path: Path) -> None:
    result = made(tmp_path, EXPAND, CountedChat(problem_at=3))
    assert result.dropped["no reply"] == 1
    again = CountedChat()
    assert "no reply" not in made(tmp_path, EXPAND, again).dropped
    assert again.asked.total() >= 1


def test_what_a_prompt_costs(tmp_path: Path) -> None:
    made(tmp_path, EVOLVE, chat := CountedChat(), prices={"teacher": Price(prompt=2.0, completion=10.0)})
    metrics = ElicitationMetrics.model_validate_json((tmp_path / "stage" / ELICITATION).read_bytes())
    prompt_tokens = sum(len(text.split()) * count for (text, _), count in chat.asked.items())
    completion_tokens = sum(len(reply_to(text, sample).split(" ")) * count for (text, sample), count in chat.asked.items())
    assert metrics.calls == chat.asked.total()
    assert (metrics.prompt_tokens, metrics.completion_tokens) == (prompt_tokens, completion_tokens)
    assert metrics.tokens_per_prompt == pytest.approx((prompt_tokens + completion_tokens) / metrics.kept)
    assert metrics.usd_per_prompt == pytest.approx((prompt_tokens * 2e-6 + completion_tokens * 10e-6) / metrics.kept)
    made(tmp_path / "unpriced", EVOLVE, CountedChat())
    assert json.loads((tmp_path / "unpriced" / "stage" / ELICITATION).read_text())["usd_per_prompt"] is None


def test_a_teacher_that_refuses_everything_ends_the_run_and_says_why(tmp_path: Path) -> None:
    chat = ScriptedChat(lambda messages, sample: "I'm sorry, but I can't help with that.")
    message = r"no new prompts of the step 'more' are left. Dropped: \d+ is a refusal. .* Look at dropped.jsonl"
    with pytest.raises(DataError, match=message):
        made(tmp_path, EXPAND, chat)
    dropped = list(read_jsonl(tmp_path / "stage" / DROPPED, Dropped))
    assert {one.text for one in dropped} == {"I'm sorry, but I can't help with that."}


def test_a_target_that_is_not_reached_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chat = ScriptedChat(lambda messages, sample: "9. How do foxes hear mice below the snow?")
    result = made(tmp_path, EXPAND, chat)
    assert result.counts["new"] == 1
    assert "more ended with 1 new prompts: the last" in capsys.readouterr().err
    assert "patience" in str(result.metrics["stopped"])


def test_several_models_are_asked(tmp_path: Path) -> None:
    step = EVOLVE.model_copy(update={"models": ("teacher", "other")})
    made(tmp_path, step, CountedChat(), models={"teacher": TEACHER, "other": TEACHER.model_copy(update={"name": "o"})})
    authors = Counter(one.lineage.author for one in prompts_in(tmp_path) if one.lineage)
    assert set(authors) == {"teacher", "other"}


def test_messages_of_a_dry_run_are_not_kept(tmp_path: Path) -> None:
    """A plan replaces each model by one that counts; its placeholders must never be taken for replies."""
    chat = CountedChat()
    folders = (tmp_path / "stage", tmp_path / "caches")
    context = StageContext("x", *folders, Runtime(), open_model=lambda _: chat, open_grader=Ungraded)
    (tmp_path / "stage").mkdir()
    arguments: dict[str, Any] = {"models": {"teacher": TEACHER}, "prompts": given(tmp_path / "prompts"), "seed": 0, "prices": {}}
    elicitation.make(context, settings=EVOLVE, **arguments)
    real = CountedChat()
    made(tmp_path, EVOLVE, real)
    assert real.asked == chat.asked
    assert isinstance(prompts_in(tmp_path)[0].messages[0], Message)


def test_a_model_is_not_opened_if_all_replies_are_known(tmp_path: Path) -> None:
    made(tmp_path, EVOLVE, CountedChat())

    def opened(_: EndpointModel) -> Any:
        raise AssertionError("nothing is to be asked")

    context = StageContext("x", tmp_path / "stage", tmp_path / "caches", Runtime(), open_endpoint=opened)
    arguments: dict[str, Any] = {"models": {"teacher": TEACHER}, "prompts": given(tmp_path / "prompts"), "seed": 0, "prices": {}}
    assert elicitation.make(context, settings=EVOLVE, **arguments).counts["new"] > 0


def test_equal_questions_are_asked_and_paid_for_once(tmp_path: Path) -> None:
    context = StageContext("x", tmp_path, tmp_path / "caches", Runtime(), open_endpoint=lambda _: chat)
    chat = CountedChat()
    question, other = (AuthorRequest("teacher", (Message(role="user", content=f"{n}?"),)) for n in range(2))
    for cached in (0, 2):
        with bar("x") as running:
            ask = CachingAsk(context, {"teacher": TEACHER}, 0, running)
            replies = ask([question, other, question], temperature=1.0, max_new_tokens=10)
        assert [one.text for one in replies] == ["With great care."] * 3
        assert [one.usage.calls for one in replies] == [1, 1, 0]
        assert ask.usage["teacher"].calls == 2
        assert ask.cached == cached
    assert chat.asked.total() == 2
