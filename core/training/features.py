"""Public features of an image: a scattering transform with fixed wavelets.

Nothing in it is learned, so that it costs no privacy; a linear classifier on such
features is the strongest private one at small budgets that needs no public data (Tramèr
& Boneh 2021, arXiv 2011.11660, sec. 3).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, group_norm, pad

from core.errors import UserError
from core.parallel import Hardware, workers

ORIENTATIONS = 8
SCALES = 2
STRIDE = 4
"""2^J, J = 2: pixels per cell of the grid, each way."""

LARGEST_GRID = 8
"""Cells per side at most: a larger image has larger cells, so that the number of
features is bounded."""

MARGIN = 2
GROUP = 3
"""Channels normalised together, of the brightness's 81 (Tramèr & Boneh: 27 groups)."""

CHUNK_PIXELS = 2**18

COLOUR_AXES = torch.tensor(
    [[1 / 3**0.5] * 3, [1 / 2**0.5, -(1 / 2**0.5), 0],
     [1 / 6**0.5, 1 / 6**0.5, -2 / 6**0.5]], dtype=torch.float64
)  # fmt: skip
"""A fixed rotation of red, green and blue: brightness, and two contrasts."""


@dataclass(frozen=True, kw_only=True)
class Scattering:
    """The two-dimensional scattering transform of Bruna & Mallat (2013), J = 2, L = 8.

    |… ||x ⋆ ψ₁| ⋆ ψ₂| …| ⋆ φ of orders 0 to 2 with Morlet wavelets, on a coarse grid;
    then normalised image by image, in groups of channels (Tramèr & Boneh 2021). Of
    colour images, the brightness has all orders and the two contrasts have orders 0 and
    1 only, which is most of what they hold and a fifth of the cost.

    Attributes:
        resolution: Pixels per side; divisible by 4.
        channels: 1, or 3 for colour.
        fine: float32 [16, N, N]: spectra of the first order, N = resolution + 4.
        coarse: float32 [8, N/2, N/2]: those of the second, at half the resolution.
        windows, coarse_windows: float32 [g, N] and [g, N/2]: the low-pass φ, by axis.
    """

    resolution: int
    channels: int
    fine: Tensor
    coarse: Tensor
    windows: Tensor
    coarse_windows: Tensor

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """float32 [n, c, H, W] in [-1, 1] → float32 [n, features]."""
        return self.features(images)

    def features(self, images: Tensor) -> Tensor:
        """The same, with gradients where those are wanted."""
        bright = (images + 1) / 2
        planes = [bright[:, 0]]
        if self.channels == 3:
            planes = list(torch.einsum("kc,nchw->knhw", COLOUR_AXES.float(), bright))
        first = self._plane(planes[0], second_order=True)
        parts = [group_norm(first, first.shape[1] // GROUP)]
        for contrast in planes[1:]:
            scattered = self._plane(contrast, second_order=False)
            parts.append(group_norm(scattered, scattered.shape[1]))
        return torch.cat([part.flatten(1) for part in parts], dim=1)

    def _plane(self, plane: Tensor, *, second_order: bool) -> Tensor:
        """float32 [n, H, W] → float32 [n, 81 or 17, g, g]."""
        plane = pad(plane[:, None], (MARGIN,) * 4, mode="reflect")
        orders = [_averaged(plane, self.windows)]
        waves = _moduli(plane, self.fine)
        orders.append(_averaged(waves, self.windows))
        if second_order:
            # Only frequencies below those of a wave are left in its modulus.
            halved = avg_pool2d(waves[:, :ORIENTATIONS], 2)
            deeper = _moduli(halved[:, :, None], self.coarse).flatten(1, 2)
            orders.append(_averaged(deeper, self.coarse_windows))
        return torch.cat(orders, dim=1)


def _moduli(images: Tensor, spectra: Tensor) -> Tensor:
    return torch.fft.ifft2(torch.fft.fft2(images) * spectra).abs()


def _averaged(images: Tensor, windows: Tensor) -> Tensor:
    return windows @ images @ windows.T


@lru_cache(maxsize=4)
def scattering(resolution: int, channels: int) -> Scattering:
    """The transform for images of this size; its constants are public.

    Raises:
        UserError: when the resolution cannot be divided by 4.
    """
    check_resolution(resolution)
    side = resolution + 2 * MARGIN
    grid = min(resolution // STRIDE, LARGEST_GRID)
    coarse = _spectra(0, side // 2)
    return Scattering(
        resolution=resolution,
        channels=channels,
        fine=torch.cat([_spectra(scale, side) for scale in range(SCALES)]),
        coarse=coarse,
        windows=_windows(resolution, grid, 1),
        coarse_windows=_windows(resolution, grid, 2),
    )


def check_resolution(resolution: int) -> None:
    """Refuse what the transform cannot take.

    Raises:
        UserError: naming the resolution.
    """
    if resolution % STRIDE:
        raise UserError(
            "The recipe looks at wavelet features, which need a resolution that is "
            f"divisible by {STRIDE}, not {resolution}: change the resolution, or set "
            "its teacher_share and moment_features_share to 0."
        )


def _spectra(scale: int, side: int) -> Tensor:
    """Morlet wavelets of one scale in all orientations: float32 [8, side, side].

    σ = 0.8·2^j, ξ = 3π/4·2^-j, slant 4/L (the constants of Bruna & Mallat's ScatNet);
    without a mean, so that only changes count. Periodic, as the transform is.
    """
    sigma, frequency = 0.8 * 2**scale, 0.75 * math.pi / 2**scale
    slant = 4 / ORIENTATIONS
    found = []
    for number in range(ORIENTATIONS):
        angle = (ORIENTATIONS // 2 - 1 - number) * math.pi / ORIENTATIONS
        periods = np.arange(-2, 3)[:, None] * side + np.arange(side)
        y, x = periods[:, None, :, None], periods[None, :, None, :]
        along = x * math.cos(angle) + y * math.sin(angle)
        across = y * math.cos(angle) - x * math.sin(angle)
        envelope = np.exp(-(along**2 + (slant * across) ** 2) / (2 * sigma**2))
        wave = (envelope * np.exp(1j * frequency * along)).sum(axis=(0, 1))
        envelope = envelope.sum(axis=(0, 1))
        wave -= wave.sum() / envelope.sum() * envelope
        spectrum = np.fft.fft2(wave * slant / (2 * math.pi * sigma**2)).real
        found.append(torch.from_numpy(spectrum).float())
    return torch.stack(found)


def _windows(resolution: int, grid: int, step: int) -> Tensor:
    """Gaussians around the cells of the grid, by axis: float32 [grid, side / step].

    Args:
        step: Pixels of the image per sample, which lies amid them.
    """
    cell = resolution / grid
    centres = (torch.arange(grid) + 0.5) * cell + MARGIN
    samples = (torch.arange((resolution + 2 * MARGIN) // step) + 0.5) * step
    windows = (-((samples - centres[:, None]) ** 2) / (2 * (cell / 2) ** 2)).exp()
    return windows / windows.sum(dim=1, keepdim=True)


def images_in_chunk(resolution: int) -> int:
    """How many images are looked at together, by one worker."""
    return max(1, CHUNK_PIXELS // resolution**2)


def in_chunks(
    function: Callable[[Tensor], Tensor], images: Tensor, hardware: Hardware
) -> Tensor:
    """`function` of many images, a few at a time on every worker; rows in order.

    Args:
        images: [n, …], n ≥ 1, the last two axes those of the pixels, of one length.
    """
    size = images_in_chunk(images.shape[-1])
    with workers(hardware) as pool:
        return torch.cat(list(pool.map(function, images.split(size))))
