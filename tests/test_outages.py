"""A real tracking server that dies, hangs, comes back, or was never there: nothing waits, nothing is lost."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from mlflow import MlflowClient

from atheria import endings, journal
from atheria.config import UserError
from atheria.delivery import REFUSED, waiting
from atheria.files import sha256
from atheria.rollout import rollout
from atheria.runs import PROCESS_TAG
from atheria.stores import store_uri
from atheria.sync import sync
from atheria.train import train

from .conftest import SMALL, heed_ctrl_c, put_store
from .servers import MlflowServer

FAST = (*SMALL, "model=mlp", "trainer.eval_every=100", "trainer.checkpoint_every=100")


@pytest.fixture
def server(tmp_path: Path, empty_store: Path) -> Iterator[MlflowServer]:
    """A server that has not been started yet."""
    server = MlflowServer(tmp_path)
    put_store(empty_store, tmp_path / "server.db")
    yield server
    server.kill()


def train_process(
    server: MlflowServer, episodes: int, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "atheria.train", *FAST, f"trainer.episodes={episodes}",
         f"tracking.uri={server.address}"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c,
        env=os.environ | (environment or {}),
    )  # fmt: skip


def wait_for_line(process: subprocess.Popen[str], text: str) -> str:
    for line in process.stdout:
        if text in line:
            return line
    raise AssertionError(process.stderr.read())


def the_run(server: MlflowServer):
    """The only run that the server has."""
    (run,) = MlflowClient(server.address).search_runs(["1"])
    return run


def pictures_of(client: MlflowClient, run_id: str) -> dict[tuple[str, int], int]:
    """How often MLflow has the picture of a key at a step."""
    found: Counter[tuple[str, int]] = Counter()
    for file in client.list_artifacts(run_id, "images"):
        key, _, step, *_ = file.path.removeprefix("images/").split("+")
        if file.path.endswith(".png"):
            found[key, int(step)] += 1
    return dict(found)


def assert_whole(server: MlflowServer, episodes: int, status: str = "FINISHED") -> str:
    """Every point once and in order, every file as it is on disk; returns the run's ID."""
    client, run = MlflowClient(server.address), the_run(server)
    assert run.info.status == status
    (folder,) = Path("outputs/runs").iterdir()
    logged = [record for record, _ in journal.read(folder) if isinstance(record, journal.Metrics)]
    for key in ("train/loss", "train/lr", "eval/loss", "eval/fidelity"):
        history = [(m.step, m.value, m.timestamp) for m in client.get_metric_history(run.info.run_id, key)]
        assert history == [(r.step, r.values[key], r.time) for r in logged if key in r.values]
    steps = [m.step for m in client.get_metric_history(run.info.run_id, "train/loss")]
    assert steps == list(range(1, episodes + 1))
    assert run.data.params["trainer.episodes"] == str(episodes)
    for name in ("checkpoints/last.pth", "checkpoints/best.pth", "law/law.pt", "pictures/rollout.png"):
        stored = client.download_artifacts(run.info.run_id, name, str(folder.parent.parent))
        assert sha256(Path(stored)) == sha256(folder / name)
    pictures = [record for record, _ in journal.read(folder) if isinstance(record, journal.Image)]
    assert pictures_of(client, run.info.run_id) == {(p.key, p.step): 1 for p in pictures}
    assert {p.step for p in pictures} == {0, *range(100, episodes + 1, 100)}
    assert waiting(folder) == 0
    assert not (folder / REFUSED).exists()
    return run.info.run_id


@pytest.mark.slow
def test_a_server_that_dies_hangs_and_comes_back_during_training(server: MlflowServer) -> None:
    server.start()
    process = train_process(server, 4000)
    wait_for_line(process, "untrained")
    time.sleep(1)
    server.kill()
    time.sleep(6)
    server.start()
    time.sleep(6)
    server.signal(signal.SIGSTOP)
    time.sleep(6)
    server.signal(signal.SIGCONT)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    sync(["output=outputs"])
    assert_whole(server, 4000)


@pytest.mark.slow
def test_a_server_that_is_down_from_the_start_to_the_end(server: MlflowServer) -> None:
    process = train_process(server, 200)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert "cannot be used" in err
    assert "python -m atheria.sync" in err
    own_id = re.search(r"^run +([0-9a-f]{32})", out, re.MULTILINE)[1]
    server.start()
    assert sync() == 0
    run_id = assert_whole(server, 200)
    assert run_id != own_id
    again = waiting(Path("outputs/runs") / own_id)
    assert (sync(), again) == (0, 0)
    assert_whole(server, 200)
    result = rollout([f"run_id={own_id}", "steps=2", f"tracking.uri={server.address}"])
    child = MlflowClient(server.address).get_run(result.run_id)
    assert child.data.tags["mlflow.parentRunId"] == run_id


