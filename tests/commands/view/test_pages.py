"""What the pages of a run say, and the same as files."""

import fcntl
import html
import json
import os
import re
import shutil
import threading
import time
from pathlib import Path
from typing import IO

import pytest

from aligndistill.commands.view.event_tail import SHOWN_EVENTS, EventTail
from aligndistill.commands.view.export import MOST_ROWS, export_site
from aligndistill.commands.view.graph import stage_graph
from aligndistill.commands.view.index import index_of
from aligndistill.commands.view.run_folder import RunFolder, StageState, find_runs, is_held
from aligndistill.commands.view.site import Site
from aligndistill.data.trl_pairs import pairs_of
from aligndistill.errors import DataError
from aligndistill.evaluation.wins import by_prompt
from aligndistill.records import Ranking, candidate_id
from aligndistill.runs.events import Events
from aligndistill.store.jsonl import read_jsonl
from tests.commands.view.fake_run import FakeRun, write_run
from tests.commands.view.serving import Client, served


def words(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))


def test_a_sample_has_every_answer_and_every_verdict_in_both_orders(client: Client, fake: FakeRun) -> None:
    prompt = fake.held_out[1]
    page = client.get(f"/r/fake/p/{prompt.id}")
    for answer in fake.answers:
        if answer.prompt_id == prompt.id:
            plain = re.sub(r"<del>.*?</del>", "", page)
            assert answer.text in re.sub(r"</?ins>", "", plain)
    verdicts = [one for one in fake.verdicts if one.prompt_id == prompt.id]
    assert len(verdicts) == 4
    for verdict in verdicts:
        if verdict.probability_first is not None:
            assert f"P(A) = {verdict.probability_first:.2f}" in page
    keys = {candidate_id(prompt.id, "answer", one.text): one.author for one in fake.answers if one.prompt_id == prompt.id}
    known = by_prompt(verdicts)[prompt.id]
    start = next(key for key, author in keys.items() if author == "start")
    for key, author in keys.items():
        if author in ("dpo", "ppo"):
            p = known.win_probability(key, start)
            winner, loser = (author, "start") if p is not None and p > 0.5 else ("start", author)
            assert f"{winner} beats {loser}" in words(page)
    assert page.count("raw reply") >= 4
    assert prompt.source in page


def test_flips_are_named_in_words(client: Client, fake: FakeRun) -> None:
    flipped = []
    for number in range(0, len(fake.verdicts), 2):
        one, other = fake.verdicts[number : number + 2]
        if None not in (one.probability_first, other.probability_first) and one.outcome == other.outcome != "tie":
            flipped.append(one.prompt_id)
    assert flipped
    for prompt in flipped:
        assert "Order flip: the winner changes with the order." in client.get(f"/r/fake/p/{prompt}")


def test_the_judges_figures_lead_to_the_rows_that_they_count(client: Client) -> None:
    page = client.get("/r/fake/judge")
    links = re.findall(r'href="(/r/fake/samples\?[^"]+)">(\d+) ([^<]+)</a>', page)
    assert {name for _, _, name in links} == {
        *("prompts with one", "prompts with a flip", "prompts where one won"),
        "prompts where the two prefer different answers",
    }
    for address, count, _ in links:
        listed = client.get(address.replace("&amp;", "&"))
        assert f"<b>{count} prompts</b>" in listed
    assert re.search(r"known-bad answers preferred.*?\d(\.5)? of 4", words(page)), "below n = 20 the count is shown"


