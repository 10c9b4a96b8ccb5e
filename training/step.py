"""One training step: the discriminator, then the generator, then the moving average."""

from __future__ import annotations

import torch
from torch import Tensor

from training import ema
from training.augment import augment
from training.config import Config, Optimizer
from training.data import Batch
from training.latents import draw_latents
from training.losses import LOSSES, dragan, gradient_penalty, squared_gradient
from training.networks import Verdict
from training.seeds import derive
from training.state import State

Facts = dict[str, Tensor]
"""Scalars of one step by name, on the training device."""

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def to_float(images: Tensor, device: torch.device, channels_last: bool) -> Tensor:
    """uint8 (n, c, h, w) → float32 in [-1, 1] on the device."""
    form = torch.channels_last if channels_last else torch.contiguous_format
    moved = images.to(device, non_blocking=True)
    return moved.to(torch.float32, memory_format=form).div_(127.5).sub_(1)


class Step:
    """Calls `step(batches)` advance `state` by one step; see `__call__`."""

    def __init__(self, config: Config, state: State, device: torch.device) -> None:
        self.config, self.state, self.device = config, state, device
        self.loss = LOSSES[config.loss.name]
        self.random = torch.Generator(device=device)

    def __call__(self, batches: list[Batch]) -> Facts:
        """Show `n_critic` batches to the discriminator and train the generator once.

        All random draws follow from (seed, images seen), so a continued run repeats them.
        """
        config, state = self.config, self.state
        seed = derive(config.seed, "step", state.seen, state.restarts)
        self.random.manual_seed(seed)
        torch.manual_seed(seed)  # dropout and other draws inside of the networks
        state.generator.train()
        state.discriminator.train()
        facts: Facts = {}
        for batch in batches:
            real = to_float(batch.images, self.device, config.channels_last)
            labels = batch.labels.to(self.device)
            fake = self._fake(labels)
            facts |= self._train_discriminator(real, fake, labels)
        facts |= self._train_generator(real, fake, labels)
        state.seen += sum(len(batch.images) for batch in batches)
        state.steps += 1
        keep = ema.decay(
            config.ema.half_life_kimg, config.ema.ramp_up, state.seen, len(real) * len(batches)
        )
        ema.update(state.average, state.generator, keep)
        return facts

    def _autocast(self) -> torch.autocast:
        kind = _AUTOCAST.get(self.config.precision)
        return torch.autocast(self.device.type, dtype=kind, enabled=kind is not None)

    def _fake(self, labels: Tensor) -> Tensor:
        """Fake images with their graph: the generator's phase uses the last ones again."""
        latents = draw_latents(
            self.config.latent, len(labels), self.state.generator.z_dim, self.random, self.device
        )
        with self._autocast():
            images: Tensor = self.state.generator(latents, labels)
        return images

    def _judge(self, images: Tensor, labels: Tensor) -> Verdict:
        with self._autocast():
            changed = augment(images, self.config.augment.policy, self.random)
            verdict: Verdict = self.state.discriminator(changed, labels)
        return verdict

    def _train_discriminator(self, real: Tensor, fake: Tensor, labels: Tensor) -> Facts:
        config, state = self.config, self.state
        state.discriminator.requires_grad_(True)
        state.d_optimizer.zero_grad(set_to_none=True)
        on_real = self._judge(real, labels).logits.float()
        on_fake = self._judge(fake.detach(), labels).logits.float()
        loss = self.loss.d(on_real, on_fake, config.label_real, 0.0)
        facts = {"loss_d": loss.detach(), **self._means("real", on_real)}
        facts |= self._means("fake_before", on_fake)
        if state.steps % config.loss.interval == 0:
            for name, penalty in self._penalties(real, fake.detach(), labels).items():
                facts[name] = penalty.detach()
                loss = loss + penalty * (getattr(config.loss, name) * config.loss.interval)
        torch.autograd.backward(loss)
        facts["grad_d"] = _apply(state.d_optimizer, config.d_optimizer)
        return facts

    def _penalties(self, real: Tensor, fake: Tensor, labels: Tensor) -> Facts:
        table = self.config.loss

        def critic(images: Tensor) -> Tensor:
            return self._judge(images, labels).logits

        def uniform(*shape: int) -> Tensor:
            return torch.rand(shape, generator=self.random, device=self.device)

        found: Facts = {}
        if table.r1:
            found["r1"] = squared_gradient(critic, real)
        if table.r2:
            found["r2"] = squared_gradient(critic, fake)
        if table.gp:
            found["gp"] = gradient_penalty(critic, real, fake, uniform(len(real), 1, 1, 1))
        if table.dragan:
            found["dragan"] = dragan(
                critic, real, uniform(*real.shape), uniform(len(real), 1, 1, 1)
            )
        return found

    def _train_generator(self, real: Tensor, fake: Tensor, labels: Tensor) -> Facts:
        config, state = self.config, self.state
        state.discriminator.requires_grad_(False)
        state.g_optimizer.zero_grad(set_to_none=True)
        on_fake = self._judge(fake, labels).logits.float()
        on_real = on_fake
        if self.loss.needs_real:
            on_real = self._judge(real, labels).logits.float()
        loss = self.loss.g(on_real, on_fake)
        torch.autograd.backward(loss)
        facts = {"loss_g": loss.detach(), **self._means("fake_after", on_fake)}
        facts["grad_g"] = _apply(state.g_optimizer, config.g_optimizer)
        return facts

    def _means(self, name: str, logits: Tensor) -> Facts:
        """The mean logit, and the mean of D where D is a probability."""
        logits = logits.detach()
        facts = {f"logit_{name}": logits.mean()}
        if self.loss.logistic:
            facts[f"d_{name}"] = logits.sigmoid().mean()
        return facts


def _apply(optimizer: torch.optim.Optimizer, table: Optimizer) -> Tensor:
    """Clip and apply the gradients; their norm before clipping."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if table.clip:
        torch.nn.utils.clip_grads_with_norm_(weights, table.clip, norm)
    optimizer.step()
    return norm
