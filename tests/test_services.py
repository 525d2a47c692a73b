"""From training to rollout through an ``mlflow server`` on PostgreSQL and S3, as a team runs it."""

import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import pytest
from mlflow import MlflowClient

from atheria.delivery import REFUSED, waiting
from atheria.fetch import BEST_LOSS
from atheria.promote import promote
from atheria.rollout import rollout
from atheria.sync import sync
from atheria.train import train

from .conftest import SMALL, missing
from .servers import S3, MlflowServer, PostgreSQL
from .test_train import train_process

pytestmark = [pytest.mark.services, pytest.mark.slow]

DATABASE = "mlflow"
"""The server's."""


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgreSQL]:
    if PostgreSQL.programs() is None:
        missing("services", "PostgreSQL is not installed")
    running = PostgreSQL()
    try:
        running.start()
        yield running
    finally:
        running.remove()


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    running = S3()
    try:
        running.start()
        yield running
    finally:
        running.kill()


@pytest.fixture(scope="module")
def server(postgresql: PostgreSQL, s3: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the ``mlflow server``; the module's tests keep apart by their experiments."""
    running = MlflowServer(
        tmp_path_factory.mktemp("server"), postgresql.create(DATABASE), s3.bucket, s3.environment
    )
    try:
        running.start()
        yield running.address
    finally:
        running.kill()


def steps(client: MlflowClient, run_id: str, key: str) -> list[int]:
    return [point.step for point in client.get_metric_history(run_id, key)]


def test_a_run_is_in_postgresql_and_s3_and_is_rolled_out_from_there(
    server: str, postgresql: PostgreSQL, s3: S3, tmp_path: Path
) -> None:
    run = train([*SMALL, "model=mlp", f"tracking.uri={server}", "tracking.experiment=path"])
    law = run.law.read_bytes()
    client = MlflowClient(server)
    stored = client.get_run(run.run_id)
    assert stored.info.status == "FINISHED"
    assert stored.data.tags["atheria.law.sha256"] == sha256(law).hexdigest()
    assert steps(client, run.run_id, "train/loss") == [1, 2, 3, 4]
    assert steps(client, run.run_id, "eval/loss") == [0, 2, 4]
    assert Path(client.download_artifacts(run.run_id, "law/law.pt", str(tmp_path))).read_bytes() == law

    files = {"config.yaml", "checkpoints/last.pth", "checkpoints/best.pth", "law/law.pt", "law/atheria.json"}
    folders = {""} | {file.rpartition("/")[0] for file in files}
    listed = {file.path for folder in folders for file in client.list_artifacts(run.run_id, folder)}
    assert files <= listed
    prefix = f"{stored.info.experiment_id}/{run.run_id}/artifacts/"
    objects = {key: body for key, body in s3.objects().items() if key.startswith(prefix)}
    assert {prefix + file for file in files} <= objects.keys()
    assert objects[f"{prefix}law/law.pt"] == law
    rows = postgresql.rows(DATABASE, "SELECT name, status FROM runs WHERE run_uuid = %s", run.run_id)
    assert rows == [("mlp-v4-seed0", "FINISHED")]

    shutil.rmtree("outputs")
    shutil.rmtree("cache", ignore_errors=True)
    result = rollout([f"run_id={run.run_id}", f"tracking.uri={server}", "steps=5", "observe_every=1"])
    child = client.get_run(result.run_id)
    assert child.info.status == "FINISHED"
    assert child.info.experiment_id == stored.info.experiment_id
    assert child.data.tags["mlflow.parentRunId"] == run.run_id
    assert child.data.params["law_sha256"] == sha256(law).hexdigest()
    assert steps(client, result.run_id, "rollout/energy") == [0, 1, 2, 3, 4, 5]
    assert f"{stored.info.experiment_id}/{result.run_id}/artifacts/rollout/field.npz" in s3.objects()


def test_laws_are_found_by_alias_and_as_the_best_of_an_experiment(server: str) -> None:
    runs = [train([*SMALL, "model=mlp", f"seed={seed}", f"tracking.uri={server}"]) for seed in (0, 1)]
    client = MlflowClient(server)
    losses = {run.run_id: client.get_run(run.run_id).data.metrics[BEST_LOSS] for run in runs}
    best, other = sorted(losses, key=lambda run_id: losses[run_id])
    assert losses[best] < losses[other]
    shutil.rmtree("outputs")
    shutil.rmtree("cache", ignore_errors=True)

    def parent(law: str) -> str:
        result = rollout([law, f"tracking.uri={server}", "steps=2"])
        return client.get_run(result.run_id).data.tags["mlflow.parentRunId"]

    for run_id in (best, other):  # an alias moves
        named = promote([f"run_id={run_id}", f"tracking.uri={server}", "alias=champion", "name=gliders"])
        assert named == "gliders@champion"
        assert parent(f"law={named}") == run_id
    assert parent("best_of=atheria") == best


def test_the_password_of_a_database_is_written_nowhere(postgresql: PostgreSQL) -> None:
    uri = postgresql.create("direct")
    process = train_process("model=mlp", f"tracking.uri={uri}")
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("atheria").experiment_id])
    assert run.info.status == "FINISHED"
    assert steps(client, run.info.run_id, "train/loss") == [1, 2, 3, 4]
    assert "postgresql+psycopg2://***@" in out
    assert postgresql.secret not in out + err
    assert postgresql.secret not in str(run.to_dictionary())
    files = [path for path in Path.cwd().rglob("*") if path.is_file()]
    assert any(path.name == "run.json" for path in files)
    assert [path for path in files if postgresql.secret.encode() in path.read_bytes()] == []


