"""The filters, sorting, paging and downloads of the samples, against the same counted from the files by pandas."""

import csv
import io
import json
import re
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pandas
import pytest

from aligndistill.commands.view.flags import CELL_FILTERS as FLAGS
from aligndistill.commands.view.flags import NEAR_TIE_MARGIN
from aligndistill.commands.view.index import index_of
from aligndistill.commands.view.pages.samples import exported
from aligndistill.commands.view.run_folder import RunFolder
from aligndistill.commands.view.sample_query import PAGE_ROWS
from aligndistill.commands.view.site import Site
from aligndistill.evaluation.wins import by_prompt
from aligndistill.records import candidate_id
from aligndistill.reporting.checks import VIEWER_FILTERS
from tests.commands.view.fake_run import FakeRun, write_run
from tests.commands.view.serving import Client

STUDENTS = ("dpo", "ppo")


@pytest.fixture(scope="module")
def table(fake: FakeRun) -> pandas.DataFrame:
    """A row for each prompt and student: its figures beside the start's, and what the judge said in each order."""
    answers = pandas.DataFrame([row.model_dump() for row in fake.answers])
    finish = {(row.prompt_id, row.author): row.finish for row in fake.written}
    start = answers[answers.author == "start"].set_index("prompt_id")
    rows = []
    for row in answers[answers.author.isin(STUDENTS)].itertuples():
        base = start.loc[row.prompt_id]
        ours, theirs = (candidate_id(row.prompt_id, "answer", text) for text in (row.text, base.text))
        asked = [one for one in fake.verdicts if {one.first, one.second} == {ours, theirs}]
        known = [
            one.probability_first if one.first == ours else 1 - one.probability_first
            for one in asked
            if one.probability_first is not None
        ]
        rows.append(
            {
                "prompt": row.prompt_id,
                "model": row.author,
                "win": sum(known) / len(known) if known else (0.5 if ours == theirs else None),
                "known": known,
                "unread": len(asked) - len(known),
                "longer": row.length_tokens > base.length_tokens,
                "truth_down": row.truth < base.truth,
                "reward_up": row.reward > base.reward,
                "same": row.text == base.text,
                "cut": finish[row.prompt_id, row.author] == "length",
                "length": row.length_tokens,
            }
        )
    return pandas.DataFrame(rows)


def expected(table: pandas.DataFrame, name: str) -> pandas.Series:
    lost = table.win < 0.5
    every_order = table.apply(lambda row: row.unread == 0 and len(row.known) > 0 and all(p < 0.5 for p in row.known), axis=1)
    return {
        "worse": table.truth_down | every_order,
        "longer_lost": table.longer & lost,
        "flip": table.known.map(lambda known: len(known) == 2 and (known[0] - 0.5) * (known[1] - 0.5) < 0),
        "unreadable": table.unread > 0,
        "near_tie": ((table.win - 0.5).abs() < NEAR_TIE_MARGIN) & ~table.same,
        "truncated": table.cut,
        "identical": table.same,
        "reward_up": table.reward_up & (table.truth_down | lost),
    }[name]


def shown_count(client: Client, query: str) -> int:
    found = re.search(r"<b>([\d,]+) prompts</b>", client.get(f"/r/fake/samples?{query}"))
    assert found is not None
    return int(found[1].replace(",", ""))


CELL_FILTERS = ("worse", "longer_lost", "flip", "unreadable", "near_tie", "truncated", "identical", "reward_up")


@pytest.mark.parametrize("model", ["", *STUDENTS])
@pytest.mark.parametrize("name", CELL_FILTERS)
def test_a_filter_finds_what_pandas_counts(client: Client, table: pandas.DataFrame, name: str, model: str) -> None:
    rows = table[expected(table, name) & ((table.model == model) if model else True)]
    count = rows.prompt.nunique()
    assert shown_count(client, f"f={name}&m={model}") == count
    page = client.get(f"/r/fake/samples?m={model}")
    chips = dict(re.findall(r'samples\?f=(\w+)(?:&amp;m=\w+)?"[^>]*>[^<]*<b>(\d+)</b>', page))
    assert int(chips.get(name, 0)) == count


def test_the_data_have_something_for_every_filter(table: pandas.DataFrame) -> None:
    assert all(expected(table, name).sum() > 0 for name in CELL_FILTERS)


def test_the_report_names_filters_as_the_viewer_does() -> None:
    assert {name: label for name, (_, label, _) in FLAGS.items() if name in VIEWER_FILTERS} == VIEWER_FILTERS


