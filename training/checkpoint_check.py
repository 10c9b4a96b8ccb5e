"""Checks of the content of a checkpoint: its hash only proves that it is unchanged since it was
written."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from training.checkpoint import Unusable
from training.monitoring.history import is_finite_number
from training.state import State

NETWORKS = ("generator", "discriminator", "average")
_LARGEST = 2**53
"""Maximum of an integer that is also used as a float."""


def whole_number(value: object, what: str) -> int:
    """Return `value` as a number of images, steps or bytes.

    Raises:
        Unusable: it is not one.
    """
    if type(value) is not int or not 0 <= value <= _LARGEST:
        raise Unusable(f"{what} is not a whole number")
    return value


def tensors(values: object, what: str) -> dict[str, Tensor]:
    """Return `values` as tensors by name.

    Raises:
        Unusable: they are something else.
    """
    if not isinstance(values, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) and _is_plain(value)
        for name, value in values.items()
    ):
        raise Unusable(f"{what} does not hold tensors by name")
    return dict(values)


def _is_plain(tensor: Tensor) -> bool:
    """Return True if all of the tensor's values are stored individually."""
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_complex():
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def check_fit(given: Mapping[str, Tensor], own: Mapping[str, Tensor], what: str) -> None:
    """Raise Unusable if the tensors `given` do not have the names and shapes of `own`, or are
    not finite."""
    if given.keys() != own.keys():
        name = min(given.keys() ^ own.keys())
        raise Unusable(f"{what}: {'no' if name in own else 'unknown'} {name}")
    for name, tensor in given.items():
        if tensor.shape != own[name].shape:
            wanted, found = tuple(own[name].shape), tuple(tensor.shape)
            raise Unusable(f"{what}: {name} has the shape {found}, not {wanted}")
        if tensor.is_floating_point() != own[name].is_floating_point():
            raise Unusable(f"{what}: {name} is {tensor.dtype}, not {own[name].dtype}")
        if not tensor.isfinite().all():
            raise Unusable(f"{what}: {name} has numbers that are not finite")


def check_weights(values: Mapping[str, Any], networks: Sequence[str] = ("average",)) -> None:
    """Raise Unusable if the values do not belong to a run with these networks."""
    state = values.get("state")
    if not isinstance(state, Mapping):
        raise Unusable("state is not there")
    for name in networks:
        tensors(state.get(name), f"state.{name}")
    whole_number(state.get("seen"), "state.seen")


def check_start(values: Mapping[str, Any], networks: Iterable[str] = NETWORKS) -> None:
    """Raise Unusable if a run cannot start from those of the networks that the values contain."""
    state = values.get("state")
    check_weights(
        values, [name for name in networks if isinstance(state, Mapping) and name in state]
    )


def check_discriminator(values: Mapping[str, Any]) -> None:
    """Raise Unusable if the values contain no discriminator."""
    check_weights(values, ("discriminator",))


def check_resumable(values: Mapping[str, Any], fresh: State) -> None:
    """Raise Unusable if the run `fresh` cannot be resumed from the values."""
    networks = list(fresh.networks)
    check_weights(values, networks)
    state, own = values["state"], fresh.tensors()
    for name in networks:
        check_fit(state[name], own[name], f"state.{name}")
    for name in ("g_optimizer", "d_optimizer"):
        _check_optimizer(state.get(name), getattr(fresh, name), f"state.{name}")
    for name in ("g_scaler", "d_scaler"):
        given = state.get(name, {})
        if not isinstance(given, Mapping) or (given and given.keys() != own[name].keys()):
            raise Unusable(f"state.{name} is not of a scaler")
        _check_numbers(given.values(), f"state.{name}")
    whole_number(state.get("steps"), "state.steps")
    whole_number(state.get("restarts"), "state.restarts")
    for name in ("scalars", "replay"):
        for tensor in tensors(state.get(name), f"state.{name}").values():
            if not tensor.isfinite().all():
                raise Unusable(f"state.{name}: not finite")
    _check_numbers([values.get("seconds")], "seconds")
    _check_history(values.get("history"))
    _check_meter(values.get("meter"))


