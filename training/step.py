"""One training step: the discriminator, then the generator, then the moving average."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.func import functional_call

from pipeline.contract import UserError
from training import ema
from training.augmentation import Augmentation, Controller
from training.config import Config
from training.data import Batch
from training.gradients import apply_gradients, left_out
from training.losses import (
    clip_weights,
    dragan,
    gradient_penalty,
    path_lengths,
    path_penalty,
    squared_gradient,
)
from training.machine.ranks import ALONE, Ranks
from training.networks import Verdict, interleave, latent_codes, separate
from training.networks.stylegan2 import StyleGan2
from training.networks.sync_norm import synchronise
from training.objective import Facts, Objective
from training.pretrained.finetune import freeze
from training.seeds import derive
from training.state import State
from training.streaming.order import rank_slice
from training.techniques.labels import draw_targets
from training.techniques.latents import draw_latents
from training.techniques.lazy import is_due, optimizers
from training.techniques.noise import add_noise, noise_scale
from training.techniques.packing import pack, unpack
from training.techniques.replay import replay
from training.techniques.schedule import burnt_in, set_rate
from training.techniques.unroll import Weights, unroll

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class ToFloat:
    """uint8 images to float32 in [-1, 1] on the device, in memory that is used again.

    What `slot` gave last is overwritten by the next call with it: fresh memory for each batch
    costs ten times the arithmetic.
    """

    def __init__(self, device: torch.device, channels_last: bool) -> None:
        self._device = device
        self._form = torch.channels_last if channels_last else torch.contiguous_format
        self._buffers: dict[int, Tensor] = {}

    def __call__(self, images: Tensor, slot: int = 0) -> Tensor:
        """Images uint8 (n, c, h, w) as float32."""
        buffer = self._buffers.get(slot)
        if buffer is None or buffer.shape != images.shape:
            buffer = torch.empty(images.shape, device=self._device, memory_format=self._form)
            self._buffers[slot] = buffer
        moved = images.to(self._device, non_blocking=True)
        return buffer.copy_(moved).div_(127.5).sub_(1)


@dataclass
class Piece:
    """A part of a batch that goes through the networks at once.

    `real` float32 (n, c, h, w) in [-1, 1], `labels` int64 (n,), `latents` (n, z_dim); `fake` with
    its graph, None where it is drawn again. `weight` is its share of the batch of all processes,
    `share` of the batch of this one.
    """

    real: Tensor
    labels: Tensor
    latents: Tensor
    fake: Tensor | None
    weight: float
    share: float


class Step:
    """Calls `step(batches)` advance `state` by one step; see `__call__`."""

    def __init__(
        self, config: Config, state: State, device: torch.device, ranks: Ranks = ALONE
    ) -> None:
        self.config, self.state, self.device, self.ranks = config, state, device, ranks
        self.objective = Objective(config)
        self.g_table, self.d_table = optimizers(config)
        self.packing = config.discriminator.packing
        if config.replay.size and ranks.world > 1:
            raise UserError("replay.size: past fakes are kept by one process only")
        if self.packing > 1 and config.batch % (self.packing * ranks.world):
            raise UserError(
                "batch: each process's part must be a multiple of discriminator.packing"
            )
        self._augmentation = Augmentation(config.augment)
        self._controller = Controller(config.augment, config.batch, ranks)
        if config.sync_batch_norm and ranks.world > 1:
            synchronise(state.generator, ranks.rank, ranks.world)
        if (config.sync_batch_norm or state.discriminator.together) and ranks.world > 1:
            synchronise(state.discriminator, ranks.rank, ranks.world)
        self._draw: Any = state.generator
        self._look: Any = state.discriminator
        if config.compile:  # they share the weights; what is saved is never the compiled one
            self._draw, self._look = torch.compile(self._draw), torch.compile(self._look)
        self._to_float = ToFloat(device, config.channels_last)
        self.random = torch.Generator(device=device)
        self._latent_random = torch.Generator(device=device)

    def __call__(self, batches: list[Batch]) -> Facts:
        """Show `n_critic` batches (this process's part of each) to the discriminator and train the
        generator once.

        All random draws follow from (seed, images seen), so a continued run repeats them.
        """
        config, state = self.config, self.state
        self._seed()
        state.generator.train()
        state.discriminator.train()
        facts: Facts = {}
        for batch in batches:
            pieces, last = self._pieces(batch), batch is batches[-1]
            if last and config.updates == "simultaneous":
                facts |= self._train_both(pieces)
            else:
                facts |= self._train_discriminator(pieces, again=last)
        if config.updates == "alternating":
            facts |= self._train_generator(pieces)
        if config.loss.path_length and is_due(state.steps, config.loss.path_interval):
            facts |= self._regularise_paths(pieces)
        images = config.batch * len(batches)
        state.seen += images
        state.steps += 1
        half_life = config.ema.half_life_kimg
        if config.burn_in.ema:
            half_life *= burnt_in(config.burn_in, 0.0, 1.0, state.seen)
        keep = ema.decay(half_life, config.ema.ramp_up, state.seen, images)
        ema.update(state.average, state.generator, keep)
        return facts

    def _seed(self) -> None:
        """Latents are drawn alike in all processes (each takes its part); the rest differs."""
        seen, restarts, rank = self.state.seen, self.state.restarts, self.ranks.rank
        self._latent_random.manual_seed(derive(self.config.seed, "latents", seen, restarts))
        seed = derive(self.config.seed, "step", seen, restarts, rank)
        self.random.manual_seed(seed)
        self._augmentation.seed(seed)
        torch.manual_seed(seed)  # dropout and other draws inside of the networks

    def _pieces(self, batch: Batch) -> list[Piece]:
        """The batch in pieces of at most `micro_batch` images, with latents."""
        config, count = self.config, len(batch.images)
        part = rank_slice(config.batch, self.ranks.rank, self.ranks.world)
        latents = draw_latents(
            config.latent, config.batch, self.state.generator.z_dim, self._latent_random,
            self.device,
        )[part]  # fmt: skip
        size = config.micro_batch or count
        pieces = []
        for slot, start in enumerate(range(0, count, size)):
            some = slice(start, min(start + size, count))
            real = self._to_float(batch.images[some], slot)
            labels = batch.labels[some].to(self.device)
            weight, share = len(real) / config.batch, len(real) / count
            pieces.append(Piece(real, labels, latents[some], None, weight, share))
        return pieces

    def _autocast(self) -> torch.autocast:
        kind = _AUTOCAST.get(self.config.precision)
        return torch.autocast(self.device.type, dtype=kind, enabled=kind is not None)

    def _fake(self, latents: Tensor, labels: Tensor) -> Tensor:
        with self._autocast():
            images: Tensor = self._draw(latents, labels)
        return images

    def _judge(
        self,
        samples: Tensor,
        labels: Tensor,
        weights: Weights | None = None,
        twice: bool = False,
    ) -> Verdict:
        """What the discriminator (with other `weights`, if given) says of packed images.

        `twice`: it will be differentiated twice, which compiled networks cannot be.
        """
        table, judge = self.config.augment, self.state.discriminator
        with self._autocast():
            p = self._controller.p(self.state.scalars)
            images = self._augmentation(unpack(samples, self.packing), p, self.random)
            scale = noise_scale(table.noise, table.noise_kimg, self.state.seen)
            samples = pack(add_noise(images, scale, self.random), self.packing)
            if self.config.channels_last:  # as the networks are; a convolution converts slowly
                samples = samples.contiguous(memory_format=torch.channels_last)
            verdict: Verdict
            if weights is None:
                verdict = (judge if twice else self._look)(samples, labels)
            else:
                verdict = functional_call(judge, weights, (samples, labels))
        return verdict

    def _train_discriminator(self, pieces: list[Piece], again: bool) -> Facts:
        """One update of the discriminator.

        Where the generator is to learn from the same images (`again`), a batch in one piece keeps
        their graph; in several pieces that would cost the memory that they save.
        """
        state = self.state
        self._thaw()
        facts: Facts = {}
        keep = again and len(pieces) == 1
        for piece in pieces:
            with torch.set_grad_enabled(keep):
                fake = self._fake(piece.latents, piece.labels)
            piece.fake = fake if keep else None
            loss, found = self._discriminator_loss(piece, fake.detach())
            torch.autograd.backward(state.d_scaler.scale(loss * piece.weight))
            _collect(facts, found | {"spread_real": spread(piece.real)}, piece.share)
        return self._end_discriminator(pieces, facts)

    def _train_both(self, pieces: list[Piece]) -> Facts:
        """One update of both networks from the same pass through them (simultaneous gradient
        descent: Mescheder 2017; Shen 2021 measures what it saves).

        The generator learns from the discriminator's answers before its update, as alternating
        ones do that begin with the generator.
        """
        state = self.state
        self._thaw()
        state.g_optimizer.zero_grad(set_to_none=True)
        judge = [weight for weight in state.discriminator.parameters() if weight.requires_grad]
        artist = [weight for weight in state.generator.parameters() if weight.requires_grad]
        on_d, on_g = Facts(), Facts()
        for piece in pieces:
            labels = piece.labels, piece.labels
            drawn = self._fake(piece.latents, piece.labels)
            real, fake = pack(piece.real, self.packing), pack(drawn, self.packing)
            with self._autocast():  # around both: the weights are cast once
                on_real, on_fake = self._judge(real, labels[0]), self._judge(fake, labels[1])
            loss, found = self._objective_loss(on_real, on_fake, labels, piece.latents)
            loss, found = self._penalised(loss, found, real, fake.detach(), labels)
            scaled = state.d_scaler.scale(loss * piece.weight)
            torch.autograd.backward(scaled, inputs=judge, retain_graph=True)
            _collect(on_d, found | {"spread_real": spread(piece.real)}, piece.share)
            codes = latent_codes(piece.latents, self.config.generator)
            loss, found = self.objective.generator(on_real, on_fake, piece.labels, codes)
            torch.autograd.backward(state.g_scaler.scale(loss * piece.weight), inputs=artist)
            _collect(on_g, found | {"spread_fake": spread(drawn.detach())}, piece.share)
        facts = self._end_discriminator(pieces, on_d)
        return facts | self._told("g", on_g, self._update_generator(), state.g_scaler)

    def _thaw(self) -> None:
        """Have the discriminator learn, but for the layers that the user froze."""
        self.state.discriminator.requires_grad_(True)
        freeze(self.state.discriminator, self.config.freeze_d)
        self.state.d_optimizer.zero_grad(set_to_none=True)

    def _end_discriminator(self, pieces: list[Piece], facts: Facts) -> Facts:
        """Apply the discriminator's gradients, with what `facts` lead to."""
        config, state = self.config, self.state
        share = sum(piece.weight for piece in pieces)
        facts |= self._controller.observe(state.scalars, facts["r_t"], share)
        facts = self._told("d", facts, self._update_discriminator(), state.d_scaler)
        if config.loss.own_step and is_due(state.steps, config.loss.interval):
            facts |= self._penalise(pieces)
        if config.loss.weight_clip:
            clip_weights(state.discriminator, config.loss.weight_clip)
        return facts

    def _update_discriminator(self) -> Tensor:
        state, table = self.state, self.d_table
        set_rate(state.d_optimizer, table, state.seen, self.config.burn_in)
        return apply_gradients(state.d_optimizer, table, self.ranks, state.d_scaler)

    def _penalise(self, pieces: list[Piece]) -> Facts:
        """A step of the discriminator for the penalties on real images alone."""
        state = self.state
        state.d_optimizer.zero_grad(set_to_none=True)
        facts: Facts = {}
        for piece in pieces:
            real = pack(piece.real, self.packing)
            found = self._penalties(real, real, (piece.labels, piece.labels))
            for name, penalty in found.items():
                weight = self._penalty_weight(name) * piece.weight
                torch.autograd.backward(state.d_scaler.scale(penalty * weight))
            detached = {name: penalty.detach() for name, penalty in found.items()}
            _collect(facts, detached, piece.share)
        if facts:
            self._update_discriminator()
        return facts

    def _discriminator_loss(self, piece: Piece, fake: Tensor) -> tuple[Tensor, Facts]:
        """The loss with its penalties, and what it tells."""
        config, fake_labels = self.config, piece.labels
        if config.replay.size:
            fake, fake_labels = replay(
                self.state.scalars, config.replay.size, config.replay.share, fake, fake_labels,
                self.random,
            )  # fmt: skip
        labels = piece.labels, fake_labels
        real, fake = pack(piece.real, self.packing), pack(fake, self.packing)
        loss, facts = self._plain_loss(real, fake, labels, piece.latents)
        return self._penalised(loss, facts, real, fake, labels)

    def _penalised(
        self, loss: Tensor, facts: Facts, real: Tensor, fake: Tensor, labels: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Facts]:
        """The loss and what it tells, with the penalties that are due in the same step."""
        table = self.config.loss
        if not table.own_step and is_due(self.state.steps, table.interval):
            for name, penalty in self._penalties(real, fake, labels).items():
                facts[name] = penalty.detach()
                loss = loss + penalty * self._penalty_weight(name)
        return loss, facts

    def _penalty_weight(self, name: str) -> float:
        """What a penalty counts in the steps that it is applied in."""
        table, burn_in = self.config.loss, self.config.burn_in
        weight: float = getattr(table, name) * table.interval
        return weight * burnt_in(burn_in, 1.0, burn_in.penalty, self.state.seen)

    def _plain_loss(
        self,
        real: Tensor,
        fake: Tensor,
        labels: tuple[Tensor, Tensor],
        latents: Tensor,
        weights: Weights | None = None,
    ) -> tuple[Tensor, Facts]:
        """The discriminator's loss on packed images without penalties, and what it tells."""
        with self._autocast():  # around both: the weights are cast once
            judge = self.state.discriminator
            if judge.together or (weights is None and judge.judges_pairs(len(real))):
                pairs = interleave(real, fake), interleave(*labels)
                on_real, on_fake = separate(self._judge(*pairs, weights))
            else:
                on_real = self._judge(real, labels[0], weights)
                on_fake = self._judge(fake, labels[1], weights)
        return self._objective_loss(on_real, on_fake, labels, latents)

    def _objective_loss(
        self, on_real: Verdict, on_fake: Verdict, labels: tuple[Tensor, Tensor], latents: Tensor
    ) -> tuple[Tensor, Facts]:
        """The discriminator's loss on its verdicts, and what it tells."""
        config = self.config
        targets = draw_targets(
            config.label_real,
            config.label_fake,
            config.label_flip,
            len(on_real.logits),
            self.random,
        )
        codes = latent_codes(latents, config.generator)
        loss, facts = self.objective.discriminator(on_real, on_fake, targets, labels, codes)
        if on_real.seen:
            with self._autocast():
                distance = self.state.discriminator.reconstruct(on_real)
            facts["reconstruction"] = distance.detach()
            loss = loss + distance * config.loss.reconstruction
        return loss, facts

    def _penalties(self, real: Tensor, fake: Tensor, labels: tuple[Tensor, Tensor]) -> Facts:
        table = self.config.loss

        def on_real(images: Tensor) -> Tensor:
            return self._judge(images, labels[0], twice=True).score

        def on_fake(images: Tensor) -> Tensor:
            return self._judge(images, labels[1], twice=True).score

        def uniform(*shape: int) -> Tensor:
            return torch.rand(shape, generator=self.random, device=self.device)

        found: Facts = {}
        scale = self.state.d_scaler.get_scale()
        if table.r1:
            found["r1"] = squared_gradient(on_real, real, scale)
        if table.r2:
            found["r2"] = squared_gradient(on_fake, fake, scale)
        if table.gp:
            share = uniform(len(real), 1, 1, 1)
            found["gp"] = gradient_penalty(on_real, real, fake, share, scale)
        if table.dragan:
            noise, share = uniform(*real.shape), uniform(len(real), 1, 1, 1)
            found["dragan"] = dragan(on_real, real, noise, share, scale)
        return found

    def _train_generator(self, pieces: list[Piece]) -> Facts:
        state = self.state
        state.discriminator.requires_grad_(False)
        state.g_optimizer.zero_grad(set_to_none=True)
        facts: Facts = {}
        for piece in pieces:
            fake = piece.fake
            if fake is None:
                fake = self._fake(piece.latents, piece.labels)
            loss, found = self._generator_loss(piece, fake)
            torch.autograd.backward(state.g_scaler.scale(loss * piece.weight))
            _collect(facts, found | {"spread_fake": spread(fake.detach())}, piece.share)
        return self._told("g", facts, self._update_generator(), state.g_scaler)

    def _told(self, network: str, facts: Facts, norm: Tensor, scaler: GradScaler) -> Facts:
        """What a step tells: of one that was left out only that, for its numbers are infinite."""
        facts = facts | {f"grad_{network}": norm}
        if not scaler.is_enabled():
            return facts
        name = f"skipped_{network}"
        if not left_out(norm, scaler):
            return facts | {name: torch.zeros_like(norm)}
        self.state.scalars[name] = self.state.scalars.get(name, torch.zeros(())) + 1
        return {name: torch.ones_like(norm)}

    def _update_generator(self) -> Tensor:
        state, table = self.state, self.g_table
        set_rate(state.g_optimizer, table, state.seen, self.config.burn_in)
        return apply_gradients(state.g_optimizer, table, self.ranks, state.g_scaler)

    def _regularise_paths(self, pieces: list[Piece]) -> Facts:
        """A step of the generator for its path lengths."""
        state, table = self.state, self.config.loss
        generator = state.generator
        assert isinstance(generator, StyleGan2)
        state.g_optimizer.zero_grad(set_to_none=True)
        old = state.scalars.get("path_mean", torch.zeros((), device=self.device))
        new, facts = torch.zeros_like(old), Facts()
        for piece in pieces:
            some = slice(0, max(1, len(piece.latents) // table.path_batch_shrink))
            with self._autocast():
                ws = generator.styles(piece.latents[some], piece.labels[some])
                lengths = path_lengths(generator.synthesis, ws, self.random)
            penalty, mean = path_penalty(lengths, old, table.path_decay)
            weight = table.path_length * table.path_interval * piece.weight
            torch.autograd.backward(state.g_scaler.scale(penalty * weight))
            new += mean * piece.weight
            found = {"path_length": lengths.detach().mean(), "path_penalty": penalty.detach()}
            _collect(facts, found, piece.share)
        self.ranks.add_up([new])
        state.scalars["path_mean"] = new
        self._update_generator()
        return facts

    def _generator_loss(self, piece: Piece, fake: Tensor) -> tuple[Tensor, Facts]:
        """The loss, and what it tells."""
        labels, latents = piece.labels, piece.latents
        real, fake = pack(piece.real, self.packing), pack(fake, self.packing)
        weights = None
        if self.config.unroll.steps:
            weights = self._unroll(real, fake, labels, latents)
        on_fake = self._judge(fake, labels, weights)
        on_real = self._judge(real, labels, weights) if self.objective.needs_real else None
        codes = latent_codes(latents, self.config.generator)
        return self.objective.generator(on_real, on_fake, labels, codes)

    def _unroll(self, real: Tensor, fake: Tensor, labels: Tensor, latents: Tensor) -> Weights:
        """The discriminator's weights after further steps, as functions of `fake`."""
        table = self.config.unroll

        def loss(weights: Weights) -> Tensor:
            return self._plain_loss(real, fake, (labels, labels), latents, weights)[0]

        rate = table.lr or self.config.d_optimizer.lr
        return unroll(self.state.discriminator, loss, table.steps, rate)


def _collect(facts: Facts, found: Facts, share: float) -> None:
    """Add what a piece tells, by its share of the batch, to the batch's facts."""
    for name, value in found.items():
        facts[name] = facts[name] + value * share if name in facts else value * share


def spread(images: Tensor) -> Tensor:
    """The standard deviation over the batch of images (n, c, h, w), mean over every fourth row and
    column: how much samples differ from each other. 0 where all are alike."""
    return images[:, :, ::4, ::4].float().std(dim=0, unbiased=False).mean()
