"""What following the tutorial takes: a clean clone, then every block of docs/tutorial.md, word for word.

    python benchmarks/tutorial.py

Clones the committed state, not the working tree; installs it there, and types the rest in an empty folder. A
command that serves pages is waited for until its page answers, and ended by Ctrl-C. Writes docs/tutorial.json
and the figures in docs/tutorial.md.
"""

import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from datetime import date
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from first_run import ROOT, processor, timed

PAGE = ROOT / "docs/tutorial.md"
RESULT = ROOT / "docs/tutorial.json"
CODE = re.compile(r'^## ([^\n]+)$|^```(sh|python)(?: title="(.+?)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
IN_THE_CLONE = "in the clone"
SERVES = ("atheria.ui", "atheria.view")

BLOCK = """<!-- tutorial: written by benchmarks/tutorial.py -->
Typed without a pause on {cores} cores of an {processor}, from an empty folder, with Python {python} and torch
{torch}, {date}: *Install* {Install:.0f} s, *Train* {Train:.0f} s, *Compare* {Compare:.0f} s, *Roll out*
{Roll out:.0f} s, *Look* {Look:.0f} s, *The same in Python* {The same in Python:.0f} s.
<!-- /tutorial -->"""


def answers_after(command: str, folder: Path) -> float:
    """Seconds until the page that a command serves is there; ends the command."""
    started = time.perf_counter()
    server = subprocess.Popen(
        ["bash", "-c", f"exec {command}"], cwd=folder, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"BROWSER": "true", "PYTHONUNBUFFERED": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert server.stdout is not None
    address = next(line.split()[1] for line in server.stdout if line.startswith("open"))
    urllib.request.urlopen(address, timeout=60).close()
    seconds = round(time.perf_counter() - started, 1)
    server.send_signal(signal.SIGINT)
    server.communicate(timeout=60)
    print(f"{seconds:8.1f} s  {command}", flush=True)
    return seconds


def block(result: dict[str, object]) -> str:
    """What the page says of the figures."""
    sections = result["sections"]
    assert isinstance(sections, dict)
    return BLOCK.format(**result, **sections)


def main() -> None:
    sections: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        clone, folder = Path(scratch) / "atheria", Path(scratch) / "empty"
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        folder.mkdir()
        os.environ["PATH"] = f"{clone}/.venv/bin{os.pathsep}{os.environ['PATH']}"
        section = ""
        for title, language, place, text in CODE.findall(PAGE.read_text()):
            if title:
                section = title
                continue
            if language == "sh" and any(name in text for name in SERVES):
                seconds = answers_after(text.strip(), folder)
            else:
                command = ["bash", "-euc", text] if language == "sh" else ["python", "-c", text]
                seconds, _ = timed(command, clone if place == IN_THE_CLONE else folder)
            sections[section] = round(sections.get(section, 0.0) + seconds, 1)
        version = subprocess.run(
            ["python", "-c", "import torch; print(torch.__version__)"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    result: dict[str, object] = {
        "sections": sections,
        "cores": os.cpu_count(),
        "processor": processor(),
        "python": platform.python_version(),
        "torch": version.stdout.strip(),
        "date": date.today().isoformat(),
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    before, rest = PAGE.read_text().split("<!-- tutorial", 1)
    PAGE.write_text(before + block(result) + rest.split("<!-- /tutorial -->", 1)[1])
    print(block(result))


if __name__ == "__main__":
    main()
