"""`benchmarks/gpu.py --dry`: its jobs on the CPU, and its limits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import gpu
import gpu_steps
import pytest
import torch
from gpu_runs import resume_differences
from gpu_speed import cycle_length, project_line, synchronizations
from gpu_steps import PRESETS, TINY, agreement, new_training, phase_gradients, relative_errors

from tests.helpers.processes import child_env

PROJECT = Path(__file__).resolve().parents[2]


def test_each_job_prints_one_line_and_finds_no_problem() -> None:
    command = [sys.executable, str(PROJECT / "benchmarks" / "gpu.py"), "--dry",
               "--only", "agreement", "--presets", "stylegan2-64"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=child_env(), check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    machine, agrees = (json.loads(line) for line in done.stdout.splitlines())
    assert machine["job"] == "machine"
    assert (agrees["job"], agrees["preset"]) == ("agreement", "stylegan2-64")
    assert agrees["problems"] == []
    assert agrees["relative_errors"].keys() == {"D", "R1", "G", "path length"}


@pytest.mark.slow
def test_speed_is_measured_over_whole_cycles() -> None:
    assert gpu.all_jobs(dry=True)[6].kind == "speed"
    found = gpu.run_job(gpu.all_jobs(dry=True)[6], True, 250.0)
    assert found["problems"] == []
    assert 0 < found["s_per_kimg"] <= found["slowest_s_per_kimg"]
    assert found["kernels_per_step"] > 10
    assert found["top_kernels_ms"]
    cycles = {
        preset: cycle_length(new_training(preset, TINY[preset], "cpu"))
        for preset in ("dcgan64", "stylegan2-64")
    }
    assert cycles == {"dcgan64": 8, "stylegan2-64": 16}


@pytest.mark.slow
def test_a_killed_run_is_compared_with_a_whole_one() -> None:
    assert resume_differences("dcgan64", True, 0.2) == (True, [])


def test_training_is_all_that_a_job_imports() -> None:
    code = "import gpu, sys; sys.exit('prefect' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT / "benchmarks", check=True,
                   env=child_env())  # fmt: skip


class Interrupted(subprocess.Popen[str]):
    """A process during which Ctrl-C is pressed once."""

    started: ClassVar[list[Interrupted]] = []

    def communicate(self, *given: Any, **named: Any) -> tuple[str, str]:
        self.started.append(self)
        if len(self.started) == 1:
            raise KeyboardInterrupt
        return super().communicate(*given, **named)


@pytest.mark.slow
def test_a_job_that_hangs_or_fails_costs_only_itself(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [
        gpu.Job("agreement", 60, {"preset": "no such preset"}),
        gpu.Job("agreement", 60, {"preset": "dcgan64"}),
        gpu.Job("agreement", 60, {"preset": "dcgan64"}),
    ]
    assert gpu.run_job(jobs[1], True, 0.01)["problems"] == ["not finished after 0 s"]
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            gpu.run_job(jobs[1], True, 60.0)
    assert Interrupted.started[0].poll() is not None
    assert gpu.run_all(jobs[:1], True, 60.0, None) == 1
    (_, line) = map(json.loads, capsys.readouterr().out.splitlines())
    assert line["problems"] == ["exit status 1: KeyError: 'no such preset'"]
    assert gpu.run_all(jobs[1:], True, 1.0, None) == 1
    (_, *lines) = map(json.loads, capsys.readouterr().out.splitlines())
    assert [one["problems"] for one in lines] == [["skipped: no time was left"]] * 2


@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "fastgan256"])
def test_agreement_covers_every_phase(preset: str) -> None:
    phases = agreement(preset, TINY[preset], "cpu")
    stylegan2 = {"R1", "path length"} if "stylegan2" in preset else set()
    assert phases.keys() == {"D", "G"} | stylegan2
    assert all(one.is_small for one in phases.values())
    assert any(one.error > 0 for one in phases.values())


def test_a_wrong_gradient_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    gradients = phase_gradients(new_training("stylegan2-64", TINY["stylegan2-64"], "cpu"))
    wrong = gradients | {"R1": gradients["R1"] * 1.01}
    assert relative_errors(wrong, gradients)["R1"] == pytest.approx(0.01)
    with pytest.raises(ValueError, match="phases D instead of"):
        relative_errors({"D": gradients["D"]}, gradients)
    given = iter([gradients, gradients, wrong])
    monkeypatch.setattr(gpu_steps, "phase_gradients", lambda _: next(given))
    found: Any = gpu_steps.job_agreement("stylegan2-64", dry=True)
    (problem,) = found["problems"]
    assert problem.startswith("R1: relative error 1.0e-02, from rounding 0.0e+00;")


def test_no_phase_changes_the_weights() -> None:
    training = new_training("stylegan2-64", TINY["stylegan2-64"], "cpu")
    before = [weight.clone() for weight in training.state.discriminator.parameters()]
    phase_gradients(training)
    after = training.state.discriminator.parameters()
    assert all(torch.equal(one, two) for one, two in zip(before, after, strict=True))


def test_random_numbers_do_not_depend_on_generators() -> None:
    def draw(seed: int) -> list[torch.Tensor]:
        random = torch.Generator().manual_seed(seed)
        with gpu_steps.CpuRandom():
            return [
                torch.randn(3, generator=random, device="cpu"), torch.rand(2, 2),
                torch.randint(5, (4,), generator=random), torch.randperm(6),
                torch.randn_like(torch.zeros(2, dtype=torch.float64)),
                torch.empty(3).normal_(0, 2, generator=random),
            ]  # fmt: skip

    for one, other in zip(draw(1), draw(2), strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


def test_reads_of_numbers_are_told_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    training = new_training("dcgan64", TINY["dcgan64"], "cpu")
    assert synchronizations(training) == {}
    step = training.step

    def reading(batches: Any) -> Any:
        stats = step(batches)
        float(stats["loss_d"])
        return stats

    object.__setattr__(training, "step", reading)
    assert list(synchronizations(training).values()) == [1]
    assert project_line().rpartition(":")[2].isdigit()
