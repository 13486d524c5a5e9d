import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from aligndistill.config.data import Source
from aligndistill.data.sources import read_rows
from aligndistill.errors import ConfigError, DataError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def values_of(**source: Any) -> list[dict[str, Any]]:
    return [row.values for row in read_rows(Source(**source))]


# ------------------------------------------------------------------------------------------------------------- columns


def test_columns_are_renamed_and_may_be_swapped(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", {"question": "q", "chosen": "bad", "rejected": "good", "more": 1})
    columns = {"prompt": "question", "chosen": "rejected", "rejected": "chosen"}
    assert values_of(path=str(path), columns=columns) == [{"prompt": "q", "chosen": "good", "rejected": "bad", "more": 1}]


def test_a_mapped_column_that_is_not_there(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", {"question": "q", "answer": "a"})
    with pytest.raises(ConfigError) as caught:
        values_of(path=str(path), columns={"prompt": "qestion"})
    assert str(caught.value) == (
        f"{path} row 1: `columns` maps prompt to 'qestion', which does not exist. "
        "The columns are answer, question. Did you mean 'question'?"
    )


def test_a_later_row_may_lack_a_mapped_column(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", {"q": "1"}, {"other": "2"})
    assert values_of(path=str(path), columns={"prompt": "q"}) == [{"prompt": "1"}, {"other": "2"}]


@pytest.mark.parametrize("more", [{}, {"limit": 2}])
def test_the_first_row_may_lack_a_mapped_column_that_another_has(tmp_path: Path, more: dict[str, Any]) -> None:
    """Such as `context`, which not every prompt has."""
    rows = [{"q": "1"}, {"q": "2", "z": ""}, {"q": "3", "passages": ["p"]}]
    path = write(tmp_path / "folder" / "a.jsonl", *rows)
    read = [{"prompt": "1"}, {"prompt": "2", "z": ""}, {"prompt": "3", "context": ["p"]}]
    columns = {"prompt": "q", "context": "passages"}
    for source in (path, path.parent):
        assert values_of(path=str(source), columns=columns, **more) == read[: more.get("limit")]
    with pytest.raises(ConfigError) as caught:
        values_of(path=str(path), columns={"prompt": "q", "context": "pasages"}, **more)
    assert str(caught.value) == (
        f"{path} row 1: `columns` maps context to 'pasages', which does not exist. "
        "The columns are passages, q, z. Did you mean 'passages'?"
    )


def test_mapping_to_a_name_that_no_format_has(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", {"question": "q"})
    with pytest.raises(ConfigError, match=r"unknown column 'promt'.*Did you mean 'prompt'\?"):
        values_of(path=str(path), columns={"promt": "question"})


def test_limit_counts_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", *({"n": number} for number in range(5)))
    assert values_of(path=str(path), limit=2) == [{"n": 0}, {"n": 1}]
    assert len(values_of(path=str(path), limit=9)) == 5


# --------------------------------------------------------------------------------------------------------------- paths


def test_a_file_that_is_missing_is_not_looked_for_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "data" / "prompts.jsonl", {"prompt": "p"})
    for path in ("data/prompt.jsonl", "x.csv", "./owner/name", "../name", "/no/such", "~/no such", "data/prompts", "a/b/c"):
        with pytest.raises(DataError, match="no such file"):
            read_rows(Source(path=path))
    with pytest.raises(DataError, match=r"did you mean data/prompts\.jsonl\?"):
        read_rows(Source(path="data/prompt.jsonl"))


def test_home_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "x.jsonl", {"prompt": "p"})
    assert values_of(path="~/x.jsonl") == [{"prompt": "p"}]


# ------------------------------------------------------------------------------------------------------------- folders


def test_a_folder_of_files_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    write(tmp_path / "b.jsonl", {"n": 2})
    write(tmp_path / "a.jsonl", {"n": 1})
    write(tmp_path / ".hidden.jsonl", {"n": 0})
    (tmp_path / "README.md").write_text("words")
    rows = list(read_rows(Source(path=str(tmp_path))))
    assert [(row.where, row.values["n"]) for row in rows] == [
        (f"{tmp_path}/a.jsonl row 1", 1),
        (f"{tmp_path}/b.jsonl row 1", 2),
    ]


def test_in_a_folder_with_splits_only_the_one_asked_for_is_read(tmp_path: Path) -> None:
    write(tmp_path / "train-00000-of-00002.jsonl", {"n": 1})
    write(tmp_path / "train-00001-of-00002.jsonl", {"n": 2})
    write(tmp_path / "test.jsonl", {"n": 3})
    assert values_of(path=str(tmp_path)) == [{"n": 1}, {"n": 2}]
    assert values_of(path=str(tmp_path), split="test") == [{"n": 3}]
    with pytest.raises(DataError, match=r"no file of split 'validation'\. The files are test, train"):
        values_of(path=str(tmp_path), split="validation")


H4 = ["train_prefs-00000-of-00001.jsonl", "train_sft-00000-of-00001.jsonl", "test_prefs-00000-of-00001.jsonl"]


@pytest.mark.parametrize(
    ("files", "split", "read"),
    [
        (H4, "train_prefs", H4[:1]),
        (H4, "test_prefs", H4[2:]),
        (["hh-train.jsonl", "hh-test.jsonl"], "train", ["hh-train.jsonl"]),
        (["hh-train.jsonl", "hh-test.jsonl"], "hh-test", ["hh-test.jsonl"]),
        (["Train.jsonl", "TEST.jsonl"], "test", ["TEST.jsonl"]),
        (["train_a.jsonl", "train_b.jsonl", "test_a.jsonl"], "train", ["train_a.jsonl", "train_b.jsonl"]),
        (["train.jsonl", "train-1.jsonl", "train_more.jsonl"], "train", ["train-1.jsonl", "train.jsonl"]),
        (["c4-train.00000-of-00002.jsonl", "c4-validation.00000-of-00002.jsonl"], "train", ["c4-train.00000-of-00002.jsonl"]),
        (["prefs.jsonl", "sft.jsonl"], "prefs", ["prefs.jsonl"]),
        (["a.jsonl", "b.jsonl"], "train", ["a.jsonl", "b.jsonl"]),
        (
            ["part-00000-of-00002.jsonl", "part-00001-of-00002.jsonl"],
            "train",
            ["part-00000-of-00002.jsonl", "part-00001-of-00002.jsonl"],
        ),
        (["trains.jsonl", "latest.jsonl"], "train", ["latest.jsonl", "trains.jsonl"]),
    ],
)
def test_files_of_a_split(tmp_path: Path, files: list[str], split: str, read: list[str]) -> None:
    for name in files:
        write(tmp_path / name, {"file": name})
    assert [row["file"] for row in values_of(path=str(tmp_path), split=split)] == read


@pytest.mark.parametrize(
    ("files", "split", "listed"),
    [
        (H4, "train", "test_prefs, train_prefs, train_sft. Did you mean 'train_sft'?"),
        (H4, "train_pref", "test_prefs, train_prefs, train_sft. Did you mean 'train_prefs'?"),
        (["hh-test.jsonl"], "train", "hh-test."),
        (["hh-train.jsonl", "hh-test.jsonl"], "validation", "hh-test, hh-train."),
    ],
)
def test_test_files_are_not_read_for_training(tmp_path: Path, files: list[str], split: str, listed: str) -> None:
    for name in files:
        write(tmp_path / name, {"file": name})
    with pytest.raises(DataError) as caught:
        values_of(path=str(tmp_path), split=split)
    assert str(caught.value) == f"{tmp_path}: no file of split '{split}'. The files are {listed} Set `split:` to one of them."


def test_a_folder_without_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data files in this folder"):
        read_rows(Source(path=str(tmp_path)))


def test_what_save_to_disk_wrote(tmp_path: Path) -> None:
    import datasets

    messages = [{"role": "user", "content": "u"}]
    one = datasets.Dataset.from_list([{"messages": messages}, {"messages": messages * 2}])
    one.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": one, "test_prefs": one.select([1])}).save_to_disk(str(tmp_path / "both"))

    rows = list(read_rows(Source(path=str(tmp_path / "one"))))
    assert [row.where for row in rows] == [f"{tmp_path}/one row 1", f"{tmp_path}/one row 2"]
    assert rows[1].values == {"messages": messages * 2}
    row = next(read_rows(Source(path=str(tmp_path / "both"), split="test_prefs")))
    assert (row.where, row.values) == (f"{tmp_path}/both test_prefs row 1", {"messages": messages * 2})
    with pytest.raises(DataError, match=r"no split 'test_pref'. The splits are test_prefs, train. Did you mean 'test_prefs'\?"):
        read_rows(Source(path=str(tmp_path / "both"), split="test_pref"))

    (tmp_path / "one" / "state.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read as a data set written by save_to_disk"):
        read_rows(Source(path=str(tmp_path / "one")))


# ----------------------------------------------------------------------------------------------------------------- hub


def test_a_hub_data_set_needs_a_revision() -> None:
    with pytest.raises(ConfigError, match=r"needs `revision`.*https://huggingface.co/datasets/Anthropic/hh-rlhf/commits/main"):
        read_rows(Source(path="Anthropic/hh-rlhf"))


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub as `load_dataset` asks of it: one data set, one commit, one file."""

    content = b'{"prompt": "one"}\n{"prompt": "two"}\n'

    def do_GET(self) -> None:
        entry = {"type": "file", "path": "train.jsonl", "size": len(self.content), "oid": "b" * 40}
        if self.path == f"/api/datasets/owner/name/revision/{COMMIT}":
            self.reply(200, json.dumps({"id": "owner/name", "sha": COMMIT, "siblings": [{"rfilename": "train.jsonl"}]}).encode())
        elif self.path.startswith(f"/api/datasets/owner/name/tree/{COMMIT}?"):
            self.reply(200, json.dumps([entry]).encode())
        elif self.path == f"/datasets/owner/name/resolve/{COMMIT}/train.jsonl":
            self.reply(200, self.content)
        else:
            self.reply(404, b"")

    do_HEAD = do_GET

    def reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        for name, value in (("Content-Length", str(len(body))), ("X-Repo-Commit", COMMIT), ("ETag", '"bb"')):
            self.send_header(name, value)
        if status == 404:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


SCRIPT = """
import json, sys
from aligndistill.config.data import Source
from aligndistill.data.sources import read_rows
from aligndistill.errors import UserError
try:
    for row in read_rows(Source(**json.loads(sys.argv[1]))):
        print(row.where, row.values)
except UserError as error:
    print(type(error).__name__, error)
"""


def read_elsewhere(home: Path, environment: dict[str, str], **source: str) -> str:
    """In a process of its own: the Hub's libraries read their environment once, when they are imported."""
    command = [sys.executable, "-c", SCRIPT, json.dumps(source)]
    environment = {**os.environ, "HF_HOME": str(home), **environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.process
def test_a_hub_data_set_at_a_revision(tmp_path: Path, hub: str) -> None:
    there = {"HF_ENDPOINT": hub, "HF_HUB_OFFLINE": "0"}
    source = {"path": "owner/name", "revision": COMMIT}
    expected = "owner/name@01234567 train row 1 {'prompt': 'one'}\nowner/name@01234567 train row 2 {'prompt': 'two'}\n"
    assert read_elsewhere(tmp_path, there, **source) == expected
    assert read_elsewhere(tmp_path, there | {"HF_HUB_OFFLINE": "1"}, **source) == expected  # from the cache
    missing_split = read_elsewhere(tmp_path, there, **source, split="test")
    assert missing_split.startswith(f"DataError 'owner/name' at revision {COMMIT}, split 'test': cannot be loaded from the Hub")


@pytest.mark.process
def test_a_hub_data_set_that_is_not_there(tmp_path: Path, hub: str) -> None:
    printed = read_elsewhere(tmp_path, {"HF_ENDPOINT": hub, "HF_HUB_OFFLINE": "0"}, path="owner/other", revision=COMMIT)
    assert printed.startswith(f"DataError 'owner/other' at revision {COMMIT}, split 'train': cannot be loaded from the Hub")


@pytest.mark.process
def test_a_hub_out_of_reach(tmp_path: Path) -> None:
    printed = read_elsewhere(tmp_path, {"HF_HUB_OFFLINE": "1"}, path="owner/name", revision=COMMIT)
    assert printed.startswith("DataError 'owner/name': the Hub cannot be reached and the data set is not in the local cache")
