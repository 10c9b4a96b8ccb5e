"""Draws pictures like woodblock prints: flat colours, black key lines, hatching, a paper ground.

A stand-in for a collection of prints, with the same difficulties for a generator: hard edges, large
flat areas, fine parallel lines, and a border of bare paper. Everything follows from the number of
the print. There are four subjects, the labels: mountain, wave, branch and boat.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SUBJECTS = ("mountain", "wave", "branch", "boat")
SIDE = 256
_SCALE = 2
_PAPERS = ((238, 226, 198), (231, 215, 183), (243, 234, 214), (222, 208, 178))
_INKS = ((34, 32, 38), (40, 46, 66), (62, 46, 38))
_BLUES = ((52, 86, 128), (84, 122, 150), (36, 62, 104), (120, 150, 160))
_WARM = ((190, 74, 52), (208, 134, 62), (172, 96, 84), (222, 176, 96))
_GREENS = ((96, 118, 84), (132, 140, 92), (72, 96, 82))
_SKIES = ((208, 214, 206), (226, 206, 170), (196, 208, 214), (232, 196, 172), (236, 224, 192))
Colour = tuple[int, int, int]
Points = list[tuple[float, float]]


class Print:
    """One sheet while it is drawn; coordinates are fractions of the side."""

    def __init__(self, number: int) -> None:
        self.random = np.random.default_rng([7, number])
        self.side = SIDE * _SCALE
        self.paper, self.ink = self.pick(_PAPERS), self.pick(_INKS)
        self.image = Image.new("RGB", (self.side, self.side), self.paper)
        self.draw = ImageDraw.Draw(self.image)
        self.line = int(self.random.integers(2, 4)) * _SCALE

    def pick(self, colours: Sequence[Colour]) -> Colour:
        """One of the colours, slightly changed, as inks vary."""
        chosen = np.array(colours[int(self.random.integers(len(colours)))])
        red, green, blue = np.clip(chosen + self.random.integers(-9, 10, 3), 0, 255)
        return int(red), int(green), int(blue)

    def between(self, low: float, high: float) -> float:
        return float(self.random.uniform(low, high))

    def scaled(self, points: Points) -> Points:
        return [(x * self.side, y * self.side) for x, y in points]

    def shape(self, points: Points, colour: Colour) -> None:
        """A flat area with its key line."""
        some = self.scaled(points)
        self.draw.polygon(some, fill=colour)
        self.draw.line([*some, some[0]], fill=self.ink, width=self.line, joint="curve")

    def stroke(self, points: Points, colour: Colour, width: float = 1.0) -> None:
        """A line whose width is a multiple of the key line's."""
        self.draw.line(
            self.scaled(points), fill=colour, width=max(1, round(self.line * width)), joint="curve"
        )

    def sky(self) -> None:
        """A ground that fades upwards from bare paper (bokashi), and sometimes a sun."""
        colour, top = self.pick(_SKIES), self.pick(_BLUES)
        depth = self.between(0.15, 0.5) * self.side
        for row in range(self.side):
            share = max(0.0, 1 - row / depth)
            mixed = [round(a + (b - a) * share) for a, b in zip(colour, top, strict=True)]
            self.draw.line([(0, row), (self.side, row)], fill=tuple(mixed))
        if self.random.random() < 0.6:
            x, y, r = self.between(0.2, 0.8), self.between(0.18, 0.34), self.between(0.05, 0.1)
            box = [(x - r) * self.side, (y - r) * self.side, (x + r) * self.side,
                   (y + r) * self.side]  # fmt: skip
            self.draw.ellipse(box, fill=self.pick(_WARM), outline=self.ink, width=self.line // 2)

    def hatch(self, left: float, right: float, top: float, bottom: float, count: int) -> None:
        """Parallel lines that grow shorter, as on the shaded side of a hill."""
        for number in range(count):
            share = number / max(1, count - 1)
            x = left + (right - left) * share
            self.stroke(
                [(x, top + (bottom - top) * share * 0.6), (x + 0.03, bottom)], self.ink, 0.5
            )

    def sea(self, horizon: float) -> None:
        """Flat water with rows of short curved lines."""
        self.shape([(-0.1, horizon), (1.1, horizon), (1.1, 1.1), (-0.1, 1.1)], self.pick(_BLUES))
        light = self.pick(((226, 228, 220), (200, 214, 218)))
        rows = int(self.random.integers(3, 7))
        for row in range(rows):
            y = horizon + (1 - horizon) * (row + 0.7) / rows
            start = self.between(-0.1, 0.1)
            for x in np.arange(start, 1.0, 0.16 + 0.02 * row):
                arc = [
                    (x + t * 0.1, y - 0.012 * math.sin(math.pi * t)) for t in np.linspace(0, 1, 6)
                ]
                self.stroke([(float(a), float(b)) for a, b in arc], light, 0.8)


def mountain(sheet: Print) -> None:
    """A cone with a white top, hatching on one side, and hills before it."""
    peak, height = sheet.between(0.35, 0.65), sheet.between(0.22, 0.42)
    foot, wide = sheet.between(0.66, 0.76), sheet.between(0.32, 0.5)
    left, right = [], []
    for t in np.linspace(0, 1, 12):
        drop = height + (foot - height) * float(t)
        spread = 0.03 + wide * float(t) ** 1.7
        left.append((peak - spread, drop))
        right.append((peak + spread, drop))
    sheet.shape([*left[::-1], *right], sheet.pick((*_BLUES, *_WARM)))
    cap = int(sheet.random.integers(3, 6))
    zigzag = [
        (left[cap][0] + (right[cap][0] - left[cap][0]) * t, left[cap][1] + 0.03 * (n % 2))
        for n, t in enumerate(np.linspace(0, 1, 7))
    ]
    sheet.shape([*left[:cap][::-1], *right[: cap + 1], *zigzag[::-1]], (240, 236, 224))
    sheet.hatch(peak + 0.06, peak + wide * 0.7, height + 0.18, foot - 0.03, 8)
    for _ in range(int(sheet.random.integers(1, 3))):
        centre, base = sheet.between(0.1, 0.9), sheet.between(0.72, 0.82)
        hill = [(x, base - 0.1 * math.exp(-(((x - centre) / 0.22) ** 2)))
                for x in np.linspace(-0.05, 1.05, 24)]  # fmt: skip
        sheet.shape([*hill, (1.05, 1.05), (-0.05, 1.05)], sheet.pick(_GREENS))


def wave(sheet: Print) -> None:
    """A breaking wave whose crest ends in claws of foam, over a sea."""
    sheet.sea(sheet.between(0.6, 0.72))
    flip, top, size = sheet.random.random() < 0.5, sheet.between(0.25, 0.4), sheet.between(0.75, 1)
    back = [(0.05 + 0.45 * t, 0.85 - (0.85 - top) * t**1.6) for t in np.linspace(0, 1, 12)]
    curl = [
        (0.5 + 0.19 * size * math.sin(a), top + 0.17 * size - 0.17 * size * math.cos(a))
        for a in np.linspace(0, 2.5, 12)
    ]
    inner = [
        (0.5 + 0.1 * size * math.sin(a), top + 0.17 * size - 0.08 * size * math.cos(a))
        for a in np.linspace(2.5, 0, 10)
    ]
    front = [(0.44 + 0.36 * t, top + 0.17 + (0.7 - top) * t**0.6) for t in np.linspace(0, 1, 8)]

    def turned(points: Points) -> Points:
        return [(1 - x, y) if flip else (x, y) for x, y in points]

    sheet.shape(
        turned([*back, *curl, *inner, *front, (0.8, 0.95), (0.05, 0.95)]), sheet.pick(_BLUES)
    )
    light = (238, 236, 226)
    for shift in np.linspace(0.04, 0.2, int(sheet.random.integers(3, 6))):
        sheet.stroke(turned([(x + shift, y + shift * 0.55) for x, y in back[3:]]), light, 0.8)
    for x, y in turned(curl[4:]):
        r = sheet.between(0.012, 0.028) * sheet.side
        box = [x * sheet.side - r, y * sheet.side - r, x * sheet.side + r, y * sheet.side + r]
        sheet.draw.ellipse(box, fill=light, outline=sheet.ink, width=sheet.line // 2)


def branch(sheet: Print) -> None:
    """A branch with blossoms that enters from one side."""
    flip, y = sheet.random.random() < 0.5, sheet.between(0.35, 0.75)
    points: Points = [(0.0, y)]
    while points[-1][0] < sheet.between(0.75, 0.95):
        x, height = points[-1]
        points.append((x + sheet.between(0.08, 0.16), height - sheet.between(-0.04, 0.12)))
    twigs = [
        [(x, h), (x + sheet.between(0.05, 0.15), h - sheet.between(0.1, 0.25))]
        for x, h in points[1:]
    ]
    bark = sheet.pick(((92, 70, 56), (70, 62, 58), (112, 88, 66)))
    petals = sheet.pick((*_WARM, (232, 188, 190), (240, 232, 226)))
    for line, width in [(points, 4.0), *((twig, 2.0) for twig in twigs)]:
        some = [(1 - x, h) if flip else (x, h) for x, h in line]
        sheet.stroke(some, sheet.ink, width + 1.2)
        sheet.stroke(some, bark, width)
    for x, height in [point for twig in twigs for point in twig] + points[2:]:
        x = 1 - x if flip else x
        r = sheet.between(0.02, 0.04)
        for angle in np.linspace(0, 2 * math.pi, 6)[:5]:
            cx, cy = (x + r * math.cos(angle)), (height + r * math.sin(angle))
            box = [(cx - r) * sheet.side, (cy - r) * sheet.side, (cx + r) * sheet.side,
                   (cy + r) * sheet.side]  # fmt: skip
            sheet.draw.ellipse(box, fill=petals, outline=sheet.ink, width=sheet.line // 2)


def boat(sheet: Print) -> None:
    """A boat with a sail on the sea, before a coast."""
    horizon = sheet.between(0.5, 0.64)
    coast = [(x, horizon - 0.08 * abs(math.sin(5 * x + sheet.between(0, 1))))
             for x in np.linspace(-0.05, 1.05, 16)]  # fmt: skip
    sheet.shape([*coast, (1.05, 1.05), (-0.05, 1.05)], sheet.pick(_GREENS))
    sheet.sea(horizon)
    x, y, size = sheet.between(0.32, 0.68), sheet.between(0.68, 0.82), sheet.between(0.8, 1.25)
    hull = [(-0.2, -0.05), (0.22, -0.07), (0.15, 0.03), (-0.13, 0.03)]
    sheet.shape([(x + a * size, y + b * size) for a, b in hull], sheet.pick(_WARM))
    sail = [(-0.08, -0.38), (0.13, -0.36), (0.11, -0.09), (-0.1, -0.09)]
    sheet.shape([(x + a * size, y + b * size) for a, b in sail], sheet.pick(_PAPERS))
    for share in (0.25, 0.5, 0.75):
        a = -0.09 + 0.21 * share
        sheet.stroke(
            [(x + a * size, y - 0.37 * size), (x + a * size, y - 0.09 * size)], sheet.ink, 0.5
        )


_DRAW = dict(zip(SUBJECTS, (mountain, wave, branch, boat), strict=True))


def draw_print(number: int) -> tuple[str, Image.Image]:
    """Return the subject and the image, `SIDE` px square, of a print."""
    sheet, subject = Print(number), SUBJECTS[number % len(SUBJECTS)]
    sheet.sky()
    _DRAW[subject](sheet)
    margin = round(sheet.between(0.03, 0.06) * sheet.side)
    framed = Image.new("RGB", sheet.image.size, sheet.paper)
    inside = (margin, margin, sheet.side - margin, sheet.side - margin)
    framed.paste(sheet.image.crop(inside), inside[:2])
    ImageDraw.Draw(framed).rectangle(inside, outline=sheet.ink, width=sheet.line // 2)
    small = framed.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    grain = sheet.random.normal(0, 255, (SIDE, SIDE)).clip(-500, 500) / 4 + 128
    fibres = Image.fromarray(grain.clip(0, 255).astype(np.uint8)).filter(
        ImageFilter.GaussianBlur(1)
    )
    texture = np.asarray(fibres, np.float32)[..., None] - 128
    pixels = np.asarray(small, np.float32) + texture * 0.35
    return subject, Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8))
