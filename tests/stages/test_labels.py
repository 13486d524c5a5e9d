"""The stages that write demonstrations, with a scripted model: what is asked, dropped and kept, and what the student's rows are."""

import contextlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from aligndistill.chat.scripted import ScriptedChat
from aligndistill.config.audit import AuditProbes
from aligndistill.config.data import Source
from aligndistill.config.judges import Function
from aligndistill.config.labels import Labels
from aligndistill.config.models import EndpointModel
from aligndistill.config.run import Runtime
from aligndistill.data.loading import load_demonstrations, load_prompts
from aligndistill.errors import ConfigError, DataError
from aligndistill.records import Candidate, Demonstration, Message, Prompt, prompt_id
from aligndistill.stages import demonstrations, labels, verdicts
from aligndistill.stages.context import StageContext
from aligndistill.stages.files import CANDIDATES, DEMONSTRATIONS, PROMPTS
from aligndistill.store.jsonl import read_jsonl, write_jsonl
from aligndistill.store.stage import StageResult
from tests.tiny_models import user

TEACHER = {"teacher": EndpointModel.model_validate({"kind": "endpoint", "base_url": "http://localhost:1/v1", "name": "t"})}
Script = Callable[[tuple[Message, ...], int], str]


def short_is_right(prompt: str, responses: Sequence[str]) -> list[bool]:
    """Accepts answers of one word."""
    return [" " not in one for one in responses]


def grade_by_length(prompt: str, responses: Sequence[str]) -> list[float]:
    return [float(len(one)) for one in responses]


class World:
    """A folder with prompts, and one stage after the other on them."""

    def __init__(self, folder: Path, turns: Sequence[tuple[Message, ...]], held_out: Sequence[tuple[Message, ...]] = ()) -> None:
        self.folder = folder
        rows = [
            Prompt(id=prompt_id(one), messages=one, source=f"row {n}", split="held_out" if one in held_out else "train")
            for n, one in enumerate((*turns, *held_out))
        ]
        (folder / "prompts").mkdir()
        write_jsonl(folder / "prompts" / PROMPTS, rows)
        self.asked: list[tuple[Message, ...]] = []

    def context(self, name: str, script: Script) -> StageContext:
        def answer(messages: tuple[Message, ...], sample: int) -> str:
            self.asked.append(messages)
            return script(messages, sample)

        chat = ScriptedChat(answer)
        (self.folder / name).mkdir(exist_ok=True)
        return StageContext(name, self.folder / name, self.folder / "caches", Runtime(), open_model=lambda _: chat)

    def label(self, label: Labels, script: Script) -> StageResult:
        return labels.make(
            self.context("labels", script),
            settings=label.request,
            authors=TEACHER,
            prompts=self.folder / "prompts",
            held_out=0.1,
            seed=0,
        )

    def hint(self, label: Labels, script: Script) -> StageResult:
        assert label.references is not None
        return labels.hinted(
            self.context("hinted", script),
            settings=label.request,
            selection=label.selection,
            references=label.references,
            authors=TEACHER,
            prompts=self.folder / "prompts",
            labels=self.folder / "labels",
            held_out=0.1,
            seed=0,
        )

    def keep(self, label: Labels, folder: str = "labels", judged: bool = False) -> StageResult:
        return demonstrations.make(
            self.context("demonstrations", lambda *_: "never asked"),
            settings=label.request,
            selection=label.selection,
            prompts=self.folder / "prompts",
            labels=self.folder / folder,
            verdicts=self.folder / "verdicts" if judged else None,
        )

    @property
    def rows(self) -> list[Demonstration]:
        return list(read_jsonl(self.folder / "demonstrations" / DEMONSTRATIONS, Demonstration))

    def candidates(self, folder: str) -> list[Candidate]:
        return list(read_jsonl(self.folder / folder / CANDIDATES, Candidate))


def prompts_of(source: Source) -> list[Prompt]:
    found: list[Prompt] = []
    with contextlib.suppress(DataError):  # two prompts may all be in one split
        for one in load_prompts(source, held_out=0.5):
            found.append(one)
    return found


def label(**settings: Any) -> Labels:
    return Labels.model_validate(settings)


def by_sample(*texts: str) -> Script:
    return lambda _, sample: texts[sample]


