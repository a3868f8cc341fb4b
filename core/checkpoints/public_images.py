"""The images the starter checkpoint learns from: procedural, or in the public domain.

Twenty-one kinds of small picture, drawn by rule: glyphs of free fonts, shaded
silhouettes, dead leaves, textures, discs on a tinted ground, and crops of photographs
that are in the public domain and ship with scikit-image. No private image comes near.
Some kinds are chosen because clinical and benchmark pictures are made of the same
stuff: dark ground, round cells, fibres, one object in the middle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from core.errors import UserError
from core.events import Watcher

Random = np.random.Generator
CANVAS = 96  # Drawn large, reduced by area to the working resolution: smooth edges.

# Public domain or CC0 by scikit-image's own documentation. Left out: the coins ("no
# known restrictions"), the moon (no licence stated), and the stained-tissue picture,
# which serves as a private stand-in.
PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg",
               "hubble_deep_field.jpg", "camera.png", "brick.png", "grass.png",
               "gravel.png")  # fmt: skip


def _pairs(rng: Random, count: int) -> list[tuple[float, float]]:
    return [tuple(point) for point in rng.uniform(0, CANVAS, (count, 2))]


def _colour(rng: Random, grey: bool = False) -> tuple[int, int, int]:
    levels = rng.integers(0, 256, 1 if grey else 3)
    return tuple(int(level) for level in np.broadcast_to(levels, 3))


def _canvas(colour: tuple[int, int, int] = (0, 0, 0)) -> Image.Image:
    return Image.new("RGB", (CANVAS, CANVAS), colour)


def _clouds(rng: Random, size: int = CANVAS, slope: float = 1.5) -> np.ndarray:
    """One channel of 1/f^slope noise in [0, 1]: float32 [size, size]."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    frequency[0, 0] = 1
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) / frequency**slope
    field = np.fft.irfft2(spectrum, s=(size, size))
    low, high = field.min(), field.max()
    return ((field - low) / (high - low + 1e-9)).astype(np.float32)


@cache
def _fonts() -> tuple[str, ...]:
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    names = sorted(folder.glob("DejaVuS*.ttf")) + sorted(folder.glob("STIXGeneral*"))
    return tuple(str(name) for name in names if "Display" not in name.name)