@pytest.mark.slow
def test_replaying_everything_again_adds_nothing(server: MlflowServer) -> None:
    """As after a crash between a delivery and the note of it."""
    server.start()
    run = train([*FAST, "trainer.episodes=100", f"tracking.uri={server.address}"])
    journal.write_delivered(run.folder, journal.Delivered(None, 0))
    assert sync() == 0
    assert assert_whole(server, 100) == run.run_id


@pytest.mark.slow
def test_a_server_that_hangs_when_a_run_starts_gets_it_once(server: MlflowServer) -> None:
    server.start()
    server.signal(signal.SIGSTOP)
    process = train_process(server, 500)
    wait_for_line(process, "untrained")
    server.signal(signal.SIGCONT)  # the request to make the run, given up by now, comes through
    _, err = process.communicate(timeout=600)
    assert "gave no answer in 10 s" in err
    assert process.returncode == 0, err
    sync()
    assert_whole(server, 500)


@pytest.mark.slow
def test_a_run_that_is_ended_while_the_server_hangs_says_what_waits(server: MlflowServer) -> None:
    server.start()
    soon = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "2"}  # seconds, else 15, for each request that hangs
    process = train_process(server, 100_000, soon)
    wait_for_line(process, "untrained")
    server.signal(signal.SIGSTOP)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 130
    assert re.search(r"\d+ records of the run wait in outputs/runs/", err)
    server.signal(signal.SIGCONT)
    sync()
    assert the_run(server).info.status == "KILLED"


@pytest.mark.slow
def test_a_run_that_is_deleted_meanwhile_waits_for_being_restored(server: MlflowServer) -> None:
    server.start()
    process = train_process(server, 100_000)
    wait_for_line(process, "episode 100/")
    client, run_id = MlflowClient(server.address), the_run(server).info.run_id
    client.delete_run(run_id)
    said = next(line for line in process.stderr if "was deleted" in line)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=600)
    assert f"was deleted; bring it back: mlflow runs restore --run-id {run_id}" in said
    with pytest.raises(UserError, match="records still wait"):
        sync()
    client.restore_run(run_id)
    assert sync() == 0
    assert client.get_run(run_id).info.status == "KILLED"


@pytest.mark.usefixtures("ready_store")
def test_a_record_that_the_store_refuses_is_kept_and_the_others_arrive() -> None:
    run = train([*FAST, "trainer.episodes=2"])
    records = journal.Journal(run.folder)
    records.append(journal.Metrics({"good": 1.0}, 1, journal.now()))
    records.append(journal.Metrics({"no good!": 1.0}, 1, journal.now()))
    records.append(journal.Artifact("missing.txt", ""))
    records.append(journal.Tags({"fine": "yes"}))
    records.close()
    assert sync() == 0
    stored = MlflowClient(run.tracking_uri).get_run(run.run_id)
    assert stored.data.metrics["good"] == 1.0
    assert stored.data.tags["fine"] == "yes"
    refused = [json.loads(line) for line in (run.folder / REFUSED).read_text().splitlines()]
    assert [next(iter(record)) for record in refused] == ["Metrics", "Artifact"]
    assert "no good!" in refused[0]["reason"]
    assert "missing.txt" in refused[1]["reason"]


def test_offline_runs_are_sent_by_sync_and_off_ones_never() -> None:
    offline = train([*FAST, "trainer.episodes=3", "tracking=offline"])
    off = train([*FAST, "trainer.episodes=3", "tracking=off", "seed=1"])
    assert off.tracking_uri is None
    assert not Path("outputs/mlflow.db").exists()
    assert sync() == 0
    client = MlflowClient(offline.tracking_uri)
    (run,) = client.search_runs(["1"])
    assert run.data.tags["atheria.id"] == offline.run_id
    assert [m.step for m in client.get_metric_history(run.info.run_id, "train/loss")] == [1, 2, 3]
    assert pictures_of(client, run.info.run_id) == {("rollout", 0): 1, ("rollout", 3): 1}
    assert not (off.folder / "images").exists()
    assert rollout([f"run_id={offline.run_id}", "steps=2"]).run_id


@pytest.mark.usefixtures("ready_store")
def test_a_sync_sets_no_run_running_that_has_ended() -> None:
    run = train([*FAST, "trainer.episodes=2"])
    client = MlflowClient(run.tracking_uri)
    client.set_terminated(run.run_id, "FAILED")  # as a run on a full disk says it, past its journal
    records = journal.Journal(run.folder)
    records.append(journal.Status("RUNNING", journal.now()))
    records.append(journal.Metrics({"last": 1.0}, 1, journal.now()))
    records.close()
    assert sync() == 0
    stored = client.get_run(run.run_id)
    assert stored.data.metrics["last"] == 1.0
    assert stored.info.status == "FAILED"


