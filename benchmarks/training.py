"""What a training episode costs: the trainer against a naive loop, its options, and memory.

    python benchmarks/training.py [--quick] [--without-compile] [--threads N] [--docs DIR]

An episode is a rollout, the loss, its gradient and an optimiser step, at the sizes of trainer v4. The naive
loop keeps a complex tensor (B, H, W, d), joins and permutes it before each use of the law, draws its noise
with torch and computes the loss on complex numbers; its law is made of torch's own modules, in the seed's
form (without the folding of deep_qca, the padding and the in-place activations of `atheria.laws`). All
contenders take turns in one process, so a busy machine slows all of them. Writes DIR/training.json and
DIR/training.md. --quick tries everything but the compiler at a small size; its figures mean nothing.
"""

import argparse
import copy
import json
import math
import os
import platform
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import torch
from first_run import processor
from torch import Tensor, nn

from atheria.cli import compose_config, to_settings
from atheria.config import TrainConfig
from atheria.laws import Law, build
from atheria.laws.blocks import Conv3x3
from atheria.laws.deep_qca import DeepQCA
from atheria.trainer import Trainer

ROOT = Path(__file__).parents[1]

NOISE = ["noise=seed", "noise.level=0.05", "noise/curriculum=constant"]
QUIET = ["noise=none"]
LAWS = ["mlp", "deep_qca", "nca", "unet"]
OPTIONS = {
    "channels last": ["trainer.channels_last=true"],
    "channels first": ["trainer.channels_last=false"],
    "bf16": ["trainer.precision=bf16"],
    "compile": ["trainer.compile=true"],
}
VARIANTS = {
    law: [("channels last",), ("bf16",), ("bf16", "channels last"), ("compile",)] for law in LAWS[:-1]
} | {
    "unet": [
        ("channels first",),
        ("channels last",),
        ("bf16", "channels first"),
        ("bf16", "channels last"),
        ("compile",),
        ("compile", "bf16"),
    ]
}
ROUNDS = {"mlp": 60, "deep_qca": 40, "nca": 40, "unet": 12}
QUICK = ["trainer.grid=8", "trainer.steps=2", "trainer.batch_size=2", "model.hidden_channels=4"]
WEIGHTS = 0.05
"""Standard deviation of the last layer's weights, so that the law does something from the first episode."""
DEFAULT = "trainer"
NAIVE = "naive loop"
NAIVE_OURS = "naive loop around the trainer's law"
LONG = 64
"""Steps of the rollout whose memory is measured."""

Numbers = dict[str, Any]


def config_of(law: str, *overrides: str, quick: bool) -> TrainConfig:
    """The defaults of trainer v4 under the overrides."""
    small = [option for option in QUICK if quick]
    return to_settings(TrainConfig, compose_config("train", [f"model={law}", *small, *overrides]))


def law_of(config: TrainConfig) -> Law:
    """A law that acts, the same at every call."""
    torch.manual_seed(0)
    law = build(config.model, config.physics.boundary)
    last = [module for module in law.modules() if isinstance(module, nn.Conv2d)][-1]
    nn.init.normal_(last.weight, std=WEIGHTS)
    return law


def plain(module: nn.Module) -> nn.Module:
    """A copy of a law, of torch's own modules alone."""
    if isinstance(module, DeepQCA):
        return nn.Sequential(plain(module.conv_neighbors), plain(module.processing_net))
    if isinstance(module, nn.ELU):
        return nn.ELU()
    if isinstance(module, Conv3x3):
        conv = nn.Conv2d(
            module.in_channels, module.out_channels, 3, padding=1, groups=module.groups,
            bias=module.bias is not None, padding_mode=module.padding_mode,
        )  # fmt: skip
        conv.load_state_dict(module.state_dict())
        conv.weight.requires_grad_(module.weight.requires_grad)
        return conv
    twin = copy.deepcopy(module)
    for name, child in module.named_children():
        setattr(twin, name, plain(child))
    return twin