def _check_numbers(values: Any, what: str) -> None:
    for value in values:
        if not is_finite_number(value):
            raise Unusable(f"{what}: not a finite number")


def _check_optimizer(given: object, own: torch.optim.Optimizer, what: str) -> None:
    groups = own.state_dict()["param_groups"]
    found = given.get("param_groups") if isinstance(given, Mapping) else None
    held = given.get("state") if isinstance(given, Mapping) else None
    if not isinstance(found, list) or len(found) != len(groups) or not isinstance(held, Mapping):
        raise Unusable(f"{what} is not of an optimiser")
    for group, wanted in zip(found, groups, strict=True):
        numbers = group.get("params") if isinstance(group, Mapping) else None
        if not _is_list_of_int(numbers) or numbers != wanted["params"]:
            raise Unusable(f"{what} is of other weights")
        for key in group.keys() & wanted.keys() - {"params"}:
            if not _is_alike(group[key], wanted[key]):
                raise Unusable(f"{what}: {key} is not what it ought to be")
    parameters = [one for group in own.param_groups for one in group["params"]]
    like_weight = _kept_by(own)
    for number, values in held.items():
        if type(number) is not int or not 0 <= number < len(parameters):
            raise Unusable(f"{what} is of other weights")
        kept = tensors(values, what)
        if kept and kept.keys() != like_weight.keys():
            raise Unusable(f"{what} is of another kind")
        weight = parameters[number].detach()
        wanted = {
            name: weight if like_weight[name] else weight.new_zeros(kept[name].shape and (1,))
            for name in kept
        }
        check_fit(kept, wanted, what)


def _kept_by(own: torch.optim.Optimizer) -> dict[str, bool]:
    """Return what the optimiser stores per weight, by name, and whether it has the weight's
    shape."""
    known = inspect.signature(type(own)).parameters
    options = {name: value for name, value in own.defaults.items() if name in known}
    weight = torch.nn.Parameter(torch.zeros(2, 3))
    twin = type(own)([weight], **options)
    weight.grad = torch.zeros(2, 3)
    twin.step()
    kept = {name: value for name, value in twin.state[weight].items() if isinstance(value, Tensor)}
    return {name: value.shape == weight.shape for name, value in kept.items()}


def _is_list_of_int(value: object) -> bool:
    return isinstance(value, list) and all(type(one) is int for one in value)


def _is_alike(given: object, wanted: object) -> bool:
    if isinstance(wanted, tuple | list):
        return (
            isinstance(given, tuple | list)
            and len(given) == len(wanted)
            and all(_is_alike(*pair) for pair in zip(given, wanted, strict=True))
        )
    if isinstance(wanted, float) or type(wanted) is int:
        return (
            isinstance(given, int | float) and not isinstance(given, bool) and math.isfinite(given)
        )
    return type(given) is type(wanted)


def _check_history(text: object) -> None:
    if not isinstance(text, str):
        raise Unusable("history is not text")
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):  # also for an integer of 5,000 digits
            raise Unusable("history is not JSON lines") from None
        if not isinstance(row, dict):
            raise Unusable("history: a row is not an object")
        whole_number(row.get("seen"), "history: seen")
        _check_numbers(row.values(), "history")


def _check_meter(values: object) -> None:
    if not isinstance(values, Mapping) or not isinstance(values.get("counts"), Mapping):
        raise Unusable("meter is not there")
    sums, counts = tensors(values.get("sums"), "meter.sums"), values["counts"]
    if sums.keys() != counts.keys() or any(value.numel() != 1 for value in sums.values()):
        raise Unusable("meter: its sums are not numbers with counts")
    if not all(type(count) is int and count >= 0 for count in counts.values()):
        raise Unusable("meter: its counts are not whole numbers")
