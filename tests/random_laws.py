"""Laws that nobody wrote: random programs of the operations that the engine compiles, as source text."""

import itertools
import linecache
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import torch
from torch import nn

_names = itertools.count()


@dataclass(frozen=True)
class Value:
    """A tensor (B, channels, H / 2^level, W / 2^level)."""

    name: str
    channels: int
    level: int = 0


@dataclass
class Draft:
    """A law as far as it is written."""

    luck: Random
    d_state: int
    boundary: str
    is_local: bool
    lines: list[str] = field(default_factory=list)
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    values: list[Value] = field(default_factory=list)
    levels: int = 0

    def weight(self, *shape: int, size: float = 1.0) -> str:
        """The name of new numbers: normal ones, some of them 0."""
        generator = torch.Generator().manual_seed(self.luck.randrange(2**32))
        numbers = size * torch.randn(shape, generator=generator)
        if self.luck.random() < 0.2:
            numbers *= torch.rand(shape, generator=generator) < 0.5
        name = f"w{len(self.weights)}"
        self.weights[name] = numbers
        return f"self.{name}"

    def let(self, expression: str, channels: int, level: int) -> Value:
        value = Value(f"x{len(self.lines)}", channels, level)
        self.lines.append(f"{value.name} = {expression}")
        self.values.append(value)
        return value

    def some(self, **like: int) -> Value:
        """An earlier value with the attributes asked for, most often a late one."""
        fitting = [v for v in self.values if all(getattr(v, k) == wanted for k, wanted in like.items())]
        return fitting[-1] if self.luck.random() < 0.5 else self.luck.choice(fitting)


# Operations: each writes one line ------------------------------------------------------------------------


def convolution(draft: Draft, x: Value) -> None:
    luck = draft.luck
    kernel, dilation = luck.choice([(1, 1), (1, 1), (3, 1), (3, 1), (3, 2), (5, 1)])
    groups = luck.choice([g for g in (1, 1, 2, 3, x.channels) if x.channels % g == 0])
    out = groups * luck.choice([1, 2, 3, 5, 16]) if groups < x.channels else groups * luck.choice([1, 2])
    inside = x.channels // groups
    weight = draft.weight(out, inside, kernel, kernel, size=(inside * kernel**2) ** -0.5)
    bias = draft.weight(out, size=0.3) if luck.random() < 0.5 else "None"
    margin = kernel // 2 * dilation
    source, padding = x.name, str(margin)
    if draft.boundary == "torus" and margin:
        source, padding = f"F.pad({source}, [{margin}] * 4, mode='circular')", "0"
    elif margin and luck.random() < 0.3:
        source, padding = f"F.pad({source}, [{margin}] * 4)", "0"
    elif luck.random() < 0.3:
        padding = "'same'"
        if draft.boundary == "torus" and margin:
            padding = "0"
    call = f"F.conv2d({source}, {weight}, {bias}, 1, {padding}, {dilation}, {groups})"
    draft.let(call, out, x.level)


def neighbours(draft: Draft, x: Value) -> None:
    """The same filter for every channel, as cellular automata sense their surroundings."""
    filters = draft.luck.choice([1, 2, 3])
    weight = draft.weight(filters, 1, 3, 3, size=0.3)
    kernel = f"{weight}.repeat({x.channels}, 1, 1, 1)"
    source = f"F.pad({x.name}, [1] * 4, mode='circular')" if draft.boundary == "torus" else x.name
    padding = 0 if draft.boundary == "torus" else 1
    draft.let(
        f"F.conv2d({source}, {kernel}, None, 1, {padding}, 1, {x.channels})", filters * x.channels, x.level
    )


def wide_convolution(draft: Draft, x: Value) -> None:
    """As in a U-Net: 3x3, to about two vectors of channels."""
    out = draft.luck.choice([4, 16, 20, 36])
    weight = draft.weight(out, x.channels, 3, 3, size=(9 * x.channels) ** -0.5)
    source = f"F.pad({x.name}, [1] * 4{', mode=' + repr('circular') if draft.boundary == 'torus' else ''})"
    draft.let(f"F.conv2d({source}, {weight})", out, x.level)


def activation(draft: Draft, x: Value) -> None:
    functions = (
        "F.elu({})", "F.elu({}, 0.5)", "F.relu({})", "torch.tanh({})", "torch.sigmoid({})", "F.silu({})",
        "F.leaky_relu({}, 0.1)", "torch.abs({})", "torch.sin({})", "torch.cos({})", "torch.square({})",
        "torch.sqrt({}.abs() + 0.5)", "torch.rsqrt(1.0 + {} * {})", "torch.exp(-{}.abs())", "-{}",
        "{}.pow(2)",
    )  # fmt: skip
    draft.let(draft.luck.choice(functions).replace("{}", x.name), x.channels, x.level)