def test_the_judges_work_is_that_of_the_report_with_its_sums(tmp_path: Path) -> None:
    write_run(tmp_path, prompts=3)
    path = tmp_path / "runs/fake/report.json"
    parts = {"labelling": (12, 1, 12, 5), "evaluation": (8, 0, 8, 7)}
    work = [
        {"purpose": name, "verdicts": v, "unparsed": u, "calls": c, "cached": k, "prompt_tokens": 1000, "completion_tokens": 10}
        for name, (v, u, c, k) in parts.items()
    ]
    judge = {"kind": "pairwise", "calls": 20, "cached": 12, "unparsed": 1, "verdicts": 20, "work": work}
    path.write_text(json.dumps({**json.loads(path.read_text()), "judge": judge}))
    with served(tmp_path / "runs") as client:
        shown = words(client.get("/r/fake/judge"))
    assert "labelling 12 1 12 5 1,000 10" in shown
    assert "evaluation 8 0 8 7 1,000 10" in shown
    assert "sum 20 1 20 12 2,000 20" in shown


def test_curves_are_drawn_for_every_stage_with_their_values(client: Client) -> None:
    page = client.get("/r/fake/curves?x=seconds")
    assert page.count("<polyline") == 2 + 2  # loss of both students; entropy and KL of one
    assert "seconds of training" in page
    assert "What ppo wrote at update 3" in page
    assert "written at 3" in page
    assert "written at 2" in client.get("/r/fake/curves?u.ppo=1")
    assert page.count("<td>ppo</td>") == 30


def test_data_says_what_was_dropped_and_marks_what_is_learned(client: Client, fake: FakeRun) -> None:
    page = client.get("/r/fake/data")
    assert "empty prompt: 2" in page
    assert "<mark>first 0</mark>" in page
    assert f"{len(fake.prompts)} rankings" in page
    assert "page=2" in page


