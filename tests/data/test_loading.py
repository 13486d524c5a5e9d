import csv
import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow  # type: ignore[import-untyped]
import pyarrow.parquet  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligndistill.config.data import Source
from aligndistill.data.loading import Loading, load_demonstrations, load_prompts, load_rankings
from aligndistill.data.split import split_of
from aligndistill.errors import ConfigError, DataError
from aligndistill.records import Lineage, Message, Prompt, candidate_id, prompt_id

Row = dict[str, Any]
Load = Callable[[Source, float], Loading[Any]]


def lines(rows: list[Row]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def write_jsonl(path: Path, rows: list[Row]) -> None:
    path.write_bytes(lines(rows))


def write_gz(path: Path, rows: list[Row]) -> None:
    path.write_bytes(gzip.compress(lines(rows)))


def write_json(path: Path, rows: list[Row]) -> None:
    path.write_text(json.dumps(rows))


def write_parquet(path: Path, rows: list[Row]) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def write_csv(path: Path, rows: list[Row]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def write_saved(path: Path, rows: list[Row]) -> None:
    import datasets

    datasets.Dataset.from_list(rows).save_to_disk(str(path))


WRITERS = {
    "x.jsonl": write_jsonl,
    "x.jsonl.gz": write_gz,
    "x.json": write_json,
    "x.parquet": write_parquet,
    "x.csv": write_csv,
    "saved": write_saved,
}
HOLDING_LISTS = [name for name in WRITERS if name != "x.csv"]
NUMBERS = range(20)


def user(text: str) -> Row:
    return {"role": "user", "content": text}


def assistant(text: str) -> Row:
    return {"role": "assistant", "content": text}


def lone(text: str) -> tuple[Message, ...]:
    return (Message(role="user", content=text),)


PREFERENCES: dict[str, Callable[[int], Row]] = {
    "explicit": lambda n: {"prompt": f"p{n}", "chosen": "good", "rejected": "bad"},
    "implicit text": lambda n: {"chosen": f"p{n} good", "rejected": f"p{n} bad"},
    "implicit": lambda n: {"chosen": [user(f"p{n}"), assistant("good")], "rejected": [user(f"p{n}"), assistant("bad")]},
    "handbook": lambda n: {
        "prompt": f"p{n}",
        "chosen": [user(f"p{n}"), assistant("good")],
        "rejected": [user(f"p{n}"), assistant("bad")],
    },
    "hh": lambda n: {
        "chosen": f"\n\nHuman: p{n}\n\nAssistant: good",
        "rejected": f"\n\nHuman: p{n}\n\nAssistant: bad",
    },
}
PROMPTS: dict[str, Callable[[int], Row]] = {
    **PREFERENCES,
    "prompt": lambda n: {"prompt": f"p{n}"},
    "prompt messages": lambda n: {"prompt": [user(f"p{n}")]},
    "completion": lambda n: {"prompt": f"p{n}", "completion": "c"},
    "messages": lambda n: {"messages": [user(f"p{n}"), assistant("c")]},
    "rankings": lambda n: {"prompt": f"p{n}", "responses": ["good", "bad"], "scores": [2.0, 1.0]},
}


def fits(name: str, row: Row) -> bool:
    return name != "x.csv" or all(isinstance(value, str) for value in row.values())


CASES = [(file, kind) for file in WRITERS for kind, row in PROMPTS.items() if fits(file, row(0))]


@pytest.mark.parametrize(("file", "kind"), CASES)
def test_prompts_of_every_format_from_every_kind_of_file(tmp_path: Path, file: str, kind: str) -> None:
    path = tmp_path / file
    WRITERS[file](path, [PROMPTS[kind](number) for number in NUMBERS])
    loaded = load_prompts(Source(path=str(path)), 0.3).all()

    texts = [prompt.messages for prompt in loaded.records]
    assert texts == [lone(f"p{number}") for number in NUMBERS]
    assert [prompt.id for prompt in loaded.records] == [prompt_id(messages) for messages in texts]
    first = 2 if file == "x.csv" else 1  # the header is row 1
    assert [prompt.source for prompt in loaded.records] == [f"{path} row {first + number}" for number in NUMBERS]
    assert (loaded.rows, loaded.dropped) == (20, {})


@pytest.mark.parametrize(("file", "kind"), [case for case in CASES if case[1] in PREFERENCES])
def test_pairs_of_every_format_from_every_kind_of_file(tmp_path: Path, file: str, kind: str) -> None:
    path = tmp_path / file
    WRITERS[file](path, [PREFERENCES[kind](number) for number in NUMBERS])
    loaded = load_rankings(Source(path=str(path)), 0.3).all()

    assert [ranking.messages for ranking in loaded.records] == [lone(f"p{number}") for number in NUMBERS]
    for ranking in loaded.records:
        best, worst = ranking.responses
        assert (best.text.strip(), best.score, best.author) == ("good", 1.0, "chosen")
        assert (worst.text.strip(), worst.score, worst.author) == ("bad", 0.0, "rejected")
        assert best.candidate_id == candidate_id(ranking.prompt_id, "chosen", best.text)
    assert (loaded.rows, loaded.dropped) == (20, {})


@pytest.mark.parametrize("file", HOLDING_LISTS)
def test_rankings_are_best_first_and_keep_scores_and_authors(tmp_path: Path, file: str) -> None:
    path = tmp_path / file
    row = {"responses": ["low", "high", "also high"], "scores": [0.25, 0.75, 0.75], "authors": ["x", "y", "z"]}
    WRITERS[file](path, [{"prompt": f"p{number}"} | row for number in NUMBERS])
    for ranking in load_rankings(Source(path=str(path)), 0.3).all().records:
        assert [(response.text, response.score, response.author) for response in ranking.responses] == [
            ("high", 0.75, "y"),
            ("also high", 0.75, "z"),
            ("low", 0.25, "x"),
        ]
        ids = [candidate_id(ranking.prompt_id, author, text) for text, author in (("high", "y"), ("also high", "z"), ("low", "x"))]
        assert [response.candidate_id for response in ranking.responses] == ids


@pytest.mark.parametrize("file", HOLDING_LISTS)
@pytest.mark.parametrize("kind", ["completion", "messages"])
def test_demonstrations_have_the_splits_of_the_same_prompts(tmp_path: Path, file: str, kind: str) -> None:
    path = tmp_path / file
    WRITERS[file](path, [PROMPTS[kind](number) for number in NUMBERS])
    source = Source(path=str(path))
    demonstrations = load_demonstrations(source, 0.3).all()
    assert [(demo.messages, demo.response) for demo in demonstrations.records] == [(lone(f"p{n}"), "c") for n in NUMBERS]
    assert [(demo.prompt_id, demo.split) for demo in demonstrations.records] == [
        (prompt.id, prompt.split) for prompt in load_prompts(source, 0.3).all().records
    ]


def test_columns_bring_foreign_names_home(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    write_jsonl(path, [{"query": f"p{n}", "output": "c", "label": 1} for n in NUMBERS])
    source = Source(path=str(path), columns={"prompt": "query", "completion": "output"})
    assert [demo.response for demo in load_demonstrations(source, 0.3).all().records] == ["c"] * 20


# ------------------------------------------------------------------------------------------------------------- bad rows

GOOD: dict[Load, Row] = {
    load_prompts: {"prompt": "p"},
    load_demonstrations: {"prompt": "p", "completion": "c"},
    load_rankings: {"prompt": "p", "responses": ["a", "b"], "scores": [1, 0]},
}


@pytest.mark.parametrize(
    ("load", "bad", "reason"),
    [
        (load_prompts, {"prompt": None}, "missing prompt"),
        (load_prompts, {"text": "p"}, "missing messages"),
        (load_prompts, {"prompt": "  "}, "empty prompt"),
        (load_prompts, {"prompt": 5}, "prompt is not text"),
        (load_prompts, {"prompt": [user("a"), user("b")]}, "roles out of order"),
        (load_prompts, {"prompt": [user("a"), assistant("b")]}, "prompt does not end with a user turn"),
        (load_prompts, [], "not a JSON object"),
        (load_demonstrations, {"prompt": "p", "completion": ""}, "empty response"),
        (load_demonstrations, {"prompt": "", "completion": "c"}, "empty prompt"),
        (load_rankings, {"prompt": "p", "responses": ["a"], "scores": [1]}, "fewer than two responses"),
        (load_rankings, {"prompt": "p", "responses": ["a", "b"], "scores": [1]}, "responses and scores differ in length"),
        (load_rankings, {"prompt": "p", "responses": ["a", "b"], "scores": [1, "x"]}, "score is not a finite number"),
        (load_rankings, {"prompt": "p", "responses": ["a", "b"], "scores": [1, float("nan")]}, "score is not a finite number"),
        (load_rankings, {"prompt": "p", "responses": ["a", ""], "scores": [1, 0]}, "empty response"),
    ],
)
def test_a_bad_row_stops_the_reading_or_is_counted(tmp_path: Path, load: Load, bad: Any, reason: str) -> None:
    path = tmp_path / "x.jsonl"
    good = [GOOD[load] | {"prompt": f"p{number}"} for number in NUMBERS]
    path.write_bytes(lines(good[:7]) + b"\n" + lines([bad]) + lines(good[7:]) + lines([bad]))
    with pytest.raises(DataError) as caught:
        load(Source(path=str(path)), 0.3).all()
    assert str(caught.value).startswith(f"{path} row 9: {reason}")
    assert "on_bad_row: drop" in str(caught.value)

    loading = load(Source(path=str(path), on_bad_row="drop"), 0.3)
    loaded = loading.all()
    assert len(loaded.records) == 20
    assert (loaded.rows, loaded.dropped) == (22, {reason: 2})
    assert loading.bad_rows == 2
    first, second = loading.first_bad_rows
    assert first.startswith(f"{path} row 9: {reason}")
    assert second.startswith(f"{path} row 23: {reason}")


PAIR_FAULTS: list[tuple[str, str, str]] = [
    ("\n\nHuman: p\n\nAssistant: same", "\n\nHuman: p\n\nAssistant: same", "chosen equals rejected"),
    ("\n\nHuman: p\n\nAssistant:", "\n\nHuman: p\n\nAssistant: bad", "empty response"),
    ("\n\nHuman: p\n\nAssistant: x", "\n\nHuman: q\n\nAssistant: x", "no common prefix"),
    (
        "\n\nHuman: p\n\nAssistant: x\n\nHuman: q\n\nAssistant: good",
        "\n\nHuman: p\n\nAssistant: y\n\nHuman: q\n\nAssistant: bad",
        "prompts differ",
    ),
    ("\n\nHuman: p\n\nHuman: q\n\nAssistant: x", "\n\nHuman: p\n\nHuman: q\n\nAssistant: y", "roles out of order"),
    ("words", "words", "not a Human/Assistant transcript"),
]


@pytest.mark.parametrize(("chosen", "rejected", "reason"), PAIR_FAULTS)
def test_a_bad_transcript_stops_the_reading_or_is_counted(tmp_path: Path, chosen: str, rejected: str, reason: str) -> None:
    path = tmp_path / "x.csv"
    good = [PREFERENCES["hh"](number) for number in NUMBERS]
    write_csv(path, [*good, {"chosen": chosen, "rejected": rejected}])
    with pytest.raises(DataError) as caught:
        load_rankings(Source(path=str(path)), 0.3).all()
    assert str(caught.value).startswith(f"{path} row 22: {reason}")
    loaded = load_rankings(Source(path=str(path), on_bad_row="drop"), 0.3).all()
    assert (len(loaded.records), loaded.dropped) == (20, {reason: 1})


def test_the_row_that_stops_the_reading_need_not_be_reached(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(lines([{"prompt": f"p{number}"} for number in NUMBERS]) + b"{broken\n")
    assert load_prompts(Source(path=str(path), limit=20), 0.3).all().rows == 20
    with pytest.raises(DataError, match=r"x\.jsonl row 21: not valid JSON"):
        load_prompts(Source(path=str(path)), 0.3).all()


def test_the_first_readable_row_decides_the_format(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"{broken\n" + lines([PREFERENCES["explicit"](number) for number in NUMBERS]))
    loaded = load_rankings(Source(path=str(path), on_bad_row="drop"), 0.3).all()
    assert (len(loaded.records), loaded.dropped) == (20, {"not valid JSON": 1})


# ------------------------------------------------------------------------------------------------------------ duplicates


def test_a_prompt_is_kept_once(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    write_jsonl(path, [{"prompt": f"p{number % 15}"} for number in NUMBERS])
    loaded = load_prompts(Source(path=str(path)), 0.3).all()
    assert [prompt.source[-6:].strip() for prompt in loaded.records] == [f"row {n}"[-6:] for n in range(1, 16)]
    assert (loaded.rows, loaded.dropped) == (20, {"duplicate prompt": 5})


def test_rankings_of_one_prompt_stay_apart_and_only_repeated_rows_go(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    rows = [PREFERENCES["explicit"](number) for number in NUMBERS]
    again = [rows[3], rows[3] | {"chosen": "better"}, rows[3] | {"chosen": "bad", "rejected": "good"}]
    write_jsonl(path, rows + again)
    loaded = load_rankings(Source(path=str(path)), 0.3).all()
    assert (len(loaded.records), loaded.rows, loaded.dropped) == (22, 23, {"duplicate row": 1})
    assert [ranking.responses[0].text for ranking in loaded.records if ranking.messages == lone("p3")] == [
        "good",
        "better",
        "bad",
    ]


# ------------------------------------------------------------------------------------------------------------ the splits


@given(st.lists(st.integers(0, 10**6), unique=True, min_size=1, max_size=30), st.randoms())
def test_splits_do_not_move_when_data_grow_or_change_order(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[int], order: random.Random
) -> None:
    folder = tmp_path_factory.mktemp("splits", numbered=True)
    fewer = [{"prompt": f"p{number}"} for number in NUMBERS]
    more = fewer + [{"prompt": f"q{number}"} for number in numbers]
    order.shuffle(more)
    write_jsonl(folder / "fewer.jsonl", fewer)
    write_jsonl(folder / "more.jsonl", more)
    before = {p.id: p.split for p in load_prompts(Source(path=str(folder / "fewer.jsonl")), 0.3).all().records}
    after = {p.id: p.split for p in load_prompts(Source(path=str(folder / "more.jsonl")), 0.3).all().records}
    assert before.items() <= after.items()


@pytest.mark.parametrize("load", [load_prompts, load_rankings])
@pytest.mark.parametrize(
    ("held_out", "message"),
    [
        (1e-9, r"x\.jsonl: no held-out prompts.*20 different prompts.*[Mm]ore prompts or a larger `held_out`"),
        (1 - 1e-9, r"x\.jsonl: no training prompts.*20 different prompts.*[Mm]ore prompts or a smaller `held_out`"),
    ],
)
def test_neither_split_may_be_empty(tmp_path: Path, load: Load, held_out: float, message: str) -> None:
    write_jsonl(tmp_path / "x.jsonl", [PREFERENCES["explicit"](number) for number in NUMBERS])
    with pytest.raises(DataError, match=message):
        load(Source(path=str(tmp_path / "x.jsonl")), held_out).all()


# --------------------------------------------------------------------------------------------------- nothing to work with


@pytest.mark.parametrize("load", [load_prompts, load_demonstrations, load_rankings])
def test_no_rows(tmp_path: Path, load: Load) -> None:
    (tmp_path / "x.jsonl").write_text("\n")
    with pytest.raises(DataError, match=r"x\.jsonl: no usable rows: it has no rows"):
        load(Source(path=str(tmp_path / "x.jsonl")), 0.3).all()


def test_no_row_left(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"prompt": ""}\n{\n{"prompt": ""}\n')
    with pytest.raises(DataError, match=r"all 3 rows were dropped \(empty prompt: 2, not valid JSON: 1\)"):
        load_prompts(Source(path=str(tmp_path / "x.jsonl"), on_bad_row="drop"), 0.3).all()


def test_prompts_are_no_preferences(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "x.jsonl", [{"prompt": "p", "completion": "c"}])
    for on_bad_row in ("error", "drop"):
        with pytest.raises(DataError, match=r"row 1: the rows have prompts but no preferences.*prompt, completion"):
            load_rankings(Source(path=str(tmp_path / "x.jsonl"), on_bad_row=on_bad_row), 0.3).all()


def test_unknown_columns(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "x.jsonl", [{"instruction": "p"}])
    with pytest.raises(DataError, match=r"row 1: unknown row format; the columns are instruction\."):
        load_prompts(Source(path=str(tmp_path / "x.jsonl"), on_bad_row="drop"), 0.3).all()
    with pytest.raises(DataError, match=r"row 1: missing prompt \(the columns are instruction\)"):
        load_prompts(Source(path=str(tmp_path / "x.jsonl"), format="rankings"), 0.3).all()
    with pytest.raises(ConfigError, match="Did you mean 'instruction'"):
        load_prompts(Source(path=str(tmp_path / "x.jsonl"), columns={"prompt": "instructions"}), 0.3).all()


def test_strange_characters_survive_or_are_replaced(tmp_path: Path) -> None:
    strange = ["half \\ud83d", "whole \\ud83d\\ude00", "nul \\u0000", "rtl \\u202e", "x" * 1_000_000]
    body = "".join(f'{{"prompt": "{text} {number}"}}\n' for number in range(10) for text in strange)
    (tmp_path / "x.jsonl").write_text(body)
    loaded = load_prompts(Source(path=str(tmp_path / "x.jsonl")), 0.3).all()
    read = [prompt.messages[0].content for prompt in loaded.records]
    assert read[:4] == ["half \ufffd 0", "whole \U0001f600 0", "nul \x00 0", "rtl \u202e 0"]
    assert len(read[4]) == 1_000_002
    assert all(type(prompt).model_validate_json(prompt.model_dump_json()) == prompt for prompt in loaded.records)


def test_a_line_of_prompts_is_in_one_split(tmp_path: Path) -> None:
    """A child has the split of its root, whatever its own hash says, also when it is read back from a file of another run."""
    roots = [Prompt(id=prompt_id(lone(f"seed {n}")), messages=lone(f"seed {n}"), source="x", split="train") for n in NUMBERS]
    children = [
        Prompt(
            id=prompt_id(lone(f"child {n}")),
            messages=lone(f"child {n}"),
            source="x",
            split="train",
            lineage=Lineage(root=root.id, parent=root.id, operation="expand", author="teacher"),
        )
        for n, root in enumerate(roots)
    ]
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(one.model_dump_json() + "\n" for one in [*roots, *children]))
    read = {prompt.id: prompt for prompt in load_prompts(Source(path=str(file)), 0.5)}
    assert {read[root.id].split for root in roots} == {"train", "held_out"}
    assert any(split_of(child.id, 0.5) != split_of(child.root, 0.5) for child in children)
    for child in children:
        assert read[child.id].split == read[child.root].split == split_of(child.root, 0.5)
        assert read[child.id].lineage == child.lineage


PARTS = ["root", "parent", "operation", "author", "topic"]


@pytest.mark.parametrize("nothing", [None, dict.fromkeys(PARTS), dict.fromkeys(PARTS, "")])
def test_a_table_has_null_where_a_prompt_has_no_lineage_or_topic(tmp_path: Path, nothing: Any) -> None:
    """Of a struct in Parquet every row has all fields."""
    with_topic = {"root": "0f", "parent": None, "operation": "curate", "author": "teacher", "topic": "seas"}
    without = {"root": "0f", "parent": "0e", "operation": "expand", "author": "teacher", "topic": None}
    rows = [("curated", with_topic), ("expanded", without), *((f"own {n}", nothing) for n in NUMBERS)]
    table = {"prompt": [text for text, _ in rows], "lineage": [lineage for _, lineage in rows]}
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "p.parquet")
    read = {one.messages[0].content: one.lineage for one in load_prompts(Source(path=str(tmp_path / "p.parquet")), 0.5)}
    assert read["curated"] == Lineage(root="0f", parent=None, operation="curate", author="teacher", topic="seas")
    assert read["expanded"] == Lineage(root="0f", parent="0e", operation="expand", author="teacher")
    assert all(read[f"own {n}"] is None for n in NUMBERS)


@pytest.mark.parametrize(
    ("load", "answers"),
    [
        (load_prompts, {}),
        (load_demonstrations, {"completion": "yes"}),
        (load_rankings, {"chosen": "yes", "rejected": "no"}),
        (load_rankings, {"responses": ["yes", "no"], "scores": [1, 0]}),
    ],
)
def test_prompts_and_answers_are_in_the_split_of_the_root(tmp_path: Path, load: Load, answers: Row) -> None:
    roots = [prompt_id(lone(f"seed {n}")) for n in NUMBERS]
    lines = [{"root": root, "parent": root, "operation": "expand", "author": "teacher"} for root in roots]
    write_jsonl(tmp_path / "x.jsonl", [{"prompt": f"child {n}", "lineage": line, **answers} for n, line in enumerate(lines)])
    splits = [one.split for one in load(Source(path=str(tmp_path / "x.jsonl")), 0.5)]
    assert splits == [split_of(root, 0.5) for root in roots]
    assert splits != [split_of(prompt_id(lone(f"child {n}")), 0.5) for n in range(len(roots))]


def test_a_lineage_without_its_parts_is_a_bad_row(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    write_jsonl(file, [{"prompt": f"p {n}"} for n in NUMBERS] + [{"prompt": "q", "lineage": {"root": "0f"}}])
    with pytest.raises(DataError, match=r"row 21: lineage cannot be read \(parent, operation, author\)"):
        load_prompts(Source(path=str(file)), 0.5).all()


def test_prompts_without_lineage_are_stored_as_before() -> None:
    prompt = Prompt(id="0f", messages=lone("hi"), source="x", split="train")
    assert prompt.root == "0f"
    stored = '{"id":"0f","messages":[{"role":"user","content":"hi"}],"source":"x","split":"train"}'
    assert prompt.model_dump_json() == stored
    assert Prompt.model_validate_json(stored) == prompt
