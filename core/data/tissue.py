"""Draws one phantom patch of an H&E-stained lymph node: no real tissue is involved.

Two stains are painted as optical densities, haematoxylin (nuclei) and eosin (the rest),
and turned into light by Beer-Lambert's law with the stain colours of a hospital. Both
classes are given the same mean of each stain, so that the label is in the shape, size
and crowding of the nuclei and not in the colour of the patch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

PATCH: Final = 96
"""Side of a patch in pixels, as in Camelyon17."""

_MARGIN: Final = 14
_CANVAS: Final = PATCH + 2 * _MARGIN
_FIELD: Final = 256
_LYMPHOCYTE_SPACING: Final = 8.6
_TUMOUR_SPACING: Final = 16.0
_RED_LIGHT: Final = 0.72
_GREEN_LIGHT: Final = 0.55
_CENTRE_CLEARANCE: Final = 29.0
"""Pixels from the middle that no tumour cell of a normal patch may come closer than:
the half diagonal of the 32×32 centre plus the radius of a nucleus."""


@dataclass(frozen=True, kw_only=True)
class Staining:
    """How one slide was stained and scanned.

    Attributes:
        haematoxylin: Optical density of one unit of haematoxylin in R, G, B.
        eosin: The same for eosin.
        white: Light through empty glass in R, G, B, 0 to 255.
        blur: Weight of each neighbour in the scanner's three-pixel kernel, 0 to 1/3.
    """

    haematoxylin: tuple[float, float, float]
    eosin: tuple[float, float, float]
    white: tuple[float, float, float]
    blur: float


class TissueArtist:
    """A stock of nuclei and textures, drawn once, from which patches are composed.

    Args:
        seed: Fixes the stock. The same seed and the same generator handed to `paint`
            give the same pixels.
    """

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 0x7155])
        self._lymphocytes = [_lymphocyte(rng) for _ in range(160)]
        self._tumour_cells = [_tumour_cell(rng) for _ in range(160)]
        self._clouds = [_noise_field(rng, 14.0, 14.0, 0.0) for _ in range(6)]
        self._grain = [_noise_field(rng, 1.6, 1.6, 0.0) for _ in range(6)]
        self._fibres = [
            _noise_field(rng, 16.0, 1.8, angle)
            for angle in np.linspace(0.0, np.pi, 10, endpoint=False)
        ]

    def paint(
        self, *, tumour: bool, staining: Staining, rng: np.random.Generator
    ) -> np.ndarray:
        """One patch.

        Args:
            tumour: Whether tumour cells lie in the central 32×32 pixels.
            staining: Stain colours and scanner of the slide.
            rng: Source of everything else that varies.

        Returns:
            uint8 [96, 96, 3], RGB.
        """
        nest = _nest(tumour, rng)
        nuclei = np.zeros((_CANVAS, _CANVAS), np.float32)
        halo = np.zeros((_CANVAS, _CANVAS), np.float32)
        crowding = self._crop(self._clouds, rng)
        nesting = np.clip(0.78 + 0.25 * crowding, 0.55, 1.0)
        for y, x in _jittered_grid(_LYMPHOCYTE_SPACING, 0.33, rng):
            if nest[y, x] < 0.5 and rng.random() < 0.70 + 0.12 * crowding[y, x]:
                stamp = self._lymphocytes[rng.integers(len(self._lymphocytes))]
                _paste(nuclei, stamp, y, x)
        for y, x in _jittered_grid(_TUMOUR_SPACING, 0.24, rng):
            if nest[y, x] > 0.5 and rng.random() < nesting[y, x]:
                number = rng.integers(len(self._tumour_cells))
                nucleus, rim = self._tumour_cells[number]
                _paste(nuclei, nucleus, y, x)
                _paste(halo, rim, y, x)
        fibres = self._crop(self._fibres, rng) * (1.0 - 0.6 * nest)
        eosin = 0.4 + 0.09 * fibres + 0.065 * self._crop(self._clouds, rng)
        eosin *= (1.0 - 0.55 * halo) * (1.0 - 0.5 * np.minimum(nuclei, 1.0))
        nuclei *= 1.0 + 0.10 * self._crop(self._grain, rng)
        inner = slice(_MARGIN, -_MARGIN)
        stains = np.stack([nuclei[inner, inner], np.maximum(eosin[inner, inner], 0.04)])
        stains = _balanced(_blurred(stains, staining.blur), rng)
        return _develop(stains, staining, rng)

    def _crop(self, fields: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        field = fields[rng.integers(len(fields))]
        top, left = rng.integers(0, _FIELD - _CANVAS, 2)
        return field[top : top + _CANVAS, left : left + _CANVAS]


def _balanced(stains: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Scale both stains until the patch lets through as much light as was wanted.

    The wanted light follows one law for both classes, so that the mean colour of a
    patch does not tell its label. Light and not density, because few dark nuclei pass
    more light than many pale ones of the same mean density.
    """
    haematoxylin, eosin = stains
    red = np.clip(rng.normal(_RED_LIGHT, 0.03), 0.5, 0.85)
    green = np.clip(rng.normal(_GREEN_LIGHT, 0.03), 0.35, 0.75) * red / _RED_LIGHT
    haematoxylin = haematoxylin * _gain(haematoxylin, 1.2, 1.0, red)
    through = np.exp(-1.45 * haematoxylin)
    eosin = eosin * _gain(eosin, 0.75, through, green)
    return np.stack([haematoxylin, eosin]).astype(np.float32)