def test_pairs_of_a_model_without_a_chat_template_are_shown(tmp_path: Path) -> None:
    """Their prompts and responses are plain strings, as `pairs_of` writes them."""
    fake = write_run(tmp_path, prompts=3)
    (rankings,) = (tmp_path / "runs/store").glob("rankings-*")
    rows = read_jsonl(rankings / "rankings.jsonl", Ranking)
    pairs = [row for ranking in rows for row in pairs_of(ranking, conversational=False)]
    (rankings / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    with served(tmp_path / "runs") as client:
        page = client.get("/r/fake/data")
    assert page.count("1 pair<") == len(fake.prompts)
    assert "<mark>first 0</mark>" in page
    assert f'<span class="quiet">prompt:</span> {fake.prompts[0].messages[0].content}' in page


def test_a_comparison_says_first_what_cannot_be_compared(tmp_path: Path) -> None:
    write_run(tmp_path, "one", prompts=12)
    write_run(tmp_path, "two", prompts=16, seed=1)
    path = tmp_path / "runs/two/config.yaml"
    config = json.loads(path.read_text())
    config["judge"]["template"] = config["evaluation"]["judge"]["template"] = "helpful"
    config["students"]["dpo"]["objective"]["beta"] = 0.5
    path.write_text(json.dumps(config))
    with served(tmp_path / "runs") as client:
        page = words(client.get("/c?r=one&r=two"))
        assert client.send("GET", "/c?r=one").status == 404
        assert "None." in words(client.get("/c?r=one&r=one&r=two"))[:400] or "beta" in page
    assert page.index("The judges differ") < page.index("Settings that differ")
    assert "two has other held-out prompts than one" in page
    assert "students.dpo.objective.beta 0.1 0.5" in page


# -------------------------------------------------------------------------------------------------------------- states


def test_a_run_is_running_while_its_lock_is_held_and_stopped_after(tmp_path: Path) -> None:
    made = write_run(tmp_path, prompts=8)
    shutil.rmtree(next((tmp_path / "runs/store").glob("evaluation-*")))
    run = RunFolder(made.folder, "fake")
    events = Events(made.folder / "events.jsonl")
    events.hold()
    events.add("begin", note="aligndistill run fake.yaml")
    events._stage = "evaluation"
    events.add("start")
    events.add("progress", n=3, total=9, rate=1.5, eta_s=4.0)
    state = run.state()
    assert (state.state, state.note, state.done) == ("running", "", 12)
    assert state.running is not None
    assert (state.running.name, state.running.event["n"]) == ("evaluation", 3)
    events.close()
    state = run.state()
    assert (state.state, state.note, state.command) == ("stopped", "in the stage evaluation", "aligndistill run fake.yaml")
    with (made.folder / "events.jsonl").open("a") as file:
        file.write(json.dumps({"t": 1, "stage": "evaluation", "event": "fail", "note": "out of memory"}) + "\n" + '{"t": 2, "sta')
    state = run.state()
    assert (state.state, state.note) == ("failed", "evaluation: out of memory")


def test_readers_at_the_same_time_do_not_take_each_other_for_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = write_run(tmp_path, prompts=8).folder / "events.jsonl"
    events.touch()
    lock, found = fcntl.flock, list[bool]()
    other = threading.Thread(target=lambda: found.append(is_held(events)))

    def then_another_reads(file: IO[bytes], kind: int) -> None:
        lock(file, kind)
        if kind & fcntl.LOCK_NB and other.ident is None:
            other.start()
            other.join(0.2)  # it ends, or waits for this one

    monkeypatch.setattr("aligndistill.commands.view.run_folder.fcntl.flock", then_another_reads)
    found.append(is_held(events))
    other.join()
    assert found == [False, False]


def test_a_silent_run_is_said_to_be_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = write_run(tmp_path, prompts=8)
    events = Events(made.folder / "events.jsonl")
    events.hold()
    events.add("begin")
    really = time.time()
    monkeypatch.setattr("aligndistill.commands.view.run_folder.time.time", lambda: really + 75)
    assert RunFolder(made.folder, "fake").state().note == "no heartbeat for 75 s"
    events.close()


def test_a_live_page_gets_what_a_writer_appends(tmp_path: Path) -> None:
    made = write_run(tmp_path, prompts=8)
    shutil.rmtree(next((tmp_path / "runs/store").glob("evaluation-*")))
    events = Events(made.folder / "events.jsonl")
    events.hold()
    with served(tmp_path / "runs") as client, events.stage("evaluation"):
        import http.client

        connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=30)
        connection.request("GET", "/r/fake/live", headers={"host": client.host, "cookie": client.cookie})
        answer = connection.getresponse()
        assert answer.headers["content-type"].startswith("text/event-stream")

        def next_part() -> str:
            while not (line := answer.readline().decode()).startswith("data: "):
                assert line
            return str(json.loads(line.removeprefix("data: ")))

        assert "3 of 9" not in next_part()
        events.add("progress", n=3, total=9, rate=1.5, eta_s=4.0)
        part = next_part()
        assert "3 of 9" in part
        assert "1.5/s" in part
        connection.close()
    events.close()


def test_runs_are_found_newest_first_and_what_is_no_run_is_named(tmp_path: Path) -> None:
    for number, name in enumerate(("old", "new")):
        made = write_run(tmp_path, name, prompts=4, seed=number, measured=False)
        for file in made.folder.iterdir():
            os.utime(file, (1000 + number, 1000 + number))
    assert list(find_runs([], tmp_path / "runs")) == ["new", "old"]
    assert list(find_runs([tmp_path / "runs/old"], tmp_path)) == ["old"]
    shutil.copytree(tmp_path / "runs/old", tmp_path / "other/old")
    assert set(find_runs([tmp_path / "runs/old", tmp_path / "other/old"], tmp_path)) == {"old", "old~2"}
    with pytest.raises(DataError, match=r"is not a run's folder.*Runs here: .*new"):
        find_runs([tmp_path / "runs/store"], tmp_path / "runs")


def test_the_index_holds_no_text_and_follows_the_stages(tmp_path: Path) -> None:
    made = write_run(tmp_path, prompts=8, text=lambda field, default: "secret words" if field in ("answer", "reply") else default)
    run = RunFolder(made.folder, "fake")
    path = index_of(run)
    assert b"secret" not in path.read_bytes()
    assert b"question" not in path.read_bytes()
    assert index_of(run) == path
    shutil.rmtree(next((tmp_path / "runs/store").glob("evaluation-*")))
    assert index_of(run) != path


