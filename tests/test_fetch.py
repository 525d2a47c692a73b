"""Laws by name, from any store, through a cache that is whole, bounded and safe for many at once."""

import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from atheria import journal, law_cache
from atheria.artifact import read_description
from atheria.cache import cache
from atheria.config import UserError
from atheria.engine import from_run
from atheria.export import export
from atheria.fetch import law_of_run
from atheria.files import cache_folder, sha256
from atheria.jobs.train import TrainedRun
from atheria.promote import promote
from atheria.rollout import rollout
from atheria.stores import store_uri
from atheria.sync import sync
from atheria.tracking import Store
from atheria.train import train

from .conftest import SMALL, put_store
from .servers import MlflowServer

TINY = (*SMALL, "model=mlp", "trainer.episodes=2")


@pytest.fixture
def server(tmp_path: Path, empty_store: Path) -> Iterator[MlflowServer]:
    put_store(empty_store, tmp_path / "server.db")
    running = MlflowServer(tmp_path)
    running.start()
    yield running
    running.kill()


@pytest.mark.usefixtures("ready_store")
def test_a_run_is_found_among_more_experiments_than_a_page_holds() -> None:
    run = train([*TINY, "tracking=offline"])
    sync()
    store = Store(store_uri(None), create=False)
    with closing(sqlite3.connect("outputs/mlflow.db")) as database, database:
        database.executemany(
            "INSERT INTO experiments (name, lifecycle_stage, creation_time) VALUES (?, 'active', ?)",
            [(f"later {number}", journal.now()) for number in range(1000)],
        )
    assert store.run(run.run_id).id == run.run_id
    assert [found.id for found in store.runs("attributes.status = 'FINISHED'")] == [run.run_id]


@pytest.mark.slow
def test_eight_processes_fetch_one_law_with_one_download(server: MlflowServer) -> None:
    run = train([*TINY, f"tracking.uri={server.address}"])
    code = (
        "import sys; from atheria.fetch import law_of_run; from atheria.files import cache_folder, sha256; "
        "print(sha256(law_of_run(sys.argv[1], sys.argv[2])))"
    )
    before = server.log().count("law/law.pt")
    fetchers = [
        subprocess.Popen(
            [sys.executable, "-c", code, run.run_id, server.address], stdout=subprocess.PIPE, text=True
        )
        for _ in range(8)
    ]
    digests = {fetcher.communicate(timeout=600)[0].strip() for fetcher in fetchers}
    assert digests == {sha256(run.law)}
    downloads = [line for line in server.log().splitlines() if "law/law.pt" in line and "GET" in line]
    assert len(downloads) == 1, downloads
    assert before == 1  # the upload: the log does tell
    assert len(law_cache.contents()) == 1


@pytest.mark.slow
def test_a_law_that_was_fetched_once_is_there_offline(server: MlflowServer, capsys) -> None:
    run = train([*TINY, f"tracking.uri={server.address}"])
    fetched = law_of_run(run.run_id, server.address)
    server.kill()
    assert law_of_run(run.run_id, server.address) == fetched
    assert "the law is taken from the cache" in capsys.readouterr().err
    result = rollout([f"run_id={run.run_id}", "steps=3", f"tracking.uri={server.address}"])
    assert result.steps[-1] == 3
    fetched.write_bytes(b"damaged")
    with pytest.raises(UserError, match="cannot be used"):
        law_of_run(run.run_id, server.address)