def test_only_training_prompts_are_asked_and_rows_have_the_plain_prompt(tmp_path: Path) -> None:
    instruction, shots = tmp_path / "how.txt", tmp_path / "shots.jsonl"
    instruction.write_text("Answer like a pirate.\n")
    shots.write_text("".join(json.dumps({"prompt": f"Shot {n}?", "completion": f"Aye {n}."}) + "\n" for n in range(12)))
    conversation = (*user("One?"), Message(role="assistant", content="Two."), *user("Three?"))
    world = World(tmp_path, [user("Why?"), conversation], held_out=[user("Secret?")])
    settings = label(instruction=str(instruction), examples={"path": str(shots), "per_prompt": 2})
    result = world.label(settings, lambda messages, _: f"Arr, {messages[-1].content}")
    assert result.counts["prompts"] == 2
    assert {messages[-1].content for messages in world.asked} == {"Why?", "Three?"}
    for messages in world.asked:
        assert messages[0] == Message(role="system", content="Answer like a pirate.")
        assert [turn.content[:4] for turn in messages[1:5]] == ["Shot", "Aye ", "Shot", "Aye "]
    world.keep(settings)
    assert [(row.messages, row.response) for row in world.rows] == [
        (user("Why?"), "Arr, Why?"),
        (conversation, "Arr, Three?"),
    ]
    assert "pirate" not in (tmp_path / "demonstrations" / DEMONSTRATIONS).read_text()
    assert "Shot" not in (tmp_path / "demonstrations" / DEMONSTRATIONS).read_text()


def test_examples_are_never_held_out_prompts_nor_the_prompt_itself(tmp_path: Path) -> None:
    shots = tmp_path / "shots.jsonl"
    shots.write_text("".join(json.dumps({"prompt": f"Shot {n}?", "completion": "Aye."}) + "\n" for n in range(40)))
    every = load_demonstrations(Source(path=str(shots)), 0.1).all().records
    held_out = {one.messages[-1].content for one in every if one.split == "held_out"}
    assert held_out
    world = World(tmp_path, [user("Shot 7?"), user("Why?")])
    world.label(label(examples={"path": str(shots), "per_prompt": 50}), lambda *_: "Yes.")
    for messages in world.asked:
        shown = {turn.content for turn in messages[:-1] if turn.role == "user"}
        assert not shown & held_out
        assert messages[-1].content not in shown
        assert len(shown) == 40 - len(held_out) - (messages[-1].content == "Shot 7?")
    shots.write_text(json.dumps({"prompt": next(iter(held_out)), "completion": "Aye."}) + "\n")
    with pytest.raises(DataError, match="all 1 examples have prompts that are held out in this run"):
        world.label(label(examples={"path": str(shots)}), lambda *_: "Yes.")


def test_nearest_examples_are_chosen_for_each_prompt(tmp_path: Path) -> None:
    shots = tmp_path / "shots.jsonl"
    texts = ["Add two and three.", "What is the capital of Peru?"]
    shots.write_text("".join(json.dumps({"prompt": text, "completion": "x"}) + "\n" for text in texts))
    world = World(tmp_path, [user("What is the capital of Chile?"), user("Add two and nine.")])
    world.label(label(examples={"path": str(shots), "per_prompt": 1, "choose": "nearest"}), lambda *_: "Yes.")
    assert {messages[-1].content: messages[0].content for messages in world.asked} == {
        "What is the capital of Chile?": "What is the capital of Peru?",
        "Add two and nine.": "Add two and three.",
    }


def test_with_reasons_examples_must_have_them(tmp_path: Path) -> None:
    shots = tmp_path / "shots.jsonl"
    shots.write_text(json.dumps({"prompt": "Shot 1?", "completion": "Aye."}) + "\n")
    world = World(tmp_path, [user("Why?")])
    with pytest.raises(DataError, match=r"begins with 'Answer:', but one is 'Aye\.'"):
        world.label(label(rationale="before", examples={"path": str(shots)}), lambda *_: "Yes.")


def test_a_domain_brings_instruction_and_examples(tmp_path: Path) -> None:
    world = World(tmp_path, [user("Why?")])
    world.label(label(domain="finance"), lambda *_: "Yes.")
    (messages,) = world.asked
    assert "financial analyst" in messages[0].content
    assert len(messages) == 1 + 2 * 3 + 1
    with pytest.raises(ConfigError, match="there is no domain 'finances'"):
        world.label(label(domain="finances"), lambda *_: "Yes.")


