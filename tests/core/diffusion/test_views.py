"""Views: each is its own image's, changed only as was asked."""

from __future__ import annotations

import pytest
import torch

from core.diffusion.timesteps import UNIFORM
from core.diffusion.views import make_views, to_network, to_pixels


def some_images() -> torch.Tensor:
    return torch.rand(3, 2, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1


def views_of(images, labels, **changes):
    wishes = {"multiplicity": 1, "timesteps": UNIFORM, "flip": False}
    return make_views(
        images, labels, generator=torch.Generator().manual_seed(0), **(wishes | changes)
    )


def test_views_of_an_image_lie_together_and_keep_its_label():
    """A unit's views must be its own: an interleaving mistake mixes people."""
    images, labels = some_images(), torch.tensor([5, 7, 9])
    views = views_of(images, labels, multiplicity=4)
    assert views.labels.tolist() == [5] * 4 + [7] * 4 + [9] * 4
    for index in range(12):
        assert torch.equal(views.clean[index], images[index // 4])
    assert len(views.timesteps.unique()) > 6
    assert views.noise.shape == views.clean.shape == (12, 2, 4, 4)
    assert not torch.equal(views.noise[0], views.noise[1])


def test_flip_mirrors_left_to_right_and_nothing_else():
    images = some_images()[:1]
    views = views_of(
        images, torch.zeros(1, dtype=torch.long), multiplicity=200, flip=True
    )
    mirrored = images[0].flip(-1)
    kept = [torch.equal(view, images[0]) for view in views.clean]
    turned = [torch.equal(view, mirrored) for view in views.clean]
    assert all(a != b for a, b in zip(kept, turned, strict=True))
    assert 60 < sum(turned) < 140


def test_a_crop_shifts_the_whole_image_and_no_further_than_asked():
    """Numbered pixels: each view must be one window of the mirrored continuation."""
    image = torch.arange(2 * 5 * 6, dtype=torch.float32).view(1, 2, 5, 6)
    continued = torch.nn.functional.pad(image, (2, 2, 2, 2), mode="reflect")[0]
    windows = {
        tuple(continued[:, down : down + 5, right : right + 6].flatten().tolist())
        for down in range(5)
        for right in range(5)
    }
    assert len(windows) == 25
    views = views_of(image, torch.zeros(1, dtype=torch.long), multiplicity=400, crop=2)
    drawn = [tuple(view.flatten().tolist()) for view in views.clean]
    assert set(drawn) == windows
    assert max(drawn.count(window) for window in windows) < 40


def test_cropped_views_stay_with_their_images():
    images = torch.stack([torch.full((2, 4, 4), float(value)) for value in range(3)])
    views = views_of(images, torch.arange(3), multiplicity=5, crop=1, flip=True)
    for index in range(15):
        assert (views.clean[index] == index // 5).all()


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_label_dropout_hides_that_share_of_the_labels(share):
    images, labels = torch.zeros(4000, 1, 1, 1), torch.full((4000,), 2)
    views = views_of(images, labels, label_dropout=share, null_label=9)
    assert set(views.labels.tolist()) == {2, 9}
    assert abs((views.labels == 9).float().mean().item() - share) < 0.03


def test_all_views_of_an_image_lose_their_label_together():
    images, labels = torch.zeros(60, 1, 1, 1), torch.arange(60)
    views = views_of(
        images, labels, multiplicity=5, label_dropout=0.5, null_label=99
    ).labels.view(60, 5)
    assert all(len(row.unique()) == 1 for row in views)
    hidden = views[:, 0] == 99
    assert 10 < hidden.sum() < 50
    assert torch.equal(views[~hidden, 0], labels[~hidden])


def test_what_is_not_asked_for_draws_no_random_number():
    """Recipes that lack the later fields repeat what they drew before."""
    images, labels = some_images(), torch.arange(3)
    plain = views_of(images, labels)
    same = views_of(images, labels, crop=0, label_dropout=0.0, null_label=3)
    assert torch.equal(plain.noise, same.noise)
    assert torch.equal(plain.labels, same.labels)


def test_pixels_survive_the_way_to_the_network_and_back():
    pixels = (
        torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(-1, -1, -1, 3)
    )
    inside = to_network(pixels)
    assert inside.shape == (1, 3, 16, 16)
    assert (float(inside.min()), float(inside.max())) == (-1, 1)
    assert torch.equal(to_pixels(inside), pixels)
    assert to_pixels(torch.tensor([[[[-9.0, 9.0]]]])).flatten().tolist() == [0, 255]
