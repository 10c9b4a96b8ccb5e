"""Is the trainer right on a GPU, and how fast is it?

`python benchmarks/gpu.py` needs a CUDA device and ends within nine minutes. Each job runs in a
process of its own with a time limit and prints one line of JSON, the most wanted first:

1. `agreement`: the gradients of each phase of a step (D, R1, G, path length) on the CPU and on the
   GPU, in fp32 without TF32;
2. `speed`: seconds per kimg, peak memory, GPU utilisation, synchronisations by file and line, and
   the longest kernels, in bf16, then compiled and in fp16;
3. `cadence`: `training.fit` with its default intervals of writing, and with none;
4. `resume`: `kill -9` and resume with `--deterministic`, bit for bit;
5. `auto`: `--preset auto` and the Fréchet distance of its result;
6. `graphs`: steps as CUDA graphs, which must give the weights of plain steps, and their speed.

`--dry` runs every job but `graphs` on the CPU with tiny networks. Exit status 1 if a job failed or
found a problem. `benchmarks/gpu.md` describes the results.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from gpu_runs import job_auto, job_cadence, job_resume
from gpu_speed import job_graphs, job_speed
from gpu_steps import PRESETS, job_agreement

KINDS: dict[str, Callable[..., dict[str, Any]]] = {
    "agreement": job_agreement,
    "speed": job_speed,
    "cadence": job_cadence,
    "resume": job_resume,
    "auto": job_auto,
    "graphs": job_graphs,
}
ADA = {"augment.ada": "bgc", "augment.p": "0.5"}
BUDGET_SECONDS = 520.0
_DRY_SECONDS = 3600.0
"""For all jobs on the CPU, and for one: a core compiles StyleGAN2 for minutes."""
_LEAST_SECONDS = 10.0


@dataclass(frozen=True)
class Job:
    """A job of one of `KINDS` with the arguments of its function, and its limit in seconds."""

    kind: str
    limit: float
    arguments: dict[str, str] = field(default_factory=dict)


def all_jobs(dry: bool) -> list[Job]:
    """Return the jobs in the order in which they run."""
    small, large = "0.4", "0.2"
    bf16, ada = {"precision": "bf16"}, "stylegan2-paper256"
    return [
        *(Job("agreement", 60, {"preset": preset}) for preset in PRESETS),
        *(Job("speed", 45, {"preset": preset, **bf16}) for preset in PRESETS),
        Job("speed", 45, {"preset": ada, **bf16, **ADA}),
        Job("cadence", 110, {"preset": "dcgan64"}),
        Job("resume", 60, {"preset": "dcgan64", "kimg": small if dry else "100"}),
        Job("resume", 90, {"preset": "stylegan2-64", "kimg": large if dry else "6"}),
        Job("auto", 170, {"hours": "0.005" if dry else "0.03"}),
        *(Job("speed", 90, {"preset": preset, **bf16, "compile": "true"})
          for preset in ("dcgan64", "stylegan2-64", "fastgan256")),
        Job("speed", 45, {"preset": "stylegan2-64", **bf16, "fir": "separable"}),
        *(Job("graphs", 45, {"preset": preset, **bf16})
          for preset in ("dcgan64", "projected256") if not dry),
        *(Job("speed", 45, {"preset": preset, "precision": "fp16"}) for preset in PRESETS),
        Job("speed", 45, {"preset": ada, "precision": "fp16", **ADA}),
        Job("speed", 90, {"preset": ada, **bf16, **ADA, "compile": "true"}),
    ]  # fmt: skip


def run_here(kind: str, dry: bool, arguments: dict[str, str]) -> dict[str, Any]:
    """Return the result of a job in this process; packages that training does not need are a
    problem of it."""
    if dry:
        torch.set_num_threads(1)
    found = KINDS[kind](dry=dry, **arguments)
    if "prefect" in sys.modules:
        found["problems"].append("prefect was imported; training does not need it")
    return found


def run_job(job: Job, dry: bool, limit: float) -> dict[str, Any]:
    """Return the result of a job in a process of its own, which is killed with its children after
    `limit` seconds."""
    command = [sys.executable, __file__, "--job", job.kind, json.dumps(job.arguments)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    process = subprocess.Popen(
        [*command, *(["--dry"] if dry else [])], text=True, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        return {"problems": [f"not finished after {limit:.0f} s"]}
    finally:
        if process.poll() is None:  # too slow, or Ctrl-C
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    try:
        found: dict[str, Any] = json.loads(out.splitlines()[-1])
    except (IndexError, ValueError):
        last = (err.strip().splitlines() or ["no output"])[-1]
        return {"problems": [f"exit status {process.returncode}: {last}"]}
    return found


def machine() -> dict[str, Any]:
    """Return the card, its driver and the versions that figures depend on. The card is asked for by
    `nvidia-smi`: a CUDA context of this process would take memory from the jobs."""
    found: dict[str, Any] = {
        "python": sys.version.split()[0], "torch": torch.__version__, "cuda": torch.version.cuda,
    }  # fmt: skip
    if torch.cuda.is_available():
        fields = "name,driver_version,memory.total"
        query = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
        try:
            said = subprocess.run(query, capture_output=True, text=True, check=True, timeout=10)
            found["gpu"] = said.stdout.splitlines()[0].strip()
        except (OSError, subprocess.SubprocessError, IndexError) as error:
            found["gpu"] = f"unknown: {error}"
    return found


def run_all(jobs: Sequence[Job], dry: bool, budget: float, out: Path | None) -> int:
    """Run jobs while the budget (seconds) lasts and print a line for each; the exit status."""
    end, failed = time.monotonic() + budget, False

    def tell(line: dict[str, Any]) -> None:
        text = json.dumps(line)
        print(text, flush=True)
        if out is not None:
            with out.open("a") as file:
                file.write(text + "\n")

    tell({"job": "machine", "date": time.strftime("%Y-%m-%d"), **machine()})
    for job in jobs:
        start = time.monotonic()
        limit = min(_DRY_SECONDS if dry else job.limit, end - start)
        if limit < _LEAST_SECONDS:
            found: dict[str, Any] = {"problems": ["skipped: no time was left"]}
        else:
            found = run_job(job, dry, limit)
        failed |= bool(found["problems"])
        wall = round(time.monotonic() - start, 1)
        tell({"job": job.kind, **job.arguments, "wall_s": wall, **found})
    return int(failed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--dry", action="store_true", help="tiny networks on the CPU")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS), metavar="JOB",
                        help=f"kinds of jobs: {', '.join(KINDS)} (default: all)")  # fmt: skip
    parser.add_argument("--presets", nargs="+", choices=PRESETS, metavar="PRESET",
                        help="only jobs of these presets (default: all jobs)")  # fmt: skip
    parser.add_argument(
        "--budget", type=float, metavar="SECONDS",
        help=f"for all jobs (default: {BUDGET_SECONDS:g}; with --dry, an hour)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="FILE", help="also append the lines to FILE")
    parser.add_argument("--job", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.job:
        print(json.dumps(run_here(args.job[0], args.dry, json.loads(args.job[1]))))
        return 0
    if not (args.dry or torch.cuda.is_available()):
        parser.error("no CUDA device on this machine; --dry runs the jobs on the CPU")
    jobs = [
        job for job in all_jobs(args.dry)
        if job.kind in args.only
        and (not args.presets or job.arguments.get("preset") in args.presets)
    ]  # fmt: skip
    budget = args.budget or (_DRY_SECONDS if args.dry else BUDGET_SECONDS)
    return run_all(jobs, args.dry, budget, args.out)


if __name__ == "__main__":
    sys.exit(main())
