"""Steps as graphs, with a stand-in for CUDA's: equal to plain steps, bit for bit.

The stand-in repeats the Python function of a step, with the position that it was captured at, and
checks that no tensor was replaced. What only a GPU can show, tests/gpu and `benchmarks/gpu.py` do.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from gpu_steps import PRESETS, TINY, Training, new_training
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import training.loop
import training.preparation
from pipeline.contract import UserError
from tests.helpers.training_runs import read_run
from training.config import Config
from training.cuda_graphs import CudaGraphs, GraphedStep, check_graphs
from training.loss_terms import Stats
from training.machine.distributed import SINGLE_PROCESS, Distributed
from training.options.resolve import resolve
from training.snapshot import tensors_of
from training.state import State

CPU = torch.device("cpu")
_STYLEGAN2 = {"loss.interval": "4", "loss.path_interval": "2", "generator.style_mixing_prob": "0"}
ALLOWED = {
    "stylegan2-64": _STYLEGAN2,
    "stylegan2-paper256": _STYLEGAN2,
    "r3gan64": {
        "burn_in.kimg": "0.012",  # three steps
        "augment.ada": "[]", "augment.p": "adaptive",
    },
    "fastgan256": {"discriminator.reconstruction": "none"},
}  # fmt: skip
"""What presets need for graphs, with short intervals."""


class RepeatedGraphs:
    """`Graphs` that call the captured function again."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.captures = self.replays = self.drops = 0

    def run(self, work: Callable[[], Any]) -> Any:
        return work()

    def capture(self, work: Callable[[], Stats]) -> tuple[Callable[[], object], Stats]:
        state, tensors = self._state, tensors_of(self._state.tensors())
        at, before = (state.seen, state.steps), [tensor.clone() for tensor in tensors]
        stats = work()
        for tensor, old in zip(tensors, before, strict=True):  # kernels do not run yet
            tensor.copy_(old)
        places = self._places()
        self.captures += 1

        def replay() -> None:
            assert self._places() == places
            now, (state.seen, state.steps) = (state.seen, state.steps), at
            new = work()
            state.seen, state.steps = now
            for name, value in new.items():
                stats[name].copy_(value)
            assert self._places() == places
            self.replays += 1

        return replay, stats

    def forget(self) -> None:
        self.drops += 1

    def _places(self) -> list[int]:
        return [tensor.data_ptr() for tensor in tensors_of(self._state.tensors())]


def pair(preset: str, **more: str) -> tuple[Training, Training, RepeatedGraphs]:
    """A plain step, and one of graphs with an equal state."""
    options = {**TINY[preset], **ALLOWED.get(preset, {}), **more}
    resolve(preset, {**options, "cuda_graphs": "true"})
    plain, other = (new_training(preset, options, "cpu") for _ in range(2))
    graphs = RepeatedGraphs(other.state)
    step = GraphedStep(other.config, other.state, CPU, SINGLE_PROCESS, graphs)
    return plain, Training(other.config, other.state, step, other.batch, CPU), graphs


def take_steps(plain: Training, other: Training, count: int) -> None:
    """Take steps on changing images; all stats and states must be equal."""
    kept: list[tuple[Stats, Stats]] = []
    for _ in range(count):
        batch = copy.deepcopy(plain.batch)
        batch.images.add_(plain.state.steps % 7)
        kept.append((plain.step([batch]), other.step([batch])))
        for one, two in zip(
            *(tensors_of(each.state.tensors()) for each in (plain, other)), strict=True
        ):
            assert torch.equal(one, two)
    for expected, found in kept:  # later steps do not change them
        assert expected.keys() == found.keys()
        assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize("preset", PRESETS)
def test_replayed_steps_are_plain_ones(preset: str) -> None:
    plain, other, graphs = pair(preset, precision="fp32")
    count, kinds = (9, 3) if "stylegan2" in preset else (4, 1)
    burnt_in = 3 if preset == "r3gan64" else 0
    take_steps(plain, other, burnt_in + count)
    assert (graphs.captures, graphs.replays) == (kinds, count - kinds)


def test_loading_a_state_drops_the_graphs() -> None:
    plain, other, graphs = pair("dcgan64")
    take_steps(plain, other, 4)
    drops = graphs.drops
    saved = copy.deepcopy(plain.state.tensors())
    for each in (plain, other):
        each.state.load(copy.deepcopy(saved))
    take_steps(plain, other, 4)
    assert (graphs.captures, graphs.drops) == (2, drops + 1)


