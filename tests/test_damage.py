"""Files that were damaged on the way: a clear error or the same content, no crash, no code that runs."""

import json
import os
import random
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from atheria_core import Engine

from atheria import checkpoint
from atheria.artifact import read_description
from atheria.config import UserError
from atheria.jobs.train import TrainedRun

READ_EACH = """
import json, sys
from atheria import checkpoint
from atheria.config import UserError
from atheria_core import Engine
import numpy, torch

def content(path):
    if path.endswith(".pth"):
        state = checkpoint.load(__import__("pathlib").Path(path))
        return [float(w.double().sum()) for w in state["model_state_dict"].values()]
    engine = Engine()
    engine.load_model(path)
    engine.step_native(2)
    return float(numpy.abs(engine.state()).astype("f8").sum())

for path in sys.argv[1:]:
    try:
        answer = ["content", content(path)]
    except (ValueError, RuntimeError) as error:
        answer = ["error", f"{type(error).__name__}: {error}"]
    print(json.dumps([path, *answer]), flush=True)
"""


def read_each(paths: list[Path]) -> dict[str, tuple[str, object]]:
    """What reading each file gives, in a process of its own, which a crash would end."""
    done = subprocess.run(
        [sys.executable, "-c", READ_EACH, *map(str, paths)],
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, (len(answers), done.stderr[-2000:])
    return {path: (kind, value) for path, kind, value in answers}


def damaged(content: bytes, luck: random.Random) -> bytes:
    """Some bytes flipped, or cut, or both, or a piece moved."""
    changed = bytearray(content)
    for _ in range(luck.choice([0, 1, 1, 2, 8, 64])):
        changed[luck.randrange(len(changed))] ^= luck.randrange(1, 256)
    if luck.random() < 0.3:
        del changed[luck.randrange(len(changed)) :]
    if luck.random() < 0.1:
        at = luck.randrange(len(changed) + 1)
        changed[at:at] = changed[: luck.randrange(1, 64)]
    return bytes(changed)


@pytest.mark.parametrize("with_digest", [True, False])
def test_200_damaged_artifacts_and_checkpoints(
    in_run_folder: TrainedRun, tmp_path: Path, with_digest: bool
) -> None:
    luck = random.Random(7 + with_digest)
    originals = [in_run_folder.law, in_run_folder.folder / checkpoint.BEST]
    whole = list(read_each(originals).values())
    paths, unchanged = [], set()
    for index in range(200):
        original = originals[index % 2]
        path = tmp_path / f"{index}{original.suffix}"
        content = original.read_bytes()
        path.write_bytes(damaged(content, luck))
        if path.read_bytes() == content:
            unchanged.add(str(path))
        if with_digest and original.suffix == ".pth":
            beside = checkpoint.digest_path(original).read_text().replace(original.name, path.name)
            checkpoint.digest_path(path).write_text(beside)
        paths.append(path)
    answers = read_each(paths)
    assert len(answers) == 200
    for index, (path, answer) in enumerate(answers.items()):
        if answer[0] == "error":
            assert path not in unchanged
            assert len(str(answer[1])) > 20
        else:
            assert answer == whole[index % 2], path
            assert path in unchanged or not (with_digest and path.endswith(".pth")), path
    assert sum(answer[0] == "error" for answer in answers.values()) > 150


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("place", ["model_state_dict", "config", "pool", "extra"])
def test_a_pickle_bomb_in_a_checkpoint_does_not_run(
    in_run_folder: TrainedRun, tmp_path: Path, place: str
) -> None:
    state = checkpoint.load(in_run_folder.folder / "checkpoints/last.pth")
    path = tmp_path / "bomb.pth"
    checkpoint.save({**state, place: Bomb(tmp_path / "ran")}, path)
    with pytest.raises(UserError, match="cannot be read as a checkpoint"):
        checkpoint.load(path)
    assert not (tmp_path / "ran").exists()


def test_a_pickle_bomb_in_an_artifact_does_not_run(exported: Callable, tmp_path: Path) -> None:
    """In the place of the law's own records."""
    _, path = exported("mlp")
    torch.save(Bomb(tmp_path / "ran"), tmp_path / "bomb.pth")
    with zipfile.ZipFile(tmp_path / "bomb.pth") as archive:
        bomb = archive.read("bomb/data.pkl")
    evil = tmp_path / "evil.pt"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(evil, "w") as target:
        for record in source.infolist():
            replace = record.filename.endswith(("/data.pkl", "/constants.pkl"))
            target.writestr(record.filename, bomb if replace else source.read(record))
    answer = read_each([evil])[str(evil)]
    assert answer[0] == "error"
    assert not (tmp_path / "ran").exists()


def test_what_unpacks_to_too_much_is_refused_before_it_is_unpacked(
    exported: Callable, tmp_path: Path
) -> None:
    _, path = exported("mlp")
    trap = tmp_path / "trap.pt"
    shutil.copyfile(path, trap)
    with zipfile.ZipFile(trap, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mlp/data/0", bytes(1 << 27))
    with pytest.raises(UserError, match="says that it unpacks to 13"):
        read_description(trap)


def test_a_description_of_a_huge_universe_is_refused_before_it_is_made(
    exported: Callable, tmp_path: Path
) -> None:
    _, path = exported("mlp", grid=(16, 16))
    trap = tmp_path / "trap.pt"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(trap, "w") as target:
        for record in source.infolist():
            content = source.read(record)
            if record.filename.endswith("atheria.json"):
                described = json.loads(content)
                described["training_grid"] = [65536, 65536]
                content = json.dumps(described).encode()
            target.writestr(record.filename, content)
    with pytest.raises(ValueError, match="`training_grid` 65536 x 65536 .* largest universe"):
        Engine().load_model(trap)
