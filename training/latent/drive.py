"""`--drive`: which signals of a sound change what in a walk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.contract import UserError
from training.latent.audio import SIGNALS, Signal, Sound, measure
from training.latent.cli import float_in_range
from training.latent.sefa import Directions, move
from training.latent.space import LatentSpace
from training.latent.timing import Floats


@dataclass(frozen=True)
class Drive:
    """`signal` changes `target`: `truncation`, `speed` or the number of a direction, from 1."""

    signal: Signal
    target: str
    amount: float


def parse_drives(text: str) -> list[Drive]:
    """Parse drives such as `loudness:truncation:0.4,bass:1:2`.

    Raises:
        UserError: a drive is not SIGNAL:TARGET:AMOUNT.
    """
    drives = []
    for part in text.split(","):
        name, _, rest = part.strip().partition(":")
        target, _, amount = rest.partition(":")
        signal = next((signal for signal in SIGNALS if signal == name), None)
        is_direction = target.isascii() and target.isdecimal() and len(target) < 5
        if signal is None or not (target in ("truncation", "speed") or is_direction):
            raise UserError(
                f"--drive {part}: must be SIGNAL:TARGET:AMOUNT; SIGNAL is one of "
                f"{', '.join(SIGNALS)}, TARGET truncation, speed or the number of a direction"
            )
        least = 0 if target == "speed" else -100  # the walk never stops or turns back
        value = float_in_range(f"--drive {name}:{target}:", least, 100)(amount)
        drives.append(Drive(signal, target, value))
    return drives


@dataclass(frozen=True)
class DrivenFrames:
    """What a sound does to each of n frames: truncation `psi` (n,), `rates` of time (n,), and
    `moves` along directions: index and amounts (n,)."""

    psi: Floats
    rates: Floats
    moves: Sequence[tuple[int, Floats]]
    found: Directions

    def change(self, space: LatentSpace, start: int, ws: Tensor) -> Tensor:
        """Truncate and move the ws (m, num_ws, w_dim) of the frames from `start`."""

        def some(values: Floats) -> Tensor:
            part = torch.from_numpy(values[start : start + len(ws)])
            return part.to(ws.device, ws.dtype).view(-1, 1, 1)

        ws = space.truncate(ws, some(self.psi))
        for number, amounts in self.moves:
            ws = move(ws, self.found, number, some(amounts))
        return ws


def drive_frames(
    drives: Sequence[Drive], sound: Sound, times: Floats, psi: float, found: Directions, std: float
) -> DrivenFrames:
    """Measure the sound at the times (n,) of the frames, and return what it does to them.

    With a signal from 0 to 1: truncation is psi · (1 − amount · (1 − signal)), the rate of time
    1 + amount · signal, and a direction moves by amount · signal · `std`, the standard deviation of
    a latent coordinate. Several drives of one target are multiplied (truncation) or added.

    Raises:
        UserError: there is no such direction.
    """
    levels = measure(sound, times)
    psis, rates = np.full(len(times), psi), np.ones(len(times))
    moves: list[tuple[int, Floats]] = []
    for drive in drives:
        level = levels[drive.signal]
        if drive.target == "truncation":
            psis = psis * (1 - drive.amount * (1 - level))
        elif drive.target == "speed":
            rates = rates + drive.amount * level
        else:
            number = int(drive.target)
            if not 1 <= number <= len(found.vectors):
                raise UserError(
                    f"--drive {drive.signal}:{number}: there is no direction {number}; choose from "
                    f"1 to {len(found.vectors)}"
                )
            moves.append((number - 1, drive.amount * std * level))
    return DrivenFrames(psis, rates, moves, found)