class Outage(NamedTuple):
    begin: Callable[[PostgreSQL], None]
    end: Callable[[PostgreSQL], None]


OUTAGES = {
    "crashed": Outage(PostgreSQL.crash, PostgreSQL.start),
    "frozen": Outage(lambda it: it.signal(signal.SIGSTOP), lambda it: it.signal(signal.SIGCONT)),
}


@pytest.mark.parametrize("name", OUTAGES)
def test_no_step_is_lost_or_doubled_where_the_database_fails(
    name: str, server: str, postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    outage, client = OUTAGES[name], MlflowClient(server)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")  # s; the frozen one is given up sooner
    process = train_process(
        "model=mlp", "trainer.episodes=1000000", "trainer.eval_every=1000000", "trainer.steps=30",
        "trainer.checkpoint_every=1000000", f"tracking.uri={server}", f"tracking.experiment={name}",
    )  # fmt: skip
    too_long = threading.Timer(180, process.kill)
    too_long.start()
    try:
        run_id = re.search("[0-9a-f]{32}", process.stdout.readline())[0]
        wait_until(lambda: steps(client, run_id, "train/loss"), process)
        outage.begin(postgresql)
        try:
            assert "what is logged waits in" in process.stderr.readline()
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=600)
        finally:
            outage.end(postgresql)
    finally:
        too_long.cancel()
        process.kill()
        process.wait()
    folder = Path("outputs/runs") / run_id
    assert "once http" in err
    assert waiting(folder) > 0
    assert sync([]) == 0

    last = int(re.search(r"^saved +episode (\d+)", out, re.MULTILINE)[1])
    assert sorted(steps(client, run_id, "train/loss")) == list(range(1, last + 1))
    rows = postgresql.rows(
        DATABASE, "SELECT step FROM metrics WHERE run_uuid = %s AND key = 'train/loss' ORDER BY step", run_id
    )
    assert [step for (step,) in rows] == list(range(1, last + 1))
    assert client.get_run(run_id).info.status == "KILLED"
    assert not (folder / REFUSED).exists()
    assert waiting(folder) == 0


def wait_until(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    for _ in range(2400):
        if condition():
            return
        assert process.poll() is None, "the training ended"
        time.sleep(0.25)
    raise AssertionError("it did not happen")
