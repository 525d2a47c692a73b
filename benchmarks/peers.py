"""The contenders of `rollout.py`: the engine, and what one would use instead, each in its own best form.

A contender keeps the field in the form that suits it and steps it there: a whole step of the model (law,
decay, normalisation of each cell) is one compiled graph, its output bound to the next step's input without a
copy.
"""

import copy
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from atheria.config import InitialStateConfig, PhysicsConfig
from atheria.exporting import Origin, export_law
from atheria.laws import Law
from atheria.laws.blocks import Conv3x3
from atheria.laws.deep_qca import COPIES, DeepQCA

TINY = 1e-37
"""Energies below count as this one, so that vacuum stays vacuum without a branch."""


class RefusedError(Exception):
    """A contender cannot run this law, size or precision here; the text says why."""


class Step(nn.Module):
    """A whole step of a law without memory, as one graph: (B, 2d, H, W) -> (B, 2d, H, W).

    Args:
        law: (B, 2d, H, W) -> (B, 2d, H, W).
        physics: Decay, threshold, and normalisation, ``cell`` or ``none``.
    """

    def __init__(self, law: nn.Module, physics: PhysicsConfig) -> None:
        super().__init__()
        self.law = law
        self.keep = 1.0 - physics.gamma
        self.threshold = physics.epsilon
        self.cell = physics.normalise == "cell"

    def forward(self, psi: Tensor) -> Tensor:
        """The next field."""
        return self.finish(psi, self.law(psi))

    def finish(self, psi: Tensor, delta: Tensor) -> Tensor:
        """Decay, threshold and normalisation."""
        phi = self.keep * psi + delta
        if self.threshold > 0 or self.cell:
            energy = phi.square().sum(dim=1, keepdim=True)
            scale = torch.ones_like(energy)
            if self.cell:
                scale = torch.rsqrt(energy.clamp(min=1e-37))
            if self.threshold > 0:
                scale = scale * (energy.sqrt() > self.threshold).to(phi.dtype)
            phi = phi * scale
        return phi