def test_filters_of_prompts(client: Client, fake: FakeRun, table: pandas.DataFrame) -> None:
    won = set()
    for canary in fake.canaries:
        (known,) = by_prompt(canary.verdicts).values()
        probability = known.win_probability(canary.bad.id, canary.reference.id)
        if probability is not None and probability > 0.5:
            won.add(canary.prompt_id)
    assert won
    assert shown_count(client, "f=canary_won&split=all") == len(won)
    signs = table.assign(sign=(table.win > 0.5).astype(int) - (table.win < 0.5)).groupby("prompt").sign.agg(["min", "max"])
    assert shown_count(client, "f=disagree") == ((signs["min"] < 0) & (signs["max"] > 0)).sum() > 0
    unread = {one.prompt_id for one in fake.labelled if one.outcome == "unparsed"}
    assert shown_count(client, "f=label_unreadable&split=all") == len(unread) > 0
    ours, theirs = by_prompt(fake.labelled), by_prompt(fake.second)
    differ = []
    for prompt, known in theirs.items():
        for pair in known.pairs:  # one, or none that can be read
            p, q = ours[prompt].win_probability(*pair), known.win_probability(*pair)
            differ += [prompt] if p is not None and q is not None and (p - 0.5) * (q - 0.5) < 0 else []
    assert shown_count(client, "f=judges_differ&split=all") == len(differ) > 0
    shown = client.get(f"/r/fake/p/{differ[0]}")
    assert "The two judges prefer different candidates." in shown
    assert "Second judge (1)" in shown


def test_filters_together_split_length_and_text(client: Client, fake: FakeRun, table: pandas.DataFrame) -> None:
    both = table[(table.model == "ppo") & expected(table, "worse") & expected(table, "longer_lost")]
    assert shown_count(client, "f=worse,longer_lost&m=ppo") == len(both)
    assert shown_count(client, "") == len(fake.held_out)
    assert shown_count(client, "split=all") == len(fake.prompts)
    assert shown_count(client, "split=train") == len(fake.prompts) - len(fake.held_out)
    lengths = table[(table.model == "dpo") & table.length.between(4, 6)]
    assert shown_count(client, "m=dpo&min=4&max=6") == len(lengths) > 0
    found = {row.prompt_id for row in fake.answers if "river" in row.text} | {
        prompt.id for prompt in fake.held_out if "river" in prompt.messages[0].content
    }
    assert shown_count(client, "q=RIVER") == len(found) > 0
    assert shown_count(client, "q=author") == 0, "only texts are searched"
    assert shown_count(client, f"q={fake.held_out[3].id}") == 1, "and the id that the report shows"
    assert shown_count(client, "source=data.jsonl") == len(fake.held_out)
    assert shown_count(client, "source=elsewhere") == 0


def prompts_shown(client: Client, query: str) -> list[str]:
    return re.findall(r'<th scope="row"><a href="/r/\w+/p/(\w{16})', client.get(f"/r/fake/samples?{query}"))


@pytest.mark.parametrize(
    "query", ["sort=-delta&m=ppo", "sort=delta&m=dpo&by=reward", "sort=truth&m=teacher", "sort=-spread&by=reward"]
)
def test_rows_are_sorted_by_any_figure_or_difference(client: Client, fake: FakeRun, query: str) -> None:
    values = dict(part.split("=") for part in query.split("&"))
    sort, measure = values["sort"].lstrip("-"), values.get("by", "truth")
    figure = {(row.prompt_id, row.author): row.model_dump()[measure] for row in fake.answers}
    model = values.get("m", "dpo")

    def key(prompt: str) -> float:
        of = [figure[prompt, name] for name in STUDENTS]
        return {
            "delta": figure[prompt, model] - figure[prompt, "start"],
            "truth": figure[prompt, model],
            "spread": max(of) - min(of),
        }[sort]

    keys = [key(prompt) for prompt in prompts_shown(client, query)]
    assert len(keys) == len(fake.held_out)
    assert keys == sorted(keys, reverse=values["sort"].startswith("-"))


