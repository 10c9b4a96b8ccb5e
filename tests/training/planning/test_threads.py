"""More threads only where they pay, and the same ones when a run goes on."""

import pytest
import torch

from training.planning.threads import choose_threads, seconds


@pytest.mark.parametrize(
    ("most", "times", "expected"),
    [
        (1, {}, 1),
        (2, {1: 1.0, 2: 0.6}, 2),
        (2, {1: 1.0, 2: 0.9}, 1),
        (2, {1: 1.0, 2: 40.0}, 1),
        (8, {1: 1.0, 2: 0.55, 4: 0.35, 7: 0.34, 8: 0.33}, 4),
        (8, {1: 1.0, 2: 0.55, 4: 0.35, 7: 0.2, 8: 0.4}, 7),
        (8, {1: 1.0, 2: 0.55, 4: 0.35, 7: 0.2, 8: 0.175}, 8),
        (6, {1: 1.0, 2: 0.55, 4: 0.35, 5: 0.25, 6: 0.2}, 6),
    ],
)
def test_as_many_as_pay(most: int, times: dict[int, float], expected: int) -> None:
    assert choose_threads(most, times.__getitem__) == expected


def test_measuring_leaves_the_number_of_threads_alone() -> None:
    before = torch.get_num_threads()
    assert seconds(1) > 0
    assert torch.get_num_threads() == before
