"""One training step: updates of the discriminator and the generator, then the moving average."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from pipeline.contract import UserError
from training import ema
from training.config import Config
from training.data import Batch
from training.loss_terms import Stats
from training.losses import clip_weights, path_lengths, path_penalty
from training.machine.distributed import SINGLE_PROCESS, Distributed
from training.methods import build_loss
from training.micro_batches import MicroBatch, MicroBatcher, accumulate_stats, batch_std
from training.networks.separable import use_fir
from training.networks.sync_norm import convert_batch_norm
from training.optimizer import (
    apply_gradients,
    is_due,
    optimizers,
    set_learning_rate,
    step_was_skipped,
    steps_of,
)
from training.pretrained.finetune import freeze
from training.seeds import derive
from training.state import State
from training.techniques import replay


def trained_weights(networks: Sequence[nn.Module]) -> list[Tensor]:
    """Return the weights that are trained."""
    return [one for network in networks for one in network.parameters() if one.requires_grad]


class Step:
    """`step(batches)` advances `state` by one step; see `__call__`."""

    def __init__(
        self,
        config: Config,
        state: State,
        device: torch.device,
        ranks: Distributed = SINGLE_PROCESS,
    ) -> None:
        self.config, self.state, self.device, self.ranks = config, state, device, ranks
        self.g_options, self.d_options = optimizers(config)
        if config.replay.size and ranks.world_size > 1:
            raise UserError("replay.size: past fakes are kept by one process only; set it to 0")
        self._g_networks = list(state.g_networks.values())
        self._d_networks = list(state.d_networks.values())
        joined = [*self._g_networks, *self._d_networks] if config.sync_batch_norm else []
        if state.discriminator.joint_batch and not joined:
            joined = [state.discriminator]
        for network in joined if ranks.world_size > 1 else []:
            convert_batch_norm(network, ranks.rank, ranks.world_size)
        buffers = state.buffers()
        self._statistics = list(buffers.values()) if config.precision == "fp16" else []
        self._magnitudes = [one for name, one in buffers.items() if name.endswith(".magnitude_ema")]
        self.random = torch.Generator(device=device)
        self._split = MicroBatcher(config, state.generator.z_dim, device, ranks)
        self.loss = build_loss(config, state, device, ranks, self.random)
        self.counts: Stats = {}
        """How often the last step has a stat (0 or 1), by name, where fp16 may have skipped it."""
        self._averages = [ema.MovingAverage(*pair) for pair in state.averaged]
        for network in self._d_networks:
            network.requires_grad_(True)
        freeze(state.discriminator, config.freeze_d)
        self._d_weights = trained_weights(self._d_networks)
        self._g_weights = trained_weights(self._g_networks)

    def __call__(self, batches: list[Batch]) -> Stats:
        """Train the discriminator on `n_critic` batches (this process's part of each) and the
        generator once.

        All random numbers follow from (seed, images seen), so a resumed run repeats them.
        """
        config, state = self.config, self.state
        self._seed()
        with use_fir(config.fir):
            stats = self._train(batches)
        self.ranks.all_reduce_mean(self._magnitudes)
        images = config.batch * len(batches)
        state.seen += images
        state.steps += 1
        decay = ema.step_decay(config, state.seen, images)
        for average in self._averages:
            average.update(decay)
        return stats

    def _train(self, batches: list[Batch]) -> Stats:
        """Update all networks on the batches of a step."""
        before = [one.clone() for one in self._statistics]
        stats = self._update_networks(batches)
        for one, old in zip(self._statistics, before, strict=True):  # of a skipped step: infinite
            one.copy_(torch.where(one.isfinite(), one, old))
        return stats

    def _update_networks(self, batches: list[Batch]) -> Stats:
        config = self.config
        for network in (*self._g_networks, *self._d_networks):
            if not network.training:  # for each of their layers, that takes time
                network.train()
        stats: Stats = {}
        self.counts = {}
        if config.updates == "generator-first":
            stats |= self._train_generator(self._split(batches[0]))
        if config.blocks.cycle:
            return self._train_block(batches[-1])
        reuse = config.updates == "alternating" and not config.fresh_latents
        for batch in batches:
            micro_batches, last = self._split(batch), batch is batches[-1]
            if last and config.updates == "simultaneous":
                stats |= self._train_simultaneously(micro_batches)
                stats |= self._regularise_paths(micro_batches)
            else:
                stats |= self._train_discriminator(micro_batches, reuse=last and reuse)
        if config.updates == "alternating":
            stats |= self._train_generator(micro_batches if reuse else self._split(batch))
        return stats

    def _train_block(self, batch: Batch) -> Stats:
        """Update the network whose block it is; the other one does not change."""
        blocks, micro_batches = self.config.blocks, self._split(batch)
        if self.state.steps % blocks.cycle < blocks.d_steps:
            return self._train_discriminator(micro_batches, reuse=False)
        return self._train_generator(micro_batches)

    def _seed(self) -> None:
        """Latents are drawn equally in all processes (each takes its slice); all else differs."""
        seen, restarts, rank = self.state.seen, self.state.restarts, self.ranks.rank
        self._split.random.manual_seed(derive(self.config.seed, "latents", seen, restarts))
        seed = derive(self.config.seed, "step", seen, restarts, rank)
        self.random.manual_seed(seed)
        self.loss.augmentation.seed(seed)
        # dropout and other random numbers inside the networks
        if self.device.type == "cpu":  # for other devices, it would format the stack
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)

    def _synthesis(self, ws: Tensor) -> Tensor:
        with self.loss.autocast():
            images: Tensor = self.state.generator.synthesis(ws)
        return images

    def _train_discriminator(self, micro_batches: list[MicroBatch], reuse: bool) -> Stats:
        """Update the discriminator once.

        If the generator will be trained on the same images (`reuse`), their graph is kept, but not
        with several micro-batches: that would cost the memory they save.
        """
        state, replaying = self.state, self.config.replay
        self._unfreeze_discriminator()
        stats: Stats = {}
        keep_graph = reuse and len(micro_batches) == 1
        for micro in micro_batches:
            labels = self.loss.labels(micro.labels)
            with torch.set_grad_enabled(keep_graph):
                fake = self.loss.generate(micro.latents, labels[1])
            micro.fake = (fake, labels) if keep_graph else None
            shown = fake.detach()
            if replaying.size:
                shown, older = replay(
                    state.replay, replaying.size, replaying.share, shown, labels[1], self.random
                )
                labels = labels[0], older
            for loss, new in self.loss.discriminator(micro.real, shown, labels, micro.latents):
                torch.autograd.backward(state.d_scaler.scale(loss * micro.weight))
                accumulate_stats(stats, new, micro.share)
            accumulate_stats(stats, {"spread_real": batch_std(micro.real)}, micro.share)
        return self._end_discriminator(micro_batches, stats)

    def _train_simultaneously(self, micro_batches: list[MicroBatch]) -> Stats:
        """Update both networks from the same forward pass (simultaneous gradient descent: Mescheder
        2017; Shen 2021 measures the saving).

        The generator is trained on the discriminator's output before its update, as in alternating
        updates that start with the generator.
        """
        state = self.state
        self._unfreeze_discriminator()
        state.g_optimizer.zero_grad(set_to_none=True)
        d_stats, g_stats = Stats(), Stats()
        for micro in micro_batches:
            drawn = self.loss.generate(micro.latents, micro.labels)
            (d_loss, new), (g_loss, new_g) = self.loss.both(
                micro.real, drawn, micro.labels, micro.latents
            )
            scaled = state.d_scaler.scale(d_loss * micro.weight)
            torch.autograd.backward(scaled, inputs=self._d_weights, retain_graph=True)
            accumulate_stats(d_stats, new | {"spread_real": batch_std(micro.real)}, micro.share)
            torch.autograd.backward(
                state.g_scaler.scale(g_loss * micro.weight), inputs=self._g_weights
            )
            spread = {"spread_fake": batch_std(drawn.detach())}
            accumulate_stats(g_stats, new_g | spread, micro.share)
        stats = self._end_discriminator(micro_batches, d_stats)
        return stats | self._step_stats("g", g_stats, self._update_generator(), state.g_scaler)

    def _unfreeze_discriminator(self) -> None:
        """Unfreeze the discriminator, except for the layers frozen by `freeze_d`."""
        for weight in self._d_weights:
            weight.requires_grad_(True)
        self.state.d_optimizer.zero_grad(set_to_none=True)

    def _end_discriminator(self, micro_batches: list[MicroBatch], stats: Stats) -> Stats:
        """Apply the discriminator's gradients; return the stats of the step."""
        config, state = self.config, self.state
        share = sum(micro.weight for micro in micro_batches)
        stats |= self.loss.observe(stats, share)
        stats = self._step_stats("d", stats, self._update_discriminator(), state.d_scaler)
        if config.loss.own_step and is_due(
            steps_of("d", config.blocks, state.steps), config.loss.interval
        ):
            stats |= self._penalise(micro_batches)
        if config.loss.weight_clip:
            clip_weights(self._d_weights, config.loss.weight_clip)
        return stats

    def _update_discriminator(self) -> Tensor:
        state, options = self.state, self.d_options
        set_learning_rate(state.d_optimizer, options, state.seen, self.config.burn_in)
        return apply_gradients(state.d_optimizer, options, self.ranks, state.d_scaler)

    def _penalise(self, micro_batches: list[MicroBatch]) -> Stats:
        """Take a discriminator step for the penalties on real images only."""
        state = self.state
        state.d_optimizer.zero_grad(set_to_none=True)
        stats: Stats = {}
        for micro in micro_batches:
            for penalty, new in self.loss.own_step_penalties(micro.real, micro.labels):
                torch.autograd.backward(state.d_scaler.scale(penalty * micro.weight))
                accumulate_stats(stats, new, micro.share)
        return self._taken(stats, self._update_discriminator(), state.d_scaler) if stats else stats

    def _train_generator(self, micro_batches: list[MicroBatch]) -> Stats:
        state = self.state
        for weight in self._d_weights:
            weight.requires_grad_(False)
        state.g_optimizer.zero_grad(set_to_none=True)
        stats: Stats = {}
        for micro in micro_batches:
            if micro.fake is None:
                labels = self.loss.labels(micro.labels)
                fake = self.loss.generate(micro.latents, labels[1])
            else:
                fake, labels = micro.fake
            loss, new = self.loss.generator(micro.real, fake, labels, micro.latents)
            torch.autograd.backward(state.g_scaler.scale(loss * micro.weight))
            accumulate_stats(stats, new | {"spread_fake": batch_std(fake.detach())}, micro.share)
        stats = self._step_stats("g", stats, self._update_generator(), state.g_scaler)
        return stats | self._regularise_paths(micro_batches)

    def _step_stats(self, network: str, stats: Stats, norm: Tensor, scaler: GradScaler) -> Stats:
        """Stats of one step. Of a skipped one, only the skip is recorded."""
        stats = self._taken(stats | {f"grad_{network}": norm}, norm, scaler)
        if not scaler.is_enabled():
            return stats
        name, skipped = f"skipped_{network}", step_was_skipped(norm, scaler)
        self.state.scalars[name] = self.state.scalars.get(name, torch.zeros_like(norm)) + skipped
        return stats | {name: skipped}

    def _taken(self, stats: Stats, norm: Tensor, scaler: GradScaler) -> Stats:
        """Return the stats of an update with this gradient norm. Those of a skipped one are
        infinite, and become 0 with a count of 0. Nothing waits for the device."""
        if not scaler.is_enabled():
            return stats
        skipped = step_was_skipped(norm, scaler)
        self.counts |= dict.fromkeys(stats, 1 - skipped)
        return {key: torch.where(skipped > 0, 0, value) for key, value in stats.items()}

    def _update_generator(self) -> Tensor:
        state, options = self.state, self.g_options
        set_learning_rate(state.g_optimizer, options, state.seen, self.config.burn_in)
        return apply_gradients(state.g_optimizer, options, self.ranks, state.g_scaler)

    def _regularise_paths(self, micro_batches: list[MicroBatch]) -> Stats:
        """Take a generator step for the path length penalty, if it is due."""
        state, options = self.state, self.config.loss
        steps = steps_of("g", self.config.blocks, state.steps)
        if not (options.path_length and is_due(steps, options.path_interval)):
            return {}
        generator = state.generator
        state.g_optimizer.zero_grad(set_to_none=True)
        old = state.scalars.setdefault("path_mean", torch.zeros((), device=self.device))
        new, stats = torch.zeros_like(old), Stats()
        for micro in micro_batches:
            some = slice(0, max(1, len(micro.latents) // options.path_batch_shrink))
            labels = self.loss.labels(micro.labels[some])[1]
            with self.loss.autocast():
                ws = generator.styles(micro.latents[some], labels)
            lengths = path_lengths(self._synthesis, ws, self.random)
            penalty, mean = path_penalty(lengths, old, options.path_decay)
            weight = options.path_length * options.path_interval * micro.weight
            torch.autograd.backward(state.g_scaler.scale(penalty * weight))
            new += mean * micro.weight
            found = {"path_length": lengths.detach().mean(), "path_penalty": penalty.detach()}
            accumulate_stats(stats, found, micro.share)
        self.ranks.all_reduce_sum([new])
        old.copy_(torch.where(new.isfinite(), new, old))
        return self._taken(stats, self._update_generator(), state.g_scaler)
