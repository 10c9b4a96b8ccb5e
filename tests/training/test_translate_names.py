"""The files of translations: none replaces another one."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.translate import output_names


@pytest.mark.parametrize(
    ("images", "names"),
    [
        ("a.png b.jpg", "a.png b.png"),
        ("a.jpg x/a.png y/a.png", "a.png a-2.png a-3.png"),
        ("a-2.png a.jpg a.png", "a-2.png a.png a-3.png"),
        ("a.jpg a.png a-2.png b/a.png", "a.png a-2.png a-2-2.png a-3.png"),
    ],
)
def test_each_image_has_a_name_of_its_own(images: str, names: str) -> None:
    assert output_names([Path(one) for one in images.split()]) == names.split()
