"""Damages artifacts and loads them: ``python tools/fuzz.py --minutes 5``; ``--what graphs``: random laws.

A file may load or be refused by ValueError, RuntimeError or OverflowError. Anything else, the end of the
process above all, is a finding: the file is kept in ``--output`` and the status is 1. How often libtorch's
reader ended the child process that opens files first is counted, and the first such files are kept, too.

Graphs are those of random laws (tests/random_laws.py), the text of most of them damaged, too, as far as
TorchScript still reads it. They are compiled, in bfloat16, too, where the CPU has it, and stepped beside
libtorch: another result is a finding, as is the death of the child.

To damage something else, add a function to MUTATIONS.
"""

import argparse
import io
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

EXPECTED = ("loaded", "alike", "no TorchScript", "ValueError", "UserError", "RuntimeError", "OverflowError")
LAWS = ("mlp", "unet", "unet_convlstm", "quantum_walk")
CRASHES_KEPT = 20
DEEP = 0.02
"""Share of files in which something is said so often that a recursive reader may run out of stack."""
NUMBERS = (-1, 0, 1, 2, 255, 2**31 - 1, 2**31, 2**63 - 1, 2**63, 2**64, 10**30, -(2**63), 1e308, float("nan"))
_TOKENS = re.compile(r"\w+|\W")

Luck = random.Random


# Mutations --------------------------------------------------------------------------------------------


def description(content: bytes, luck: Luck) -> bytes:
    """Values and keys of ``atheria.json``."""

    def change(record: bytes) -> bytes:
        described = json.loads(record)
        for _ in range(luck.choice([1, 1, 2, 5])):
            _change_somewhere(described, luck)
        text = json.dumps(described)
        return (_text(text, luck) if luck.random() < 0.2 else text).encode()

    return _rewritten(content, lambda name: name.endswith("/atheria.json"), change)


def code(content: bytes, luck: Luck) -> bytes:
    """TorchScript's source."""
    return _one_record(content, luck, r"/code/.*\.py$", lambda r: _text(r.decode(), luck).encode())


def pickles(content: bytes, luck: Luck) -> bytes:
    """What says which attributes, tensors and constants there are."""
    return _one_record(content, luck, r"\.pkl$", lambda record: _bytes(record, luck))


def records(content: bytes, luck: Luck) -> bytes:
    """Any record; its checksum is right again."""
    return _one_record(content, luck, r"", lambda record: _bytes(record, luck))


def container(content: bytes, luck: Luck) -> bytes:
    """The zip file itself, checksums and directory too."""
    return _bytes(content, luck)


MUTATIONS: tuple[Callable[[bytes, Luck], bytes], ...] = (description, code, pickles, records, container)


def _one_record(content: bytes, luck: Luck, pattern: str, change: Callable[[bytes], bytes]) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        chosen = luck.choice([name for name in archive.namelist() if re.search(pattern, name)])
    return _rewritten(content, lambda name: name == chosen, change)


