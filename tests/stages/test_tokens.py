from dataclasses import replace
from pathlib import Path

import pytest

from aligndistill.config.run import Runtime
from aligndistill.errors import DataError
from aligndistill.models.conversation import Conversation
from aligndistill.models.tokenise import Limits
from aligndistill.stages.context import StageContext
from aligndistill.stages.files import RANKINGS, TIES
from aligndistill.stages.tokens import ranking_examples
from aligndistill.store.jsonl import write_jsonl
from tests.tiny_models import ragged_rankings, tiny_tokenizer

LIMITS = Limits(40, 40, None)


@pytest.fixture
def rankings(tmp_path: Path) -> Path:
    folder = tmp_path / "rankings"
    folder.mkdir()
    held_out = ragged_rankings()[0].model_copy(update={"split": "held_out"})
    write_jsonl(folder / RANKINGS, [held_out, *ragged_rankings()[1:]])
    (folder / TIES).touch()
    return folder


@pytest.fixture
def context(tmp_path: Path, rankings: Path) -> StageContext:
    return StageContext("student", tmp_path / "student", tmp_path / "caches", Runtime(), {rankings: "of monday"})


def test_rankings_are_tokenised_once_for_all_students(context: StageContext, rankings: Path) -> None:
    conversation = Conversation(tiny_tokenizer(), "chat")
    first = ranking_examples(context, rankings, conversation, LIMITS)
    assert [len(one.scores) for one in first] == [len(one.responses) for one in ragged_rankings()[1:]]
    (rankings / RANKINGS).unlink()  # they are not needed any more
    other = replace(context, folder=context.folder.with_name("another student"))
    assert list(ranking_examples(other, rankings, conversation, LIMITS)) == list(first)
    for changed in (
        lambda: ranking_examples(context, rankings, conversation, LIMITS, best_only=True),
        lambda: ranking_examples(context, rankings, conversation, Limits(39, 40, None)),
        lambda: ranking_examples(context, rankings, Conversation(tiny_tokenizer(), "plain"), LIMITS),
        lambda: ranking_examples(replace(context, identities={rankings: "of tuesday"}), rankings, conversation, LIMITS),
    ):
        with pytest.raises(FileNotFoundError):
            changed()


def test_of_the_best_alone_there_is_one(context: StageContext, rankings: Path) -> None:
    conversation = Conversation(tiny_tokenizer(), "chat")
    best = ranking_examples(context, rankings, conversation, LIMITS, best_only=True)
    every = ranking_examples(context, rankings, conversation, LIMITS)
    assert [(one.group.prompt, one.group.responses, one.scores) for one in best] == [
        (one.group.prompt, one.group.responses[:1], one.scores[:1]) for one in every
    ]


def test_rankings_of_ties_are_for_those_who_ask(context: StageContext, rankings: Path) -> None:
    conversation = Conversation(tiny_tokenizer(), "chat")
    plain = list(ranking_examples(context, rankings, conversation, LIMITS))
    assert list(ranking_examples(context, rankings, conversation, LIMITS, ties=True)) == plain  # there are none
    first = ragged_rankings()[0]
    tied = first.model_copy(update={"responses": tuple(one.model_copy(update={"score": 0.5}) for one in first.responses)})
    write_jsonl(rankings / TIES, [tied])
    other = replace(context, identities={rankings: "with a tie"})
    assert list(ranking_examples(other, rankings, conversation, LIMITS)) == plain
    *others, last = ranking_examples(other, rankings, conversation, LIMITS, ties=True)
    assert others == plain
    assert last.scores == [0.5] * len(first.responses)


def test_where_all_rankings_are_tied_any_response_is_the_best(context: StageContext, rankings: Path) -> None:
    conversation = Conversation(tiny_tokenizer(), "chat")
    strict = list(ranking_examples(context, rankings, conversation, LIMITS, best_only=True))
    rows = (rankings / RANKINGS).read_text()
    (rankings / TIES).write_text(rows)  # beside rankings with an order they are not read
    other = replace(context, identities={rankings: "with ties"})
    assert list(ranking_examples(other, rankings, conversation, LIMITS, best_only=True)) == strict

    (rankings / RANKINGS).write_text(rows.splitlines()[0] + "\n")  # the held-out one
    (rankings / TIES).write_text("".join(f"{row}\n" for row in rows.splitlines()[1:]))
    alone = replace(context, identities={rankings: "ties alone"})
    assert list(ranking_examples(alone, rankings, conversation, LIMITS, best_only=True)) == strict
    with pytest.raises(DataError, match=f"no training rankings are left. Dropped: {len(strict)} all tied"):
        ranking_examples(alone, rankings, conversation, LIMITS)