def constants(draft: Draft, x: Value) -> None:
    c = f"{draft.weight(x.channels)}.view(1, -1, 1, 1)" if draft.luck.random() < 0.5 else "0.7"
    forms = (
        "{x} + {c}",
        "{x} * {c}",
        "{c} - {x}",
        "{x} - {c}",
        "{x} / (1.5 + {c} * {c})",
        "{c} * {x} + 0.25",
    )
    draft.let(draft.luck.choice(forms).format(x=x.name, c=c), x.channels, x.level)


def pair(draft: Draft, x: Value) -> None:
    y = draft.some(level=x.level)
    if y.channels != x.channels:
        y = Value(f"{y.name}.mean(1, True)", x.channels)
    forms = (
        "{x} + {y}",
        "{x} - {y}",
        "{x} * {y}",
        "{x} / (1.0 + {y}.abs())",
        "torch.add({x}, {y}, alpha=0.5)",
    )
    draft.let(draft.luck.choice(forms).format(x=x.name, y=y.name), x.channels, x.level)


def cat(draft: Draft, x: Value) -> None:
    y = draft.some(level=x.level)
    if x.channels + y.channels <= 64:
        draft.let(f"torch.cat([{x.name}, {y.name}], 1)", x.channels + y.channels, x.level)


def part(draft: Draft, x: Value) -> None:
    luck, half = draft.luck, (x.channels + 1) // 2
    first = luck.randrange(x.channels)
    forms = [
        (f"{x.name}[:, {first}:]", x.channels - first),
        (f"{x.name}[:, ::2]", half),
        (f"{x.name}.narrow(1, {first}, 1)", 1),
        (f"{x.name}.mean(1, True)", 1),
        (f"{x.name}.sum(1).unsqueeze(1) * 0.2", 1),
        (f"torch.stack([{x.name}, {x.name} * 0.5], 1).flatten(1, 2)", 2 * x.channels),
        (f"torch.stack([{x.name}, {x.name} * 0.5], 2).sum(2)", x.channels),
    ]
    if x.channels % 2 == 0:
        forms += [
            (f"torch.chunk({x.name}, 2, 1)[1]", half),
            (f"{x.name}.view(psi.shape[0], 2, {half}, {x.name}.shape[2], {x.name}.shape[3])[:, 0]", half),
            (
                f"{x.name}.view(-1, 2, {half}, {x.name}.shape[2], {x.name}.shape[3])"
                ".transpose(1, 2).flatten(1, 2)",
                x.channels,
            ),
        ]
    draft.let(*luck.choice(forms), x.level)


def in_place(draft: Draft, x: Value) -> None:
    value = draft.let(f"{x.name}.clone()", x.channels, x.level)
    changes = [f"{value.name}.mul_(0.5)", f"{value.name}.add_({x.name})", f"{value.name}.tanh_()"]
    changes += [f"{value.name}[:, 0:1] = {x.name}[:, -1:]", f"{value.name}[:, :1] *= 0.5"]
    draft.lines.append(draft.luck.choice(changes))


def norm(draft: Draft, x: Value) -> None:
    groups = draft.luck.choice([g for g in (1, 2, 4, x.channels) if x.channels % g == 0])
    affine = (
        f"{draft.weight(x.channels)}, {draft.weight(x.channels)}"
        if draft.luck.random() < 0.5
        else "None, None"
    )
    forms = [
        f"{x.name} * torch.rsqrt({x.name}.square().mean(1, True) + 0.1)",
        f"{x.name} / ({x.name}.pow(2).sum(1, True) + 0.1).sqrt()",
    ]
    if not draft.is_local:
        forms.append(f"F.group_norm({x.name}, {groups}, {affine}, 0.01)")
    draft.let(draft.luck.choice(forms), x.channels, x.level)


def group_norm(draft: Draft, x: Value) -> None:
    groups = draft.luck.choice([g for g in (1, 2, 4) if x.channels % g == 0])
    weights = f"{draft.weight(x.channels)}, {draft.weight(x.channels)}"
    norm = f"F.group_norm({x.name}, {groups}, {weights}, 0.01)"
    draft.let(f"F.elu({norm})" if draft.luck.random() < 0.7 else norm, x.channels, x.level)