@pytest.mark.usefixtures("ready_store")
def test_a_law_by_alias(tmp_path: Path) -> None:
    run = train(TINY)
    named = promote([f"run_id={run.run_id}", "alias=champion"])
    assert named == "atheria@champion"
    assert rollout([f"law={named}", "steps=2"]).run_id
    assert promote([f"run_id={run.run_id}", "alias=champion"]) == named  # no second version
    assert promote([f"law={named}", "alias=calm", "name=gliders"]) == "gliders@calm"
    client = MlflowClient(run.tracking_uri)
    (version,) = client.search_model_versions("name = 'atheria'")
    assert version.run_id == client.get_model_version_by_alias("atheria", "champion").run_id == run.run_id
    path = export([f"law={named}", f"output={tmp_path}/again.pt"])
    assert read_description(path).run_id == run.run_id
    with pytest.raises(UserError, match="has no law 'atheria@loser'; .* atheria.promote"):
        rollout(["law=atheria@loser", "steps=2"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["alias=champion"], "name the law by one of run_id"),
        (["alias=latest"], "is MLflow's own"),
        (["alias=v3"], "is MLflow's own"),
        (["alias='a b'"], "must be letters"),
        (["alias=a", "name='a/b'"], "must be letters"),
    ],
)
def test_names_that_cannot_be_given(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        promote([*(["run_id=f00"] if overrides != ["alias=champion"] else []), *overrides])


@pytest.mark.usefixtures("ready_store")
def test_the_best_law_of_an_experiment() -> None:
    quiet = ("noise=none", "noise.level=0", "trainer.episodes=20")
    runs = [train([*TINY, *quiet, f"trainer.lr={rate}"]) for rate in (1e-4, 1e-2, 1e-3)]
    best = min(runs, key=lambda run: run.best["eval/loss"])
    assert len({run.best["eval/loss"] for run in runs}) == 3
    result = rollout(["best_of=atheria", "steps=2"])
    parent = MlflowClient(best.tracking_uri).get_run(result.run_id).data.tags["mlflow.parentRunId"]
    assert parent == best.run_id
    with pytest.raises(
        UserError, match="there is no experiment 'nothing' in .*; there are: Default, atheria"
    ):
        rollout(["best_of=nothing", "steps=2"])


def test_a_law_from_a_file_is_exported_anew(in_run_folder: TrainedRun, tmp_path: Path) -> None:
    path = export([f"law={in_run_folder.law}", "physics.gamma=0.25", f"output={tmp_path}/other.pt"])
    before, now = read_description(in_run_folder.law), read_description(path)
    assert now.physics.gamma == 0.25
    assert (now.config, now.seed, now.run_id) == (before.config, before.seed, before.run_id)
    with pytest.raises(UserError, match="give one of `run_id`, `law`, not 2"):
        export([f"law={in_run_folder.law}", "run_id=f00", "output=x.pt"])


@pytest.mark.usefixtures("ready_store")
def test_the_cache_keeps_to_its_size_and_can_be_pruned(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [train([*TINY, f"seed={seed}"]).run_id for seed in range(3)]
    paths = [law_of_run(run_id) for run_id in runs]
    size = paths[0].stat().st_size
    for age, path in zip((3, 1, 2), paths, strict=True):
        os.utime(path.parent, times=(0, path.parent.stat().st_mtime - 3600 * age))
    assert law_cache.contents() == [paths[0], paths[2], paths[1]]
    monkeypatch.setenv("ATHERIA_CACHE_SIZE", str(2 * size + 100))
    law_of_run(runs[1])
    assert law_cache.contents() == [paths[2], paths[1]]  # of the others, the one used last stays
    assert cache() == []
    assert cache(["prune=true", f"keep={size + 100}"]) == [paths[2]]
    assert cache(["prune=true"]) == [paths[1]]
    assert from_run(runs[0]).step_native(1) > 0
    monkeypatch.setenv("ATHERIA_CACHE_SIZE", "2GB")
    with pytest.raises(UserError, match="`ATHERIA_CACHE_SIZE` must be a number of bytes, got '2GB'"):
        law_of_run(runs[0])


@pytest.mark.usefixtures("ready_store")
def test_laws_in_use_are_not_removed_to_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [train([*TINY, f"seed={seed}"]).run_id for seed in range(2)]
    monkeypatch.setenv("ATHERIA_CACHE_SIZE", "0")
    assert all(path.is_file() for path in [law_of_run(run_id) for run_id in runs])


@pytest.mark.parametrize(
    ("run_id", "digest"),
    [("../../home", "0" * 64), ("f00", "../" * 10), ("f00", "0" * 63), ("", "0" * 64), ("a/b", "0" * 64)],
)
def test_no_name_from_a_store_leaves_the_cache(run_id: str, digest: str) -> None:
    with pytest.raises(UserError):
        law_cache.law(run_id, digest, lambda: Path("nothing"))
    assert not cache_folder().exists()


def test_what_cannot_be_fetched_is_not_blamed_on_the_cache() -> None:
    def fetch() -> Path:
        raise FileNotFoundError(2, "No such file or directory", "gone/law.pt")

    with pytest.raises(UserError, match=r"the law of run 'f00' cannot be fetched: .*gone/law.pt") as refused:
        law_cache.law("f00", "0" * 64, fetch)
    assert "ATHERIA_CACHE" not in str(refused.value)


@pytest.mark.usefixtures("ready_store")
@pytest.mark.parametrize("is_full", [True, False], ids=["full", "read-only"])
def test_a_cache_that_takes_nothing_says_what_to_do(
    small_disk: Path, is_full: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATHERIA_CACHE", str(small_disk / "cache"))
    run, cached = train(TINY), train([*TINY, "seed=1"])
    law = law_of_run(cached.run_id)
    if is_full:
        with contextlib.suppress(OSError):
            (small_disk / "filler").write_bytes(bytes(1 << 21))
    else:
        subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(UserError, match="small/cache' .*ATHERIA_CACHE.*python -m atheria.cache prune=true"):
        rollout([f"run_id={run.run_id}", "steps=2"])
    assert law_of_run(cached.run_id) == law
    assert rollout([f"run_id={cached.run_id}", "steps=2"]).steps[-1] == 2
