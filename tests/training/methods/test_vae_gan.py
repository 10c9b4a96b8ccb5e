"""VAE/GAN: its terms in closed form, and which network learns from which of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal
from torch.distributions import kl_divergence as reference_kl
from torch.nn.functional import softplus

from tests.training.methods.test_further_networks import CPU, SHAPE, batch_at, configuration
from training.losses.variational import half_squared_distance, kl_divergence, scale_gradient
from training.methods import vae_gan
from training.networks.encoder import Posterior
from training.state import new_state
from training.step import Step


def test_kl_and_likelihood_are_those_of_gaussians() -> None:
    mean, log_variance = torch.randn(5, 7), torch.randn(5, 7)
    gaussian = Independent(Normal(mean, (log_variance / 2).exp()), 1)
    standard = Independent(Normal(torch.zeros(5, 7), torch.ones(5, 7)), 1)
    found = kl_divergence(mean, log_variance)
    torch.testing.assert_close(found, reference_kl(gaussian, standard))
    images, others = torch.randn(5, 3, 4, 4), torch.randn(5, 3, 4, 4)
    like = Independent(Normal(images, torch.ones_like(images)), 3)
    apart = like.log_prob(images) - like.log_prob(others)
    torch.testing.assert_close(half_squared_distance(images, others), apart.mean())


def test_samples_have_the_posterior_s_mean_and_deviation() -> None:
    mean, log_variance = torch.tensor([[3.0, -1.0]]), torch.tensor([[0.0, 2.0]])
    posterior = Posterior(mean.expand(20_000, 2), log_variance.expand(20_000, 2))
    drawn = posterior.sample(torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.mean(dim=0), mean[0], rtol=0, atol=0.06)
    torch.testing.assert_close(drawn.std(dim=0), (log_variance[0] / 2).exp(), rtol=0.02, atol=0)
    assert Posterior(mean).sample(torch.Generator()) is mean


def test_a_scaled_derivative_leaves_the_values() -> None:
    values = torch.tensor([1.0, 2.0], requires_grad=True)
    scaled = scale_gradient(values, 0.25)
    assert torch.equal(scaled, values)
    scaled.square().sum().backward()
    torch.testing.assert_close(values.grad, values.detach() / 2)


@pytest.mark.parametrize("similarity", ["features", "pixels"])
def test_each_network_has_the_derivative_of_algorithm_1(
    similarity: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a derivative per network, of sums that are written out."""
    monkeypatch.setattr(Posterior, "sample", lambda posterior, _random: posterior.mean)
    table = {"name": "vae-gan", "similarity": similarity, "gamma": 0.3, "kl": 0.7}
    config = configuration("vae-gan", method=table | {"encoder": {"width": 4, "norm": "none"}})
    state = new_state(config, SHAPE, CPU)
    step = Step(config, state, CPU)
    real = batch_at(0).images.float() / 127.5 - 1
    latents, labels = torch.randn(8, 8), torch.zeros(8, dtype=torch.int64)
    g, d, e = state.generator, state.discriminator, state.network("encoder")
    pair = labels, labels

    posterior = e(real)
    rebuilt = g(posterior.mean, labels)
    if similarity == "pixels":
        like = (real - rebuilt).square().sum() / 16
    else:
        features = [d(images, labels).features for images in (real.detach(), rebuilt)]
        like = (features[0].detach() - features[1]).square().sum() / 16
    prior = kl_divergence(*posterior).mean()
    scored = [d(images, labels).logits for images in (g(latents, labels), rebuilt)]
    adversarial = softplus(-scored[0]).mean() + softplus(-scored[1]).mean()
    wanted = [
        torch.autograd.grad(loss, list(network.parameters()), retain_graph=True)
        for network, loss in ((g, 0.3 * like + adversarial), (e, 0.7 * prior + like))
    ]
    fake = step.loss.generate(latents, labels)
    step.loss.generator(real, fake, pair, latents)[0].backward()
    for network, gradients in zip((g, e), wanted, strict=True):
        for weight, gradient in zip(network.parameters(), gradients, strict=True):
            torch.testing.assert_close(weight.grad, gradient, rtol=1e-3, atol=1e-5)

    total: Tensor = sum(
        (loss for loss, _ in step.loss.discriminator(real, fake.detach(), pair, latents)),
        torch.zeros(()),
    )
    logits = [d(images.detach(), labels).logits for images in (real, fake, rebuilt)]
    three = softplus(-logits[0]).mean() + sum(softplus(one).mean() for one in logits[1:])
    torch.testing.assert_close(total, three)


def test_a_drawn_target_is_that_of_each_patch(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = torch.rand(8)
    monkeypatch.setattr(vae_gan, "draw_targets", lambda *_: (drawn, drawn))
    patches = {"name": "fastgan", "width": 4, "spectral": False, "reconstruction": "none"}
    config = configuration("vae-gan", discriminator=patches, label_flip=0.1)
    state = new_state(config, SHAPE, CPU)
    loss = Step(config, state, CPU).loss
    seen: list[Tensor] = []
    state.discriminator.register_forward_hook(lambda _d, _i, out: seen.append(out.logits))
    real, labels = torch.rand(8, 3, 16, 16) * 2 - 1, torch.zeros(8, dtype=torch.int64)
    *_, (rebuilt, _) = loss.discriminator(real, real, (labels, labels), torch.randn(8, 8))
    logits = seen[-1]
    assert logits.shape == (8, 25)
    wanted = (softplus(logits).mean(dim=1) - drawn * logits.mean(dim=1)).mean()
    torch.testing.assert_close(rebuilt, wanted)
