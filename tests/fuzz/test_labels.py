"""Labels of real and fake images: what is accepted teaches both networks the right direction."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.contract import UserError, parse_config
from training.config import Config
from training.losses import LOSSES
from training.options.target_rules import LOSSES_WITH_TARGETS
from training.options.validation import check_compatible

numbers = st.floats(-1, 2).map(lambda value: round(value, 3))
labels = numbers | st.tuples(numbers, numbers)


def gradients(name: str, config: Config, at: float) -> tuple[float, float, float]:
    """The mean gradients of D's loss by the answers on real and on fake images, and of G's loss by
    that on fake ones, if all answers are `at`; label by label, with the probability of each."""
    loss = LOSSES[name]
    real = torch.full((2,), at, dtype=torch.float64, requires_grad=True)
    fake = torch.full((2,), at, dtype=torch.float64, requires_grad=True)
    on_real, on_fake = (
        torch.tensor(label if isinstance(label, tuple) else (label, label), dtype=torch.float64)
        for label in (config.label_real, config.label_fake)
    )  # the mean over a range is that over its ends
    flip = config.label_flip
    d = (1 - flip) * loss.d(real, fake, on_real, on_fake)
    d = d + flip * loss.d(real, fake, on_fake, on_real)
    to_real, to_fake = torch.autograd.grad(d, [real, fake])
    (to_g,) = torch.autograd.grad(loss.g(real, fake), [fake])
    return float(to_real.sum()), float(to_fake.sum()), float(to_g.sum())


def mean(label: float | tuple[float, float]) -> float:
    return sum(label) / 2 if isinstance(label, tuple) else label


@given(
    st.sampled_from(sorted(LOSSES_WITH_TARGETS)), labels, labels,
    st.floats(0, 1).map(lambda value: round(value, 3)),
)  # fmt: skip
def test_what_is_accepted_teaches_the_right_direction(
    name: str, real: float | tuple[float, float], fake: float | tuple[float, float], flip: float
) -> None:
    values = {"label_real": real, "label_fake": fake, "label_flip": flip, "loss": {"name": name}}
    config = parse_config(Config, values, "test")
    # the answer of a discriminator that cannot tell them apart
    undecided = (mean(config.label_real) + mean(config.label_fake)) / 2 if name == "lsgan" else 0.0
    to_real, to_fake, to_g = gradients(name, config, undecided)
    gap = to_fake - to_real  # a step down D's loss changes (real - fake) by this
    right = gap > 1e-9 and to_g <= 1e-9
    try:
        check_compatible(config)
    except UserError as error:
        said = str(error)
        assert "label_real" in said
        assert "\n" not in said
        # refused for the direction, or because cross-entropy would grow for ever
        assert not right or "no minimum" in said
    else:
        assert right


@pytest.mark.parametrize("name", sorted(LOSSES_WITH_TARGETS - {"lsgan"}))
@pytest.mark.parametrize(("real", "fake", "bounded"), [(1.2, 0.0, False), (1.0, -0.1, False),
                                                       (0.9, 0.1, True)])  # fmt: skip
def test_labels_outside_0_to_1_leave_cross_entropy_without_a_minimum(
    name: str, real: float, fake: float, bounded: bool
) -> None:
    answers = torch.tensor([1e3], dtype=torch.float64)
    losses = [
        float(LOSSES[name].d(answers * times, -answers * times, real, fake)) for times in (1, 10)
    ]
    assert (losses[1] > losses[0]) == bounded
    config = parse_config(
        Config, {"label_real": real, "label_fake": fake, "loss": {"name": name}}, "test"
    )
    if bounded:
        check_compatible(config)
    else:
        with pytest.raises(UserError, match="no minimum"):
            check_compatible(config)
