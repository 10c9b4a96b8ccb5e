"""Whole runs of `training.fit` for `benchmarks/gpu.py`: cadence, kill and resume, auto."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from gpu_steps import TINY
from noise_shards import write_shards

from training.catalogue import image_shape
from training.options.resolve import resolve

PROJECT = Path(__file__).resolve().parents[1]
NO_CADENCE = {
    "record.sample_kimg": "1e9", "record.checkpoint_kimg": "1e9",
    "record.checkpoint_minutes": "1e6", "record.log_kimg": "1e9", "evaluate.kimg": "0",
}  # fmt: skip
"""Options of a run that writes and evaluates nothing before its end."""

_POLL_SECONDS = 0.01


def as_arguments(options: dict[str, str]) -> list[str]:
    """Return options by dotted key as arguments of a command."""
    return [word for key, value in options.items() for word in (f"--{key}", value)]


def start(module: str, *arguments: str) -> subprocess.Popen[str]:
    """Start `python -m MODULE` with pipes."""
    command = [sys.executable, "-m", module, *arguments]
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Return the last JSON line of a command.

    Raises:
        RuntimeError: it failed.
    """
    out, err = process.communicate()
    if process.returncode:
        raise RuntimeError(f"exit status {process.returncode}: {(err or out).strip()[-500:]}")
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def fit_arguments(
    shards: Path, run: Path, preset: str, dry: bool, options: dict[str, str]
) -> list[str]:
    """Return the arguments of `training.fit`; `dry`: a tiny network on one core."""
    tiny = TINY.get(preset, {}) | {"threads": "1"} if dry else {}
    words = as_arguments(tiny | options)
    device = "cpu" if dry else "cuda"
    return ["--shards", str(shards), "--run", str(run), "--preset", preset, "--device", device,
            "--json", *words]  # fmt: skip


def noise_for(folder: Path, preset: str, dry: bool, images: int) -> Path:
    """Write shards of noise of the size of `preset` to `folder`; return where they are."""
    shape = image_shape(resolve(preset, TINY[preset] if dry else {}))
    write_shards(folder / "noise", shape.height, shape.width, shape.channels, images)
    return folder / "noise"


def images_per_second(summary: dict[str, Any], run: Path) -> float:
    """Return the mean rate of a whole run, start and end included."""
    seen = max(int(path.stem) for path in (run / "checkpoints").glob("*.pt"))
    return float(seen / summary["seconds"])


def job_cadence(preset: str, dry: bool) -> dict[str, Any]:
    """`training.fit` from start to end with the default cadence and with none."""
    found: dict[str, Any] = {"problems": []}
    kimg = {"total_kimg": "0.2"} if dry else {"total_kimg": "400", "max_hours": "0.012"}
    quick = {"record.sample_kimg": "0.1", "record.log_kimg": "0.05"} if dry else {}
    with tempfile.TemporaryDirectory(prefix="gpu-") as place:
        folder = Path(place)
        shards = noise_for(folder, preset, dry, 64 if dry else 2000)
        for name, options in (("default", quick), ("none", NO_CADENCE)):
            words = fit_arguments(shards, folder / name, preset, dry, kimg | options)
            summary = finish(start("training.fit", *words))
            found[f"{name}_images_per_second"] = round(images_per_second(summary, folder / name), 1)
    outside = 1 - found["default_images_per_second"] / found["none_images_per_second"]
    found["outside_steps"] = round(outside, 4)
    return found


def tensors(values: Any, name: str = "") -> dict[str, torch.Tensor]:
    """Return the tensors of nested dictionaries and lists by their path."""
    if isinstance(values, torch.Tensor):
        return {name: values}
    items = values.items() if isinstance(values, dict) else (
        enumerate(values) if isinstance(values, list | tuple) else ()
    )  # fmt: skip
    return {
        key: one for part, value in items for key, one in tensors(value, f"{name}.{part}").items()
    }


def newest_state(run: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of the newest checkpoint of `run`."""
    newest = max((run / "checkpoints").glob("*.pt"))
    return tensors(torch.load(newest, map_location="cpu", weights_only=True)["state"])


def kill_after_checkpoint(process: subprocess.Popen[str], run: Path) -> bool:
    """Kill a run (SIGKILL) once its first checkpoint is complete; False if it ended before."""
    while process.poll() is None:
        if any((run / "checkpoints").glob("*.json")):
            process.kill()
            break
        time.sleep(_POLL_SECONDS)
    process.communicate()
    return process.returncode < 0


def resume_differences(preset: str, dry: bool, kimg: float) -> tuple[bool, list[str]]:
    """Return whether a deterministic run of `kimg` was killed, and the names of the tensors that
    differ after it was resumed from those of a run that was not."""
    options = {
        "total_kimg": f"{kimg:g}", "record.checkpoint_kimg": f"{kimg / 10:g}",
        "record.log_kimg": f"{kimg / 10:g}", "evaluate.kimg": "0", "deterministic": "true",
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="gpu-") as place:
        folder = Path(place)
        shards = noise_for(folder, preset, dry, 64 if dry else 2000)
        whole, killed = (
            fit_arguments(shards, folder / name, preset, dry, options)
            for name in ("whole", "killed")
        )
        finish(start("training.fit", *whole))
        was_killed = kill_after_checkpoint(start("training.fit", *killed), folder / "killed")
        finish(start("training.fit", *killed))
        one, other = newest_state(folder / "whole"), newest_state(folder / "killed")
    if one.keys() != other.keys():
        return was_killed, sorted(one.keys() ^ other.keys())
    return was_killed, [name for name, value in one.items() if not torch.equal(value, other[name])]


def job_resume(preset: str, dry: bool, kimg: str) -> dict[str, Any]:
    """`kill -9` and resume with --deterministic: bit-equal to a run that was not killed."""
    was_killed, different = resume_differences(preset, dry, float(kimg))
    problems = [f"{name}: differs after the run was resumed" for name in different[:3]]
    if not was_killed:
        problems.append("the run ended before it was killed; give it more kimg")
    return {"different_tensors": len(different), "problems": problems}


def job_auto(dry: bool, hours: str) -> dict[str, Any]:
    """`--preset auto --hours` on noise of 64 px, and the Fréchet distance of its result."""
    options = {"hours": hours}
    with tempfile.TemporaryDirectory(prefix="gpu-") as place:
        folder = Path(place)
        side, images = (16, 128) if dry else (64, 2000)
        write_shards(folder / "noise", side, side, 3, images)
        words = fit_arguments(folder / "noise", folder / "run", "auto", dry, options)
        summary = finish(start("training.fit", *words))
        kimg = max(int(p.stem) for p in (folder / "run" / "checkpoints").glob("*.pt")) / 1000
        samples = "50" if dry else "1000"
        evaluated = finish(start(
            "training.evaluate", str(folder / "run"), "--json", "--samples", samples,
            "--real", "100" if dry else "1000", "--device", "cpu" if dry else "cuda",
        ))  # fmt: skip
    metrics = evaluated["runs"][0]["metrics"]
    (distance,) = (value for name, value in metrics.items() if name.startswith("fd_"))
    problems = [] if kimg else ["the run ended before its first step; give it more hours"]
    return {"kimg": kimg, "seconds": summary["seconds"], "fd": round(distance["value"], 2),
            "fd_of_real_images": round(distance["baseline"], 2), "problems": problems}  # fmt: skip
