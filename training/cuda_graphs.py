"""Training steps as CUDA graphs: all kernels of a step are launched at once.

A graph repeats kernels with the same addresses and numbers. So the inputs of a step are copied into
tensors that stay, and there is a graph for each kind of step (which penalties are due). As long as
numbers that come from the CPU change, as in a burn-in, steps are taken without a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch

from pipeline.contract import UserError
from training.config import Config
from training.data import Batch
from training.loss_terms import Stats
from training.machine.device import to_device
from training.machine.distributed import SINGLE_PROCESS, Distributed
from training.optimizer import set_learning_rate, step_kind
from training.state import State
from training.step import Step

Work = Callable[[], Stats]


class Graphs(Protocol):
    """Captures and repeats the work of a device."""

    def run(self, work: Callable[[], Any]) -> Any:
        """Return the result of `work`, done as usual where graphs are captured."""

    def capture(self, work: Work) -> tuple[Callable[[], object], Stats]:
        """Return a function that repeats the kernels of `work`, and the tensors that they fill. The
        kernels do not run yet.

        Raises:
            RuntimeError: `work` waits for the device, or depends on random numbers of the CPU.
        """

    def forget(self) -> None:
        """Called when no captured work will be repeated any more."""


class CudaGraphs:
    """`Graphs` of a CUDA `device`, on one stream; `generators` are those that the work draws from
    beside the default one."""

    def __init__(self, device: torch.device, generators: Sequence[torch.Generator]) -> None:
        self._device, self._generators = device, generators
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.forget()

    def run(self, work: Callable[[], Any]) -> Any:
        """See `Graphs.run`. The stream waits for what came before, and what follows for it."""
        others = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(others)
        with torch.cuda.stream(self._stream):
            found = work()
        others.wait_stream(self._stream)
        return found

    def capture(self, work: Work) -> tuple[Callable[[], object], Stats]:
        """See `Graphs.capture`."""
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)
        before = torch.get_rng_state()
        # other threads read images and write files meanwhile
        with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
            stats = work()
        if not torch.equal(before, torch.get_rng_state()):
            raise RuntimeError("random numbers of the CPU would be the same in every step")
        return graph.replay, stats

    def forget(self) -> None:
        """See `Graphs.forget`. Memory of graphs that are gone cannot be shared any more."""
        self._pool: Any = torch.cuda.graph_pool_handle()


@dataclass(frozen=True)
class _Captured:
    """A captured kind of step: its inputs, which stay, and the stats that it fills."""

    batches: list[Batch]
    replay: Callable[[], object]
    stats: Stats


class GraphedStep(Step):
    """A step that is captured when its kind occurs for the second time, and repeated afterwards.

    The first time, it creates what stays in memory (moments of optimisers, buffers) and tries
    algorithms. Results are those of `Step`.
    """

    def __init__(
        self, config: Config, state: State, device: torch.device,
        ranks: Distributed = SINGLE_PROCESS, graphs: Graphs | None = None,
    ) -> None:  # fmt: skip
        super().__init__(config, state, device, ranks)
        self._graphs = graphs or CudaGraphs(device, (self.random, self._split.random))
        self._captured: dict[Any, _Captured | None] = {}
        self._fixed: Any = None

    def _train(self, batches: list[Batch]) -> Stats:
        fixed = self._numbers()
        if fixed != self._fixed:
            self._captured.clear()
            self._graphs.forget()
            self._fixed = fixed
        kind = self._kind(batches)
        if kind not in self._captured:
            self._captured[kind] = None
            found: Stats = self._graphs.run(lambda: super(GraphedStep, self)._train(batches))
            return found
        return self._replay(self._captured[kind] or self._capture(kind, batches), batches)

    def _numbers(self) -> tuple[Any, ...]:
        """Return all that kernels depend on and that changes rarely: numbers on the CPU, and the
        number of loads, which replace the tensors of optimisers."""
        config, state = self.config, self.state
        numbers: list[Any] = [state.loads, *self.loss.scheduled()]
        for optimizer, options in (
            (state.g_optimizer, self.g_options), (state.d_optimizer, self.d_options)
        ):  # fmt: skip
            set_learning_rate(optimizer, options, state.seen, config.burn_in)
            numbers += [(group["lr"], group["betas"]) for group in optimizer.param_groups]
        return tuple(numbers)

    def _kind(self, batches: list[Batch]) -> tuple[Any, ...]:
        shapes = (batch.images.shape for batch in batches)
        return *step_kind(self.config, self.state.steps), *shapes

    def _capture(self, kind: Any, batches: list[Batch]) -> _Captured:
        fixed = [
            replace(
                batch,
                images=torch.empty_like(batch.images, device=self.device),
                labels=torch.empty_like(batch.labels, device=self.device),
            )
            for batch in batches
        ]
        try:
            with self._capturable():
                replay, stats = self._graphs.capture(lambda: super(GraphedStep, self)._train(fixed))
        except RuntimeError as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"cuda_graphs: a step could not be captured: {reason}; resume without the option"
            ) from error
        captured = self._captured[kind] = _Captured(fixed, replay, stats)
        self._seed()
        return captured

    @contextmanager
    def _capturable(self) -> Iterator[None]:
        """Let optimisers be captured; that they can is not a part of checkpoints."""
        optimizers = self.state.g_optimizer, self.state.d_optimizer
        groups = [group for one in optimizers for group in one.param_groups]
        before = [group["capturable"] for group in groups]
        for group in groups:
            group["capturable"] = True
        try:
            yield
        finally:
            for group, old in zip(groups, before, strict=True):
                group["capturable"] = old

    def _replay(self, captured: _Captured, batches: list[Batch]) -> Stats:
        def work() -> Stats:
            for fixed, batch in zip(captured.batches, batches, strict=True):
                fixed.images.copy_(to_device(batch.images, self.device))
                fixed.labels.copy_(to_device(batch.labels, self.device))
            captured.replay()
            # the next step of this kind overwrites the stats
            return {name: value.clone() for name, value in captured.stats.items()}

        stats: Stats = self._graphs.run(work)
        return stats


def check_graphs(config: Config, device: torch.device, ranks: Distributed) -> None:
    """Raise if steps of this machine cannot be CUDA graphs, but shall be.

    Raises:
        UserError: the device is not CUDA, or there are several processes.
    """
    if config.cuda_graphs and device.type != "cuda":
        raise UserError(f"cuda_graphs: the device is {device.type}; only CUDA has graphs")
    if config.cuda_graphs and ranks.world_size > 1:
        raise UserError("cuda_graphs: not supported with several processes; start one")
