"""Starting from a trained run's weights, and keeping some of them as they are."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from pipeline.contract import UserError
from training import checkpoint
from training.networks import Discriminator
from training.pretrained.nvlabs import read_published
from training.runs import chosen_checkpoint, find_run
from training.state import State


def take_weights(state: State, start: str, device: torch.device) -> list[str]:
    """Give the networks of `state` the weights of `start`: a run, a checkpoint file, or a pickle
    of StyleGAN2-ADA (`.pkl`).

    A weight whose name and shape are not in `start` keeps its fresh values, as where there are
    other labels. Optimisers and position stay those of a beginning.

    Returns:
        The names of the weights that `start` does not have.

    Raises:
        UserError: there is no such checkpoint, or it is of other networks.
    """
    given = _read(start, device)
    missing: list[str] = []
    for name in ("generator", "discriminator", "average"):
        network: nn.Module = getattr(state, name)
        if name not in given:
            missing.append(name)
            continue
        own = network.state_dict()
        fitting = {
            key: value
            for key, value in given[name].items()
            if key in own and own[key].shape == value.shape
        }
        taken = sum(own[key].numel() for key in fitting)
        if 2 * taken < sum(value.numel() for value in own.values()):
            raise UserError(
                f"init_from: {start} has another {name}: not even half of the weights fit"
            )
        network.load_state_dict(own | fitting)
        missing += [f"{name}.{key}" for key in own.keys() - fitting.keys()]
    return sorted(missing)


def _read(start: str, device: torch.device) -> dict[str, dict[str, torch.Tensor]]:
    path = Path(start)
    values = None
    if path.suffix == ".pkl":
        return read_published(path).start()
    if path.suffix == ".pt":
        saved = [one for one in checkpoint.listed(path.parent) if one.data == path]
        try:
            values = checkpoint.load(saved[0], device) if saved else None
        except ValueError as error:
            raise UserError(f"init_from: {error}") from None
    else:
        name, which = chosen_checkpoint(start)
        try:
            values = checkpoint.load_chosen(find_run(name).checkpoints, which, device)
        except UserError:
            values = None
    if values is None:
        raise UserError(f"init_from: {start}: no whole checkpoint there")
    found: dict[str, dict[str, torch.Tensor]] = values["state"]
    return found


def freeze(judge: Discriminator, count: int) -> None:
    """Stop training the `count` layers of the discriminator that are next to the image, with their
    norms (FreezeD, Mo et al. 2020). A residual block is a layer.

    Raises:
        UserError: it has not so many.
    """
    passed = 0
    for part in judge.hidden:
        passed += any(weight.ndim in (2, 4) for weight in part.parameters())
        if passed > count:
            return
        part.requires_grad_(False)
    if passed < count:
        raise UserError(f"freeze_d: the discriminator has {passed} layers, {count} were named")