@cache
def _font(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


def _glyph(rng: Random, alphabet: str) -> Image.Image:
    plain = rng.random() < 0.6
    ground = (0, 0, 0) if plain else _colour(rng)
    ink = (255, 255, 255) if plain else _colour(rng)
    image = _canvas(ground)
    fonts = _fonts()
    font = _font(fonts[rng.integers(len(fonts))], int(rng.integers(14, 23)) * 4)
    letter = alphabet[rng.integers(len(alphabet))]
    centre = tuple(CANVAS / 2 + rng.normal(0, 4, 2))
    stroke = int(rng.integers(0, 5))
    ImageDraw.Draw(image).text(
        centre, letter, fill=ink, font=font, anchor="mm", stroke_width=stroke
    )
    angle, shear = rng.normal(0, 8), rng.normal(0, 0.15)
    return image.rotate(angle, Image.Resampling.BILINEAR, fillcolor=ground).transform(
        image.size,
        Image.Transform.AFFINE,
        (1, shear, -shear * CANVAS / 2, 0, 1, 0),
        Image.Resampling.BILINEAR,
        fillcolor=ground,
    )


def _surface(rng: Random, grey: bool) -> Image.Image:
    """A shaded, sometimes patterned fill for a silhouette."""
    base = np.array(_colour(rng, grey), np.float32) * 0.6 + 90
    shade = 0.55 + 0.6 * _clouds(rng, slope=rng.uniform(1, 2.5))
    pattern = rng.integers(4)
    rows, columns = np.mgrid[0:CANVAS, 0:CANVAS]
    if pattern == 0:
        along = rows if rng.random() < 0.5 else columns
        shade *= 0.75 + 0.25 * np.sign(np.sin(along / rng.uniform(1.5, 6)))
    elif pattern == 1:
        shade *= 0.8 + 0.2 * np.sign(np.sin(rows / 4) * np.sin(columns / 4))
    pixels = np.clip(base * shade[..., None], 0, 255).astype(np.uint8)
    return Image.fromarray(pixels)


def _paste(image: Image.Image, rng: Random, mask: Image.Image, grey: bool) -> None:
    image.paste(_surface(rng, grey), (0, 0), mask)


def _profile(rng: Random) -> np.ndarray:
    """A smooth half-width along the height: float [CANVAS], in pixels."""
    knots = rng.uniform(0.08, 0.95, rng.integers(3, 8)) * CANVAS / 2
    at = np.linspace(0, 1, CANVAS)
    smooth = np.interp(at, np.linspace(0, 1, len(knots)), knots)
    kernel = np.ones(9) / 9
    return np.convolve(np.pad(smooth, 4, mode="edge"), kernel, mode="valid")


def _silhouette(rng: Random, *, mirrored: bool, grey: bool) -> Image.Image:
    left = _profile(rng)
    right = left if mirrored else _profile(rng)
    top, bottom = rng.uniform(0, 30), CANVAS - rng.uniform(0, 30)
    rows, columns = np.mgrid[0:CANVAS, 0:CANVAS].astype(np.float32)
    inside = (rows >= top) & (rows <= bottom)
    offset = columns - CANVAS / 2
    inside &= (offset > -left[:, None]) & (offset < right[:, None])
    if rng.random() < 0.35:  # An opening, as in rings, bags and trousers.
        gap = rng.uniform(2, 14)
        inside &= ~((np.abs(offset) < gap) & (rows > rng.uniform(20, 70)))
    if not mirrored and rng.random() < 0.5:
        inside = inside.T
    image = _canvas((0, 0, 0) if rng.random() < 0.8 else _colour(rng, grey))
    _paste(image, rng, Image.fromarray(inside.astype(np.uint8) * 255), grey)
    return image


def _ellipse(rng: Random, centre: np.ndarray, low: float, high: float) -> list[tuple]:
    """A wobbly closed outline."""
    angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    wobble = 1 + rng.uniform(0, 0.15) * np.sin(
        angles * rng.integers(2, 5) + rng.uniform(0, 6)
    )
    radius = rng.uniform(low, high)
    squeeze, turn = rng.uniform(0.6, 1), rng.uniform(0, np.pi)
    x, y = radius * wobble * np.cos(angles), squeeze * radius * wobble * np.sin(angles)
    return [
        (
            centre[0] + a * np.cos(turn) - b * np.sin(turn),
            centre[1] + a * np.sin(turn) + b * np.cos(turn),
        )
        for a, b in zip(x, y, strict=True)
    ]


def _cells(rng: Random, *, low: float, high: float, count: tuple) -> Image.Image:
    """Dark discs on a pale tinted ground."""
    tint = rng.uniform(150, 250, 3)
    cloud = _clouds(rng, slope=rng.uniform(0.8, 1.8))[..., None]
    ground = tint * (0.75 + 0.35 * cloud)
    image = Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    ink = tint * rng.uniform(0.25, 0.7, 3)
    for _ in range(rng.integers(*count)):
        outline = _ellipse(rng, rng.uniform(-5, CANVAS + 5, 2), low, high)
        shade = np.clip(ink * rng.uniform(0.7, 1.3), 0, 255).astype(int)
        rim = np.clip(shade * rng.uniform(0.5, 1.4), 0, 255).astype(int)
        draw.polygon(outline, fill=tuple(shade), outline=tuple(rim))
    return image


def _fibres(rng: Random) -> Image.Image:
    tint = rng.uniform(120, 250, 3)
    image = _canvas(tuple(int(level) for level in tint))
    draw = ImageDraw.Draw(image)
    turn = rng.uniform(0, np.pi)
    for _ in range(rng.integers(10, 40)):
        start, angle = rng.uniform(0, CANVAS, 2), turn + rng.normal(0, 0.3)
        reach = 100 * np.array([np.cos(angle), np.sin(angle)])
        shade = np.clip(tint * rng.uniform(0.5, 1.15), 0, 255).astype(int)
        ends = [tuple(start - reach), tuple(start + reach)]
        draw.line(ends, fill=tuple(shade), width=int(rng.integers(1, 8)))
    return image


def _dead_leaves(rng: Random, *, grey: bool) -> Image.Image:
    image = _canvas(_colour(rng, grey))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(20, 70)):
        # Sizes by a power law, as in natural scenes (Lee, Mumford & Huang 2001).
        radius = min(4 / rng.random() ** 0.5, 60)
        outline = _ellipse(rng, rng.uniform(0, CANVAS, 2), radius, radius)
        draw.polygon(outline, fill=_colour(rng, grey))
    return image


