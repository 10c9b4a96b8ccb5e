"""BiGAN and ALI: what the discriminator compares, and what generator and encoder learn."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import softplus

from tests.training.methods.test_further_networks import (
    CPU,
    SHAPE,
    batch_at,
    configuration,
    take_steps,
)
from training.losses import LOSSES
from training.networks.pairs import PairDiscriminator
from training.state import new_state
from training.step import Step


@pytest.mark.parametrize("more", [{}, {"loss": {"r1": 2.0}}], ids=["plain", "r1"])
def test_pairs_are_compared_as_in_the_paper(more: dict[str, dict[str, float]]) -> None:
    """Equation 3 of Donahue 2017, written out, and its derivative by each network."""
    config = configuration("bigan", **more)
    state = new_state(config, SHAPE, CPU)
    step = Step(config, state, CPU)
    g, e = state.generator, state.network("encoder")
    real = batch_at(0).images.float() / 127.5 - 1
    latents, labels = torch.randn(8, 8), torch.zeros(8, dtype=torch.int64)

    def pair_logit(images: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        found = state.discriminator(images, labels)
        head: torch.Tensor = state.network("pair_head")(found.features, code)
        return found.logits + head

    encoded, fake = e(real).mean, g(latents, labels)
    shown = real.clone().requires_grad_()
    on_real, on_fake = pair_logit(shown, encoded.detach()), pair_logit(fake.detach(), latents)
    value = softplus(-on_real).mean() + softplus(on_fake).mean()
    if more:
        slope = torch.autograd.grad(on_real.sum(), shown, create_graph=True)[0]
        value = value + slope.square().sum() / 8  # gamma / 2 with gamma 2
    found = sum(
        loss for loss, _ in step.loss.discriminator(real, fake.detach(), (labels, labels), latents)
    )
    torch.testing.assert_close(found, value, rtol=1e-4, atol=1e-6)

    on_real, on_fake = pair_logit(real, encoded), pair_logit(fake, latents)
    swapped = softplus(on_real).mean() + softplus(-on_fake).mean()
    weights = [*g.parameters(), *e.parameters()]
    wanted = torch.autograd.grad(swapped, weights)
    fake = step.loss.generate(latents, labels)
    loss, _ = step.loss.generator(real, fake, (labels, labels), latents)
    torch.testing.assert_close(loss, swapped)
    for mine, gradient in zip(torch.autograd.grad(loss, weights), wanted, strict=True):
        torch.testing.assert_close(mine, gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["non-saturating", "lsgan"])
def test_the_inverse_objective_is_the_discriminator_s_with_exchanged_targets(name: str) -> None:
    """Donahue 2017, section 3.4, for each loss whose discriminator has targets."""
    config = configuration("bigan", loss={"name": name})
    state = new_state(config, SHAPE, CPU)
    loss = Step(config, state, CPU).loss
    real = batch_at(0).images.float() / 127.5 - 1
    latents, labels = torch.randn(8, 8), torch.zeros(8, dtype=torch.int64)
    fake = state.generator(latents, labels)
    found, _ = loss.generator(real, fake, (labels, labels), latents)
    critic = PairDiscriminator(state.discriminator, state.network("pair_head"))
    encoded = state.network("encoder")(real).mean
    on_real, on_fake = critic(real, encoded).logits, critic(fake, latents).logits
    torch.testing.assert_close(found, LOSSES[name].d(on_real, on_fake, 0.0, 1.0))


def test_an_encoder_s_gaussian_is_drawn_from() -> None:
    config = configuration(
        "bigan",
        method={"name": "bigan", "stochastic": True, "encoder": {"width": 4, "norm": "none"}},
    )
    state = new_state(config, SHAPE, CPU)
    loss = Step(config, state, CPU).loss
    images = batch_at(0).images.float() / 127.5 - 1
    first, second = loss.encode(images), loss.encode(images)  # type: ignore[attr-defined]
    posterior = state.network("encoder")(images)
    assert not torch.equal(first, second)
    spread = (first - posterior.mean).detach() / (posterior.log_variance.detach() / 2).exp()
    assert 0.5 < float(spread.std()) < 1.5


def test_the_generator_needs_no_joint_pass() -> None:
    """Its minibatch standard deviation would be that of real and generated images together."""
    joint = {"name": "projected", "width": 8, "size": 64, "norm": "joint", "pixel_width": 4}
    config = configuration("bigan", batch=6, discriminator=joint, loss={"name": "hinge"})
    state = new_state(config, SHAPE, CPU)
    counts: list[int] = []
    state.discriminator.register_forward_pre_hook(lambda _d, given: counts.append(len(given[0])))
    take_steps(config, state, 1)
    assert counts == [12, 6, 6]
