"""What tracking costs a training episode, and what a server that dies or hangs costs it.

    python benchmarks/tracking.py [--quick] [--rounds N] [--docs DIR]

Every contender is a training in a process of its own, of the default configuration or of the smallest law.
They take turns: each logs for a while until its deliveries have become regular, then its episodes are timed,
then it waits until all is delivered. Two contenders are alike, without tracking or undisturbed: how far they
differ is the noise of the machine. Writes DIR/tracking.json and DIR/tracking.md and, where DIR is docs/, the
README's figures. --quick tries everything for a moment; its figures mean nothing.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from datetime import date
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from first_run import processor

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from mlflow import MlflowClient  # noqa: E402

from atheria import journal  # noqa: E402
from atheria.delivery import waiting  # noqa: E402
from atheria.runs import LoggedRun  # noqa: E402
from tests.servers import MlflowServer  # noqa: E402

LAWS = {"default (unet)": "model=unet", "smallest (mlp)": "model=mlp"}
_SHOWN = {
    "off": "tracking=off",
    "off again": "tracking=off again",
    "sqlite": "SQLite store",
    "server": "mlflow server",
}
STATES = ("killed", "restarted", "hung", "answers again")
LEAD_IN, MEASURED, DRAIN = 7.0, 15.0, 15.0
"""Seconds: deliveries become regular, episodes are timed, what is left is delivered."""

Numbers = dict[str, Any]


def work(arguments: list[str]) -> None:
    """A contender: reads ``lead-in measured`` seconds from stdin, answers with the times of its episodes."""
    from atheria.cli import compose_config, to_settings
    from atheria.config import TrainConfig
    from atheria.laws import build
    from atheria.runs import start_run
    from atheria.trainer import Trainer

    # What a run says on the way is no answer.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    config = to_settings(TrainConfig, compose_config("train", arguments))
    law = build(config.model, config.physics.boundary)
    trainer = Trainer(law, config, torch.device("cpu"))
    with start_run(config.tracking, Path(config.output) / "runs", "benchmark", {}) as run:
        print(json.dumps(str(run.folder)), file=answers, flush=True)
        for line in sys.stdin:
            lead_in, measured, drain = map(float, line.split())
            times, logging, busy = [], 0.0, _busy(run)
            began = time.perf_counter()
            while time.perf_counter() - began < lead_in + measured:
                start = time.perf_counter()
                metrics = trainer.train_episode()
                trained = time.perf_counter()
                run.log(metrics, trainer.episode)
                end = time.perf_counter()
                if start - began < lead_in:
                    busy = _busy(run)
                else:
                    times.append(end - start)
                    logging += end - trained
            thread, courier = (after - before for before, after in zip(busy, _busy(run), strict=True))
            deadline = time.monotonic() + drain
            while run.uri and waiting(run.folder) and time.monotonic() < deadline:
                time.sleep(0.1)
            spent = {"logging": logging, "thread": thread, "courier": courier}
            print(json.dumps({"times": times, **spent}), file=answers, flush=True)


def _busy(run: LoggedRun) -> tuple[float, float]:
    """Seconds of processor time so far of the thread that delivers and of the courier."""
    thread = next((t.ident for t in threading.enumerate() if t.name == "atheria-delivery"), None)
    own = time.clock_gettime(time.pthread_getcpuclockid(thread)) if thread is not None else 0.0
    courier = 0.0
    for children in Path("/proc/self/task").glob("*/children"):
        for child in children.read_text().split():
            fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            courier += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own, courier


class Contender:
    """A training process that runs when it is told to."""

    def __init__(self, name: str, folder: Path, *overrides: str) -> None:
        self.name = name
        self.turns: list[Numbers] = []
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (lives as long as the process)
        command = [sys.executable, __file__, "--work", *overrides, f"output={folder}"]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=folder,
        )
        self.folder = Path(self._answer())

    def turn(self, seconds: tuple[float, float, float]) -> Numbers:
        """Seconds of the episodes that it has trained in its turn, and what its tracking was busy for."""
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(map(str, seconds)) + "\n")
        self._process.stdin.flush()
        self.turns.append(self._answer())
        return self.turns[-1]

    def end(self) -> None:
        """Lets it finish its run."""
        self._process.communicate(timeout=1200)

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            raise RuntimeError(f"the training process '{self.name}' ended: {self._errors.read()}")
        return json.loads(line)


def summary(turns: list[Numbers]) -> Numbers:
    """Milliseconds: the mean episode of each turn, the median and 99th percentile of all episodes.

    ``logging``, ``thread`` and ``courier`` are what an episode's tracking took of the training's thread, and
    of the processor by the thread that delivers and by the courier.
    """
    pooled = sorted(seconds for turn in turns for seconds in turn["times"])
    means = [1000 * mean(turn["times"]) for turn in turns]
    spent = {
        part: round(1000 * sum(turn[part] for turn in turns) / len(pooled), 4)
        for part in ("logging", "thread", "courier")
    }
    return {
        "episodes": len(pooled),
        "turns": [round(value, 3) for value in means],
        "mean_min": round(min(means), 3),
        "mean_median": round(median(means), 3),
        "median": round(1000 * median(pooled), 3),
        "p99": round(1000 * pooled[int(0.99 * (len(pooled) - 1))], 3),
        **spent,
    }


def cost(law: str, folder: Path, rounds: int, seconds: tuple[float, float, float]) -> Numbers:
    """Tracking off, twice; an SQLite store; a server."""
    server = MlflowServer(folder)
    server.start()
    contenders = []
    for name, overrides in {
        "off": ["tracking=off"],
        "off again": ["tracking=off"],
        "sqlite": [f"tracking.uri=sqlite:///{folder}/mlflow.db"],
        "server": [f"tracking.uri={server.address}"],
    }.items():
        place = folder / name.replace(" ", "-")
        place.mkdir()
        contenders.append(Contender(name, place, LAWS[law], *overrides))
    for turn in range(rounds):
        for contender in contenders:
            contender.turn(seconds)
            print(f"{law}: round {turn + 1}/{rounds}, {contender.name}", flush=True)
    for contender in contenders:
        contender.end()
    server.kill()
    points = [
        record for record, _ in journal.read(contenders[-1].folder) if isinstance(record, journal.Metrics)
    ]
    return {
        "points_per_episode": len(points[-1].values),
        **{contender.name: summary(contender.turns) for contender in contenders},
    }


def outages(folder: Path, rounds: int, seconds: tuple[float, float, float]) -> Numbers:
    """Two trainings whose servers live, one whose server is killed, restarted, hung and woken."""
    law = LAWS["smallest (mlp)"]
    servers = {
        name: MlflowServer(folder / name) for name in ("undisturbed", "undisturbed-again", "disturbed")
    }
    contenders = {}
    for name, server in servers.items():
        (folder / name).mkdir()
        server.start()
        contenders[name] = Contender(name, folder / name, law, f"tracking.uri={server.address}")
    disturbed: dict[str, list[Numbers]] = {state: [] for state in STATES}
    server = servers["disturbed"]
    change = {
        "killed": server.kill,
        "restarted": server.start,
        "hung": lambda: server.signal(signal.SIGSTOP),
        "answers again": lambda: server.signal(signal.SIGCONT),
    }
    for turn in range(rounds):
        for state in STATES:
            contenders["undisturbed"].turn(seconds)
            change[state]()
            disturbed[state].append(contenders["disturbed"].turn((*seconds[:2], 0.0)))
            contenders["undisturbed-again"].turn(seconds)
            print(f"outages: round {turn + 1}/{rounds}, {state}", flush=True)
    for contender in contenders.values():
        contender.end()
    run = contenders["disturbed"].folder
    subprocess.run([sys.executable, "-m", "atheria.sync", f"output={run.parents[1]}"], check=True)
    episodes = sum(len(turn["times"]) for turns in disturbed.values() for turn in turns)
    result = {
        "undisturbed": summary(contenders["undisturbed"].turns),
        "undisturbed again": summary(contenders["undisturbed-again"].turns),
        **{state: summary(turns) for state, turns in disturbed.items()},
        "timed_episodes": episodes,
        "every_point_once_in_order": is_whole(server, run),
    }
    for each in servers.values():
        each.kill()
    return result


def is_whole(server: MlflowServer, folder: Path) -> bool:
    """Whether a server has every training loss of a journal, once and in order."""
    run_id = journal.delivered(folder).run_id
    stored = [
        (m.step, m.value) for m in MlflowClient(server.address).get_metric_history(run_id, "train/loss")
    ]
    logged = [
        (record.step, record.values["train/loss"])
        for record, _ in journal.read(folder)
        if isinstance(record, journal.Metrics)
    ]
    return stored == logged and [step for step, _ in stored] == list(range(1, len(stored) + 1))


def rows(measured: Numbers) -> list[str]:
    """A table of summaries."""
    lines = [
        "| | mean, least turn | mean, median turn | median | 99th percentile | logging + thread | courier |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, value in measured.items():
        if isinstance(value, dict):
            own = value["logging"] + value["thread"]
            lines.append(
                f"| {name} | {value['mean_min']:.2f} | {value['mean_median']:.2f} | {value['median']:.2f} "
                f"| {value['p99']:.2f} | {own:.3f} ({100 * own / value['median']:.2f} %) "
                f"| {value['courier']:.3f} |"
            )
    return lines


def page(result: Numbers) -> str:
    """The figures as Markdown."""
    facts = result["facts"]
    lines = [
        "# What tracking costs",
        "",
        f"Written by `python benchmarks/tracking.py` on {facts['cores']} cores of an {facts['cpu']}, Python "
        f"{facts['python']}, torch {facts['torch']}, {facts['date']}; {result['rounds']} turns each of "
        f"{result['seconds'][1]:.0f} s. Milliseconds of an episode: training it and logging its metrics. "
        "Logging is what the training's own thread spends; the thread that delivers and the courier take so "
        "much of a processor, the thread at the training's expense, the courier on another core where there "
        "is one. The share is of the median episode.",
        "",
    ]
    for law, measured in result["cost"].items():
        lines += [
            f"## {law}, {measured['points_per_episode']} metrics an episode",
            "",
            *rows(measured),
            "",
        ]
    lines += [
        "## A server that fails, smallest law",
        "",
        *rows(result["outages"]),
        "",
        "After the last turn and `python -m atheria.sync`, the server that failed "
        + ("had" if result["outages"]["every_point_once_in_order"] else "did not have")
        + " every point of the curve once and in order.",
        "",
    ]
    return "\n".join(lines)


def block(result: Numbers) -> str:
    """What the README says of the figures."""
    facts, failing = result["facts"], result["outages"]
    lines = [
        "<!-- tracking: written by benchmarks/tracking.py -->",
        "| an episode, ms | mean, least turn | median | 99th percentile | of it, logging and delivering |",
        "|---|---|---|---|---|",
    ]
    for law, measured in result["cost"].items():
        for name in ("off", "off again", "sqlite", "server"):
            lines.append(_row(f"{law}, {_SHOWN[name]}", measured[name]))
    for name in ("undisturbed", "undisturbed again", *STATES):
        lines.append(_row(f"smallest (mlp), server {name}", failing[name]))
    lines += [
        "",
        f"{facts['cores']} cores of an {facts['cpu']}, torch {facts['torch']}, {facts['date']}. Rows that "
        "are alike show the noise of the machine. All of it: [docs/tracking.md](docs/tracking.md).",
        "<!-- /tracking -->",
    ]
    return "\n".join(lines)


def _row(name: str, value: Numbers) -> str:
    own = value["logging"] + value["thread"]
    share = f"{own:.3f} ({100 * own / value['median']:.2f} %)"
    return f"| {name} | {value['mean_min']:.2f} | {value['median']:.2f} | {value['p99']:.2f} | {share} |"


def quote(result: Numbers, readme: Path) -> None:
    """Puts the figures into the README."""
    text = readme.read_text()
    before, rest = text.split("<!-- tracking", 1)
    after = rest.split("<!-- /tracking -->", 1)[1]
    readme.write_text(before + block(result) + after)


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    arguments = parser.parse_args()
    seconds = (0.2, 1.0, 1.0) if arguments.quick else (LEAD_IN, MEASURED, DRAIN)
    rounds = 1 if arguments.quick else arguments.rounds
    result: Numbers = {
        "facts": {
            "cpu": processor(),
            "cores": os.cpu_count(),
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "date": date.today().isoformat(),
        },
        "rounds": rounds,
        "seconds": seconds,
        "cost": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        for index, law in enumerate(list(LAWS)[1:] if arguments.quick else LAWS):
            place = Path(folder) / str(index)
            place.mkdir()
            result["cost"][law] = cost(law, place, rounds, seconds)
        place = Path(folder) / "outages"
        place.mkdir()
        result["outages"] = outages(place, max(1, rounds - 2), seconds)
    arguments.docs.mkdir(parents=True, exist_ok=True)
    (arguments.docs / "tracking.json").write_text(json.dumps(result, indent=2) + "\n")
    (arguments.docs / "tracking.md").write_text(page(result))
    print(page(result))
    if arguments.docs == ROOT / "docs":
        quote(result, ROOT / "README.md")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2:])
    else:
        main()
