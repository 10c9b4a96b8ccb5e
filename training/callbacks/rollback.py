"""Returns to the last good checkpoint after divergence."""

from __future__ import annotations

from training import checkpoint
from training.callbacks.base import Callback
from training.checkpoint_check import check_resumable
from training.monitoring.meter import Meter
from training.pretrained.finetune import load_initial_weights
from training.state import new_state

DIVERGENCE_HINT = (
    "lower the learning rates (--g_optimizer.lr, --d_optimizer.lr), clip gradients "
    "(--g_optimizer.clip 1 --d_optimizer.clip 1), add a penalty (--loss.r1 1), or use "
    "--precision fp32"
)


class RollbackCallback(Callback):
    """Counts the attempts since the last checkpoint."""

    _attempts = 0

    def on_save(self) -> None:
        self._attempts = 0

    def roll_back(self, what: str) -> bool:
        """Load the last good checkpoint and use other random draws from there.

        Args:
            what: what is no longer finite, for the message.

        Returns:
            False if the configured number of attempts is used up.
        """
        loop = self.loop
        loop.finish_writing()
        self._attempts += 1
        at, values = loop.state.seen, None
        if loop.ranks.is_main and self._attempts <= loop.config.max_restarts:
            values, _ = checkpoint.load_newest(
                loop.run_files.checkpoints, check=lambda found: check_resumable(found, loop.state)
            )
        # only the main process knows when a checkpoint was complete
        self._attempts, values = loop.ranks.broadcast((self._attempts, values))
        if self._attempts > loop.config.max_restarts:
            return False
        if values is None:
            self._restart()
        else:
            loop.restore(values)
        loop.state.restarts += self._attempts
        loop.on_main_process(lambda: loop.history.reset(loop.history.text()))
        loop.display.message(
            f"warning: {what} became NaN or infinite before {at / 1000:g} kimg; rolled back to "
            f"{loop.state.seen / 1000:g} kimg with new random draws (attempt {self._attempts} of "
            f"{loop.config.max_restarts}). If it recurs: {DIVERGENCE_HINT}"
        )
        return True

    def _restart(self) -> None:
        """Start again from the initial state."""
        loop, config = self.loop, self.loop.config
        fresh = new_state(config, loop.source.image_shape, loop.device)
        if config.init_from:
            load_initial_weights(fresh, config.init_from, loop.device)
        loop.state.load(fresh.tensors())
        loop.history.load("")
        loop.meter = Meter()
        loop.checkpoints.resume_at(-1)
        loop.reset_timers()
