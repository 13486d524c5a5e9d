from dataclasses import replace
from pathlib import Path

import pytest

from aligndistill.config.run import Runtime
from aligndistill.models.conversation import Conversation
from aligndistill.models.tokenise import Limits
from aligndistill.stages.context import Work
from aligndistill.stages.tokens import TIES, ranking_examples
from aligndistill.store.jsonl import write_jsonl
from tests.tiny_models import ragged_rankings, tiny_tokenizer

LIMITS = Limits(40, 40, None)


@pytest.fixture
def work(tmp_path: Path) -> Work:
    rankings = tmp_path / "rankings"
    rankings.mkdir()
    held_out = ragged_rankings()[0].model_copy(update={"split": "held_out"})
    write_jsonl(rankings / "rankings.jsonl", [held_out, *ragged_rankings()[1:]])
    student = tmp_path / "student"
    return Work(student, {"rankings": rankings}, {"rankings": "of monday"}, tmp_path / "caches", Runtime(), 0)


def test_rankings_are_tokenised_once_for_all_students(work: Work) -> None:
    conversation = Conversation(tiny_tokenizer(), "chat")
    first = ranking_examples(work, conversation, LIMITS)
    assert [len(one.scores) for one in first] == [len(one.responses) for one in ragged_rankings()[1:]]
    (work.inputs["rankings"] / "rankings.jsonl").unlink()  # nobody needs them now
    other = replace(work, folder=work.folder.with_name("another student"))
    assert list(ranking_examples(other, conversation, LIMITS)) == list(first)
    for changed in (
        lambda: ranking_examples(work, conversation, LIMITS, best_only=True),
        lambda: ranking_examples(work, conversation, Limits(39, 40, None)),
        lambda: ranking_examples(work, Conversation(tiny_tokenizer(), "plain"), LIMITS),
        lambda: ranking_examples(replace(work, identities={"rankings": "of tuesday"}), conversation, LIMITS),
    ):
        with pytest.raises(FileNotFoundError):
            changed()


def test_of_the_best_alone_there_is_one(work: Work) -> None:
    conversation = Conversation(tiny_tokenizer(), "chat")
    best = ranking_examples(work, conversation, LIMITS, best_only=True)
    every = ranking_examples(work, conversation, LIMITS)
    assert [(one.group.prompt, one.group.responses, one.scores) for one in best] == [
        (one.group.prompt, one.group.responses[:1], one.scores[:1]) for one in every
    ]


def test_rankings_of_ties_are_for_those_who_ask(work: Work) -> None:
    conversation = Conversation(tiny_tokenizer(), "chat")
    plain = list(ranking_examples(work, conversation, LIMITS))
    assert list(ranking_examples(work, conversation, LIMITS, ties=True)) == plain  # rankings of an earlier version have none
    first = ragged_rankings()[0]
    tied = first.model_copy(update={"responses": tuple(one.model_copy(update={"score": 0.5}) for one in first.responses)})
    write_jsonl(work.inputs["rankings"] / TIES, [tied])
    assert list(ranking_examples(work, conversation, LIMITS)) == plain
    *others, last = ranking_examples(work, conversation, LIMITS, ties=True)
    assert others == plain
    assert last.scores == [0.5] * len(first.responses)
