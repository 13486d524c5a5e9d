import shutil
from pathlib import Path

import pytest

from aligndistill.training.checkpoints import (
    CHECKPOINT_MANIFEST,
    all_checkpoints,
    find_damage,
    keep_newest,
    newest_valid_checkpoint,
    write_manifest,
)

FILES = {"model.safetensors": b"weights" * 9, "trainer_state.json": b'{"global_step": 3}', "global_step3/optimizer.pt": b"moments"}


def checkpoint(folder: Path, step: int, with_manifest: bool = True) -> Path:
    made = folder / f"checkpoint-{step}"
    for name, content in FILES.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_bytes(content + str(step).encode())
    if with_manifest:
        write_manifest(made)
    return made


def flip_bit(file: Path, bit: int) -> None:
    content = bytearray(file.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)


def test_the_newest_with_a_manifest_is_used(tmp_path: Path) -> None:
    assert newest_valid_checkpoint(tmp_path) is None
    checkpoint(tmp_path, 9)
    newest = checkpoint(tmp_path, 100)
    (tmp_path / "checkpoint-final").mkdir()
    (tmp_path / "checkpoint-200").touch()
    assert find_damage(newest) is None
    assert newest_valid_checkpoint(tmp_path) == newest
    assert [path.name for path in all_checkpoints(tmp_path)] == ["checkpoint-9", "checkpoint-100"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["truncated", "emptied", "flipped", "removed", "longer", "a folder"])
def test_every_damaged_file_is_found_and_named(name: str, how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    older, newer = checkpoint(tmp_path, 1), checkpoint(tmp_path, 2)
    file = newer / name
    match how:
        case "truncated":
            file.write_bytes(file.read_bytes()[:-1])
        case "emptied":
            file.write_bytes(b"")
        case "flipped":
            flip_bit(file, 21)
        case "removed":
            file.unlink()
        case "longer":
            file.write_bytes(file.read_bytes() + b"\0")
        case "a folder":
            file.unlink()
            file.mkdir()
    assert name in str(find_damage(newer))
    assert newest_valid_checkpoint(tmp_path) == older
    printed = " ".join(capsys.readouterr().err.split())
    assert f"checkpoint-2 is skipped: {name} is" in printed


def test_a_manifest_damaged_anywhere_is_never_trusted_nor_stumbled_over(tmp_path: Path) -> None:
    made = checkpoint(tmp_path, 1)
    manifest = made / CHECKPOINT_MANIFEST
    content = manifest.read_bytes()
    harmless = 0
    for byte in range(len(content)):
        bit = 8 * byte + byte % 8
        manifest.write_bytes(content)
        flip_bit(manifest, bit)
        found = find_damage(made)
        # Blanks between entries mean nothing.
        harmless += found is None
        assert found is not None or content[byte : byte + 1] in b" \n"
    assert harmless < content.count(b" ") + content.count(b"\n")
    for length in range(len(content)):
        manifest.write_bytes(content[:length])
        assert find_damage(made) is not None
    for other in (b"[]", b"null", b'"x"', b"3", b'{"model.safetensors": null}'):
        manifest.write_bytes(other)
        assert find_damage(made) is not None
    manifest.write_bytes(content)
    assert find_damage(made) is None


def test_one_without_a_manifest_is_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    older = checkpoint(tmp_path, 1)
    checkpoint(tmp_path, 2, with_manifest=False)
    assert newest_valid_checkpoint(tmp_path) == older
    assert "checkpoint-2 is skipped: it is incomplete" in capsys.readouterr().err
    shutil.rmtree(older)
    assert newest_valid_checkpoint(tmp_path) is None


def test_the_newest_with_a_manifest_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 15, 100):
        newest = checkpoint(tmp_path, step)
    checkpoint(tmp_path, 50, with_manifest=False)
    keep_newest(newest, 2)
    assert [path.name for path in all_checkpoints(tmp_path)] == ["checkpoint-15", "checkpoint-100"]
    keep_newest(newest, 1)
    assert [path.name for path in all_checkpoints(tmp_path)] == ["checkpoint-100"]
    assert find_damage(newest) is None


def test_a_damaged_one_of_a_later_step_does_not_replace_the_one_just_saved(tmp_path: Path) -> None:
    checkpoint(tmp_path, 50)
    damaged = checkpoint(tmp_path, 100)
    flip_bit(damaged / "model.safetensors", 3)
    keep_newest(checkpoint(tmp_path, 60), 1)
    assert [path.name for path in all_checkpoints(tmp_path)] == ["checkpoint-60"]


def test_a_new_manifest_covers_the_current_files(tmp_path: Path) -> None:
    made = checkpoint(tmp_path, 1)
    (made / "model.safetensors").write_bytes(b"other weights")
    assert find_damage(made) is not None
    write_manifest(made)
    assert find_damage(made) is None
