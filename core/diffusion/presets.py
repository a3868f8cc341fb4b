"""The networks of the two papers, by name; the parameter counts are tested.

The counts tell what Ghalebikesabi et al. 2023 do not say: no adaptive normalisation
(their text claims it, the 80.4 million exclude it), and on MNIST attention in the
middle block only, as a level of 16×16 pixels never occurs there. Heads are of 64
channels, as their Table 3 has it; the text says one head of 16.
"""

from __future__ import annotations

from dataclasses import replace

from core.diffusion.networks import NetworkConfig

PAPER_COLOUR = NetworkConfig(
    resolution=32,
    image_channels=3,
    channels=(192, 384, 384, 384),
    layers=2,
    attention_levels=(1,),
    classes=10,
)
"""Ghalebikesabi et al. 2023, Table 3, columns ImageNet32, CIFAR-10 and Camelyon17:
80,390,403 parameters with 10 classes."""

PAPER_DIGITS = NetworkConfig(
    resolution=28,
    image_channels=1,
    channels=(64, 128, 128),
    layers=1,
    classes=10,
)
"""Ghalebikesabi et al. 2023, Table 3, column MNIST: 4,239,041 parameters."""

DPDM_GREY = NetworkConfig(
    resolution=28,
    image_channels=1,
    channels=(32, 64, 64),
    layers=2,
    # With 32 groups each of the 32 channels would be normalised by itself, which takes
    # away what timestep and class add to it: NCSN++ has a quarter as many as channels.
    groups=8,
    head_channels=64,
    attention_levels=(2,),
    residual_resampling=True,
    classes=10,
    null_class=True,
)
"""Of the size of Dockhorn et al. 2022, sec. 5: widths 32, 64, 64, two blocks each,
attention of one head at 7×7 pixels, residual blocks that change the resolution. The
blocks are diffusers' and not those of their NCSN++: 1,774,401 parameters against 1.75
million."""

DPDM_COLOUR = replace(DPDM_GREY, resolution=32, image_channels=3, attention_levels=(1,))
"""The same for 32×32 in colour, with attention at 16×16 as theirs for CIFAR-10:
1,775,555 parameters."""

PRESETS = {
    "paper-colour": PAPER_COLOUR,
    "paper-digits": PAPER_DIGITS,
    "dpdm-grey": DPDM_GREY,
    "dpdm-colour": DPDM_COLOUR,
}
