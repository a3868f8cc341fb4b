"""The pretraining images come from rules alone, the same ones every time."""

from __future__ import annotations

import numpy as np
import pytest

from core.checkpoints.public_images import KINDS, PHOTOGRAPHS, draw_public_images
from core.checkpoints.starter import STARTER_NETWORK
from core.events import Watcher

pytest.importorskip("skimage", reason="ships the photographs")


def test_every_kind_is_drawn_and_repeats_for_the_same_seed():
    count = len(KINDS)
    images, labels = draw_public_images(count, 16, seed=3, watcher=Watcher())
    again, _ = draw_public_images(count, 16, seed=3, watcher=Watcher())
    other, _ = draw_public_images(count, 16, seed=4, watcher=Watcher())
    assert images.shape == (count, 16, 16, 3) and images.dtype == np.uint8
    assert labels.tolist() == list(range(count))
    assert np.array_equal(images, again) and not np.array_equal(images, other)
    assert all(image.std() > 1 for image in images)
    for kind, image in zip(KINDS, images, strict=True):
        if kind.endswith("grey"):
            assert np.array_equal(image[..., 0], image[..., 2]), kind


def test_the_label_table_has_a_row_for_every_kind():
    assert len(KINDS) == STARTER_NETWORK.classes


def test_the_private_stand_in_is_not_among_the_photographs():
    assert not any("ihc" in name or "histo" in name for name in PHOTOGRAPHS)
