"""Training on a CUDA device: equal to the CPU, without waiting, and exact after a kill."""

from __future__ import annotations

import io

import pytest
import torch
from gpu_runs import job_auto, job_cadence, resume_differences
from gpu_speed import graph_differences, measure_speed, synchronizations
from gpu_steps import (
    MOST_ERROR,
    PRESETS,
    agreement,
    new_training,
    phase_gradients,
    relative_errors,
)

from training.snapshot import copy_to_host, take_snapshot

pytestmark = [pytest.mark.gpu, pytest.mark.slow]
SMALL = {"batch": "4", "micro_batch": "0"}


@pytest.mark.parametrize("preset", PRESETS)
def test_gradients_of_each_phase_are_those_of_the_cpu(preset: str) -> None:
    phases = agreement(preset, SMALL, "cuda")
    assert {"D", "G"} <= set(phases)
    assert {name: one for name, one in phases.items() if not one.is_small} == {}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_plain_step_does_not_wait_for_the_gpu(preset: str) -> None:
    assert synchronizations(new_training(preset, {**SMALL, "precision": "bf16"}, "cuda")) == {}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_kernels_and_memory_are_measured(preset: str, precision: str) -> None:
    found = measure_speed(preset, {**SMALL, "precision": precision}, "cuda", 0.0)
    assert found["peak_gb"] > 0
    assert found["kernels_per_step"] > 10
    assert 0 < found["utilization"] <= 1


@pytest.mark.parametrize(("preset", "kimg"), [("dcgan64", 100.0), ("stylegan2-64", 6.0)])
def test_a_killed_deterministic_run_ends_bit_for_bit_the_same(preset: str, kimg: float) -> None:
    assert resume_differences(preset, False, kimg) == (True, [])


@pytest.mark.parametrize("preset", ["dcgan64", "projected256"])
def test_steps_as_cuda_graphs_give_the_weights_of_plain_steps(preset: str) -> None:
    assert graph_differences(preset, {**SMALL, "precision": "bf16"}, 24) == []


@pytest.mark.parametrize("preset", ["stylegan2-64", "r3gan64"])
def test_separable_filters_give_the_gradients_of_convolutions(preset: str) -> None:
    gradients = [
        phase_gradients(new_training(preset, {**SMALL, "fir": fir, "precision": "fp32"}, "cuda"))
        for fir in ("conv", "separable")
    ]
    errors = relative_errors(*gradients)
    assert max(errors.values()) < MOST_ERROR, errors


def test_a_snapshot_is_what_the_values_were_when_it_was_taken() -> None:
    weight = torch.ones(1 << 22, device="cuda").view(2, 2, 1 << 10, 1 << 10)
    values = {"weight": weight.contiguous(memory_format=torch.channels_last), "step": 3}
    snapshot = take_snapshot(values)
    values["weight"].zero_()
    loaded = torch.load(io.BytesIO(snapshot.content()), weights_only=True)
    assert (loaded["step"], loaded["weight"].device.type) == (3, "cpu")
    assert bool((loaded["weight"] == 1).all())
    assert copy_to_host(values)["weight"].is_pinned()


def test_the_whole_command_and_the_automatic_preset() -> None:
    assert job_cadence("dcgan64", dry=False)["problems"] == []
    assert job_auto(dry=False, hours="0.01")["problems"] == []
