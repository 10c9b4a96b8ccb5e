"""The memory that a run needs, measured on small batches before it starts."""

from __future__ import annotations

import gc
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pipeline.contract import UserError
from training.config import Config
from training.data import Batch
from training.grid import generate_images, make_grid
from training.machine.allocator import release_freed
from training.machine.distributed import Distributed
from training.machine.memory import available_bytes, status_bytes
from training.metrics.feature_networks import BATCH, load_feature_network, on_background
from training.networks import ImageShape
from training.optimizer import optimizers
from training.options.algorithm import BlockOptions
from training.options.resolve import replace_known
from training.planning.forecast import Forecast, checkpoint_bytes, count_parameters, moments
from training.planning.live import Course, extended, live_meter
from training.state import State, make_optimizer, new_state
from training.step import Step
from training.techniques import fixed_latents

_PROGRAM = 800 << 20
"""Approximate memory of the interpreter and PyTorch on the CPU, if the system does not report
it."""
_BATCHES = (4, 8)
_GENERATED_AT_ONCE = 64
"""Maximum number of images that are generated at once for a grid."""
_RECORDS = 100 << 20
"""Approximate memory of prefetching, history, report and libraries, measured."""
_REORDERED = 1.6
"""Memory of a float32 network on the CPU in multiples of its tensors' bytes, measured: kernels
reorder images and keep copies."""
_SPLIT = 1.2
"""Memory that a GPU's allocator reserves, in multiples of the tensors' bytes."""
_QUEUED = 4
"""Prefetched batches, including the current one."""
_EXHAUSTED = ("out of memory", "can't allocate memory")
MEMORY_HINT = "use a smaller --batch, --micro-batch, --data.memory_gb or --resolution"
"""Suggestions if training does not fit into memory."""


@dataclass(frozen=True)
class Measured:
    """The memory of a run: numbers of weights by network, and bytes.

    `state` contains weights, moving average and moments. The others come on top of it: `step` for a
    training step, including gradients, `grid` for generating a grid, `evaluation` for an evaluation
    (0: none is due); `checkpoint` is the size of one.
    """

    parameters: dict[str, int]
    state: int
    step: int
    grid: int
    evaluation: int
    checkpoint: int

    @property
    def on_cpu(self) -> int:
        """Return the main memory that training needs, in bytes, without the program itself.

        The allocator keeps freed memory, and blocks of one kind of work rarely fit another. So
        steps, grids and the buffer of a checkpoint add up; the blocks of an evaluation are larger
        than those of steps and are reused by them.
        """
        work = max(self.step, self.evaluation)
        return _RECORDS + self.state + self.grid + work + self.checkpoint

    @property
    def on_gpu(self) -> int:
        """Return the GPU memory that training needs, in bytes."""
        return int(self.state + _SPLIT * max(self.step, self.grid, self.evaluation))


def state_bytes(state: State, config: Config) -> int:
    """Return the bytes of weights, buffers, moving average and the optimisers' moments."""
    size = sum(
        tensor.numel() * tensor.element_size()
        for network in state.networks.values()
        for tensor in (*network.parameters(), *network.buffers())
    )
    trained = (state.g_networks, state.d_networks)
    for networks, options in zip(trained, optimizers(config), strict=True):
        size += 4 * sum(map(count_parameters, networks.values())) * moments(options)
    return size


def measure_run(
    config: Config,
    shape: ImageShape,
    device: torch.device,
    ranks: Distributed,
    evaluated: bool = False,
) -> Measured:
    """Measure the memory of a run, with or without evaluations, with separate networks.

    Steps are measured on as many images as pass the networks at once; if these are more than eight,
    on two small batches, and extrapolated. Everything allocated is freed.

    Raises:
        UserError: the device does not have enough memory even for the measurement.
    """
    cudnn = torch.backends.cudnn
    benchmark, cudnn.benchmark = cudnn.benchmark, False  # not for a few steps on other batches
    try:
        state = new_state(config, shape, device)
        found = Measured(
            {
                name: count_parameters(network)
                for name, network in (state.g_networks | state.d_networks).items()
            },
            state_bytes(state, config),
            _step_bytes(state, config, shape, ranks),
            _grid_bytes(state, config, shape),
            _evaluation_bytes(config, shape, device) if evaluated and ranks.is_main else 0,
            checkpoint_bytes(state, config, shape),
        )
    except RuntimeError as error:
        if not _is_exhausted(error):
            raise
    else:
        del state
        gc.collect()
        release_freed()
        return found
    finally:
        cudnn.benchmark = benchmark
    available = available_bytes(device)  # here the error no longer holds the tensors
    there = "available" if available is None else f"the {available / 1e9:.1f} GB available"
    raise UserError(f"batch: training needs more memory than {there}; {MEMORY_HINT}")


