"""Which pairs are voted on, and how votes are kept."""

import json
import re
from collections import Counter
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs

import pytest

from aligndistill.commands.audit import vote_metrics_of, vote_table
from aligndistill.commands.output import print_table
from aligndistill.commands.view.ballots import BATCH, human_metrics, model_names, names_a_model, next_batch, voter_name
from aligndistill.commands.view.index import index_of
from aligndistill.commands.view.query import Index, opened
from aligndistill.commands.view.run_folder import RunFolder
from aligndistill.commands.view.sample_query import SampleQuery
from aligndistill.commands.view.site import Site
from aligndistill.errors import ConfigError, DataError
from aligndistill.evaluation.votes import Vote
from aligndistill.evaluation.wins import by_prompt
from aligndistill.records import candidate_id
from aligndistill.runs.votes import read_votes
from tests.commands.view.fake_run import FakeRun, write_run
from tests.commands.view.serving import Client, served


def cast(shown: list, choice: str = "left", first: int = 0) -> list[Vote]:  # type: ignore[type-arg]
    return [
        Vote(
            id=f"{first + number:032x}",
            time=1.0,
            prompt=one.prompt,
            left=one.left,
            right=one.right,
            vote=choice,
            queue=one.queue,
            milliseconds=500,
        )
        for number, one in enumerate(shown)
    ]


@pytest.fixture
def index(fake: FakeRun) -> Index:
    run = RunFolder(fake.folder, "fake")
    with Site({"fake": run}).index(run) as found:
        yield found


def pair_of(one) -> tuple[str, ...]:  # type: ignore[no-untyped-def]
    return (one.prompt, *sorted((one.left, one.right)))


def test_a_batch_is_a_random_sample_with_one_pair_in_ten_swapped(index: Index, fake: FakeRun) -> None:
    batch = next_batch(index, "ann", [], None)
    assert Counter(one.queue for one in batch) == {"random": BATCH - 2, "repeat": 2}
    fresh = {pair_of(one): one for one in batch if one.queue == "random"}
    assert len(fresh) == BATCH - 2
    for again in (one for one in batch if one.queue == "repeat"):
        earlier = fresh[pair_of(again)]
        assert (again.left, again.right) == (earlier.right, earlier.left)
        assert batch.index(earlier) < batch.index(again)
    held_out = {prompt.id for prompt in fake.held_out}
    keys = {(row.author, candidate_id(row.prompt_id, "answer", row.text)) for row in fake.answers}
    starts = {key for author, key in keys if author == "start"}
    for one in batch:
        assert one.prompt in held_out
        assert len({one.left, one.right} & starts) == 1, "a student's answer and the start's"
    assert next_batch(index, "ann", [], None) == batch, "the same after a reload"
    assert [pair_of(one) for one in next_batch(index, "bob", [], None)] != [pair_of(one) for one in batch]


def test_the_start_is_on_either_side(index: Index, fake: FakeRun) -> None:
    starts = {candidate_id(row.prompt_id, "answer", row.text) for row in fake.answers if row.author == "start"}
    left = [one.left in starts for voter in ("a", "b", "c", "d", "e") for one in next_batch(index, voter, [], None)]
    assert 0.3 < sum(left) / len(left) < 0.7


def test_later_batches_hold_new_pairs_and_repeat_earlier_ones(index: Index) -> None:
    first = next_batch(index, "ann", [], None)
    votes = cast(first)
    second = next_batch(index, "ann", votes, None)
    done = {pair_of(one) for one in first}
    assert not done & {pair_of(one) for one in second if one.queue == "random"}
    repeated = {pair_of(one) for one in first if one.queue == "repeat"}
    again = {pair_of(one) for one in second if one.queue == "repeat"}
    assert again <= done - repeated
    assert len(again) == 2


def test_half_of_a_batch_comes_from_a_filter(index: Index) -> None:
    query = SampleQuery(filters=("worse",), model="ppo")
    batch = next_batch(index, "ann", [], query)
    assert Counter(one.queue for one in batch)["filter"] == (BATCH - 2) // 2
    found = {index.prompt_id(number) for number in index.numbers(query, None)}
    assert {one.prompt for one in batch if one.queue == "filter"} <= found


@pytest.mark.parametrize("query", ["f=worse&m=ppo", "q=river", "min=4&max=5&m=dpo", "m=ppo", "f=worse&q=river&max=3"])
def test_votes_on_these_are_on_what_the_page_shows(client: Client, fake: FakeRun, query: str) -> None:
    pages = [client.get(f"/r/fake/samples?{query}&page={page}") for page in (1, 2)]
    these = set(re.findall(r"/r/fake/p/(\w{16})", "".join(pages)))
    (link,) = re.findall(r'href="([^"]*)">vote on these', pages[0])
    (asked,) = re.findall(r'data-pairs="([^"]*)"', client.get(unescape(link)))
    chosen = [one for one in client.send("GET", unescape(asked)).value["pairs"] if one["queue"] == "filter"]
    assert 0 < len(chosen) <= (BATCH - 2) // 2
    assert {one["prompt"] for one in chosen} <= these
    if "m=" in query:
        model = parse_qs(query)["m"][0]
        keys = {candidate_id(row.prompt_id, "answer", row.text) for row in fake.answers if row.author == model}
        assert all({one["left"], one["right"]} & keys for one in chosen)