def _strokes(rng: Random, grey: bool) -> Image.Image:
    image = _canvas((0, 0, 0) if rng.random() < 0.7 else _colour(rng, grey))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(1, 4)):
        points = np.array(_pairs(rng, int(rng.integers(3, 6))))
        dense = np.linspace(0, len(points) - 1, 40)
        knots = np.arange(len(points))
        curve = [np.interp(dense, knots, points[:, axis]) for axis in (0, 1)]
        curve = [np.convolve(c, np.ones(9) / 9, mode="valid") for c in curve]
        draw.line(
            list(zip(*curve, strict=True)),
            fill=_colour(rng, grey),
            width=int(rng.integers(4, 14)),
            joint="curve",
        )
    return image


def _waves(rng: Random) -> Image.Image:
    rows, columns = np.mgrid[0:CANVAS, 0:CANVAS]
    turn, period = rng.uniform(0, np.pi), rng.uniform(5, 30)
    phase = (rows * np.sin(turn) + columns * np.cos(turn)) * 2 * np.pi / period
    wave = np.sin(phase + 2 * _clouds(rng)) * 0.5 + 0.5
    if rng.random() < 0.5:
        wave = (wave > 0.5).astype(np.float32)
    first, second = np.array(_colour(rng)), np.array(_colour(rng))
    mixed = first + (second - first) * wave[..., None]
    return Image.fromarray(mixed.astype(np.uint8))


def _cloud_picture(rng: Random, *, grey: bool) -> Image.Image:
    slope = rng.uniform(0.8, 2.2)
    fields = [_clouds(rng, slope=slope) for _ in range(1 if grey else 3)]
    mixed = np.stack(fields * (3 if grey else 1), -1) * 255
    return Image.fromarray(mixed.astype(np.uint8))


def _mosaic(rng: Random) -> Image.Image:
    seeds = rng.uniform(0, CANVAS, (rng.integers(6, 40), 2))
    rows, columns = np.mgrid[0:CANVAS:2, 0:CANVAS:2]
    distance = (rows[..., None] - seeds[:, 0]) ** 2 + (
        columns[..., None] - seeds[:, 1]
    ) ** 2
    colours = rng.integers(0, 256, (len(seeds), 3), dtype=np.uint8)
    return Image.fromarray(colours[distance.argmin(-1)])


def _ball(rng: Random, grey: bool) -> Image.Image:
    image = _canvas((0, 0, 0) if rng.random() < 0.6 else _colour(rng, grey))
    mask = Image.new("L", image.size)
    outline = _ellipse(rng, CANVAS / 2 + rng.normal(0, 6, 2), 20, 46)
    ImageDraw.Draw(mask).polygon(outline, fill=255)
    if rng.random() < 0.4:
        hole = _ellipse(rng, CANVAS / 2 + rng.normal(0, 6, 2), 6, 20)
        ImageDraw.Draw(mask).polygon(hole, fill=0)
    _paste(image, rng, mask, grey)
    return image


@cache
def _photographs() -> tuple[Image.Image, ...]:
    try:
        import skimage
    except ImportError:
        raise UserError(
            "Pretraining draws photographs from scikit-image, which is not installed: "
            'run pip install "sfumato[pretrain]".'
        ) from None
    folder = Path(skimage.__file__).parent / "data"
    return tuple(Image.open(folder / name).convert("RGB") for name in PHOTOGRAPHS)