def test_there_is_no_graph_while_numbers_change() -> None:
    plain, other, graphs = pair("dcgan64", **{"augment.noise": "0.1", "augment.noise_kimg": "0.02"})
    take_steps(plain, other, 5)
    assert graphs.captures == 0
    take_steps(plain, other, 3)
    assert (graphs.captures, graphs.replays) == (1, 2)


def test_optimizers_are_capturable_only_while_a_step_is_captured() -> None:
    plain, other, graphs = pair("dcgan64")
    seen = []
    capture = graphs.capture

    def watch(work: Any) -> Any:
        seen.extend(group["capturable"] for group in other.state.g_optimizer.param_groups)
        return capture(work)

    graphs.capture = watch  # type: ignore[method-assign]
    take_steps(plain, other, 3)
    assert seen == [True]
    assert not other.state.g_optimizer.param_groups[0]["capturable"]


def test_a_step_that_cannot_be_captured_ends_the_run_in_one_line() -> None:
    plain, other, graphs = pair("dcgan64")

    def refuse(_: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    graphs.capture = refuse  # type: ignore[method-assign]
    take_steps(plain, other, 1)
    with pytest.raises(UserError, match=r"could not be captured: operation not permitted .*;"):
        other.step([other.batch])


def leaves(values: Any) -> Iterator[Any]:
    """All that is in nested dicts, lists and tuples."""
    if isinstance(values, dict | list | tuple):
        for value in values.values() if isinstance(values, dict) else values:
            yield from leaves(value)
    else:
        yield values


class Operations(TorchDispatchMode):
    """Records operations with their numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = list(leaves((args, kwargs or {})))
        numbers = [one for one in found if isinstance(one, int | float | str | torch.dtype)]
        shapes = [one.shape for one in found if isinstance(one, Tensor)]
        self.calls.append((func, numbers, shapes))
        return func(*args, **(kwargs or {}))


def operations(training: Training) -> list[Any]:
    with Operations() as seen:
        training.step._train([training.batch])
    return seen.calls


@pytest.mark.parametrize("preset", PRESETS)
def test_steps_of_a_kind_have_the_same_operations_and_numbers(preset: str) -> None:
    """So a graph of one is a graph of all."""
    training, other, _ = pair(preset)
    step: Any = other.step
    taken, found = set(), dict[Any, list[Any]]()
    burnt_in = 3 if preset == "r3gan64" else 0
    for _ in range(burnt_in + (10 if "stylegan2" in preset else 3)):
        state = training.state
        state.steps, state.seen = other.state.steps, other.state.seen
        kind = step._numbers(), step._kind([other.batch])
        calls = operations(training)
        if kind in taken:  # the first step creates what stays
            assert len(calls) > 10
            assert found.setdefault(kind, calls) == calls
        taken.add(kind)
        other.step([other.batch])
    assert len(found) == (3 if "stylegan2" in preset else 1)
    assert len(taken) == len(found) + burnt_in


def test_other_numbers_are_other_operations() -> None:
    """The comparison above would find a number that the kind of a step lacks."""
    training = new_training("dcgan64", TINY["dcgan64"] | {"augment.noise": "0.1"}, "cpu")
    operations(training)
    calls = operations(training)
    assert operations(training) == calls
    scheduled = training.step.loss.scheduled()
    training.step.loss.scheduled = lambda: (0.2, *scheduled[1:])  # type: ignore[method-assign]
    assert operations(training) != calls


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device": "cpu"}, "device cpu has no graphs"),
        ({"precision": "fp16"}, "which steps fp16 skips"),
        ({"augment.ada": "bg", "augment.p": "0.5"}, "augment.ada"),
        ({"g_optimizer.name": "sgd"}, "is adam"),
        ({"d_optimizer.decay_kimg": "10"}, "decay_kimg"),
        ({"compile": "true"}, "with compile"),
        ({"replay.size": "8"}, "with replay.size"),
        ({"unroll.steps": "2", "unroll.lr": "0.1"}, "with unroll.steps"),
        ({"sync_batch_norm": "true"}, "with sync_batch_norm"),
    ],
)
def test_what_graphs_cannot_repeat_is_refused(options: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=f"^cuda_graphs: .*{words}"):
        resolve("dcgan64", {"cuda_graphs": "true", **options})


@pytest.mark.parametrize(
    ("preset", "key"),
    [
        ("stylegan2-64", "generator.style_mixing_prob"), ("r3gan64", "augment.ada"),
        ("fastgan256", "discriminator.reconstruction"),
    ],
)  # fmt: skip
def test_presets_with_decisions_of_the_cpu_are_refused(preset: str, key: str) -> None:
    with pytest.raises(UserError, match=f"^cuda_graphs: .*{key}"):
        resolve(preset, {"cuda_graphs": "true"})


class Fake:
    """Records the calls of CUDA's functions for graphs."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def graph(self, *given: Any, **named: Any) -> Any:
        self.calls.append((given, named))
        return nullcontext()

    def CUDAGraph(self) -> Any:
        return SimpleNamespace(
            register_generator_state=self.calls.append, replay=lambda: self.calls.append("replay")
        )

    def Stream(self, device: Any) -> Any:
        return SimpleNamespace(wait_stream=lambda other: self.calls.append(("waits for", other)))


def test_cuda_captures_with_the_generators_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    fake, cuda = Fake(), torch.device("cuda")
    for name in ("graph", "CUDAGraph", "Stream"):
        monkeypatch.setattr(torch.cuda, name, getattr(fake, name))
    others = fake.Stream(cuda)
    pools = iter(range(9))
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: next(pools))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: others)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    generators = torch.Generator(), torch.Generator()
    graphs = CudaGraphs(cuda, generators)
    replay, stats = graphs.capture(lambda: {"loss": torch.ones(())})
    assert stats == {"loss": torch.ones(())}
    assert fake.calls[:2] == list(generators)
    ((_, pool, stream), named) = fake.calls[2]
    assert (pool, named) == (0, {"capture_error_mode": "thread_local"})
    fake.calls.clear()
    graphs.run(replay)
    assert fake.calls == [("waits for", others), "replay", ("waits for", stream)]
    graphs.forget()
    graphs.capture(dict)
    assert fake.calls[-1][0][1] == 1
    with pytest.raises(RuntimeError, match="random numbers of the CPU"):
        graphs.capture(lambda: {"loss": torch.rand(())})