class StepWithMemory(Step):
    """The same of a law with memory."""

    def forward(self, psi: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """The next field and memory."""
        delta, memory = self.law(psi, memory)
        return self.finish(psi, delta), memory


def step_of(law: Law, physics: PhysicsConfig) -> Step:
    """A copy of a law in its step, for inference."""
    with_memory = hasattr(law, "initial_memory")
    step = (StepWithMemory if with_memory else Step)(copy.deepcopy(law), physics)
    return step.eval().requires_grad_(False)


@cache
def lacks_bf16() -> str | None:
    """Why products in bfloat16 are not to be measured here: a CPU without them is a thousand times slower."""
    import atheria_core

    try:
        atheria_core.Engine(precision="bf16")
    except ValueError as error:
        return str(error)
    return None


class EightCopies(DeepQCA):
    """`DeepQCA` as the seed wrote it, and as one would: it computes all eight copies of each sum."""

    def forward(self, psi: Tensor) -> Tensor:
        """(B, 2d, H, W) -> (B, 2d, H, W)."""
        proposed: Tensor = self.processing_net(self.conv_neighbors(psi))
        return proposed


class Contender:
    """Steps a field.

    Attributes:
        key: As the command line calls it.
        name: As the tables call it.
        package: What must be installed, or None.
        bf16: Whether it computes in bfloat16.
        note: What is worth saying of how it runs, after `prepare`.
    """

    key: ClassVar[str]
    name: ClassVar[str]
    package: ClassVar[str | None] = None
    bf16: ClassVar[bool] = False
    note: str = ""

    @classmethod
    def missing(cls) -> str | None:
        """Why it cannot take part, or None."""
        if cls.package is not None and find_spec(cls.package) is None:
            return f"{cls.package} is not installed"
        return lacks_bf16() if cls.bf16 else None

    @classmethod
    def version(cls) -> str | None:
        """The version of its package."""
        return version(cls.package) if cls.package is not None and not cls.missing() else None

    def prepare(self, law: Law, physics: PhysicsConfig, psi: Tensor) -> None:
        """Compiles a step and takes psi (1, 2d, H, W) for its field.

        Raises:
            RefusedError: It cannot run this.
        """
        raise NotImplementedError

    def run(self, steps: int) -> None:
        """Steps; returns when all are done."""
        raise NotImplementedError

    def field(self) -> np.ndarray:
        """The field, (1, 2d, H, W)."""
        raise NotImplementedError


class Torch(Contender):
    """PyTorch, in the memory format that is faster for the law."""

    formats: ClassVar[tuple[torch.memory_format, ...]] = (torch.contiguous_format, torch.channels_last)

    def prepare(self, law: Law, physics: PhysicsConfig, psi: Tensor) -> None:
        """Compiles the step in every format and keeps what is fastest in a short trial."""
        tried = []
        for layout in self.formats:
            self.step = self.compiled(step_of(law, physics).to(memory_format=layout))
            self.state = start = self.start(law, psi.contiguous(memory_format=layout))
            self.run(2)  # TorchScript optimises in them
            seconds: list[float] = []
            while len(seconds) < 3 and sum(seconds) < 1:
                began = time.perf_counter()
                self.run(1)
                seconds.append(time.perf_counter() - began)
            tried.append((min(seconds), self.step, start))
        _, self.step, self.state = min(tried, key=lambda trial: trial[0])
        if len(tried) > 1:
            last = self.step is tried[1][1]
            self.note = "channels last" if last else "channels first"

    def start(self, law: Law, psi: Tensor) -> tuple[Tensor, ...]:
        """The field, and the memory of a law that has one."""
        if not hasattr(law, "initial_memory"):
            return (psi,)
        return psi, law.initial_memory(1, *psi.shape[2:]).to(psi)

    def compiled(self, step: Step) -> Callable[..., Any]:
        """What runs a step."""
        raise NotImplementedError

    @torch.inference_mode()
    def run(self, steps: int) -> None:
        state, step = self.state, self.step
        for _ in range(steps):
            out = step(*state)
            state = out if isinstance(out, tuple) else (out,)
        self.state = state

    def field(self) -> np.ndarray:
        return self.state[0].contiguous().numpy().copy()


class Eager(Torch):
    """PyTorch as it is, in inference mode."""

    key = "eager"
    name = "PyTorch eager"

    def compiled(self, step: Step) -> Callable[..., Any]:
        return step


class Frozen(Torch):
    """TorchScript, its weights frozen."""

    key = "frozen"
    name = "TorchScript frozen"

    def compiled(self, step: Step) -> Callable[..., Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            frozen: Callable[..., Any] = torch.jit.freeze(torch.jit.script(step))
            return frozen


class Compiled(Torch):
    """torch.compile with frozen weights."""

    key = "compile"
    name = "torch.compile"

    def prepare(self, law: Law, physics: PhysicsConfig, psi: Tensor) -> None:
        torch._dynamo.reset()
        super().prepare(law, physics, psi)

    def compiled(self, step: Step) -> Callable[..., Any]:
        return torch.compile(step, fullgraph=True, dynamic=False, options={"freezing": True})


class Exported(Contender):
    """What the runtimes for exported graphs share: two buffers that take turns as input and output."""

    def prepare(self, law: Law, physics: PhysicsConfig, psi: Tensor) -> None:
        if hasattr(law, "initial_memory"):
            raise RefusedError("not written for laws with memory")
        self.buffers = [psi.numpy().copy(), np.empty(tuple(psi.shape), np.float32)]
        self.at = 0
        self.compile(step_of(law, physics), psi)

    def compile(self, step: Step, psi: Tensor) -> None:
        """Builds one call for each direction between the buffers."""
        raise NotImplementedError

    def field(self) -> np.ndarray:
        return self.buffers[self.at].copy()


def traceable(step: Step) -> Step:
    """The step with torch's own padding; a trace loses the assignments of `blocks.pad_torus`, silently."""
    for module in step.modules():
        if isinstance(module, Conv3x3):
            module.own_padding = lambda: False  # type: ignore[method-assign]
    return step


def onnx_file(step: Step, psi: Tensor, folder: str) -> str:
    """The step as an ONNX file."""
    path = str(Path(folder) / "step.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(step, (psi,), path, dynamo=True, external_data=False, verbose=False)
    return path


class OnnxRuntime(Exported):
    """ONNX Runtime, the fields bound as input and output."""

    key = "onnxruntime"
    name = "ONNX Runtime"
    package = "onnxruntime"

    @classmethod
    def missing(cls) -> str | None:
        return super().missing() or (
            "onnxscript is not installed" if find_spec("onnxscript") is None else None
        )

    def compile(self, step: Step, psi: Tensor) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        # Else its threads go on spinning after a turn and take the cores from whoever comes next.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        with tempfile.TemporaryDirectory() as folder:
            path = onnx_file(step, psi, folder)
            self.session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(buffer) for buffer in self.buffers]
        self.values = values
        self.bindings = []
        for source, target in (values, values[::-1]):
            binding = self.session.io_binding()
            binding.bind_ortvalue_input(self.session.get_inputs()[0].name, source)
            binding.bind_ortvalue_output(self.session.get_outputs()[0].name, target)
            self.bindings.append(binding)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.session.run_with_iobinding(self.bindings[self.at])
            self.at = 1 - self.at

    def field(self) -> np.ndarray:
        return self.values[self.at].numpy().copy()


class OpenVino(Exported):
    """OpenVINO in float32, the fields shared as input and output."""

    key = "openvino"
    name = "OpenVINO"
    package = "openvino"
    precision: ClassVar[str] = "f32"

    def compile(self, step: Step, psi: Tensor) -> None:
        import openvino

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = openvino.convert_model(traceable(step), example_input=psi, input=[list(psi.shape)])
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": self.precision,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "ENABLE_CPU_PINNING": False,
        }
        compiled = openvino.Core().compile_model(model, "CPU", settings)
        tensors = [openvino.Tensor(buffer, shared_memory=True) for buffer in self.buffers]
        self.requests = []
        for source, target in (tensors, tensors[::-1]):
            request = compiled.create_infer_request()
            request.set_input_tensor(source)
            request.set_output_tensor(target)
            self.requests.append(request)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.requests[self.at].infer(share_inputs=True, share_outputs=True)
            self.at = 1 - self.at


class OpenVinoBf16(OpenVino):
    """OpenVINO in bfloat16."""

    name = "OpenVINO bf16"
    precision = "bf16"
    bf16 = True


class Jax(Contender):
    """JAX: all steps of a turn in one compiled `lax.scan`; laws written by hand on (H, W, 2d)."""

    key = "jax"
    name = "JAX scan"
    package = "jax"

    def prepare(self, law: Law, physics: PhysicsConfig, psi: Tensor) -> None:
        import jax
        import jax.numpy as jnp

        forward = jax_law(law)
        keep, epsilon, cell = 1.0 - physics.gamma, physics.epsilon, physics.normalise == "cell"

        def step(psi: Any, _: None) -> tuple[Any, None]:
            phi = keep * psi + forward(psi)
            if epsilon > 0 or cell:
                energy = jnp.square(phi).sum(axis=-1, keepdims=True)
                scale = jax.lax.rsqrt(jnp.maximum(energy, TINY)) if cell else 1.0
                phi = phi * (jnp.where(jnp.sqrt(energy) > epsilon, scale, 0.0) if epsilon > 0 else scale)
            return phi, None

        def scan(psi: Any, steps: int) -> Any:
            return jax.lax.scan(step, psi, None, length=steps)[0]

        self.scan = jax.jit(scan, static_argnums=1, donate_argnums=0)
        self.psi = jnp.array(psi[0].permute(1, 2, 0).contiguous().numpy())

    def run(self, steps: int) -> None:
        self.psi = self.scan(self.psi, steps).block_until_ready()

    def field(self) -> np.ndarray:
        return np.ascontiguousarray(np.asarray(self.psi).transpose(2, 0, 1)[None])


def jax_law(law: Law) -> Callable[[Any], Any]:
    """A law of 1x1 layers as a function of JAX, (H, W, 2d) -> (H, W, 2d)."""
    import jax
    import jax.numpy as jnp

    kind = type(law).__name__
    nets = {
        "MLP": "net",
        "DeepQCA": "processing_net",
        "EightCopies": "processing_net",
        "NCA": "update",
    }
    if kind not in nets:
        raise RefusedError("not written for this law")
    convs = [module for module in getattr(law, nets[kind]) if isinstance(module, nn.Conv2d)]
    weights = [conv.weight.detach()[:, :, 0, 0].T.numpy() for conv in convs]  # (in, out)
    biases = [0.0 if conv.bias is None else jnp.array(conv.bias.detach().numpy()) for conv in convs]
    hidden = weights[0].shape[1]
    if kind == "DeepQCA":
        weights[0] = weights[0].reshape(-1, COPIES, hidden).sum(axis=1)
    if kind == "NCA":  # filter by filter here, channel by channel in the law
        weights[0] = weights[0].reshape(-1, 4, hidden).transpose(1, 0, 2).reshape(-1, hidden)
    layers = [(jnp.array(weight), bias) for weight, bias in zip(weights, biases, strict=True)]

    def perceptron(x: Any) -> Any:
        height, width, channels = x.shape
        x = x.reshape(-1, channels)
        for index, (weight, bias) in enumerate(layers):
            x = jax.nn.elu(x) if index else x
            x = x @ weight + bias
        return x.reshape(height, width, -1)

    def around(psi: Any) -> Callable[[int, int], Any]:
        """The field moved by (dy, dx); slices of a padded field fuse, `jnp.roll` does not."""
        padded = jnp.pad(psi, ((1, 1), (1, 1), (0, 0)), mode="wrap")
        height, width, _ = psi.shape
        return lambda dy, dx: padded[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]

    def neighbours(psi: Any) -> Any:
        at = around(psi)
        return sum(at(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx)

    def deep_qca(psi: Any) -> Any:
        return perceptron(neighbours(psi))

    def eight_copies(psi: Any) -> Any:
        return perceptron(jnp.repeat(neighbours(psi), COPIES, axis=-1))

    def nca(psi: Any) -> Any:
        at = around(psi)

        def smooth(dx: int) -> Any:
            return at(-1, dx) + 2 * at(0, dx) + at(1, dx)

        def slope(dx: int) -> Any:
            return at(1, dx) - at(-1, dx)

        left, middle, right = (smooth(dx) for dx in (-1, 0, 1))
        along = (right - left) / 8
        across = (slope(-1) + 2 * slope(0) + slope(1)) / 8
        laplacian = (left + 2 * middle + right - 16 * psi) / 16
        return perceptron(jnp.concatenate([psi, along, across, laplacian], axis=-1))

    return {"MLP": perceptron, "DeepQCA": deep_qca, "EightCopies": eight_copies, "NCA": nca}[kind]


class Ours(Contender):
    """The engine, its state kept inside."""

    key = "engine"
    name = "Atheria"
    precision: ClassVar[str] = "fp32"

    def prepare(self, law: Law, physics: PhysicsConfig, psi: Tensor) -> None:
        self.engine = engine_of(law, physics, tuple(psi.shape[2:]), self.precision)
        self.engine.set_state(psi.numpy())
        info = self.engine.info()
        self.note = f"{info['backend']}: {info['why']}" if info.get("why") else str(info["backend"])

    def run(self, steps: int) -> None:
        self.engine.step_native(steps)

    def field(self) -> np.ndarray:
        return self.engine.state()

    def profile(self, steps: int) -> list[dict[str, Any]]:
        """Where a step's time goes; nothing of what runs on libtorch."""
        compiled = self.engine.info()["backend"] == "compiled"
        return self.engine.profile(steps) if compiled else []


class OursBf16(Ours):
    """The engine in bfloat16."""

    name = "Atheria bf16"
    precision = "bf16"
    bf16 = True


def engine_of(
    law: Law, physics: PhysicsConfig, grid: tuple[int, int], precision: str = "fp32", device: str = "cpu"
) -> Any:
    """An engine with a law, exported as a user would.

    Raises:
        RefusedError: The engine does not know the precision.
    """
    import atheria_core

    try:
        engine = atheria_core.Engine(device=device, precision=precision, threads=torch.get_num_threads())
    except (ValueError, TypeError) as error:
        raise RefusedError(str(error)) from None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "law.pt"
        export_law(copy.deepcopy(law), origin_of(law, physics, grid), path)
        engine.load_model(path)
    return engine


def origin_of(law: Law, physics: PhysicsConfig, grid: tuple[int, int]) -> Origin:
    """What an artifact says of a law of this benchmark."""
    return Origin(
        model=law.model,  # type: ignore[arg-type]
        physics=physics,
        grid=[*grid],
        initial_state=InitialStateConfig(kind="zeros"),
        noise={"name": "none", "level": 0.0},
        seed=0,
    )


CONTENDERS: list[type[Contender]] = [
    Ours, Eager, Frozen, Compiled, OnnxRuntime, OpenVino, Jax, OursBf16, OpenVinoBf16,
]  # fmt: skip


def versions() -> dict[str, str]:
    """Of torch and of the packages of the peers that are installed."""
    found = {peer.package: peer.version() for peer in CONTENDERS if peer.package is not None}
    return {"torch": torch.__version__} | {name: text for name, text in found.items() if text}


def limit_threads(threads: int) -> None:
    """Gives every contender as many threads; JAX takes one for each core that the process may use."""
    torch.set_num_threads(threads)
    if hasattr(os, "sched_setaffinity") and threads < len(os.sched_getaffinity(0)):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