class NaiveLoop:
    """A training loop as one writes it first; the objective is v4's, the physics open.

    Args:
        law: (B, 2d, H, W) -> (B, 2d, H, W).
        config: Sizes, optimiser and noise.
    """

    def __init__(self, law: nn.Module, config: TrainConfig) -> None:
        self.law = law
        self.config = config
        settings = config.trainer
        self.optimizer = torch.optim.AdamW(
            law.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
        )

    def train_episode(self, initial: Tensor | None = None) -> dict[str, float]:
        """Trains on `initial`, (B, H, W, d) complex, or on fresh states."""
        settings = self.config.trainer
        start = self.fresh() if initial is None else initial
        psi = start
        self.optimizer.zero_grad()
        for _ in range(settings.steps):
            psi = self.step(psi)
        loss = self.loss(start, psi)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.law.parameters(), settings.clip)
        self.optimizer.step()
        return {"train/loss": loss.item(), "train/gradient_norm": norm.item()}

    def fresh(self) -> Tensor:
        """A soup: half of the cells are occupied, each with norm 1."""
        height, width = self.config.trainer.grid
        shape = (self.config.trainer.batch_size, height, width, self.config.model["d_state"])
        psi = torch.complex(torch.randn(shape), torch.randn(shape))
        psi = psi / psi.abs().square().sum(dim=-1, keepdim=True).sqrt()
        return psi * (torch.rand(*shape[:3], 1) < 0.5)

    def step(self, psi: Tensor) -> Tensor:
        """One step of the law, the decay and the noise."""
        joined = torch.cat([psi.real, psi.imag], dim=-1).permute(0, 3, 1, 2)
        re, im = self.law(joined).permute(0, 2, 3, 1).chunk(2, dim=-1)
        psi = (1 - self.config.physics.gamma) * psi + torch.complex(re.contiguous(), im.contiguous())
        level = self.config.noise.level
        if level > 0:
            angle = 2 * math.pi * torch.rand(psi.shape)
            hit = torch.rand(*psi.shape[:3], 1) < level
            psi = torch.where(hit, psi * torch.exp(1j * angle), psi)
            if torch.rand(()) < 0.2:
                psi = torch.where(torch.rand(*psi.shape[:3], 1) < 0.1 * level, -psi, psi)
        return psi

    def loss(self, start: Tensor, end: Tensor) -> Tensor:
        """10 survival + 5 symmetry + complexity."""
        weights = self.config.trainer.loss
        before, left = (psi.abs().square().sum(dim=(1, 2, 3)) for psi in (start, end))
        amplitude = end.abs()
        survival = (left - 0.8 * before).abs() / before
        symmetry = (amplitude - torch.rot90(amplitude, dims=(1, 2))).square().mean(dim=(1, 2, 3))
        complexity = -torch.log(amplitude.sum(dim=-1).std(dim=(1, 2), correction=0))
        return (
            weights["survival"] * survival
            + weights["symmetry"] * symmetry
            + weights["complexity"] * complexity
        ).mean()


def trainer_of(config: TrainConfig) -> Trainer:
    return Trainer(law_of(config), config, torch.device("cpu"))


def first_difference(law: str, quick: bool) -> dict[str, float]:
    """Relative differences between trainer and naive loop of loss and gradient, from the same states."""
    config = config_of(law, *QUIET, quick=quick)
    seen: list[Tensor] = []
    trainer = trainer_of(config)
    draw = trainer._draw_batch

    def watched(phase: Any) -> Any:
        drawn = draw(phase)
        seen.append(drawn[0].initial)
        return drawn

    trainer._draw_batch = watched  # type: ignore[method-assign]
    ours = trainer.train_episode()
    re, im = seen[0].permute(0, 2, 3, 1).chunk(2, dim=-1)
    naive = NaiveLoop(plain(law_of(config)), config)
    theirs = naive.train_episode(torch.complex(re.contiguous(), im.contiguous()))
    return {
        "loss": ours["train/loss"],
        **{
            f"{name} difference": abs(ours[f"train/{name}"] / theirs[f"train/{name}"] - 1)
            for name in ("loss", "gradient_norm")
        },
    }