@pytest.mark.usefixtures("ready_store")
@pytest.mark.parametrize(("is_gone", "status"), [(True, "KILLED"), (False, "RUNNING")])
def test_a_run_that_a_sync_makes_is_not_left_running_where_its_process_is_gone(
    is_gone: bool, status: str
) -> None:
    run = train([*FAST, "trainer.episodes=2", "tracking=offline"])
    path = run.folder / journal.RECORDS
    kept = [line for line in path.read_text().splitlines(keepends=True) if '"Status"' not in line]
    path.write_text("".join(kept))
    host, boot, namespace, pid, start = endings.this_process().split()
    records = journal.Journal(run.folder)
    records.append(journal.Tags({PROCESS_TAG: f"{host} {boot} {namespace} {pid} {int(start) + is_gone}"}))
    records.close()
    assert sync() == 0
    (stored,) = MlflowClient(run.tracking_uri).search_runs(["1"])
    assert stored.info.status == status


def test_a_journal_that_cannot_be_read_holds_no_other_up() -> None:
    damaged, whole = (
        train([*FAST, "trainer.episodes=2", "tracking=offline", f"seed={seed}"]) for seed in (0, 1)
    )
    content = (damaged.folder / journal.RECORDS).read_bytes()
    (damaged.folder / journal.RECORDS).write_bytes(b"\0" + content)
    command = [sys.executable, "-m", "atheria.sync"]
    sent = subprocess.run(command, capture_output=True, text=True, check=False)
    assert sent.returncode == 1, sent.stderr
    assert f"{damaged.run_id}/journal.jsonl' holds a line that is no record" in sent.stderr
    assert "1 journals cannot be read" in sent.stderr
    assert waiting(whole.folder) == 0
    (stored,) = MlflowClient(store_uri(None)).search_runs(["1"])
    assert stored.data.tags["atheria.id"] == whole.run_id
    (damaged.folder / journal.RECORDS).write_bytes(content)
    assert sync() == 0
    assert waiting(damaged.folder) == 0


def content_of(path: Path) -> bytes:
    """Of a file in /proc: nothing where the thread or process is gone."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def courier_of(process: subprocess.Popen[str]) -> int:
    """The process that delivers for a run, once it has been sent."""
    for _ in range(3000):
        children = Path(f"/proc/{process.pid}/task").glob("*/children")
        for child in [int(pid) for file in children for pid in content_of(file).split()]:
            if b"atheria.courier" in content_of(Path(f"/proc/{child}/cmdline")):
                return child
        time.sleep(0.1)
    raise AssertionError("no courier was sent")


def plain_process(*overrides: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "atheria.train", *FAST, *overrides],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c,
    )  # fmt: skip


def train_losses(folder: Path) -> tuple[list[int], list[int]]:
    """Steps in the store and in the journal."""
    run_id = journal.delivered(folder).run_id
    stored = MlflowClient(store_uri(None)).get_metric_history(run_id, "train/loss")
    logged = [
        r for r, _ in journal.read(folder) if isinstance(r, journal.Metrics) and "train/loss" in r.values
    ]
    return [point.step for point in stored], [record.step for record in logged]


@pytest.mark.slow
@pytest.mark.usefixtures("ready_store")
def test_a_courier_that_is_killed_is_replaced() -> None:
    process = plain_process("trainer.episodes=100000")
    os.kill(courier_of(process), signal.SIGKILL)
    time.sleep(1)
    courier_of(process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 130, err
    assert "another one is sent" in err
    (folder,) = Path("outputs/runs").iterdir()
    stored, logged = train_losses(folder)
    assert stored == logged == list(range(1, len(stored) + 1))
    assert waiting(folder) == 0


@pytest.mark.slow
@pytest.mark.usefixtures("ready_store")
def test_a_courier_outlives_a_killed_run_until_all_is_delivered() -> None:
    process = plain_process("trainer.episodes=100000")
    courier = courier_of(process)
    process.kill()
    process.wait()
    (folder,) = Path("outputs/runs").iterdir()
    for _ in range(3000):
        if not Path(f"/proc/{courier}").exists():
            break
        time.sleep(0.1)
    stored, logged = train_losses(folder)
    assert stored == logged
    assert len(stored) > 100
    assert waiting(folder) == 0


@pytest.mark.usefixtures("ready_store")
def test_a_run_whose_database_was_lost_is_made_anew_from_its_journal() -> None:
    command = [
        sys.executable,
        "-m",
        "atheria.train",
        *FAST,
        "noise/curriculum=constant",
        "trainer.resume=auto",
    ]
    subprocess.run([*command, "trainer.episodes=3"], check=True)
    Path("outputs/mlflow.db").unlink()
    shutil.rmtree("outputs/mlartifacts")
    again = subprocess.run([*command, "trainer.episodes=5"], check=True, stderr=subprocess.PIPE, text=True)
    assert "has lost the run of outputs/runs/" in again.stderr
    (folder,) = Path("outputs/runs").iterdir()
    stored, logged = train_losses(folder)
    assert stored == logged == [1, 2, 3, 4, 5]
    client = MlflowClient(store_uri(None))
    run = client.get_run(journal.delivered(folder).run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["trainer.episodes"] == "3"
    assert {file.path for file in client.list_artifacts(run.info.run_id, "law")} == {
        "law/atheria.json",
        "law/law.pt",
    }
    assert waiting(folder) == 0
