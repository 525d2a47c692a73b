import os
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atheria import checkpoint, files
from atheria.config import UserError

STATE = {"model_state_dict": {"w": torch.arange(1000.0)}, "episode": 3, "schema": 1}


def saved(folder: Path) -> Path:
    path = folder / "last.pth"
    checkpoint.save(STATE, path)
    return path


def test_what_is_saved_is_read_back_with_its_digest_beside_it(tmp_path: Path) -> None:
    path = saved(tmp_path)
    assert torch.equal(checkpoint.load(path)["model_state_dict"]["w"], STATE["model_state_dict"]["w"])
    assert os.system(f"cd {tmp_path} && sha256sum --quiet -c last.pth.sha256") == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.pth", "last.pth.sha256"]


@settings(max_examples=30)
@given(st.data())
def test_no_changed_byte_goes_unnoticed(tmp_path_factory: pytest.TempPathFactory, data) -> None:
    """With the digest file, and without it wherever the byte is part of a record."""
    path = saved(tmp_path_factory.mktemp("flip"))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    with pytest.raises(UserError):
        checkpoint.load(path)


def test_a_flipped_byte_of_the_weights_is_noticed_without_the_digest(tmp_path: Path) -> None:
    path = saved(tmp_path)
    checkpoint.digest_path(path).unlink()
    content = path.read_bytes()
    weight = torch.tensor(500.0).numpy().tobytes()
    assert content.count(weight) == 1
    path.write_bytes(content.replace(weight, b"\x00\x00\xfa\x7e"))  # 1.7e38
    with pytest.raises(UserError, match="is damaged in"):
        checkpoint.load(path)


def test_a_copy_has_a_digest_though_its_source_has_none(tmp_path: Path) -> None:
    source, target = saved(tmp_path), tmp_path / "best.pth"
    checkpoint.digest_path(source).unlink()
    checkpoint.copy(source, target)
    assert target.read_bytes() == source.read_bytes()
    assert os.system(f"cd {tmp_path} && sha256sum --quiet -c best.pth.sha256") == 0


@pytest.mark.parametrize("has_digest", [True, False])
def test_what_is_damaged_is_not_copied(tmp_path: Path, has_digest: bool) -> None:
    source, target = saved(tmp_path), tmp_path / "best.pth"
    if not has_digest:
        checkpoint.digest_path(source).unlink()
    content = bytearray(source.read_bytes())
    content[len(content) // 2] ^= 1  # among the weights
    source.write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        checkpoint.copy(source, target)
    assert not target.exists()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_cut_file_is_refused(tmp_path: Path, share: float) -> None:
    path = saved(tmp_path)
    checkpoint.digest_path(path).unlink()
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match="is not a checkpoint"):
        checkpoint.load(path)


def test_code_is_never_run_from_a_checkpoint(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "ran"),)

    path = tmp_path / "evil.pth"
    torch.save({"model_state_dict": Evil()}, path)
    with pytest.raises(UserError, match="cannot be read as a checkpoint"):
        checkpoint.load(path)
    assert not (tmp_path / "ran").exists()


def test_what_is_not_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file"):
        checkpoint.load(tmp_path / "none.pth")
    (tmp_path / "old.pth").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(UserError, match="is not a checkpoint"):
        checkpoint.load(tmp_path / "old.pth")
    torch.save({"weights": 1}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="it has no `model_state_dict`"):
        checkpoint.load(tmp_path / "other.pth")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = saved(tmp_path)
    before = path.read_bytes()

    def fail(file: Path) -> None:
        file.write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        files.atomically(path, fail)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2
