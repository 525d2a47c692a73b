"""The last, the one before and the best: right after every crash, and while the disk is full."""

import errno
from math import inf, nan
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atheria import checkpoint, files
from atheria.config import UserError
from atheria.keeping import FOLDER, Checkpoints, best_name, to_go_on_from


def state_of(episode: int, selection: float = 0.0) -> dict:
    metrics = {"latest": {"eval/selection": selection}, "untrained": {}}
    return {"model_state_dict": {"w": torch.full((3,), episode)}, "episode": episode, "metrics": metrics}


def kept(folder: Path, count: int) -> list[tuple[float, int]]:
    """Evaluation and episode of the best checkpoints on disk, by rank."""
    states = [checkpoint.load(folder / FOLDER / best_name(rank)) for rank in range(count)]
    return [(state["metrics"]["latest"]["eval/selection"], state["episode"]) for state in states]


@settings(max_examples=40, deadline=None)
@given(
    evaluations=st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4]), min_size=1, max_size=8),
    keep=st.integers(1, 3),
    full_at=st.sets(st.integers(0, 30)),
)
def test_the_best_are_kept_however_often_the_disk_is_full(
    tmp_path_factory: pytest.TempPathFactory, evaluations: list[float], keep: int, full_at: set[int]
) -> None:
    folder = tmp_path_factory.mktemp("run")
    writes = iter(range(1000))

    def sometimes(path: Path, write) -> None:
        if next(writes) in full_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        files.atomically(path, write)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "atomically", sometimes)
        checkpoints = Checkpoints(folder, keep)
        for episode, selection in enumerate(evaluations):
            checkpoints.offer_best(state_of(episode, selection), selection)
        full_at.clear()
        checkpoints.write_waiting()
    best = sorted((selection, episode) for episode, selection in enumerate(evaluations))[:keep]
    assert kept(folder, len(best)) == best


@pytest.mark.parametrize("keep", [1, 2, 3, 5])
@pytest.mark.parametrize(
    ("evaluations", "ranked"),
    [
        ([nan, 0.5, 0.3], [2, 1, 0]),
        ([0.5, nan, 0.3], [2, 0, 1]),
        ([0.5, inf, nan, -inf, 0.3], [4, 0, 1, 2, 3]),
        ([nan, nan], [0, 1]),
    ],
)
def test_an_evaluation_that_is_not_finite_ranks_last(
    tmp_path: Path, evaluations: list[float], ranked: list[int], keep: int
) -> None:
    """Also where training goes on from an earlier episode and offers the same again."""
    for _ in range(2):
        checkpoints = Checkpoints(tmp_path, keep)
        for episode, selection in enumerate(evaluations):
            checkpoints.offer_best(state_of(episode, selection), selection)
        assert [episode for _, episode in kept(tmp_path, len(ranked[:keep]))] == ranked[:keep]
        assert len(list((tmp_path / FOLDER).glob("best*.pth"))) == len(ranked[:keep])


class CrashError(BaseException):
    """Ends the process, as far as the code under test can tell."""


@settings(max_examples=60, deadline=None)
@given(
    evaluations=st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4]), min_size=1, max_size=8),
    keep=st.integers(1, 3),
    crashes=st.lists(st.integers(0, 12), max_size=3),
)
def test_the_best_are_kept_whatever_crashes(
    tmp_path_factory: pytest.TempPathFactory, evaluations: list[float], keep: int, crashes: list[int]
) -> None:
    """After a crash at any rename, training goes on from an earlier episode and offers the same again."""
    folder = tmp_path_factory.mktemp("run")
    replace = Path.replace
    countdown = list(crashes)

    def crashing(self: Path, target: Path) -> Path:
        if countdown:
            countdown[0] -= 1
            if countdown[0] < 0:
                del countdown[0]
                raise CrashError
        return replace(self, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", crashing)
        while True:
            try:
                checkpoints = Checkpoints(folder, keep)
                for episode, selection in enumerate(evaluations):
                    checkpoints.offer_best(state_of(episode, selection), selection)
                break
            except CrashError:
                continue
    best = sorted((selection, episode) for episode, selection in enumerate(evaluations))[:keep]
    assert kept(folder, len(best)) == best
    assert len(list((folder / FOLDER).glob("best*.pth"))) == len(best)


@pytest.mark.parametrize("crash_at", range(8))
def test_there_is_always_a_whole_checkpoint_to_go_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash_at: int
) -> None:
    checkpoints = Checkpoints(tmp_path, 1)
    for episode in (1, 2):
        checkpoints.save_last(state_of(episode))
    replace, renames = Path.replace, []

    def crashing(self: Path, target: Path) -> Path:
        renames.append(target)
        if len(renames) > crash_at:
            raise CrashError
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", crashing)
        try:
            checkpoints.save_last(state_of(3))
        except CrashError:
            pass
        else:
            assert crash_at >= len(renames)
    states = [checkpoint.load(path)["episode"] for path in to_go_on_from(tmp_path)]
    assert states in ([2, 1], [2, 2], [3, 2])