def _gain(
    stain: np.ndarray, density: float, through: np.ndarray | float, wanted: float
) -> float:
    """The g for which mean(through · exp(-g · density · stain)) = wanted, by Newton."""
    gain = 1.0
    for _ in range(4):
        light = through * np.exp(-gain * density * stain)
        slope = -density * (light * stain).mean()
        gain = float(np.clip(gain - (light.mean() - wanted) / slope, 0.3, 1.8))
    return gain


def _develop(
    stains: np.ndarray, staining: Staining, rng: np.random.Generator
) -> np.ndarray:
    """Beer-Lambert: light = white · exp(-density), with a little sensor noise."""
    colours = np.array([staining.haematoxylin, staining.eosin])
    # The dyes of every patch differ a little, or else the fixed relation between the
    # means of the three channels would give the darkness of the nuclei away.
    colours = (colours * rng.normal(1, 0.04, colours.shape)).astype(np.float32)
    density = np.tensordot(stains, colours, axes=(0, 0))
    light = np.exp(-density) * np.array(staining.white, np.float32)
    light += rng.standard_normal(light.shape, np.float32) * 2.0
    return np.clip(light + 0.5, 0, 255).astype(np.uint8)


def _blurred(stains: np.ndarray, blur: float) -> np.ndarray:
    for axis in (1, 2):
        ahead = np.roll(stains, 1, axis)
        behind = np.roll(stains, -1, axis)
        stains = (1 - 2 * blur) * stains + blur * (ahead + behind)
    return stains.astype(np.float32)


def _nest(tumour: bool, rng: np.random.Generator) -> np.ndarray:
    """Where tumour grows on the canvas, 0 or 1: through the centre, or clear of it."""
    y, x = np.mgrid[:_CANVAS, :_CANVAS].astype(np.float32) - (_CANVAS - 1) / 2
    wobble = 4.0 * np.sin(x / rng.uniform(7, 12) + rng.uniform(0, 6.3))
    if tumour:
        top, left = rng.normal(0.0, 6.0, 2)
        reach = rng.uniform(30.0, 85.0)
        return (np.hypot(y - top, x - left) + wobble < reach).astype(np.float32)
    if rng.random() > 0.3:
        return np.zeros_like(x)
    angle = rng.uniform(0, 2 * np.pi)
    distance = y * np.sin(angle) + x * np.cos(angle)
    edge = _CENTRE_CLEARANCE + 4.0 + rng.uniform(0, 8)
    return (distance + wobble > edge).astype(np.float32)


