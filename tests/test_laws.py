import pytest
import torch

from atheria import laws
from atheria.config import UserError

from .conftest import MODELS, make_law

SEED_NAMES = {
    "unet": [
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
    ],
    "mlp": ["net.0.weight", "net.2.bias", "net.4.weight"],
}


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


@pytest.mark.parametrize("name", MODELS)
def test_a_fresh_law_is_nearly_the_identity(name: str) -> None:
    psi = torch.randn(2, 2 * MODELS[name]["d_state"], 16, 16)
    assert laws.build(MODELS[name], "torus")(psi).abs().max() < 1e-3


@pytest.mark.parametrize("name", MODELS)
def test_on_a_torus_a_law_commutes_with_shifts_by_its_stride(name: str) -> None:
    law = make_law(name)
    psi = torch.randn(1, 2 * MODELS[name]["d_state"], 16, 24)
    shift = (law.stride, -2 * law.stride)
    moved = law(psi.roll(shift, (2, 3)))
    torch.testing.assert_close(moved, law(psi).roll(shift, (2, 3)), atol=1e-5, rtol=1e-4)


def test_zero_padding_is_not_a_torus() -> None:
    psi = torch.randn(1, 6, 16, 16)
    torus, zeros = make_law("unet pixel"), make_law("unet pixel", boundary="zeros")
    zeros.load_state_dict(torus.state_dict())
    assert (torus(psi) - zeros(psi)).abs().max() > 1e-3


def test_without_bias_vacuum_stays_vacuum() -> None:
    assert torch.equal(make_law("unet pixel")(torch.zeros(1, 6, 8, 8)), torch.zeros(1, 6, 8, 8))
    assert not any("bias" in name for name in make_law("unet pixel").state_dict())


@pytest.mark.parametrize("name", ["unet pixel", "mlp"])
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
    assert reach >= law.receptive_radius - 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "unte"}, "'unte' is not registered in `atheria.laws`; known: mlp, unet"),
        ({"norm": "batch"}, "`model.norm` must be 'group' or 'pixel', got 'batch'"),
        ({"hidden_channels": 0}, "`model.hidden_channels` must be greater than or equal to 1, got 0"),
        ({"depth": 3}, "`model.depth` is not a key; allowed there: d_state, hidden_channels, norm, bias"),
    ],
)
def test_a_wrong_model_says_what_is_allowed(change: dict, message: str) -> None:
    with pytest.raises(UserError) as error:
        laws.build(MODELS["unet"] | change, "torus")
    assert str(error.value).startswith(message)
