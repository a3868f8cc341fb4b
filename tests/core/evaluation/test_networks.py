"""Every kind of classifier learns, whatever the size and the channels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.evaluation.classifier import accuracy, train_classifier
from core.evaluation.networks import CLASSIFIERS, build_classifier
from core.events import Watcher
from core.parallel import Hardware

CPU = Hardware(device=torch.device("cpu"), precision=torch.float32, threads=1)


@pytest.mark.parametrize("kind", CLASSIFIERS)
@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 32), (3, 64)])
def test_answers_for_every_class(kind, channels, side):
    network = build_classifier(channels, 7, kind)
    assert network(torch.zeros(2, channels, side, side)).shape == (2, 7)


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_learns_to_tell_stripes_apart(kind):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    images = rng.integers(0, 90, (200, 16, 16, 1), dtype=np.uint8)
    images[labels == 0, ::2] += 120
    images[labels == 1, :, ::2] += 120
    network = train_classifier(
        images[:150], labels[:150], classes=2, updates=25, flip=False, hardware=CPU,
        activity="", watcher=Watcher(), kind=kind,
    )  # fmt: skip
    assert accuracy(network, images[150:], labels[150:], CPU) > 0.9