def _rewritten(content: bytes, chosen: Callable[[str], bool], change: Callable[[bytes], bytes]) -> bytes:
    """The archive with some of its records changed."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(target, "w") as copy:
        for info in source.infolist():
            record = source.read(info)
            copy.writestr(info.filename, change(record) if chosen(info.filename) else record)
    return target.getvalue()


def _change_somewhere(values: Any, luck: Luck) -> None:
    """Changes, removes or adds one value of a JSON document, at any depth."""
    key = luck.choice(list(values)) if isinstance(values, dict) else luck.randrange(len(values))
    value = values[key]
    if isinstance(value, (dict, list)) and value and luck.random() < 0.7:
        _change_somewhere(value, luck)
    elif isinstance(values, dict) and luck.random() < 0.15:
        del values[key]
        if not values:
            values["key"] = 0
    else:
        other = (None, True, "", "unet", "x" * 10_000, [], [4, 4], {}, {"kind": "soup"}, *NUMBERS)
        values[key] = luck.choice(other)


def _text(text: str, luck: Luck, deep: float = DEEP) -> str:
    """Tokens replaced by others of the same text or by numbers, removed, or said twice."""
    tokens = _TOKENS.findall(text) or [" "]
    words = [token for token in tokens if not token.isspace()] or [" "]
    for _ in range(luck.choice([1, 1, 2, 4])):
        at = luck.randrange(len(tokens))
        tokens[at] = luck.choice(
            [luck.choice(words), "", tokens[at] * 2, str(luck.choice(NUMBERS)), luck.choice(words) + "("]
        )
        if luck.random() < deep:
            tokens[at] *= 20_000
    return "".join(tokens)


def _bytes(content: bytes, luck: Luck) -> bytes:
    """Bytes changed, cut, moved or said again."""
    changed = bytearray(content or b"\0")
    for _ in range(luck.choice([1, 1, 1, 2, 4, 16])):
        at = luck.randrange(len(changed) + 1)
        piece = changed[at : at + luck.randrange(1, 32)]
        match luck.randrange(6):
            case 0 | 1 | 2 if at < len(changed):
                changed[at] = luck.choice([changed[at] ^ 1 << luck.randrange(8), luck.randrange(256), 0, 255])
            case 3:
                del changed[at : at + len(piece)]
            case 4:
                elsewhere = luck.randrange(len(changed) + 1)
                changed[elsewhere:elsewhere] = piece
            case _:
                changed[at : at + 4] = luck.choice(NUMBERS[:6]).to_bytes(4, "little", signed=True)
    if luck.random() < DEEP and changed:
        at = luck.randrange(len(changed))
        changed[at : at + 1] = changed[at : at + 1] * 300_000
    return bytes(changed) or b"\0"


# The process that loads ---------------------------------------------------------------------------------


def work(output: Path, seed: int, what: str) -> None:
    """Loads one file after the other, and says what became of it, until it is ended."""
    from atheria import proven

    trial = graph_trial() if what == "graphs" else file_trial(_originals(output / "originals"))
    for index in itertools.count():
        luck = random.Random(f"{seed} {index}")
        kind, run = trial(luck)
        path = output / "files" / f"{seed}-{index}-{kind}.pt"
        crashes = proven.probe.crashes
        print(json.dumps([path.name, None, ""]), flush=True)
        try:
            outcome, message = run(path)
        except Exception as error:  # what it may be is the driver's to say
            outcome, message = type(error).__name__, str(error)
        if proven.probe.crashes > crashes:
            outcome += ", the child died"
        print(json.dumps([path.name, outcome, message]), flush=True)


Run = Callable[[Path], tuple[str, str]]
"""Writes a file and uses it; returns what became of it, and why."""


def file_trial(originals: list[bytes]) -> Callable[[Luck], tuple[str, Run]]:
    """Damaged artifacts."""
    from atheria_core import Engine

    def draw(luck: Luck) -> tuple[str, Run]:
        original, mutate = luck.choice(originals), luck.choice(MUTATIONS)

        def run(path: Path) -> tuple[str, str]:
            path.write_bytes(mutate(original, luck))
            Engine(luck.choice([None, None, 2])).load_model(path)
            return "loaded", ""

        return mutate.__name__, run

    return draw


def graph_trial() -> Callable[[Luck], tuple[str, Run]]:
    """Random laws, compiled and by libtorch."""
    import numpy as np
    import torch
    from atheria_core import Engine

    from atheria import artifact

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests import random_laws

    engines_wanted: list[dict[str, str]] = [{"backend": "torchscript"}, {"backend": "compiled"}]
    try:
        Engine(precision="bf16")
        engines_wanted.append({"precision": "bf16"})
    except ValueError:
        pass  # the CPU has none

    def draw(luck: Luck) -> tuple[str, Run]:
        is_local = luck.random() < 0.3
        operations = random_laws.OPERATIONS if is_local or luck.random() < 0.5 else random_laws.OF_UNETS
        law = random_laws.draw(luck, most_lines=20, is_local=is_local, operations=operations)
        damaged = luck.random() < 0.7
        source = _text(law.source, luck, deep=0) if damaged else law.source

        def run(path: Path) -> tuple[str, str]:
            try:
                torch.jit.save(artifact.script(random_laws.module(source, law.weights)), str(path))
            except Exception as error:  # Python or TorchScript does not know such a text
                return "no TorchScript", str(error)
            engines = [Engine(law.d_state, **wanted) for wanted in engines_wanted]
            for engine in engines:
                engine.load_model(path, {"boundary": law.boundary})
            side = luck.choice([8, 12, 16, 40])
            psi = np.random.default_rng(luck.randrange(2**32)).standard_normal(
                (2, 2 * law.d_state, side, side)
            )
            for engine in engines:
                engine.set_state(psi.astype(np.float32))
                engine.step_native()
            expected, *others = (engine.state() for engine in engines)
            scale = max(1.0, np.abs(expected).max())
            errors = [float(np.abs(expected - got).max() / scale) for got in others]
            alike = all(error < limit for error, limit in zip(errors, (1e-4, 0.5), strict=False))
            return ("alike", "") if alike else ("differs", f"{errors}\n{source}")

        return ("damaged" if damaged else "random"), run

    return draw


def _originals(folder: Path) -> list[bytes]:
    """Artifacts of small laws."""
    from atheria.export import export

    sys.stdout = sys.stderr  # it says what it writes
    paths = [folder / f"{law}.pt" for law in LAWS]
    for law, path in zip(LAWS, paths, strict=True):
        if not path.is_file():
            small = [] if law == "quantum_walk" else ["model.hidden_channels=4"]
            export([f"model={law}", "model.d_state=2", *small, "grid=8", f"output={path}"])
    sys.stdout = sys.__stdout__
    return [path.read_bytes() for path in paths]


# The driver ---------------------------------------------------------------------------------------------


def main() -> int:
    """Fuzzes for some minutes; 1 where there is a finding."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--what", choices=["files", "graphs"], default="files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("outputs/fuzz"))
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    output = given.output.absolute()
    (output / "files").mkdir(parents=True, exist_ok=True)
    if given.work:
        work(output, given.seed, given.what)
    outcomes: Counter[tuple[str, str]] = Counter()
    deaths: Counter[str] = Counter()
    findings, seed, end = 0, given.seed, time.monotonic() + 60 * given.minutes
    while time.monotonic() < end:
        for name, outcome, message in _outcomes(output, seed, given.what, end):
            path = output / "files" / name
            kind, _, died = outcome.partition(",")
            outcomes[path.stem.rpartition("-")[2], outcome] += 1
            if died:
                deaths[message.partition("of its own, and ")[2].partition(":")[0]] += 1
                if deaths.total() <= CRASHES_KEPT:
                    _keep(path, output / "child_died", message)
            if kind not in EXPECTED or (died and given.what == "graphs"):
                findings += 1
                print(f"finding   {_keep(path, output / 'findings', f'{outcome}: {message}')}", flush=True)
            path.unlink(missing_ok=True)
        seed += 1
    for (mutation, outcome), count in sorted(outcomes.items()):
        print(f"{mutation:12} {outcome:28} {count}")
    print(f"files     {outcomes.total()}")
    print(f"children  {deaths.total()} died: {dict(deaths)}")
    print(f"findings  {findings}")
    return int(findings > 0)


def _outcomes(output: Path, seed: int, what: str, end: float) -> Iterator[tuple[str, str, str]]:
    """What became of each file of one process, until that dies or time is up: name, outcome, message."""
    with subprocess.Popen(
        [sys.executable, __file__, "--work", f"--what={what}", f"--seed={seed}", f"--output={output}"],
        stdout=subprocess.PIPE, text=True, env=os.environ | {"ATHERIA_CACHE": str(output / "cache")},
    ) as worker:  # fmt: skip
        assert worker.stdout is not None
        name, outcome = "start", None
        for line in worker.stdout:
            name, outcome, message = json.loads(line)
            if outcome is not None:
                yield name, outcome, message
                if time.monotonic() > end:
                    worker.kill()
                    return
    code = worker.returncode
    yield name, f"the process ended: {signal.Signals(-code).name if code < 0 else code}", ""


def _keep(file: Path, folder: Path, message: str) -> Path:
    """Puts a file, if there is one, and what became of it into a folder."""
    folder.mkdir(exist_ok=True)
    kept = folder / file.name
    if file.is_file():
        shutil.copyfile(file, kept)
    kept.with_suffix(".txt").write_text(message + "\n")
    return kept


if __name__ == "__main__":
    sys.exit(main())
