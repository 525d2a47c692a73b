"""Real servers that tests start, stop, freeze and kill."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import boto3
import psycopg2


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class MlflowServer:
    """An ``mlflow server`` with its own database and proxied artifacts, on one port for all its lives."""

    def __init__(
        self,
        folder: Path,
        store: str | None = None,
        artifacts: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._port = free_port()
        self._store = store or f"sqlite:///{folder}/server.db"
        self._artifacts = artifacts or f"{folder}/server-artifacts"
        self._environment = environment or {}
        self._log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def log(self) -> str:
        """What it has printed: among other things, the requests."""
        return self._log.read_text()

    def start(self) -> None:
        """Returns when it answers."""
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port),
             "--workers", "1",
             "--backend-store-uri", self._store, "--artifacts-destination", self._artifacts],
            env=os.environ | quiet | self._environment,
            stdout=self._log.open("ab"), stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        wait_for(f"{self.address}/health", self._process)

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to all its processes."""
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """Ends it without a word, as a crash does."""
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._process.wait(timeout=20)
            self._process = None


class PostgreSQL:
    """A PostgreSQL of its own, on one port for all its lives.

    Where root runs the tests the user ``postgres`` runs it, since it refuses root; and it lies in a folder
    of that user's, who may not enter pytest's.

    Attributes:
        secret: What its password contains, however that is written; nobody else has it.
    """

    def __init__(self) -> None:
        self.secret = secrets.token_hex(8)
        self._password = f"/{self.secret}@"
        self._port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="atheria-postgresql-"))
        self._data = self._folder / "data"
        password = self._folder / "password"
        password.write_text(self._password)
        if os.geteuid() == 0:
            shutil.chown(self._folder, "postgres")
            shutil.chown(password, "postgres")
        self._run("initdb", "--username=atheria", f"--pwfile={password}", "--auth=scram-sha-256",
                  "--encoding=UTF8", "--no-locale", "--no-sync")  # fmt: skip

    @staticmethod
    def programs() -> Path | None:
        """The folder of its programs, which Debian keeps off the path; None where it is not installed."""
        if found := shutil.which("initdb"):
            return Path(found).resolve().parent
        return max((path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")), default=None)

    def start(self) -> None:
        """Returns when it answers."""
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        self._run("pg_ctl", "--wait", f"--log={self._folder}/log", f"--options={options}", "start")

    def crash(self) -> None:
        """Ends it in the middle of whatever it does; the next start has to recover."""
        self._run("pg_ctl", "--wait", "--mode=immediate", "stop")

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to all its processes; each is a group of its own."""
        first = int((self._data / "postmaster.pid").read_text().split()[0])
        os.kill(first, number)  # before its children are listed: a frozen one makes no more
        for child in Path(f"/proc/{first}/task/{first}/children").read_text().split():
            os.kill(int(child), number)

    def remove(self) -> None:
        """Ends it and deletes what it has kept."""
        if (self._data / "postmaster.pid").exists():
            self.signal(signal.SIGCONT)
            self.crash()
        shutil.rmtree(self._folder)

    def create(self, database: str) -> str:
        """Makes a database; returns its URI, with the password."""
        with closing(self._connect("postgres")) as connection:
            connection.autocommit = True
            connection.cursor().execute(f"CREATE DATABASE {database}")
        password = quote(self._password, safe="")
        return f"postgresql+psycopg2://atheria:{password}@127.0.0.1:{self._port}/{database}"

    def rows(self, database: str, query: str, *values: object) -> list[tuple[Any, ...]]:
        """What it answers to a query."""
        with closing(self._connect(database)) as connection, connection.cursor() as cursor:
            cursor.execute(query, values)
            return cursor.fetchall()

    def _connect(self, database: str) -> Any:
        return psycopg2.connect(
            host="127.0.0.1", port=self._port, user="atheria", password=self._password, dbname=database
        )

    def _run(self, program: str, *arguments: str) -> None:
        folder = self.programs()
        assert folder is not None
        as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        subprocess.run(
            [*as_user, str(folder / program), f"--pgdata={self._data}", *arguments],
            cwd=self._folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=600, check=True,
        )  # fmt: skip


class S3:
    """A server that answers as S3 does, with one bucket, which it keeps in memory.

    Attributes:
        bucket: The bucket's address, as MLflow takes it.
        environment: What lets a client find the server, and in.
    """

    _BUCKET = "atheria"

    def __init__(self) -> None:
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.bucket = f"s3://{self._BUCKET}"
        self.environment = {
            "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{self._port}",
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": "something",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def start(self) -> None:
        """Returns when it answers and the bucket is there."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(self._port)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait_for(f"http://127.0.0.1:{self._port}/moto-api/", self._process)
        self._client().create_bucket(Bucket=self._BUCKET)

    def kill(self) -> None:
        """Ends it; what it kept is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=20)
            self._process = None

    def objects(self) -> dict[str, bytes]:
        """What lies in the bucket."""
        client = self._client()
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=self._BUCKET)
        keys = [found["Key"] for page in pages for found in page.get("Contents", [])]
        return {key: client.get_object(Bucket=self._BUCKET, Key=key)["Body"].read() for key in keys}

    def _client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.environment["MLFLOW_S3_ENDPOINT_URL"],
            aws_access_key_id=self.environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.environment["AWS_SECRET_ACCESS_KEY"],
            region_name=self.environment["AWS_DEFAULT_REGION"],
        )


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    """Returns when a server answers."""
    for _ in range(2400):
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except OSError:
            assert process.poll() is None, "the server ended"
            time.sleep(0.25)
    raise AssertionError(f"{url} does not answer")
