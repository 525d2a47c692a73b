from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from atheria import laws
from atheria.config import UserError
from atheria.field import energy_density, total_energy
from atheria.laws.blocks import pad_torus
from atheria.observables import observe
from atheria.physics import Dynamics

from .conftest import MODELS, PHYSICS, make_law

UNET_NAMES = [
    "inc.conv_block.0.weight",
    "down1.1.conv_block.3.weight",
    "down2.1.conv_block.1.bias",
    "bot.conv_block.4.weight",
    "up1.weight",
    "up1.bias",
    "conv_up1.conv_block.0.weight",
    "up2.weight",
    "conv_up2.conv_block.0.weight",
    "outc.weight",
    "outc.bias",
]
SEED_NAMES = {
    "unet": UNET_NAMES,
    "unet_product": UNET_NAMES,
    "unet_convlstm": [*UNET_NAMES, "conv_gates.weight", "conv_gates.bias"],
    "mlp": ["net.0.weight", "net.2.bias", "net.4.weight"],
    "deep_qca": ["conv_neighbors.weight", "processing_net.0.weight", "processing_net.4.bias"],
}
NO_WALL = sorted(set(MODELS) - {"quantum_walk"})
"""Laws that take a boundary of zeros."""


def propose(law: laws.Law, psi: torch.Tensor) -> torch.Tensor:
    return laws.propose(law, psi, laws.initial_memory(law, psi))[0]


@pytest.mark.parametrize("name", SEED_NAMES)
def test_parameters_have_the_names_of_the_seed(name: str) -> None:
    assert set(SEED_NAMES[name]) <= set(make_law(name).state_dict())


def test_unet_has_the_channels_of_the_seed() -> None:
    weights = make_law("unet").state_dict()
    c, d = MODELS["unet"]["hidden_channels"], MODELS["unet"]["d_state"]
    assert weights["inc.conv_block.0.weight"].shape == (c, 2 * d, 3, 3)
    assert weights["bot.conv_block.3.weight"].shape == (8 * c, 8 * c, 3, 3)
    assert weights["up1.weight"].shape == (8 * c, 4 * c, 2, 2)
    assert weights["conv_up1.conv_block.0.weight"].shape == (4 * c, 6 * c, 3, 3)
    assert weights["conv_up2.conv_block.0.weight"].shape == (c, 3 * c, 3, 3)
    assert weights["outc.weight"].shape == (2 * d, c, 1, 1)


@pytest.mark.parametrize("name", NO_WALL)
def test_a_fresh_law_is_nearly_the_identity(name: str) -> None:
    psi = torch.randn(2, 2 * MODELS[name]["d_state"], 16, 16)
    assert propose(laws.build(MODELS[name], "torus"), psi).abs().max() < 1e-3


@pytest.mark.parametrize("name", MODELS)
def test_on_a_torus_a_law_commutes_with_shifts_by_its_stride(name: str) -> None:
    law = make_law(name)
    psi = torch.randn(1, 2 * MODELS[name]["d_state"], 16, 24)
    shift = (law.stride, -2 * law.stride)
    moved = propose(law, psi.roll(shift, (2, 3)))
    torch.testing.assert_close(moved, propose(law, psi).roll(shift, (2, 3)), atol=1e-5, rtol=1e-4)


def test_zero_padding_is_not_a_torus() -> None:
    psi = torch.randn(1, 6, 16, 16)
    torus, zeros = make_law("unet pixel"), make_law("unet pixel", boundary="zeros")
    zeros.load_state_dict(torus.state_dict())
    assert (torus(psi) - zeros(psi)).abs().max() > 1e-3


def test_a_quantum_walk_has_no_wall() -> None:
    with pytest.raises(UserError, match="`physics.boundary` must be torus for model=quantum_walk"):
        make_law("quantum_walk", boundary="zeros")


def test_without_bias_vacuum_stays_vacuum() -> None:
    assert torch.equal(make_law("unet pixel")(torch.zeros(1, 6, 8, 8)), torch.zeros(1, 6, 8, 8))
    assert not any("bias" in name for name in make_law("unet pixel").state_dict())


