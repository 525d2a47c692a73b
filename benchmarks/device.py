"""What a step of a rollout costs on a CUDA device: the engine against PyTorch on the same device.

    python benchmarks/device.py [--laws mlp deep_qca nca unet] [--sizes 64 256 1024] [--rounds N]
                                [--device cuda] [--docs DIR]

As `rollout.py`, which runs the rows: the same weights, the same field, turns in one process, results compared
with a rollout in float64. Every contender computes in float32, without TensorFloat-32. Writes DIR/device.json
and DIR/device.md. `--device cpu` tries the script where there is no device; its figures mean nothing.
"""

import argparse
import json
import platform
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import rollout
import torch
from peers import Contender, Eager, Frozen, Ours, Step, Torch, engine_of
from torch import Tensor

from atheria.config import PhysicsConfig
from atheria.laws import Law

DEVICE = torch.device("cuda")


def finish() -> None:
    """Waits for the device."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


class OursThere(Ours):
    """The engine, its state on the device."""

    def prepare(self, law: Law, physics: PhysicsConfig, psi: Tensor) -> None:
        self.engine = engine_of(law, physics, tuple(psi.shape[2:]), self.precision, DEVICE.type)
        self.engine.step_native()  # it is recorded
        self.engine.set_state(psi.numpy())
        info = self.engine.info()
        self.note = f"{info['backend']}: {info['why']}"


class There(Torch):
    """PyTorch on the device."""

    def start(self, law: Law, psi: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensor.to(DEVICE) for tensor in super().start(law, psi))

    def run(self, steps: int) -> None:
        super().run(steps)
        finish()

    def field(self) -> np.ndarray:
        return self.state[0].cpu().contiguous().numpy().copy()


class EagerThere(There, Eager):
    """PyTorch as it is."""

    def compiled(self, step: Step) -> Callable[..., Any]:
        return super().compiled(step.to(DEVICE))


class FrozenThere(There, Frozen):
    """TorchScript."""

    def compiled(self, step: Step) -> Callable[..., Any]:
        return super().compiled(step.to(DEVICE))


class CompiledThere(There):
    """torch.compile with CUDA graphs of its own; a step's answer is copied, as the next one overwrites it."""

    key = "compile"
    name = "torch.compile, CUDA graphs"

    def prepare(self, law: Law, physics: PhysicsConfig, psi: Tensor) -> None:
        torch._dynamo.reset()  # else it counts the steps of other laws as recompilations of this one
        super().prepare(law, physics, psi)

    def compiled(self, step: Step) -> Callable[..., Any]:
        graphed = torch.compile(step.to(DEVICE), fullgraph=True, dynamic=False, mode="reduce-overhead")

        def run(*state: Tensor) -> tuple[Tensor, ...]:
            torch.compiler.cudagraph_mark_step_begin()
            out = graphed(*state)
            return tuple(tensor.clone() for tensor in (out if isinstance(out, tuple) else (out,)))

        return run


HEAD = """# Rollouts on a CUDA device, measured

Written by `benchmarks/device.py`: {device}, {d_state} components, {hidden_channels} channels, float32 without
TensorFloat-32, Python {python}, torch {torch}, {date}. Columns as in [rollout.md](rollout.md).
"""


def page(result: dict[str, Any]) -> str:
    """docs/device.md."""
    lines = [HEAD.format(**result)]
    if result["trial"]:
        lines.append("**A trial without a device: these figures mean nothing.**\n")
    for row in result["rows"]:
        lines += [f"## {row['law']}, {row['side']} x {row['side']}\n", *rollout.table(row), ""]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """Measures and writes."""
    global DEVICE
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    laws = [*rollout.LAWS, *rollout.OTHERS]
    parser.add_argument("--laws", nargs="+", choices=laws, default=rollout.LAWS)
    parser.add_argument("--sizes", nargs="+", type=int, default=[64, 256, 1024], help="cells a side")
    parser.add_argument("--rounds", type=int, help="turns of each contender (as many as take about 30 s)")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--docs", type=Path, default=rollout.ROOT / "docs", help="where to write")
    arguments = parser.parse_args()
    DEVICE = torch.device(arguments.device)
    trial = DEVICE.type == "cpu"
    if not trial and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device; --device cpu tries the script without one")
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    kinds: list[type[Contender]] = [OursThere, EagerThere, FrozenThere]
    if not trial:
        kinds.append(CompiledThere)
    rows: list[dict[str, Any]] = []
    for law in arguments.laws:
        for side in arguments.sizes:
            rollout.progress(rollout.row(law, side, kinds, arguments.rounds), rows)
    result = {
        "device": "a CPU" if trial else torch.cuda.get_device_name(),
        "trial": trial,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": date.today().isoformat(),
        "d_state": rollout.D_STATE,
        "hidden_channels": rollout.HIDDEN,
        "rows": rows,
    }
    arguments.docs.mkdir(parents=True, exist_ok=True)
    (arguments.docs / "device.json").write_text(json.dumps(result, indent=1) + "\n")
    (arguments.docs / "device.md").write_text(page(result))
    print(page(result))


if __name__ == "__main__":
    main()