def test_pages_hold_fifty_rows_and_together_every_prompt(tmp_path_factory: pytest.TempPathFactory) -> None:
    from tests.commands.view.serving import served

    made = write_run(tmp_path_factory.mktemp("many"), prompts=160, measured=False)
    with served(made.folder.parent) as client:
        pages = [prompts_shown(client, f"page={page}&sort=-length&m=ppo") for page in (1, 2, 3, 4)]
    assert [len(page) for page in pages] == [PAGE_ROWS, PAGE_ROWS, 120 - 2 * PAGE_ROWS, 0]
    assert {prompt for page in pages for prompt in page} == {prompt.id for prompt in made.held_out}


def test_downloads_hold_what_the_page_counts(client: Client, fake: FakeRun) -> None:
    count = shown_count(client, "f=worse&m=ppo")
    lines = [json.loads(line) for line in client.get("/r/fake/export/jsonl?f=worse&m=ppo").splitlines()]
    assert len(lines) == count
    by_id = {prompt.id: prompt for prompt in fake.prompts}
    for line in lines:
        assert line["messages"] == [message.model_dump() for message in by_id[line["prompt_id"]].messages]
        texts = {row.author: row.text for row in fake.answers if row.prompt_id == line["prompt_id"]}
        assert {one["model"]: one["text"] for one in line["answers"]} == texts
    rows = list(csv.DictReader(io.StringIO(client.get("/r/fake/export/csv?f=worse&m=ppo"))))
    assert len(rows) == 4 * count
    pairs = [json.loads(line) for line in client.get("/r/fake/export/pairs?split=train").splitlines()]
    assert len(pairs) == shown_count(client, "split=train")
    assert pairs[0].keys() >= {"prompt", "chosen", "rejected"}
    heads = client.send("GET", "/r/fake/export/csv").headers
    assert heads["content-disposition"] == 'attachment; filename="fake.csv"'


@pytest.mark.parametrize("form", ["jsonl", "csv", "pairs"])
def test_a_download_goes_on_in_another_thread(fake: FakeRun, form: str) -> None:
    """As a server with several threads sends it while other pages are opened."""
    run = RunFolder(fake.folder, "fake")
    site, query = Site({"fake": run}), {"split": "all"}
    whole = list(exported(site, run, query, form))
    lines = exported(site, run, query, form)
    begun, rest = [next(lines), next(lines)], list[str]()
    other = threading.Thread(target=lambda: rest.extend(lines))
    other.start()
    other.join()
    assert begun + rest == whole
    assert len(rest) > 1


def test_a_spreadsheet_runs_no_formula_of_a_model(tmp_path_factory: pytest.TempPathFactory) -> None:
    from tests.commands.view.serving import served

    made = write_run(
        tmp_path_factory.mktemp("formula"),
        prompts=3,
        measured=False,
        text=lambda field, default: "=1+1" if field == "answer" else default,
    )
    with served(made.folder.parent) as client:
        rows = list(csv.DictReader(io.StringIO(client.get("/r/fake/export/csv"))))
    assert {row["text"] for row in rows} == {"'=1+1"}


@pytest.mark.parametrize(
    "query",
    [
        "page=0",
        "page=-1",
        "page=99999999999999999999",
        "page=x",
        "f=nope,worse",
        "sort=drop%20table",
        "m=unknown",
        "min=-5&max=x",
        "b=unknown&by=nope",
        "hide=start,nope",
        "q=%00",
        "f=%27;--",
        "page=%D9%A1",
    ],
)
def test_what_has_no_meaning_is_left_out(client: Client, query: str) -> None:
    client.get(f"/r/fake/samples?{query}")


def test_prompts_that_models_wrote_are_among_those_of_the_run(tmp_path: Path) -> None:
    made = write_run(tmp_path, prompts=6, measured=False)
    new = made.prompts[0].model_copy(update={"id": "0" * 16, "source": "more, written by teacher", "split": "train"})
    store = tmp_path / "runs/store/prompts-more-r2-0"
    store.mkdir()
    (store / "prompts.jsonl").write_text("".join(one.model_dump_json() + "\n" for one in (*made.prompts, new)))
    (store / "manifest.json").write_bytes((tmp_path / "runs/store" / f"prompts-{0:016x}" / "manifest.json").read_bytes())
    (made.folder / "plan.json").unlink()
    listed = made.folder / "artifacts.json"
    listed.write_text(json.dumps({**json.loads(listed.read_text()), "prompts-more-r2": "runs/store/prompts-more-r2-0"}))
    with closing(sqlite3.connect(index_of(RunFolder(made.folder, "fake")))) as database:
        found = [identity for (identity,) in database.execute("select id from prompts")]
    assert sorted(found) == sorted(one.id for one in (*made.prompts, new))
