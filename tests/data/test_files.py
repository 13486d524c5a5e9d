import gzip
import json
from pathlib import Path

import pyarrow  # type: ignore[import-untyped]
import pyarrow.parquet  # type: ignore[import-untyped]
import pytest

from aligndistill.data.files import SourceRow, read_file
from aligndistill.errors import DataError

ROWS = [{"prompt": "one", "score": 1.5}, {"prompt": "zwei ü 😀", "score": 2.5}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def rows_of(path: Path, content: bytes) -> list[SourceRow]:
    path.write_bytes(content)
    return list(read_file(path))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.jsonl", LINES),
        ("x.ndjson", LINES),
        ("X.JSONL", LINES),
        ("x.jsonl.gz", gzip.compress(LINES)),
        ("x.jsonl", LINES.replace(b"\n", b"\r\n")),
        ("x.jsonl", b"\xef\xbb\xbf" + LINES),
        ("x.jsonl", LINES.rstrip()),
        ("x.json", json.dumps(ROWS).encode()),
        ("x.json", json.dumps(ROWS, indent=2).replace("\n", "\r\n").encode()),
        ("x.json", b"\xef\xbb\xbf" + json.dumps({"data": ROWS}).encode()),
        ("x.json.gz", gzip.compress(json.dumps({"data": ROWS}).encode())),
        ("x.json", LINES),  # JSONL by another name
    ],
)
def test_json_in_its_guises(tmp_path: Path, name: str, content: bytes) -> None:
    rows = rows_of(tmp_path / name, content)
    assert [row.values for row in rows] == ROWS
    assert [row.where for row in rows] == [f"{tmp_path / name} row 1", f"{tmp_path / name} row 2"]


def test_jsonl_numbers_are_line_numbers_and_only_newlines_end_lines(tmp_path: Path) -> None:
    content = '\n{"a": "x\u2028y\u0085z"}\n\n   \n{"a": 2}\n'.encode()
    rows = rows_of(tmp_path / "x.jsonl", content)
    assert [(row.where[-5:], row.values["a"]) for row in rows] == [("row 2", "x\u2028y\u0085z"), ("row 5", 2)]


@pytest.mark.parametrize(
    ("line", "reason", "detail"),
    [
        (b'{"a": 1,}', "not valid JSON", "column 9"),  # where the 1-based ninth character, `}`, should have been a name
        (b'{"a": "b', "not valid JSON", "column 7"),
        (b'{"a": "\xff"}', "not valid JSON", "utf-8"),
        (b"[" * 100_000, "not valid JSON", "recursion"),
        (b'{"a": ' + b"1" * 5000 + b"}", "not valid JSON", "digits"),
        (b"[1, 2]", "not a JSON object", "list"),
        (b"null", "not a JSON object", "NoneType"),
    ],
)
def test_a_bad_line_is_a_row_with_a_fault_and_the_next_is_read(tmp_path: Path, line: bytes, reason: str, detail: str) -> None:
    good, bad, after = rows_of(tmp_path / "x.jsonl", b'{"a": 1}\n' + line + b'\n{"a": 3}\n')
    assert (good.error, after.error, after.values) == (None, None, {"a": 3})
    assert bad.where.endswith("row 2")
    assert bad.error is not None
    assert bad.error.reason == reason
    assert detail in bad.error.detail


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"a": 1},\n {"a": }]', "not valid JSON.*line 2 column 8"),
        (b'{"rows": [\n{"a": 1}]}', "expected a list of objects"),
        (b'"text"', "expected a list of objects"),
        (b'[{"a": "\xff"}]', "not valid JSON.*utf-8"),
    ],
)
def test_a_json_document_that_is_no_list_of_rows(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=rf"x\.json: {message}"):
        rows_of(tmp_path / "x.json", content)


def test_a_json_list_may_hold_something_that_is_no_object(tmp_path: Path) -> None:
    rows = rows_of(tmp_path / "x.json", b'[{"a": 1}, 7]')
    assert rows[1].where.endswith("row 2")
    assert str(rows[1].error) == "not a JSON object (found int)"


@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.csv"])
def test_an_empty_file_has_no_rows(tmp_path: Path, name: str) -> None:
    assert rows_of(tmp_path / name, b"") == []


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("begin", [b"", b"\xef\xbb\xbf"])
def test_csv(tmp_path: Path, begin: bytes, end: str) -> None:
    text = 'prompt,answer\n"a, ""b""\nsecond line",ü\n\nc,\n'.replace("\n", end)
    rows = rows_of(tmp_path / "x.csv", begin + text.encode())
    assert [(row.where.split()[-1], row.values) for row in rows] == [
        ("2", {"prompt": f'a, "b"{end}second line', "answer": "ü"}),
        ("4", {"prompt": "c", "answer": ""}),
    ]


def test_csv_cells_may_be_long_and_hold_nul(tmp_path: Path) -> None:
    cell = "x" * 1_000_000 + "\0"
    assert rows_of(tmp_path / "x.csv.gz", gzip.compress(f"prompt\n{cell}\n".encode()))[0].values == {"prompt": cell}


def test_csv_faults(tmp_path: Path) -> None:
    rows = rows_of(tmp_path / "x.csv", b"a,b\n1,2\n3\n4,5,6\n")
    assert [str(row.error) for row in rows] == [
        "None",
        "wrong number of cells (1 where the header has 2)",
        "wrong number of cells (3 where the header has 2)",
    ]
    with pytest.raises(DataError, match=r"x\.csv line 3: not valid CSV"):
        rows_of(tmp_path / "x.csv", b'a,b\n1,2\n"3,4\n')  # a quote that never closes must not swallow the rest
    with pytest.raises(DataError, match=r"x\.csv line 2: not UTF-8"):
        rows_of(tmp_path / "x.csv", b"a,b\n1,\xe9\n")


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    values = [{"prompt": "one", "responses": ["a", "b"]}, {"prompt": None, "responses": [None]}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(values), path, row_group_size=1)
    assert [(row.where, row.values) for row in read_file(path)] == [
        (f"{path} row 1", values[0]),
        (f"{path} row 2", values[1]),
    ]
    with pytest.raises(DataError, match=r"cut\.parquet: not a readable Parquet file"):
        rows_of(tmp_path / "cut.parquet", path.read_bytes()[:-20])


@pytest.mark.parametrize("content", [LINES, gzip.compress(LINES)[:-12], gzip.compress(LINES)[:20]])
def test_a_damaged_gzip_file(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError, match=r"x\.jsonl\.gz: the gzip file is damaged"):
        rows_of(tmp_path / "x.jsonl.gz", content)


@pytest.mark.parametrize("name", ["x.txt", "x", "x.parquet.gz", "x.jsonl.zst"])
def test_other_kinds_of_file_are_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"not a kind of data file.*\.jsonl, \.json, \.csv"):
        rows_of(tmp_path / name, LINES)
