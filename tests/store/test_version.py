from pathlib import Path

from aligndistill.store.version import STORE_VERSION, VERSION_FILE, claim_store


def test_a_new_store_is_claimed_without_a_remark(tmp_path: Path) -> None:
    store = tmp_path / "runs/store"
    assert not claim_store(store)
    assert (store / VERSION_FILE).read_text().strip() == str(STORE_VERSION)
    (store / "prompts-0123").mkdir()
    (store / "prompts-0123/manifest.json").write_text("{}")
    assert not claim_store(store)


def test_finished_work_of_another_version_is_reported_once_and_not_touched(tmp_path: Path) -> None:
    """The first version of the format wrote no version."""
    (tmp_path / "prompts-0123").mkdir()
    (tmp_path / "prompts-0123/manifest.json").write_text("{}")
    assert claim_store(tmp_path)
    assert not claim_store(tmp_path)
    (tmp_path / VERSION_FILE).write_text("1\n")
    assert claim_store(tmp_path)
    assert (tmp_path / "prompts-0123/manifest.json").read_text() == "{}"


def test_unfinished_work_is_no_reason(tmp_path: Path) -> None:
    (tmp_path / "prompts-0123").mkdir()
    assert not claim_store(tmp_path)