def contenders(law: str, noise: list[str], variants: list[tuple[str, ...]], quick: bool) -> dict[str, Any]:
    config = config_of(law, *noise, quick=quick)
    named: dict[str, Any] = {
        NAIVE: NaiveLoop(plain(law_of(config)), config),
        NAIVE_OURS: NaiveLoop(law_of(config), config),
        DEFAULT: trainer_of(config),
    }
    for variant in variants:
        options = [option for part in variant for option in OPTIONS[part]]
        named[", ".join(variant)] = trainer_of(config_of(law, *noise, *options, quick=quick))
    return named


def race(named: dict[str, Any], rounds: int) -> dict[str, Numbers]:
    """Seconds of an episode of each contender, in turns; and of the first, which may compile."""
    first, seconds, losses = ({name: [] for name in named} for _ in range(3))
    for name, contender in named.items():
        started = time.perf_counter()
        losses[name].append(contender.train_episode()["train/loss"])
        first[name].append(time.perf_counter() - started)
    for _ in range(rounds):
        for name, contender in named.items():
            started = time.perf_counter()
            losses[name].append(contender.train_episode()["train/loss"])
            seconds[name].append(time.perf_counter() - started)
    naive = seconds[NAIVE]
    return {
        name: {
            "minimum_seconds": min(spent),
            "median_seconds": median(spent),
            "speed_of_minima": min(naive) / min(spent),
            "speed_of_medians": median(naive) / median(spent),
            "first_seconds": first[name][0],
            "episodes": len(spent),
            # The trainers see the same states episode by episode; the naive loops draw their own.
            "loss_difference": None
            if name.startswith(NAIVE)
            else max(abs(a / b - 1) for a, b in zip(losses[name], losses[DEFAULT], strict=True)),
        }
        for name, spent in seconds.items()
    }


def status_megabytes(key: str) -> float:
    """A size of this process, of Linux's /proc."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) / 1024


def measure_memory(checkpointing: bool, quick: bool) -> Numbers:
    """What an episode of the unet adds to this process' memory at its peak, and its seconds."""
    options = [*QUIET, f"trainer.gradient_checkpointing={str(checkpointing).lower()}"]
    trainer_of(config_of("unet", *options, "trainer.steps=1", quick=quick)).train_episode()  # libraries' own
    trainer = trainer_of(config_of("unet", *options, f"trainer.steps={LONG}", quick=quick))
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = status_megabytes("VmRSS")
    trainer.train_episode()
    peak = status_megabytes("VmHWM") - before
    seconds = []
    for _ in range(1 if quick else 4):
        started = time.perf_counter()
        metrics = trainer.train_episode()
        seconds.append(time.perf_counter() - started)
    return {"peak_megabytes": peak, "minimum_seconds": min(seconds), "loss": metrics["train/loss"]}


def memory(arguments: list[str]) -> Numbers | None:
    """Both ways, each in a process of its own; None where the system has no /proc."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    result: Numbers = {"steps": LONG}
    for kind in ("kept", "checkpointed"):
        command = [sys.executable, __file__, "--memory", kind, *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        result[kind] = json.loads(done.stdout.splitlines()[-1])
    result["ratio"] = result["checkpointed"]["peak_megabytes"] / result["kept"]["peak_megabytes"]
    result["slowdown"] = result["checkpointed"]["minimum_seconds"] / result["kept"]["minimum_seconds"]
    return result


def measure(arguments: argparse.Namespace) -> Numbers:
    quick = arguments.quick
    result: Numbers = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": date.today().isoformat(),
        "quick": quick,
        "laws": {},
    }
    for law in LAWS:
        rounds = 2 if quick else ROUNDS[law]
        variants = VARIANTS[law]
        if quick or arguments.without_compile:
            variants = [variant for variant in variants if "compile" not in variant]
        started = time.perf_counter()
        result["laws"][law] = {
            "agreement": first_difference(law, quick),
            "without noise": race(contenders(law, QUIET, variants, quick), rounds),
            "noise": race(contenders(law, NOISE, [], quick), rounds),
        }
        print(f"{law:10s} {time.perf_counter() - started:6.1f} s", file=sys.stderr, flush=True)
    threads = ["--threads", str(result["threads"])]
    result["memory"] = memory([*threads, *(["--quick"] if quick else [])])
    return result


HEAD = """# Training, measured

