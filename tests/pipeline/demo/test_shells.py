"""The drawn shells: repeatable, distinct, centred on a plain ground, and grown as Raup says."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from pipeline.demo.catalogue import FAMILIES, SPECIMENS_PER_SPECIES, place, species_of
from pipeline.demo.light import BACKGROUND
from pipeline.demo.pigment import CELLS, RECIPES, grow_pattern
from pipeline.demo.scallop import margin, valve
from pipeline.demo.shells import BUILDERS, draw
from pipeline.demo.spiral import (
    TURN,
    Coil,
    closed_curve,
    growth_angles,
    place_curve,
    sweep_surface,
)

pytestmark = pytest.mark.slow

SIZE = 96


@pytest.fixture(scope="module")
def sheet() -> dict[int, Image.Image]:
    """Three specimens of every family, of different species."""
    stride = len(FAMILIES) * SPECIMENS_PER_SPECIES
    return {
        index: draw(7, index, SIZE)
        for species in range(3)
        for index in range(species * stride, species * stride + len(FAMILIES))
    }


def small_grey(image: Image.Image) -> np.ndarray:
    """Return a 16 x 16 grey version, for telling pictures apart as an eye would."""
    return np.asarray(image.convert("L").resize((16, 16), Image.Resampling.BOX), dtype=float)


def test_same_numbers_give_same_pixels() -> None:
    for index in (0, 2, 4):
        assert draw(3, index, 64).tobytes() == draw(3, index, 64).tobytes()


def test_pixels_do_not_depend_on_what_was_drawn_before() -> None:
    first = draw(5, 1, 64).tobytes()
    grow_pattern.cache_clear()
    for other in (11, 81, 2):
        draw(5, other, 64)
    assert draw(5, 1, 64).tobytes() == first


def test_seed_and_index_change_the_picture(sheet: dict[int, Image.Image]) -> None:
    digests = {hashlib.sha256(image.tobytes()).hexdigest() for image in sheet.values()}
    assert len(digests) == len(sheet)
    assert draw(8, 0, SIZE).tobytes() != sheet[0].tobytes()


def test_specimens_of_one_species_differ_to_the_eye() -> None:
    for family in range(len(FAMILIES)):
        one, two = (small_grey(draw(7, family + len(FAMILIES) * n, SIZE)) for n in (0, 1))
        assert np.abs(one - two).max() > 4


def test_every_family_takes_its_turn() -> None:
    assert {place(index)[0] for index in range(len(FAMILIES))} == set(range(len(FAMILIES)))
    assert set(BUILDERS) == {family.name for family in FAMILIES}


def test_shells_are_centred_fill_the_frame_and_touch_no_edge(
    sheet: dict[int, Image.Image],
) -> None:
    ground = np.round(BACKGROUND * 255)
    for index, image in sheet.items():
        pixels = np.asarray(image, dtype=float)
        assert pixels.shape == (SIZE, SIZE, 3)
        edge = np.concatenate([pixels[:2], pixels[-2:]]).reshape(-1, 3)
        sides = np.concatenate([pixels[:, :2], pixels[:, -2:]]).reshape(-1, 3)
        assert np.abs(np.concatenate([edge, sides]) - ground).max() <= 3, index
        # The contact shadow is grey and faint; the shell is neither.
        away = np.abs(pixels - ground).max(axis=2) > 48
        rows, columns = np.flatnonzero(away.any(1)), np.flatnonzero(away.any(0))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert 0.70 * SIZE <= max(height, width) <= 0.86 * SIZE, index
        assert abs((rows[0] + rows[-1]) / 2 - (SIZE - 1) / 2) < 0.08 * SIZE, index
        assert abs((columns[0] + columns[-1]) / 2 - (SIZE - 1) / 2) < 0.08 * SIZE, index


def test_no_black_holes(sheet: dict[int, Image.Image]) -> None:
    for index, image in sheet.items():
        dark = np.asarray(image).max(axis=2) < 18
        assert dark.mean() < 0.004, index


def test_the_spiral_is_equiangular_and_right_handed() -> None:
    phi = np.linspace(-TURN, 0, 4001)
    point = np.array([[1.0, -2.0]])
    coil = Coil(point, 1.0, 1.7, 1.0, 0.0)
    scale = 1.7 ** (phi / TURN)[:, None]
    path = place_curve(coil, 0 * point, 0 * scale, scale, phi[:, None])[:, 0].astype(float)
    radius = np.hypot(path[:, 0], path[:, 2])
    np.testing.assert_allclose(np.log(radius), np.log(1.7) * phi / TURN, atol=1e-5)
    np.testing.assert_allclose(path[:, 1] / radius, -2.0, rtol=1e-5)
    # Seen with the apex up, the mouth opens on the right and grows towards the viewer.
    assert path[-1, 0] > 0
    assert path[-1, 2] > path[-2, 2]


def test_swept_shell_keeps_the_expansion_of_its_coil() -> None:
    knots = np.array([[0.6, -1.0], [1.0, -1.3], [0.9, -1.7], [0.2, -1.9], [0.1, -1.4]])
    curve, _ = closed_curve(knots, 60)
    coil = Coil(curve, 0.6, 1.5, 4.0, 0.02)
    phi = growth_angles(coil)
    sheet = sweep_surface(coil, np.zeros((len(phi), len(curve)), dtype=np.float32), phi)
    outer = sheet.points[: len(phi)]
    radius = np.hypot(outer[..., 0], outer[..., 2]).max(axis=1)
    now, before = (np.interp(angle, phi, radius) for angle in (-0.5 * TURN, -1.5 * TURN))
    assert now / before == pytest.approx(1.5, rel=2e-3)


def test_valve_grows_about_the_hinge() -> None:
    outline, ridge = margin(0.85, 16, 0.0)
    points, size = valve(outline, 0 * ridge, 3000.0)
    np.testing.assert_allclose(points[-1, :, 2], 0, atol=1e-6)
    middle = points[:, points.shape[1] // 2]
    reach = np.hypot(middle[:, 1], middle[:, 2] / 1.15)
    np.testing.assert_allclose(reach / reach[-1], size, rtol=1e-4)
    np.testing.assert_allclose(points[:, ::-1, 0], -points[..., 0], atol=1e-5)


def test_pigment_sheets_are_bounded_and_have_a_pattern() -> None:
    for name in RECIPES:
        field = grow_pattern(name, 12)
        assert field.shape[1] == CELLS
        assert field.min() >= 0
        assert field.max() <= 1
        assert field.std() > 0.05


def test_species_names_do_not_repeat_within_a_family() -> None:
    names = [species_of(0, 0, number).name for number in range(400)]
    assert len(set(names)) == len(names)