@pytest.mark.parametrize("query", ["", "split=held_out", "sort=-length&hide=ppo"])
def test_what_narrows_nothing_gives_random_pairs(client: Client, query: str) -> None:
    assert {one["queue"] for one in client.send("GET", f"/r/fake/pairs?{query}").value["pairs"]} == {"random", "repeat"}


def test_training_prompts_have_no_answers_to_vote_on(client: Client) -> None:
    assert "vote on these" in client.get("/r/fake/samples?split=all")
    assert "vote on these" not in client.get("/r/fake/samples?split=train")


def test_votes_are_stored_once_undone_and_read_past_a_torn_line(tmp_path: Path) -> None:
    made = write_run(tmp_path, prompts=40, measured=False)
    with served(tmp_path / "runs") as client:
        pairs = client.send("GET", "/r/fake/pairs").value["pairs"]

        def send(number: int, pair: dict[str, str], vote: str, **more: object) -> int:
            ids = {name: pair[name] for name in ("prompt", "left", "right", "queue")}
            body = {**ids, "id": f"{number:032x}", "vote": vote, "milliseconds": 900, **more}
            return client.post("/r/fake/vote", body).status

        assert send(1, pairs[0], "left", note="clear") == 200
        assert send(1, pairs[0], "left", note="clear") == 200, "a repeated id is taken as stored"
        assert send(2, pairs[1], "tie") == 200
        path = made.folder / "votes/ann.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert [(line["vote"], line["note"], line["version"], line["named"]) for line in lines] == [
            ("left", "clear", 1, False),
            ("tie", "", 1, False),
        ]
        assert lines[0].keys() == {
            "id",
            "time",
            "prompt",
            "left",
            "right",
            "vote",
            "queue",
            "milliseconds",
            "note",
            "named",
            "version",
        }
        assert send(3, pairs[1], "undo") == 200
        assert [vote.vote for vote in read_votes(made.folder)["ann"]] == ["left"]
        assert send(4, pairs[1], "right") == 200
        path.write_bytes(path.read_bytes() + b'{"id": "000')
        assert send(5, pairs[2], "both_bad") == 200
        assert [vote.vote for vote in read_votes(made.folder)["ann"]] == ["left", "right", "both_bad"]
        shown = client.send("GET", "/r/fake/pairs").value["pairs"]
        fresh = [one for one in shown if one["queue"] == "random"]
        assert not {pair_of(SimpleNamespace(**one)) for one in pairs[:3]} & {pair_of(SimpleNamespace(**one)) for one in fresh}


def test_pairs_hide_names_figures_and_verdicts(tmp_path: Path) -> None:
    write_run(tmp_path, prompts=12, measured=False)
    with served(tmp_path / "runs") as client:
        reply = client.send("GET", "/r/fake/pairs").value
        page = client.get("/r/fake/vote")
    assert reply.keys() == {"pairs"}
    assert {name for pair in reply["pairs"] for name in pair} == {"prompt", "left", "right", "queue", "text", "texts"}
    for name in ("dpo", "ppo", "truth", "reward"):
        assert name not in page


def test_answers_that_name_a_model_are_marked() -> None:
    names = model_names(
        ["dpo", "ppo"],
        {"start": {"model": "Qwen/Qwen3-0.6B"}, "teacher": {"name": "gpt-4o"}, "models": {"x": {"model": "a/falcon-7b"}}},
    )
    for text in ("I am Qwen, made by", "As a DPO model", "falcon says", "GPT-4 is", "qwen3"):
        assert names_a_model(text, names), text
    for text in ("", "The start of the week.", "A teacher and her class", "gptx", "0.6b"):
        assert not names_a_model(text, names), text


@pytest.mark.parametrize("name", ["../x", "a/b", "", "a b", "x" * 41, "é"])
def test_a_voters_name_is_a_files_name(name: str) -> None:
    with pytest.raises(ConfigError, match="--voter"):
        voter_name(name)
    assert voter_name("Ann-2_b") == "Ann-2_b"


def test_an_audit_by_votes_prints_what_the_votes_page_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], index: Index
) -> None:
    made = write_run(tmp_path, prompts=40)
    with pytest.raises(DataError, match="no votes on held-out answers yet"):
        vote_metrics_of(made.folder)
    votes = cast(next_batch(index, "ann", [], None))  # the same records, so the same ids
    (made.folder / "votes").mkdir()
    (made.folder / "votes/ann.jsonl").write_text("".join(vote.model_dump_json() + "\n" for vote in votes))
    judged = by_prompt(made.verdicts)
    same = []
    for vote in votes:
        p = judged[vote.prompt].win_probability(vote.left, vote.right)
        if vote.queue == "random" and p is not None:
            same.append(0.5 if p == 0.5 else float(p > 0.5))
    metrics = vote_metrics_of(made.folder)
    with opened(index_of(RunFolder(made.folder, "fake"))) as of_run:
        assert human_metrics(RunFolder(made.folder, "fake"), of_run) == metrics, "the viewer's index says the same as the files"
    assert metrics.agreement is not None
    assert metrics.agreement.mean == pytest.approx(sum(same) / len(same))
    assert metrics.self_agreement is not None
    assert metrics.self_agreement.mean == 0.0, "always the left one, whatever it is"
    print_table(vote_table(metrics))
    printed = capsys.readouterr().out
    assert "18 votes, 18 of them blind and at random" in printed
    assert "judge and person choose the same answer" in printed