def slice_of(draft: Draft, x: Value) -> None:
    first = draft.luck.randrange(x.channels)
    last = draft.luck.randrange(first, x.channels) + 1
    draft.let(f"{x.name}[:, {first}:{last}]", last - first, x.level)


def shift(draft: Draft, x: Value) -> None:
    by, axis = draft.luck.choice([-1, 1]), draft.luck.choice([2, 3])
    if draft.boundary == "torus":
        draft.let(f"torch.roll({x.name}, {by}, {axis})", x.channels, x.level)
        return
    cut = "[:, :, {}]" if axis == 2 else "[..., {}]"
    kept, lost = (":-1", "-1:") if by == 1 else ("1:", ":1")
    moved, zeros = x.name + cut.format(kept), f"torch.zeros_like({x.name}{cut.format(lost)})"
    parts = f"{zeros}, {moved}" if by == 1 else f"{moved}, {zeros}"
    draft.let(f"torch.cat([{parts}], {axis})", x.channels, x.level)


def loop(draft: Draft, x: Value) -> None:
    value = draft.let(f"{x.name} * 0.9", x.channels, x.level)
    draft.lines.append(
        f"for i in range({draft.luck.randrange(3)}):\n            {value.name} = F.elu({value.name} + i)"
    )


def finer(draft: Draft, x: Value) -> None:
    if x.level:
        out = draft.luck.choice([1, 3, 8])
        weight = draft.weight(x.channels, out, 2, 2, size=x.channels**-0.5)
        bias = draft.weight(out, size=0.3) if draft.luck.random() < 0.5 else "None"
        draft.let(f"F.conv_transpose2d({x.name}, {weight}, {bias}, 2)", out, x.level - 1)


def coarser(draft: Draft, x: Value) -> None:
    if x.level < 2:
        draft.levels = max(draft.levels, x.level + 1)
        draft.let(f"F.max_pool2d({x.name}, 2)", x.channels, x.level + 1)


Operations = tuple[Callable[[Draft, Value], None], ...]

OPERATIONS: Operations = (
    convolution, convolution, convolution, neighbours, activation, activation, constants, pair, pair, cat,
    part, in_place, norm, shift, loop, finer, coarser,
)  # fmt: skip
OF_UNETS: Operations = (
    wide_convolution, wide_convolution, group_norm, group_norm, cat, slice_of, activation, finer, coarser,
)  # fmt: skip


# Laws -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RandomLaw:
    """A random law: `source` is the module's text, `unit` divides the grids that it takes."""

    source: str
    weights: dict[str, torch.Tensor]
    d_state: int
    boundary: str
    unit: int

    def module(self) -> nn.Module:
        return module(self.source, self.weights)


def draw(
    luck: Random, most_lines: int = 10, is_local: bool = False, operations: Operations = OPERATIONS
) -> RandomLaw:
    """A law of at most about `most_lines` operations. A local one keeps the vacuum, too."""
    boundary = "torus" if is_local else luck.choice(["torus", "zeros"])
    draft = Draft(luck, luck.choice([1, 2, 3, 8]), boundary, is_local)
    draft.values.append(Value("psi", 2 * draft.d_state))
    for _ in range(luck.randrange(1, most_lines)):
        luck.choice(operations)(draft, draft.some())
    while draft.values[-1].level:
        finer(draft, draft.values[-1])
    last = draft.values[-1]
    weight = draft.weight(2 * draft.d_state, last.channels, 1, 1, size=last.channels**-0.5)
    result = f"0.3 * torch.tanh(F.conv2d({last.name}, {weight}))"
    if is_local:
        density = "F.pad(psi.square().sum(1, True), [1] * 4, mode='circular')"
        result += f" * torch.tanh(F.conv2d({density}, {draft.weight(1, 1, 3, 3)}))"
    body = "\n        ".join([*draft.lines, f"return {result}"])
    source = f"class Law(nn.Module):\n    def forward(self, psi: Tensor) -> Tensor:\n        {body}\n"
    return RandomLaw(source, draft.weights, draft.d_state, draft.boundary, 2**draft.levels)


def module(source: str, weights: dict[str, torch.Tensor]) -> nn.Module:
    """The module of a text, which TorchScript can read again."""
    name = f"random_law_{next(_names)}"
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    scope = {"nn": nn, "torch": torch, "F": nn.functional, "Tensor": torch.Tensor, "__name__": name}
    exec(compile(source, name, "exec"), scope)
    law: nn.Module = scope["Law"]()
    for key, numbers in weights.items():
        law.register_buffer(key, numbers)
    return law