def test_passages_are_in_the_system_turn_of_the_labelling_model_alone(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    rows = [{"prompt": f"Why {n}?", "passages": ["It is {so}.", " ", "Or not."] if n else None} for n in range(2)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = Source(path=str(file), columns={"context": "passages"})
    read = [one.model_copy(update={"split": "train"}) for one in prompts_of(source)]
    assert [one.id for one in read] == [prompt_id(user(f"Why {n}?")) for n in range(2)], "no part of the prompt"
    world = World(tmp_path, [])
    write_jsonl(tmp_path / "prompts" / PROMPTS, read)
    world.label(label(), lambda *_: "Yes.")
    plain, informed = sorted(world.asked, key=len)
    assert plain == user("Why 0?")
    assert [turn.role for turn in informed] == ["system", "user"]
    assert informed[0].content.endswith(":\n\nIt is {so}.\n\nOr not.")
    world.keep(label())
    assert [row.messages for row in world.rows] == [user("Why 0?"), user("Why 1?")]


def test_each_reason_for_dropping_is_counted(tmp_path: Path) -> None:
    world = World(tmp_path, [user("Why?")])
    replies = by_sample(
        "Because of it.\nAnswer: yes",
        "",
        "I'm sorry, but I can't help with that.",
        "No answer line.",
        "Answer: no reasons",
        "one two three four five six seven eight nine",
        "Because of it.\nAnswer: yes",
        "<think>only thoughts</think>",
    )
    settings = label(per_prompt=8, rationale="before", max_new_tokens=8, keep="all")
    result = world.label(settings, replies)
    assert result.dropped == {
        "empty": 1,
        "refusal": 1,
        "no answer after the rationale": 1,
        "no rationale": 1,
        "cut off": 1,
        "no answer": 1,
    }
    (found,) = world.candidates("labels")
    assert found.samples == 2  # equal replies are one candidate with two votes
    assert result.counts == {"prompts": 1, "sampled": 8, "candidates": 1}
    world.keep(settings)
    assert [(row.response, row.rationale) for row in world.rows] == [("Because of it.\nAnswer: yes", "Because of it.")]


def test_refusals_are_kept_where_declining_is_right(tmp_path: Path) -> None:
    world = World(tmp_path, [user("Why?")])
    assert world.label(label(refusals="keep"), lambda *_: "I'm sorry, but I can't help with that.").dropped == {}


def test_nothing_left_says_why(tmp_path: Path) -> None:
    world = World(tmp_path, [user("Why?")])
    with pytest.raises(DataError, match=r"no labels are left. Dropped: 1 cut off\. .*cut off at label\.max_new_tokens"):
        world.label(label(max_new_tokens=1), lambda *_: "Yes, of course.")


def test_agreement_keeps_the_majority_and_counts_difficulty(tmp_path: Path) -> None:
    world = World(tmp_path, [user("Easy?"), user("Hard?"), user("Middling?")])
    replies = {
        "Easy?": ["a\nAnswer: 4", "b\nAnswer: 4.0", "c\nAnswer: 4", "d\nAnswer: four"],
        "Middling?": ["a\nAnswer: 1", "b\nAnswer: 2", "c\nAnswer: 2", "d\nAnswer: 3"],
        "Hard?": ["a\nAnswer: 1", "b\nAnswer: 2", "c\nAnswer: 3", "d\nAnswer: 4"],
    }
    settings = label(per_prompt=4, rationale="task", keep="agreement")
    world.label(settings, lambda messages, sample: replies[messages[-1].content][sample])
    result = world.keep(settings)
    assert [(row.task, row.response) for row in world.rows] == [
        ("answer", "4"),
        ("rationale", "a"),
        ("answer", "2"),
        ("rationale", "b"),
    ]
    assert result.dropped == {"no majority": 4, "another answer than most": 3, "same answer as one kept": 3}
    assert result.metrics["accepted_by_difficulty"] == {
        "up to a third": {"prompts": 1, "labelled": 0, "labels": 0},
        "up to two thirds": {"prompts": 1, "labelled": 1, "labels": 1},
        "more": {"prompts": 1, "labelled": 1, "labels": 1},
    }


def test_a_function_keeps_all_different_answers_that_it_accepts(tmp_path: Path) -> None:
    world = World(tmp_path, [user("Why?"), user("How?")])
    settings = label(per_prompt=4, keep="function", function="tests.stages.test_labels:short_is_right")
    world.label(settings, lambda m, s: ("So.", "So.", "It is so.", "Thus.")[s] if m[-1].content == "Why?" else "Not so short.")
    result = world.keep(settings)
    assert [row.response for row in world.rows] == ["So.", "Thus."]
    assert result.dropped == {"rejected by the function": 5}
    assert result.metrics["accepted_by_difficulty"] == {
        "none": {"prompts": 1, "labelled": 0, "labels": 0},
        "more": {"prompts": 1, "labelled": 1, "labels": 2},
    }


@pytest.mark.parametrize(
    ("at_least", "kept"), [(None, ["The longest of all.", "Only one."]), (9.0, ["Middling.", "The longest of all.", "Only one."])]
)
def test_a_judge_keeps_the_best_or_all_that_are_good_enough(tmp_path: Path, at_least: float | None, kept: list[str]) -> None:
    world = World(tmp_path, [user("Why?"), user("How?")])
    settings = label(per_prompt=3, keep="judge", at_least=at_least)
    world.label(
        settings,
        lambda m, s: ("Short.", "Middling.", "The longest of all.")[s] if m[-1].content == "Why?" else "Only one.",
    )
    verdicts.make(
        world.context("verdicts", lambda *_: ""),
        judge=Function(kind="function", function="tests.stages.test_labels:grade_by_length"),
        models={},
        probes=AuditProbes(canaries=0, repeats=0),
        prompts=tmp_path / "prompts",
        candidates=tmp_path / "labels",
        seed=0,
        least=1,
    )
    world.keep(settings, judged=True)
    assert [row.response for row in world.rows] == kept


def test_failures_are_asked_again_with_a_hint_that_the_student_never_sees(tmp_path: Path) -> None:
    references = tmp_path / "right.jsonl"
    known = [{"prompt": text, "completion": "four"} for text in ("Two and two?", "Leaking?")]
    references.write_text("".join(json.dumps(row) + "\n" for row in known))
    world = World(tmp_path, [user("Known?"), user("Two and two?"), user("Leaking?"), user("No reference?")])
    settings = label(
        per_prompt=2,
        rationale="before",
        keep="function",
        function="tests.stages.test_labels:short_is_right",
        hint_on_failure=True,
        references={"path": str(references)},
    )

    def first(messages: tuple[Message, ...], sample: int) -> str:
        return "Of course.\nAnswer: yes" if messages[-1].content == "Known?" else f"Guess {sample}.\nAnswer: not four"

    def second(messages: tuple[Message, ...], sample: int) -> str:
        assert "The right answer is: four" in messages[-1].content
        return f"{'By the hint.' if 'Leaking' in messages[-1].content else f'Way {sample}.'}\nAnswer: four"

    world.label(settings, first)
    world.asked.clear()
    result = world.hint(settings, second)
    assert len(world.asked) == 4  # two samples of the two failures with a reference
    assert result.dropped == {"mentions the hint": 2, "no reference for a hint": 1}
    kept = world.keep(settings, "hinted")
    assert [(row.messages, row.response) for row in world.rows] == [
        (user("Known?"), "Of course.\nAnswer: yes"),
        (user("Two and two?"), "Way 0.\nAnswer: four"),
        (user("Two and two?"), "Way 1.\nAnswer: four"),
    ]
    assert kept.counts["with a hint"] == 2
    assert "right answer" not in (tmp_path / "demonstrations" / DEMONSTRATIONS).read_text()


def test_a_function_that_gives_too_few_values_is_named(tmp_path: Path) -> None:
    world = World(tmp_path, [user("Why?")])
    settings = label(keep="function", function="tests.stages.test_labels:no_values")
    world.label(settings, lambda *_: "So.")
    with pytest.raises(DataError, match="no_values returned 0 values for 1 answers"):
        world.keep(settings)


def no_values(prompt: str, responses: Sequence[str]) -> list[float]:
    return []


def test_an_interrupted_stage_asks_nothing_twice(tmp_path: Path) -> None:
    world = World(tmp_path, [user(f"Question {n}?") for n in range(6)])

    def failing(messages: tuple[Message, ...], sample: int) -> str:
        if len(world.asked) == 5:
            raise ConnectionError
        return f"Answer {sample} to {messages[-1].content}"

    with pytest.raises(ConnectionError):
        world.label(label(per_prompt=2), failing)
    result = world.label(label(per_prompt=2), failing)
    assert len(world.asked) == 5 + 12 - 4  # the fifth question's answer was lost
    assert result.counts["candidates"] == 12