def test_a_damaged_last_does_not_replace_the_one_before(tmp_path: Path, capsys) -> None:
    checkpoints = Checkpoints(tmp_path, 1)
    for episode in (1, 2):
        checkpoints.save_last(state_of(episode))
    last, previous = to_go_on_from(tmp_path)
    last.write_bytes(b"torn")
    checkpoints.save_last(state_of(3))
    assert [checkpoint.load(path)["episode"] for path in (last, previous)] == [3, 1]
    assert "the one before it is kept" in capsys.readouterr().err


def test_a_full_disk_keeps_what_was_there_and_gets_the_best_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    checkpoints = Checkpoints(tmp_path, 2)
    checkpoints.save_last(state_of(1))
    checkpoints.offer_best(state_of(1, 0.5), 0.5)

    def full(path: Path, write) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "atomically", full)
        assert checkpoints.save_last(state_of(2)) == []
        checkpoints.offer_best(state_of(2, 0.4), 0.4)
        with pytest.raises(OSError, match="No space left"):
            checkpoints.write_waiting()
    assert [checkpoint.load(path)["episode"] for path in to_go_on_from(tmp_path)] == [1]
    assert "training goes on" in capsys.readouterr().err
    checkpoints.save_last(state_of(3))
    assert kept(tmp_path, 2) == [(0.4, 2), (0.5, 1)]
    assert files.verify_zip(tmp_path / FOLDER / "last.pth", "a checkpoint") is None


def test_saves_that_fail_leave_no_files_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room_for_the_last(path: Path, write) -> None:
        if path.name == "last.pth":
            raise OSError(errno.ENOSPC, "No space left on device")
        files.atomically(path, write)

    checkpoints = Checkpoints(tmp_path, 1)
    checkpoints.save_last(state_of(1))
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "atomically", no_room_for_the_last)
        for episode in (2, 3):  # the second finds that the last and the one before it are one file
            assert checkpoints.save_last(state_of(episode)) == []
    checkpoints.save_last(state_of(4))
    names = {path.name for path in (tmp_path / FOLDER).iterdir()}
    assert names == {"last.pth", "last.pth.sha256", "previous.pth", "previous.pth.sha256"}
    assert [checkpoint.load(path)["episode"] for path in to_go_on_from(tmp_path)] == [4, 1]


def test_a_disk_that_is_full_at_the_first_checkpoint_gets_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room_for_more(path: Path, write) -> None:
        if path.suffix == ".pth":
            raise OSError(errno.ENOSPC, "No space left on device")
        files.atomically(path, write)

    checkpoints = Checkpoints(tmp_path, 1)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "atomically", no_room_for_more)
        assert checkpoints.save_last(state_of(1)) == []
    checkpoints.save_last(state_of(2))
    assert [checkpoint.load(path)["episode"] for path in to_go_on_from(tmp_path)] == [2]


def test_checkpoints_without_their_digests_are_moved_as_any(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, 2)
    checkpoints.save_last(state_of(0))
    checkpoints.offer_best(state_of(0, 0.3), 0.3)
    for digest in (tmp_path / FOLDER).glob("*.sha256"):
        digest.unlink()
    checkpoints.offer_best(state_of(1, 0.2), 0.2)
    checkpoints.save_last(state_of(1))
    assert kept(tmp_path, 2) == [(0.2, 1), (0.3, 0)]
    assert [checkpoint.load(path)["episode"] for path in to_go_on_from(tmp_path)] == [1, 0]
    assert len(list((tmp_path / FOLDER).glob("*.sha256"))) == 4


@pytest.mark.parametrize("torn", ["best.pth", "best-2.pth"])
def test_a_best_that_was_damaged_meanwhile_is_left_out(tmp_path: Path, torn: str) -> None:
    checkpoints = Checkpoints(tmp_path, 3)
    for episode, selection in enumerate((0.3, 0.2)):
        checkpoints.offer_best(state_of(episode, selection), selection)
    (tmp_path / FOLDER / torn).write_bytes(b"torn")
    checkpoints.offer_best(state_of(2, 0.1), 0.1)
    assert kept(tmp_path, 2) == [(0.1, 2), (0.3, 0) if torn == "best.pth" else (0.2, 1)]


def test_fewer_are_kept_when_fewer_are_asked_for(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, 3)
    for episode, selection in enumerate((0.3, 0.1, 0.2)):
        checkpoints.offer_best(state_of(episode, selection), selection)
    (tmp_path / FOLDER / "best.pth").write_bytes(b"torn")
    Checkpoints(tmp_path, 2)
    assert kept(tmp_path, 2) == [(0.2, 2), (0.3, 0)]
    with pytest.raises(UserError, match="there is no file"):
        checkpoint.load(tmp_path / FOLDER / best_name(2))