@pytest.mark.parametrize(
    "name", ["unet pixel", "unet_unitary", "mlp", "deep_qca", "nca", "quantum_walk", "snn_unet"]
)
def test_receptive_radius_is_what_the_gradient_reaches(name: str) -> None:
    """Over every phase of a cell in its pooling block: never further, and as far for one of them."""
    law = make_law(name)
    side = 80
    reach = 0
    for phase in range(law.stride):
        psi = torch.randn(1, 2 * MODELS[name]["d_state"], side, side, requires_grad=True)
        at = side // 2 + phase
        law(psi)[0, :, at, at].sum().backward()
        touched = psi.grad[0].abs().sum(dim=0).nonzero()
        reach = max(reach, int((touched - at).abs().max()))
    assert reach <= law.receptive_radius
    # Max pooling passes one cell of four on, so a random field may miss the very last ones.
    assert reach >= law.receptive_radius - (2 if law.stride > 1 else 0)


def random_universe(name: str, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, 2 * MODELS[name]["d_state"], 16, 16, generator=generator)


@torch.inference_mode()
def test_unet_unitary_keeps_the_norm_of_every_cell() -> None:
    """Random weights, 1,000 steps: no cell's norm changes by more than 1e-6 of itself in a step."""
    law = make_law("unet_unitary")
    dynamics = Dynamics(law, PHYSICS, seed=0)
    state = dynamics.start(random_universe("unet_unitary"))
    for _ in range(1000):
        before = state.psi
        state = dynamics.step(state)
        norm_before, norm = energy_density(before.double()).sqrt(), energy_density(state.psi.double()).sqrt()
        assert ((norm - norm_before).abs() <= 1e-6 * norm_before.clamp_min(1)).all()
    assert (state.psi - before).abs().max() > 1e-2  # it does something


@torch.inference_mode()
def test_a_quantum_walk_keeps_the_total_norm_and_transports() -> None:
    law = make_law("quantum_walk")
    dynamics = Dynamics(law, PHYSICS, seed=0)
    psi = torch.zeros(1, 10, 64, 64)
    psi[0, :5, 32, 32] = 5**-0.5
    state = dynamics.start(psi)
    for step in range(1000):
        before = total_energy(state.psi.double()).sqrt()
        state = dynamics.step(state)
        assert (total_energy(state.psi.double()).sqrt() - before).abs() <= 1e-6 * before
        if step == 19:
            radius = observe(state.psi, torus=True)["radius_of_gyration"].item()
    assert radius > 4  # of at most 20 cells after 20 steps: ballistic, not diffusive


def test_a_quantum_walk_is_linear() -> None:
    law = make_law("quantum_walk")
    a, b = random_universe("quantum_walk", 1), random_universe("quantum_walk", 2)
    torch.testing.assert_close(law(2 * a - 3 * b), 2 * law(a) - 3 * law(b), atol=1e-5, rtol=1e-5)


def test_deep_qca_sees_the_sum_of_its_neighbours_alone() -> None:
    law = make_law("deep_qca")
    psi = torch.zeros(1, 4, 8, 8)
    psi[0, 2, 3, 3] = 1.0
    seen = law.conv_neighbors(psi)[0]
    assert torch.equal(seen[16:24], seen[16:17].expand(8, 8, 8))  # eight copies for channel 2
    assert seen[16].sum() == 8
    assert seen[16, 3, 3] == 0
    assert seen[:16].abs().sum() == seen[24:].abs().sum() == 0
    assert not law.conv_neighbors.weight.requires_grad


def values_and_gradients(function: Callable, psi: torch.Tensor, law: laws.Law) -> list[torch.Tensor]:
    """What a function of the field gives, and the gradients of its weighted sum on field and parameters."""
    psi = psi.clone().requires_grad_()
    weights = torch.randn(psi.shape, generator=torch.Generator().manual_seed(1))
    trained = [parameter for parameter in law.parameters() if parameter.requires_grad]
    value = function(psi)
    return [value.detach(), *torch.autograd.grad((weights * value).sum(), [psi, *trained])]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("boundary", ["torus", "zeros"])
def test_deep_qca_computes_the_unfolded_network_of_the_seed(boundary: str, bias: bool) -> None:
    torch.manual_seed(0)
    law = laws.build(MODELS["deep_qca"] | {"bias": bias}, boundary)
    torch.nn.init.normal_(law.processing_net[4].weight, std=0.3)
    psi = torch.randn(2, 4, 7, 9)
    unfolded = values_and_gradients(lambda x: law.processing_net(law.conv_neighbors(x)), psi, law)
    folded = values_and_gradients(law, psi, law)
    scripted = values_and_gradients(torch.jit.script(law), psi, law)
    for expected, *found in zip(unfolded, folded, scripted, strict=True):
        for other in found:
            torch.testing.assert_close(other, expected, atol=1e-6 * expected.abs().max().item(), rtol=1e-5)


