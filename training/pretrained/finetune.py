"""Starting from the weights of a trained run, and freezing some of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from pipeline.contract import UserError
from training import best_checkpoint, checkpoint
from training.checkpoint_check import check_start
from training.networks import Discriminator
from training.pretrained.nvlabs import read_nvlabs_pickle
from training.runs import find_run, parse_run_spec
from training.state import State

_SHOWN = 4


@dataclass(frozen=True)
class WeightMismatch:
    """Weights that did not match, by name: `missing` ones do not exist in the source (in this
    shape), `unused` ones have no counterpart in the networks."""

    missing: tuple[str, ...]
    unused: tuple[str, ...]

    def summary(self) -> str:
        """Return all of it as the end of a sentence; empty if everything matched."""
        missing, unused = _counted(self.missing), _counted(self.unused)
        told = f"; missing in it: {missing}" if missing else ""
        return told + (f"; not used: {unused}" if unused else "")


def _counted(names: tuple[str, ...]) -> str:
    """Return the first of the names, and the number of others."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def load_initial_weights(state: State, start: str, device: torch.device) -> WeightMismatch:
    """Load the weights of `start` into the networks of `state`: a run, a checkpoint file, or a
    pickle of StyleGAN2 or StyleGAN3 (`.pkl`).

    A weight whose name and shape are not in `start` keeps its initial values, for example if the
    labels differ. A pixel discriminator starts the one that is part of a projected
    discriminator. Optimisers and position are those of a new run.

    Raises:
        UserError: there is no such checkpoint, or it belongs to other networks.
    """
    networks = state.networks
    given = _read(start, device, list(networks))
    missing, unused = list[str](), list[str]()
    for name, network in networks.items():
        if name not in given:
            missing.append(name)
            continue
        part: torch.nn.Module = network
        if isinstance(network, Discriminator) and not network.state_dict().keys() & given[name]:
            part = network.on_pixels
            missing += [f"{name}s on frozen features"] * (part is not network)
        own = part.state_dict()
        _require_depth(start, name, own, given[name])
        fitting = {
            key: value
            for key, value in given[name].items()
            if key in own and own[key].shape == value.shape
        }
        for key, value in fitting.items():
            if value.is_complex() or not value.isfinite().all():
                raise UserError(f"init_from: {start}: {name}.{key} is not finite")
        taken = sum(own[key].numel() for key in fitting)
        if 2 * taken < sum(value.numel() for value in own.values()):
            raise UserError(
                f"init_from: {start} has another {name}: fewer than half of the weights match"
            )
        part.load_state_dict(own | fitting)
        missing += [f"{name}.{key}" for key in own.keys() - fitting.keys()]
        unused += [f"{name}.{key}" for key in given[name].keys() - own.keys()]
    return WeightMismatch(tuple(sorted(missing)), tuple(sorted(unused)))


def _require_depth(start: str, name: str, own: Iterable[str], given: Iterable[str]) -> None:
    """Raise unless a style generator's mapping network has the same depth: its layers work
    together, and another depth gives other styles."""
    have, found = (sum(map(_is_mapping, keys)) for keys in (own, given))
    section = "discriminator" if name == "discriminator" else "generator"
    if have and found and have != found:
        raise UserError(
            f"init_from: {start} has {found} mapping layers in its {section}, this run {have}; "
            f"use --{section}.mapping_layers {found}"
        )


def _is_mapping(key: str) -> bool:
    return re.fullmatch(r"mapping\.fc\d+\.weight", key) is not None


def _read(
    start: str, device: torch.device, networks: Sequence[str]
) -> dict[str, dict[str, torch.Tensor]]:
    path, check = Path(start), partial(check_start, networks=networks)
    if path.suffix == ".pkl":
        return read_nvlabs_pickle(path).start()
    values, reason = None, ""
    try:
        if path.suffix == ".pt":
            saved = [
                one for one in checkpoint.list_checkpoints(path.parent) if one.data_path == path
            ]
            values = checkpoint.load(saved[0], device, check) if saved else None
        else:
            name, which = parse_run_spec(start)
            values = best_checkpoint.load_named(find_run(name).checkpoints, which, device, check)
    except (ValueError, UserError) as error:
        reason = f" ({error})"
    if values is None:
        raise UserError(f"init_from: {start}: no complete checkpoint{reason}")
    found: dict[str, dict[str, torch.Tensor]] = values["state"]
    return found


def freeze(discriminator: Discriminator, count: int) -> None:
    """Stop training the `count` layers of the discriminator next to the image, with their norms
    (FreezeD, Mo et al. 2020). A residual block is one layer.

    Raises:
        UserError: it has fewer layers.
    """
    passed = 0
    for part in discriminator.hidden:
        passed += any(weight.ndim in (2, 4) for weight in part.parameters())
        if passed > count:
            return
        part.requires_grad_(False)
    if passed < count:
        raise UserError(f"freeze_d: {count}, but the discriminator has only {passed} layers")