def _photograph(rng: Random, *, grey: bool) -> Image.Image:
    pictures = _photographs()
    picture = pictures[rng.integers(len(pictures))]
    side = int(rng.uniform(48, min(picture.size) * 0.9))
    left = int(rng.integers(0, picture.width - side + 1))
    top = int(rng.integers(0, picture.height - side + 1))
    crop = picture.crop((left, top, left + side, top + side))
    crop = crop.resize((CANVAS, CANVAS), Image.Resampling.BOX)
    return crop.convert("L").convert("RGB") if grey else crop


DIGITS = "0123456789"
CAPITALS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
SMALL = "abcdefghijklmnopqrstuvwxyz"
SYMBOLS = "ΓΔΘΛΞΠΣΦΨΩБДЖЗИЛФЦЧШЩЭЮЯ&%@#$§?!+=±∞∑∫"

KINDS: dict[str, Callable[[Random], Image.Image]] = {
    "digits": lambda rng: _glyph(rng, DIGITS),
    "capital letters": lambda rng: _glyph(rng, CAPITALS),
    "small letters": lambda rng: _glyph(rng, SMALL),
    "symbols": lambda rng: _glyph(rng, SYMBOLS),
    "mirrored silhouettes, grey": lambda rng: _silhouette(
        rng, mirrored=True, grey=True
    ),
    "lopsided silhouettes, grey": lambda rng: _silhouette(
        rng, mirrored=False, grey=True
    ),
    "silhouettes, colour": lambda rng: _silhouette(
        rng, mirrored=rng.random() < 0.5, grey=False
    ),
    "strokes": lambda rng: _strokes(rng, grey=rng.random() < 0.6),
    "shaded balls": lambda rng: _ball(rng, grey=rng.random() < 0.6),
    "dead leaves, colour": lambda rng: _dead_leaves(rng, grey=False),
    "dead leaves, grey": lambda rng: _dead_leaves(rng, grey=True),
    "waves": _waves,
    "clouds, colour": lambda rng: _cloud_picture(rng, grey=False),
    "clouds, grey": lambda rng: _cloud_picture(rng, grey=True),
    "mosaics": _mosaic,
    "small discs": lambda rng: _cells(rng, low=3, high=6, count=(15, 70)),
    "large discs": lambda rng: _cells(rng, low=8, high=18, count=(4, 20)),
    "mixed discs": lambda rng: _cells(rng, low=3, high=16, count=(8, 40)),
    "fibres": _fibres,
    "photographs, colour": lambda rng: _photograph(rng, grey=False),
    "photographs, grey": lambda rng: _photograph(rng, grey=True),
}

ALL_KINDS = tuple(KINDS)
PROCEDURAL = tuple(kind for kind in KINDS if not kind.startswith("photographs"))
"""Those that are drawn by rule, and need nothing that Sfumato does not bring."""


def draw_public_images(
    count: int,
    resolution: int,
    *,
    seed: int,
    watcher: Watcher,
    kinds: Sequence[str] = ALL_KINDS,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw `count` images, the kinds in turn; the same for the same seed.

    Returns:
        (images uint8 [count, resolution, resolution, 3], labels int64 [count], the
        position of the kind in `KINDS`).

    Raises:
        UserError: when scikit-image, which ships the photographs, is not installed.
    """
    rng = np.random.default_rng(seed)
    images = np.empty((count, resolution, resolution, 3), np.uint8)
    places = np.array([ALL_KINDS.index(kind) for kind in kinds])
    labels = places[np.arange(count) % len(places)]
    draw = tuple(KINDS.values())
    size = (resolution, resolution)
    for index in range(count):
        picture = draw[labels[index]](rng)
        images[index] = picture.resize(size, Image.Resampling.BOX)
        if index % 500 == 0:
            watcher.progress("Drawing public images", index, count)
            watcher.stop_if_requested()
    return images, labels