def test_graphs_need_one_process_on_cuda() -> None:
    config = resolve("dcgan64", {"cuda_graphs": "true"})
    with pytest.raises(UserError, match="cuda_graphs: the device is cpu; only CUDA"):
        check_graphs(config, CPU, SINGLE_PROCESS)
    with pytest.raises(UserError, match="cuda_graphs: not supported with several processes"):
        check_graphs(config, torch.device("cuda"), Distributed(0, 2))
    check_graphs(config, torch.device("cuda"), SINGLE_PROCESS)
    check_graphs(Config(), CPU, Distributed(0, 2))


def test_a_run_on_the_cpu_refuses_graphs_before_it_starts(
    tmp_path: Path, small_shards: Callable[..., Any], in_process: Any
) -> None:
    assert in_process(tmp_path / "runs" / "refused", small_shards(), "--cuda_graphs", "true") == 2
    assert not (tmp_path / "runs" / "refused" / "metrics.jsonl").exists()


class StandIn(GraphedStep):
    def __init__(self, config: Config, state: State, *more: Any) -> None:
        super().__init__(config, state, *more, graphs=RepeatedGraphs(state))


def test_a_run_is_resumed_with_and_without_graphs(
    tmp_path: Path, small_shards: Callable[..., Any], in_process: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(training.loop, "GraphedStep", StandIn)
    monkeypatch.setattr(training.preparation, "check_graphs", lambda *_: None)
    monkeypatch.setattr(training.preparation, "choose_device", lambda _: CPU)
    shards, runs = small_shards(), tmp_path / "runs"
    graphs = ("--device", "auto", "--cuda_graphs", "true")
    assert in_process(runs / "plain", shards) == 0
    assert in_process(runs / "graphs", shards, *graphs, "--total-kimg", "0.2") == 0
    assert in_process(runs / "graphs", shards, *graphs, "--total-kimg", "0.32") == 0
    assert in_process(runs / "graphs", shards, "--cuda_graphs", "false") == 0
    rows, weights = read_run(runs / "plain")
    other_rows, others = read_run(runs / "graphs")
    assert rows == other_rows
    assert all(torch.equal(weights[name], others[name]) for name in weights)