def _jittered_grid(
    spacing: float, jitter: float, rng: np.random.Generator
) -> np.ndarray:
    """Places of cells, int [n, 2]: a hexagonal grid, shifted, turned and shaken."""
    half = int(_CANVAS / spacing) + 1
    row, column = np.mgrid[-half : half + 1, -half : half + 1].reshape(2, -1)
    grid = np.stack([row * 0.93, column + 0.5 * (row % 2)], 1) * spacing
    angle = rng.uniform(0, np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    grid = grid @ turn + rng.normal(0, jitter * spacing, grid.shape)
    places = np.rint(grid + _CANVAS / 2 + rng.uniform(0, spacing, 2)).astype(int)
    return places[((places >= 0) & (places < _CANVAS)).all(1)]


def _paste(canvas: np.ndarray, stamp: np.ndarray, y: int, x: int) -> None:
    radius = stamp.shape[0] // 2
    top, left = y - radius, x - radius
    bottom, right = top + stamp.shape[0], left + stamp.shape[0]
    if top < 0 or left < 0 or bottom > _CANVAS or right > _CANVAS:
        stamp = stamp[
            max(-top, 0) : stamp.shape[0] - max(bottom - _CANVAS, 0),
            max(-left, 0) : stamp.shape[0] - max(right - _CANVAS, 0),
        ]
        top, left = max(top, 0), max(left, 0)
    under = canvas[top : top + stamp.shape[0], left : left + stamp.shape[1]]
    np.maximum(under, stamp, out=under)


def _polar(radius: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    size = np.arange(-radius, radius + 1, dtype=np.float32)
    y = size[:, None] + rng.uniform(-0.5, 0.5)
    x = size[None, :] + rng.uniform(-0.5, 0.5)
    return np.hypot(y, x), np.arctan2(y, x)


def _lymphocyte(rng: np.random.Generator) -> np.ndarray:
    """Small, round, dark: float32 [13, 13] of haematoxylin."""
    distance, angle = _polar(6, rng)
    # One in twelve is an activated one, half way to the size of a tumour nucleus.
    size = rng.uniform(4.2, 5.2) if rng.random() < 0.08 else rng.uniform(2.7, 3.8)
    outline = size * (
        1 + rng.uniform(0, 0.12) * np.cos(2 * angle + rng.uniform(0, 6.3))
    )
    inside = np.clip(outline - distance + 0.5, 0, 1)
    clumps = 1 + 0.15 * rng.standard_normal(distance.shape)
    return (inside * clumps * rng.uniform(0.9, 1.15)).astype(np.float32)


def _tumour_cell(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Large, irregular, pale inside a dark membrane, with nucleoli and a clear rim.

    Returns:
        Haematoxylin of the nucleus and the pale halo around it, float32 [27, 27] each.
    """
    distance, angle = _polar(13, rng)
    size = rng.lognormal(np.log(6.6), 0.18)
    outline = np.full_like(distance, min(max(size, 4.8), 9.8))
    for order, bend in ((1, 0.05), (2, 0.20), (3, 0.08), (4, 0.05)):
        amount = rng.uniform(0, bend)
        outline *= 1 + amount * np.cos(order * angle + rng.uniform(0, 6.3))
    inside = np.clip(outline - distance + 0.5, 0, 1)
    membrane = np.exp(-(((distance - outline + 1.0) / 1.1) ** 2))
    chromatin = 0.62 + 0.10 * rng.standard_normal(distance.shape)
    nucleus = inside * (chromatin + 0.26 * membrane)
    for _ in range(rng.integers(1, 3)):
        place, turn = rng.uniform(0, 0.45) * size, rng.uniform(0, 6.3)
        spot = np.hypot(
            distance * np.sin(angle) - place * np.sin(turn),
            distance * np.cos(angle) - place * np.cos(turn),
        )
        nucleus = nucleus + inside * 0.5 * np.exp(-((spot / 1.3) ** 2))
    nucleus *= rng.uniform(0.95, 1.3)
    halo = np.clip((outline + 3.2 - distance) / 2.0, 0, 1)
    return nucleus.astype(np.float32), halo.astype(np.float32)


def _noise_field(
    rng: np.random.Generator, length: float, width: float, angle: float
) -> np.ndarray:
    """Smooth periodic noise, mean 0 and variance 1, float32 [256, 256].

    Args:
        rng: Source of the noise.
        length: Size of its features along `angle`, in pixels.
        width: Size across it.
        angle: Direction in radians.
    """
    frequency = np.fft.fftfreq(_FIELD)
    y, x = np.meshgrid(frequency, frequency, indexing="ij")
    along = (x * np.cos(angle) + y * np.sin(angle)) * length
    across = (y * np.cos(angle) - x * np.sin(angle)) * width
    spectrum = np.fft.fft2(rng.standard_normal((_FIELD, _FIELD)))
    spectrum = spectrum * np.exp(-2.0 * (along**2 + across**2))
    field = np.fft.ifft2(spectrum).real
    return ((field - field.mean()) / field.std()).astype(np.float32)