Written by `benchmarks/training.py`; what the contenders are stands at its head. One episode of trainer v4:
{size}.
{cores} cores of an {processor}, {threads} threads, Python {python}, torch {torch}, {date}.

All contenders of a table took turns in one process. *speed* is the naive loop's time over the contender's, of
the minima and of the medians; *first* is the first episode, with its compilation; *loss* is the largest
relative difference to the loss of the trainer's defaults in the same episode.
"""


def table(raced: dict[str, Numbers]) -> list[str]:
    lines = ["| | minimum, ms | median, ms | speed | of medians | first, s | loss |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    for name, numbers in raced.items():
        difference = numbers["loss_difference"]
        cells = [
            f"**{name}**, defaults" if name == DEFAULT else name,
            f"{1e3 * numbers['minimum_seconds']:.1f}",
            f"{1e3 * numbers['median_seconds']:.1f}",
            f"{numbers['speed_of_minima']:.2f}",
            f"{numbers['speed_of_medians']:.2f}",
            f"{numbers['first_seconds']:.2f}",
            "" if difference is None else f"{difference:.0e}" if difference else "0",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def page(result: Numbers) -> str:
    """docs/training.md."""
    config = config_of("unet", quick=result["quick"])
    height, width = config.trainer.grid
    size = (
        f"{config.model['d_state']} components, {config.model['hidden_channels']} channels, "
        f"{height} x {width} cells, {config.trainer.batch_size} universes, {config.trainer.steps} steps"
    )
    lines = [HEAD.format(size=size, **result)]
    if result["quick"]:
        lines.append("**A trial at a small size: these figures mean nothing.**\n")
    for law, measured in result["laws"].items():
        same = measured["agreement"]
        lines += [
            f"## {law}\n",
            "Trainer and naive loop from the same weights and states: relative difference of the loss",
            f"{same['loss difference']:.0e}, of the gradient's norm {same['gradient_norm difference']:.0e}.",
        ]
        for noise in ("without noise", "noise"):
            title = "Without noise:" if noise == "without noise" else "Under the channel `seed` at 0.05:"
            lines += ["", title, "", *table(measured[noise])]
        lines.append("")
    if result["memory"]:
        lines += ["## Memory\n", memory_text(result["memory"])]
    return "\n".join(lines)


def memory_text(measured: Numbers) -> str:
    kept, checkpointed = measured["kept"], measured["checkpointed"]
    return (
        f"An episode of the unet over {measured['steps']} steps added at its peak "
        f"{kept['peak_megabytes']:.0f} MB to the process, with `trainer.gradient_checkpointing=true` "
        f"{checkpointed['peak_megabytes']:.0f} MB: {measured['ratio']:.3f} of it. It took "
        f"{kept['minimum_seconds']:.2f} s and {checkpointed['minimum_seconds']:.2f} s, "
        f"{measured['slowdown']:.2f} times as long.\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--without-compile", action="store_true")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    parser.add_argument("--memory", choices=("kept", "checkpointed"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.memory:
        print(json.dumps(measure_memory(arguments.memory == "checkpointed", arguments.quick)))
        return
    # A compilation kept from an earlier run would hide what it costs.
    os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"
    result = measure(arguments)
    arguments.docs.mkdir(parents=True, exist_ok=True)
    (arguments.docs / "training.json").write_text(json.dumps(result, indent=1) + "\n")
    (arguments.docs / "training.md").write_text(page(result))
    print((arguments.docs / "training.md").read_text())


if __name__ == "__main__":
    main()
