"""Time of `training.walk`: an mp4 of 60 s at 64 px and 30 frames/s, with untrained generators.

CPU seconds of all threads are measured, because other processes slow the clock down; on two cores
the video takes at least half of that. `--json` prints as the last line `cpu_PRESET` and
`wall_PRESET` in seconds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import wave
from pathlib import Path

import numpy as np
import torch

from training import checkpoint, walk
from training.networks import ImageShape, build_generator
from training.options.resolve import flatten, resolve

SIZE, SECONDS, FPS, IMAGES = 64, 60, 30, 12


def make_run(folder: Path, preset: str) -> None:
    """Write the run of an untrained generator."""
    torch.manual_seed(0)
    config = resolve(preset, {})
    dataset = {
        "location": "", "name": "none", "digest": "0" * 64, "samples": 1, "channels": 3,
        "labels": [], "height": SIZE, "width": SIZE,
    }  # fmt: skip
    generator = build_generator(config.generator, ImageShape(SIZE, SIZE, 3, 0))
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"config": flatten(config), "dataset": dataset}))
    state = {"average": generator.state_dict(), "seen": 1}
    checkpoint.save(folder / "checkpoints", 1, {"state": state}, 1)


def write_sound(path: Path) -> None:
    """Write a minute of beats: a decaying tone of 60 Hz twice a second."""
    rate = 44_100
    age = np.arange(SECONDS * rate) / rate % 0.5
    samples = np.exp(-age / 0.1) * np.sin(2 * np.pi * 60 * age) * 0.8
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes((samples * 32767).astype("<i2").tobytes())


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presets", default="dcgan64,projected64", metavar="LIST")
    parser.add_argument("--speed", default="latent", choices=["latent", "features", "pixels"])
    parser.add_argument("--audio", action="store_true", help="with a sound that drives the video")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_sound(folder / "beats.wav")
        length = ["--audio", str(folder / "beats.wav")] if args.audio else []
        length = length or ["--seconds", str(SECONDS / IMAGES)]
        for preset in args.presets.split(","):
            make_run(folder / preset, preset)
            arguments = [
                str(folder / preset), "--numbers", f"1-{IMAGES}", "--fps", str(FPS), "--device",
                "cpu", "--out", str(folder / "walk.mp4"), "--speed", args.speed, *length,
            ]  # fmt: skip
            cpu, wall = time.process_time(), time.perf_counter()
            if walk.main(arguments):
                raise SystemExit(2)
            found[f"cpu_{preset}"] = round(time.process_time() - cpu, 2)
            found[f"wall_{preset}"] = round(time.perf_counter() - wall, 2)
            print(f"{preset}: {found[f'cpu_{preset}']} s of CPU, {found[f'wall_{preset}']} s")
    if args.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