# -------------------------------------------------------------------------------------------------------------- export


def test_an_export_says_what_the_live_pages_say_without_script(fake: FakeRun, tmp_path: Path, client: Client) -> None:
    site = Site(find_runs([], fake.folder.parent))
    written = export_site(site, tmp_path / "out")
    assert written == len(list((tmp_path / "out").rglob("*.html")))
    assert len(fake.held_out) < MOST_ROWS
    first, prompt = fake.held_out[0].id, fake.held_out[1].id
    for file, address in (
        ("fake/judge.html", "/r/fake/judge"),
        ("fake/data.html", "/r/fake/data"),
        (f"fake/p/{prompt}.html", f"/r/fake/p/{prompt}"),
        ("fake/curves.html", "/r/fake/curves"),
    ):
        static, live = ((tmp_path / "out" / file).read_text(), client.get(address))
        drop = re.compile(
            r"<form.*?</form>|<nav.*?</nav>|<p class=\"where\">.*?</p>|<p>By .*?</p>|>hide<|No votes yet.*?</p>", re.DOTALL
        )
        assert words(drop.sub("", static)).replace(" ", "") == words(drop.sub("", live)).replace(" ", "")
    for page in (tmp_path / "out").rglob("*.html"):
        text = page.read_text()
        assert "<script" not in text
        assert not re.findall("<(?:form|button|input|select|kbd)", text), "controls need the server"
        for address in re.findall(r'(?:href|src)="([^"#]+)"', text):
            assert (page.parent / address).is_file(), (page, address)
    sample = (tmp_path / "out/fake/p" / f"{prompt}.html").read_text()
    assert f'<a rel="prev" href="../../fake/p/{first}.html">' in sample
    assert "<dt>folder</dt><dd>runs/fake</dd>" in (tmp_path / "out/fake/index.html").read_text()


def test_a_link_to_filtered_samples_leads_to_the_same_prompts_in_an_export(fake: FakeRun, tmp_path: Path, client: Client) -> None:
    """On the server and in files, every such link of a run's page and of its judge's page."""
    export_site(Site(find_runs([], fake.folder.parent)), tmp_path / "out")
    found = 0
    for file, address in (("index", "/r/fake"), ("judge", "/r/fake/judge")):
        live = re.findall(r'href="(/r/fake/samples\?[^"]+)">([^<]*)<', client.get(address))
        static = re.findall(r'href="(?:\.\./)*fake/(samples-\d+\.html)">([^<]*)<', (tmp_path / f"out/fake/{file}.html").read_text())
        assert [text for _, text in live] == [text for _, text in static]
        for (query, _), (name, _) in zip(live, static, strict=True):
            shown = (tmp_path / "out/fake" / name).read_text()
            prompts = re.findall(r"fake/p/(\w+)\.html", shown)
            assert prompts
            assert prompts == re.findall(r"/r/fake/p/(\w+)\?", client.get(html.unescape(query)))
            assert "all samples" in shown
            found += 1
    assert found > 10