def _step_bytes(state: State, config: Config, shape: ImageShape, ranks: Distributed) -> int:
    """Return the maximum of live bytes in a training step, without the state."""
    share = -(-config.batch // ranks.world_size)
    count = min(config.micro_batch or share, share)
    pixels = shape.height * shape.width * shape.channels * config.method.sets
    # all micro-batches of a batch are floats at once; prefetched batches are bytes
    extra = 4 * pixels * (share - count) + _QUEUED * pixels * share
    few, more = (size * config.discriminator.packing for size in _BATCHES)
    if count <= more:
        return max(_step_course(state, config, shape, count)) + extra
    courses = [_step_course(state, config, shape, size) for size in (few, more)]
    return int(extended(courses[0], courses[1], (few, more), count)) + extra


def _step_course(state: State, config: Config, shape: ImageShape, count: int) -> Course:
    # a step of all networks needs at least as much as one of some
    small = replace(
        config, batch=count, micro_batch=0, n_critic=1, compile=False, blocks=BlockOptions(),
        discriminator=replace_known(config.discriminator, features_kimg=0.0),
    )  # fmt: skip
    device = next(state.generator.parameters()).device
    channels = shape.channels * config.method.sets
    images = torch.zeros((count, shape.height, shape.width, channels), dtype=torch.uint8)
    batch = Batch(images.permute(0, 3, 1, 2), torch.zeros(count, dtype=torch.int64))
    g_options, d_options = optimizers(config)
    state.g_optimizer = make_optimizer(g_options, state.g_networks.values(), device)
    state.d_optimizer = make_optimizer(d_options, state.d_networks.values(), device)
    step, meter = Step(small, state, device), live_meter(device)

    def run() -> None:
        # each course starts in the same way, with periodic penalties due, so that it has the same
        # operators
        state.steps, state.scalars, state.replay = 0, {}, {}
        step([batch])
        for optimizer in (state.g_optimizer, state.d_optimizer):
            optimizer.zero_grad(set_to_none=True)

    with meter:
        meter.warm_up(run)
        run()
    return meter.without(optimizer_tensors(state))  # they are part of the state


def optimizer_tensors(state: State) -> list[Tensor]:
    """Return the moments that the optimisers store so far."""
    return [
        value
        for optimizer in (state.g_optimizer, state.d_optimizer)
        for values in optimizer.state.values()
        for value in values.values()
        if isinstance(value, Tensor) and value.ndim
    ]


def _grid_bytes(state: State, config: Config, shape: ImageShape) -> int:
    """Return the maximum of live bytes while a grid of samples is generated."""
    device = next(state.generator.parameters()).device
    count = min(config.record.grid, _GENERATED_AT_ONCE)
    average = state.g_ema.eval()

    def course(size: int) -> Course:
        latents = fixed_latents(config.latent, size, average.z_dim, config.seed, device)
        if config.method.sets > 1:  # images are translated
            latents = torch.zeros(size, shape.channels, shape.height, shape.width, device=device)
        with live_meter(device) as live:
            images = generate_images(
                average, latents, torch.zeros(size, dtype=torch.int64, device=device)
            )
        make_grid(images)  # so that the program's memory includes the libraries it needs
        return list(live.course)

    few, more = _BATCHES
    if count <= more:
        return max(course(count))
    return int(extended(course(few), course(more), (few, more), count))


def _evaluation_bytes(config: Config, shape: ImageShape, device: torch.device) -> int:
    """Return the maximum of live bytes while image features are computed; 0 if that is not
    possible here, which the run reports itself."""
    try:
        network = on_background(
            load_feature_network(config.evaluate.features, device),
            shape.channels,
            config.evaluate.background,
        )
    except UserError:
        return 0

    def course(size: int) -> Course:
        images = torch.zeros((size, shape.channels, shape.height, shape.width), dtype=torch.uint8)
        with live_meter(device) as live:
            network.features(images)
        return list(live.course)

    alive = extended(course(_BATCHES[0]), course(_BATCHES[1]), _BATCHES, BATCH)
    return int(alive * (_REORDERED if device.type == "cpu" else 1))


def program_bytes(held: int) -> int:
    """Return the main memory of this process besides `held` bytes of tensors: interpreter,
    libraries and buffers of kernels."""
    resident = status_bytes("VmRSS")
    return _PROGRAM if resident is None else max(0, resident - held)


def _is_exhausted(error: RuntimeError) -> bool:
    """Return True if the error means that memory is exhausted; CPU and MPS have no error class
    for it."""
    return isinstance(error, torch.OutOfMemoryError) or any(
        words in str(error) for words in _EXHAUSTED
    )


def check_memory(found: Forecast, device: torch.device) -> None:
    """Raise if a run does not fit into memory.

    Raises:
        UserError: it does not; the message contains suggestions.
    """
    need = found.memory + found.kept.on_device
    if device.type == "cpu":
        need += found.kept.in_memory
    if found.available is not None and need > found.available:
        raise UserError(
            f"batch: training needs about {need / 1e9:.1f} GB of memory, "
            f"{found.available / 1e9:.1f} GB are available; {MEMORY_HINT}"
            f"{', or --data.device_gb 0' if found.kept.on_device else ''}"
        )