@pytest.mark.parametrize("strict", [True, False])
def test_deep_qca_refuses_filters_that_it_does_not_compute(strict: bool) -> None:
    law = make_law("deep_qca")
    state = {name: value.clone() for name, value in law.state_dict().items()}
    law.load_state_dict(state)
    state["conv_neighbors.weight"][3, 0, 1, 1] = 1.0
    with pytest.raises(UserError, match=r"`conv_neighbors.weight` of the checkpoint is not the sum of the 8"):
        law.load_state_dict(state, strict=strict)


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("grid", [(5, 7), (2, 1), (1, 1)])
def test_padding_a_torus_is_that_of_torch(grid: tuple[int, int], order: torch.memory_format) -> None:
    x = torch.randn(2, 3, *grid, dtype=torch.double).contiguous(memory_format=order).requires_grad_()
    padded, expected = pad_torus(x), F.pad(x, (1, 1, 1, 1), mode="circular")
    assert torch.equal(padded, expected)
    assert padded.stride() == torch.empty_like(expected, memory_format=order).stride() or grid != (5, 7)
    assert torch.autograd.gradcheck(pad_torus, x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(pad_torus, x)


# Not snn_unet: which of several spikes a pooling passes on hangs on rounding, and the gradient goes that way.
@pytest.mark.parametrize("name", sorted(set(MODELS) - {"snn_unet"}))
def test_channels_last_in_memory_changes_nothing_but_rounding(name: str) -> None:
    law = make_law(name)
    psi = random_universe(name)

    def rolled(psi: torch.Tensor, last: bool) -> torch.Tensor:
        dynamics = Dynamics(law, PHYSICS, seed=0, channels_last=last)
        rolled = dynamics.rollout(dynamics.start(psi), 2).psi
        assert rolled.is_contiguous()
        return rolled

    first, last = (values_and_gradients(partial(rolled, last=last), psi, law) for last in (False, True))
    for expected, found in zip(first, last, strict=True):
        torch.testing.assert_close(found, expected, atol=2e-5 * expected.abs().max().item(), rtol=1e-4)


def test_nca_perceives_gradients() -> None:
    law = make_law("nca")
    x = torch.arange(8.0).expand(1, 4, 8, 8)
    identity, sobel_x, sobel_y, laplacian = law.perceive(x)[0, :4, 4, 4]
    assert (identity, sobel_x, sobel_y, laplacian) == (4, 1, 0, 0)


def test_a_spiking_neuron_fires_at_its_threshold_and_learns() -> None:
    law = make_law("snn_unet")
    membrane = torch.tensor([0.5, 0.999, 1.001, 2.5], requires_grad=True)
    left, spikes = law.fire(membrane)
    assert spikes.tolist() == pytest.approx([0, 0, 1, 1], abs=1e-6)
    assert left.tolist() == pytest.approx([0.5, 0.999, 0.001, 1.5], abs=1e-6)
    spikes.sum().backward()
    assert membrane.grad.tolist() == pytest.approx([1 / (1 + (torch.pi * e) ** 2) for e in
                                                    (-0.5, -0.001, 0.001, 1.5)], rel=1e-4)  # fmt: skip


def test_a_convlstm_remembers() -> None:
    law = make_law("unet_convlstm")
    psi = random_universe("unet_convlstm")
    first, memory = law(psi, law.initial_memory(1, 16, 16))
    second, _ = law(psi, memory)
    assert memory.shape == (1, 32, 4, 4)
    assert (first - second).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "unte"}, "'unte' is not registered in `atheria.laws`; known: deep_qca, mlp, nca"),
        ({"norm": "batch"}, "`model.norm` must be 'group' or 'pixel', got 'batch'"),
        ({"hidden_channels": 0}, "`model.hidden_channels` must be greater than or equal to 1, got 0"),
        ({"depth": 3}, "`model.depth` is not a key; allowed there: d_state, hidden_channels, norm, bias"),
    ],
)
def test_a_wrong_model_says_what_is_allowed(change: dict, message: str) -> None:
    with pytest.raises(UserError) as error:
        laws.build(MODELS["unet"] | change, "torus")
    assert str(error.value).startswith(message)
