"""Experience replay: the discriminator also sees earlier fake images (Shrivastava 2017)."""

from __future__ import annotations

import torch
from torch import Tensor

FILLED, IMAGES, LABELS = "filled", "images", "labels"


def replay(
    memory: dict[str, Tensor],
    size: int,
    share: float,
    fake: Tensor,
    labels: Tensor,
    random: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Replace a `share` of `fake` (n, c, h, w) and `labels` (n,) by earlier ones.

    `memory` keeps `size` fakes as float16 between calls and contains all state of the replay. It is
    filled first; from then on, a random `share` of each batch is swapped with random entries.
    """
    if IMAGES not in memory:
        device = fake.device
        memory[IMAGES] = torch.zeros(size, *fake.shape[1:], dtype=torch.float16, device=device)
        memory[LABELS] = torch.zeros(size, dtype=labels.dtype, device=device)
        memory[FILLED] = torch.zeros((), dtype=torch.int64)
    filled = int(memory[FILLED])
    if filled < size:
        last = min(size, filled + len(fake))
        memory[IMAGES][filled:last] = fake[: last - filled].to(torch.float16)
        memory[LABELS][filled:last] = labels[: last - filled]
        memory[FILLED] = torch.tensor(last)
        return fake, labels
    count = min(round(share * len(fake)), size)
    here = torch.randperm(len(fake), generator=random, device=fake.device)[:count]
    there = torch.randperm(size, generator=random, device=fake.device)[:count]
    mixed, mixed_labels = fake.clone(), labels.clone()
    mixed[here] = memory[IMAGES][there].to(fake.dtype)
    mixed_labels[here] = memory[LABELS][there]
    memory[IMAGES][there] = fake[here].to(torch.float16)
    memory[LABELS][there] = labels[here]
    return mixed, mixed_labels