def test_an_export_leaves_other_folders_alone(fake: FakeRun, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        export_site(Site(find_runs([], fake.folder.parent)), tmp_path)


def test_an_export_removes_the_pages_of_an_earlier_one_and_nothing_else(fake: FakeRun, tmp_path: Path) -> None:
    write_run(tmp_path, name="other", prompts=8, seed=1)
    out = tmp_path / "out"
    export_site(Site(find_runs([], tmp_path / "runs")), out)
    earlier = set(out.rglob("*.html"))
    (out / "notes.html").write_text("mine")
    written = export_site(Site(find_runs([], fake.folder.parent)), out)
    kept = set(out.rglob("*.html"))
    assert len(kept - {out / "notes.html"}) == written
    assert not any("other" in path.relative_to(out).parts for path in kept)
    assert len(earlier - kept) > 8
    assert (out / "notes.html").read_text() == "mine"


def test_a_sample_says_what_people_decided(tmp_path: Path) -> None:
    made = write_run(tmp_path, prompts=12, measured=False)
    prompt = made.held_out[1].id
    keys = {row.author: candidate_id(prompt, "answer", row.text) for row in made.answers if row.prompt_id == prompt}
    with served(tmp_path / "runs") as client:
        page = client.get(f"/r/fake/p/{prompt}")
        assert "People: not voted." in words(page)
        assert ".</span><span" not in page, "sentences are separated by a space"
        body = {"id": "1" * 32, "prompt": prompt, "left": keys["start"], "right": keys["dpo"], "vote": "right", "queue": "random"}
        assert client.post("/r/fake/vote", {**body, "milliseconds": 1}).status == 200
        page = words(client.get(f"/r/fake/p/{prompt}"))
        assert page.count("People: ann: dpo.") == 1
        assert client.post("/r/fake/vote", {**body, "id": "2" * 32, "vote": "left", "milliseconds": 1}).status == 200
        assert "People: ann: start." in words(client.get(f"/r/fake/p/{prompt}"))
        assert re.search(r"unvoted <b>8</b>", client.get("/r/fake/samples")), "8 of 9 held-out prompts"


def test_the_graph_has_a_column_for_each_step() -> None:
    def stage(name: str, *inputs: str, state: str = "done") -> StageState:
        return StageState(name, Path(name), inputs, state, {}, {})

    stages = [
        stage("a"),
        stage("b", "a"),
        stage("c", "a"),
        stage("d", "a", "b", "c", state="running"),
        stage("x" * 30, "d", state="waiting"),
    ]
    drawn = stage_graph(stages)
    boxes = re.findall(r'class="box (\w+)" x="(\d+)" y="(\d+)"', drawn)
    assert [(state, int(x)) for state, x, _ in boxes] == [
        ("done", 2),
        ("done", 164),
        ("done", 164),
        ("running", 326),
        ("waiting", 488),
    ]
    assert len({(x, y) for _, x, y in boxes}) == 5
    assert drawn.count('class="edge"') == 5
    assert drawn.startswith('<svg class="graph" width="622" height="68" viewBox="0 0 622 68"'), "as large as it is drawn"
    assert stage_graph([stage("0"), *(stage(str(n), str(n - 1)) for n in range(1, 7))]).startswith('<svg class="graph large"')
    assert stage_graph([stage("a"), stage("b")]) == "", "nothing to draw"


def test_events_are_read_once_and_from_the_latest_command(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    tail = EventTail(path)
    assert tail.read().last is None, "no file yet"

    def append(*events: tuple[str, str | None], end: str = "\n") -> None:
        with path.open("a") as file:
            file.write("\n".join(json.dumps({"t": 1, "event": event, "stage": stage}) for event, stage in events) + end)

    append(("begin", None), ("start", "a"), ("fail", "a"))
    assert (tail.read().failed or {})["stage"] == "a"
    with path.open("a") as file:
        file.write(json.dumps({"t": 1, "event": "begin", "stage": None, "note": "aligndistill run x.yaml"}) + "\n")
    append(("begin", None), ("start", "b"))  # of a process that the launcher started
    assert (tail.read().first or {})["note"] == "aligndistill run x.yaml"
    latest = tail.read()
    assert (latest.failed, set(latest.of_stage)) == (None, {"b"}), "of the command that was started last"
    append(("progress", "b"), end="")
    assert (tail.read().last or {})["event"] == "start", "the line is not whole yet"
    append(end="\n")
    assert (tail.read().last or {})["event"] == "progress"
    for _ in range(100):
        append(("heartbeat", "b"))
    assert len(tail.read().log) == SHOWN_EVENTS
    path.write_text(json.dumps({"event": "end"}) + "\n")
    assert (tail.read().last or {})["event"] == "end", "another file"
