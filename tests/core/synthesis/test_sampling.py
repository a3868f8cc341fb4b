"""Samples: repeatable, resumable, of the class that was asked for."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from core.checkpoints.store import load_checkpoint
from core.diffusion.samplers import Churn
from core.errors import Stopped, UserError
from core.events import Watcher
from core.parallel import choose_hardware
from core.synthesis import drawing, sampling
from core.synthesis.drawing import from_moments, from_network, refined
from core.synthesis.sampling import synthesise
from tests.core.tiny import make_checkpoint

HARDWARE = choose_hardware("cpu")


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "BATCH", 2)
    make_checkpoint(tmp_path / "model")
    return tmp_path / "model"


def draw(model: Path, folder: Path, **changes):
    of_sampler = {"grey": False, "sampler": "ddim", "sampler_steps": 2}
    of_sampler |= {
        key: changes.pop(key)
        for key in ("grey", "sampler", "sampler_steps", "guidance", "churn", "seed")
        if key in changes
    }
    wishes = {
        "class_names": ("dark", "bright"),
        "per_class": 5,
        "hardware": HARDWARE,
        "watcher": Watcher(),
    }
    drawn_from = from_network(model, hardware=HARDWARE, **of_sampler)
    return synthesise(folder, draw=drawn_from, **(wishes | changes))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_same_again_for_the_same_seed(model, tmp_path):
    first = draw(model, tmp_path / "a")
    draw(model, tmp_path / "b")
    draw(model, tmp_path / "c", seed=1)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a") != contents(tmp_path / "c")
    images, labels = first.read()
    assert images.shape == (10, 8, 8, 3) and images.dtype == np.uint8
    assert labels.tolist() == [0] * 5 + [1] * 5
    assert len({image.tobytes() for image in images}) == 10


@pytest.mark.parametrize(
    ("device", "resolution", "images"),
    [("cpu", 32, 64), ("cpu", 256, 64), ("cuda", 28, 256), ("cuda", 64, 64),
     ("cuda", 256, 4), ("cuda", 1024, 1)],
)  # fmt: skip
def test_a_graphics_card_draws_more_at_once_and_large_ones_fewer(
    device, resolution, images
):
    hardware = replace(HARDWARE, device=torch.device(device))
    assert sampling.batch_size(hardware, resolution) == images


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_a_set_is_whole_in_batches_of_any_size(model, tmp_path, batch):
    drawn = draw(model, tmp_path / "a", batch=batch)
    assert drawn.read()[0].shape == (10, 8, 8, 3)
    assert contents(tmp_path / "a").keys() == {
        f"class-{label:03d}/{index:06d}.png" for label in (0, 1) for index in range(5)
    }


def test_named_pictures_are_the_same_on_every_device(model, tmp_path):
    """A set that is finished is not drawn anew where more are drawn together."""

    def dark(images):
        return torch.zeros(len(images), dtype=torch.long)

    draw(model, tmp_path / "a", name=dark, batch=2)
    before = contents(tmp_path / "a")
    draw(model, tmp_path / "a", name=dark, batch=4)
    assert contents(tmp_path / "a") == before


def test_a_stopped_run_goes_on_and_ends_the_same(model, tmp_path):
    draw(model, tmp_path / "whole")
    reports = []
    stopping = Watcher(report=reports.append, stop_requested=lambda: bool(reports))
    with pytest.raises(Stopped):
        draw(model, tmp_path / "stopped", watcher=stopping)
    begun = contents(tmp_path / "stopped")
    assert 0 < len(begun) < 10
    draw(model, tmp_path / "stopped")
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")


def test_what_is_there_is_not_drawn_again(model, tmp_path, monkeypatch):
    draw(model, tmp_path / "a")

    def never(*_, **__):
        raise AssertionError("drew again")

    monkeypatch.setattr(drawing, "sample", never)
    assert draw(model, tmp_path / "a").per_class == 5


def test_fewer_images_leave_none_that_are_too_many(model, tmp_path):
    draw(model, tmp_path / "a")
    foreign = tmp_path / "a/class-001/mine.png"
    foreign.write_bytes(b"somebody else's")
    fewer = draw(model, tmp_path / "a", per_class=4)
    assert foreign.is_file()
    foreign.unlink()
    draw(model, tmp_path / "fresh", per_class=4)
    assert contents(tmp_path / "a") == contents(tmp_path / "fresh")
    assert len(fewer.read()[0]) == 8
    again = draw(model, tmp_path / "a")
    assert again.per_class == 5 and len(contents(tmp_path / "a")) == 10


@pytest.mark.parametrize("fatal", range(3))
def test_a_crash_while_the_surplus_goes_is_made_good(
    model, tmp_path, monkeypatch, fatal
):
    draw(model, tmp_path / "a")
    real, deleted = Path.unlink, []

    def dying(self, *of, **how):
        if len(deleted) == fatal:
            raise KeyboardInterrupt
        deleted.append(self)
        return real(self, *of, **how)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "unlink", dying)
        draw(model, tmp_path / "a", per_class=2)
    assert len(contents(tmp_path / "a")) == 10 - fatal
    draw(model, tmp_path / "a", per_class=2)
    draw(model, tmp_path / "fresh", per_class=2)
    assert contents(tmp_path / "a") == contents(tmp_path / "fresh")


@pytest.mark.parametrize("fatal", [None, 0, 4, 10, 11])
def test_named_images_never_pass_for_images_as_drawn(
    model, tmp_path, monkeypatch, fatal
):
    """The teacher was lost after it had named them; perhaps a crash came in between."""
    draw(model, tmp_path / "a", name=by_brightness)
    real, deleted = Path.unlink, []

    def dying(self, *of, **how):
        if len(deleted) == fatal:
            raise KeyboardInterrupt
        deleted.append(self)
        return real(self, *of, **how)

    if fatal is not None:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Path, "unlink", dying)
            patch.setattr(sampling.shutil, "rmtree", dying)
            draw(model, tmp_path / "a")
    assert draw(model, tmp_path / "a").unnamed is None
    draw(model, tmp_path / "fresh")
    assert contents(tmp_path / "a") == contents(tmp_path / "fresh")


def test_the_samplers_settings_reach_the_sampler(model, tmp_path, monkeypatch):
    given = []
    drawn = drawing.sample

    def telling(network, labels, **settings):
        given.append(settings)
        return drawn(network, labels, **settings)

    monkeypatch.setattr(drawing, "sample", telling)
    churn = Churn(amount=3.0, from_sigma=0.1, to_sigma=9.0, noise=1.007)
    draw(
        model, tmp_path / "a", per_class=1, sampler="heun", sampler_steps=3, churn=churn
    )
    assert given[0]["churn"] == churn and given[0]["guidance"] == 0.0
    assert (given[0]["sampler"], given[0]["steps"]) == ("heun", 3)
    assert given[0]["process"].name == "v"
    with pytest.raises(UserError, match="guided"):
        draw(model, tmp_path / "b", per_class=1, guidance=1.5)
    assert given[-1]["guidance"] == 1.5


def test_grey_images_have_one_channel(model, tmp_path):
    images, _ = draw(model, tmp_path / "a", grey=True, per_class=1).read()
    assert images.shape == (2, 8, 8, 1)


def test_a_full_disk_leaves_no_half_image(model, tmp_path, monkeypatch):
    def full(self, *_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(UserError, match="disk is full"):
        draw(model, tmp_path / "a")
    assert not list((tmp_path / "a").rglob("*.png"))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"per_class": 0}, "images per class"),
        ({"sampler": "x"}, "sampler"),
        ({"guidance": -1.0}, "Guidance"),
        ({"churn": Churn(amount=1.0)}, "heun"),
    ],
)
def test_wishes_that_make_no_sense_are_refused(model, tmp_path, changes, named):
    with pytest.raises(UserError, match=named):
        draw(model, tmp_path / "a", **changes)


# Images that somebody names.


def by_brightness(images: torch.Tensor) -> torch.Tensor:
    """The brighter of a batch are of class 1, to which nobody was drawn."""
    levels = images.mean(dim=(1, 2, 3))
    return (levels > levels.median()).long()


def placed(target) -> list[bytes]:
    folders = target.class_folders
    return [file.read_bytes() for place in folders for file in sorted(place.iterdir())]


def test_a_name_decides_where_an_image_goes(model, tmp_path):
    named = []

    def name(images):
        named.append(images)
        return torch.ones(len(images), dtype=torch.long)

    told = []
    watcher = Watcher(report=told.append)
    target = draw(model, tmp_path / "a", name=name, per_class=4, watcher=watcher)
    assert target.unnamed == (4, 0)
    sorting = [(p.done, p.total) for p in told if p.activity.startswith("Sorting")]
    assert sorting[:4] == [(0, 4), (1, 4), (2, 4), (3, 4)]
    images, labels = target.read()
    assert labels.tolist() == [0] * 4 + [1] * 4
    assert len({image.tobytes() for image in images}) == 8
    # They are named as they are kept: eight-bit pixels, in the network's range.
    seen = torch.cat(named)
    assert seen.shape[1:] == (3, 8, 8) and float(seen.abs().max()) <= 1
    pixels = (seen + 1) * 127.5
    assert torch.allclose(pixels, pixels.round(), atol=1e-3)
    # The first that were drawn, whatever for, are those of class 1.
    drawn = sampling._read(tmp_path / "a/drawn-02/class-000", range(4))
    held = images[labels == 1]
    assert sorted(map(bytes, held)) == sorted(map(bytes, drawn))


def test_a_class_does_not_begin_with_what_was_drawn_for_another(model, tmp_path):
    """Half of the first class's are named the second, and arrive before its own."""
    target = draw(
        model, tmp_path / "a", per_class=16,
        name=lambda images: torch.arange(len(images)) % 2,
    )  # fmt: skip
    images, labels = target.read()
    others = {
        image.tobytes()
        for folder in (tmp_path / "a").glob("drawn-*/class-000")
        for image in sampling._read(folder, range(len(list(folder.iterdir()))))
    }
    first = [image.tobytes() in others for image in images[labels == 1]]
    assert first != sorted(first, reverse=True)


def test_images_are_those_that_are_drawn_without_names(model, tmp_path):
    plain = draw(model, tmp_path / "a", per_class=4)
    named = draw(
        model, tmp_path / "b", per_class=4,
        name=lambda images: torch.arange(len(images)) % 2,
    )  # fmt: skip
    assert sorted(placed(plain)) == sorted(placed(named)) and named.unnamed == (0, 0)
    assert placed(plain) != placed(named)


@pytest.mark.parametrize("stop_after", [1, 3, 5])
def test_a_stopped_run_with_names_ends_the_same(model, tmp_path, stop_after):
    whole = draw(model, tmp_path / "whole", name=by_brightness)
    asked = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > stop_after

    with pytest.raises(Stopped):
        draw(
            model, tmp_path / "stopped", name=by_brightness,
            watcher=Watcher(stop_requested=stop),
        )  # fmt: skip
    ended = draw(model, tmp_path / "stopped", name=by_brightness)
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")
    assert ended.unnamed == whole.unnamed


def test_what_was_named_is_neither_drawn_nor_named_again(model, tmp_path, monkeypatch):
    first = draw(model, tmp_path / "a", name=by_brightness)
    before = contents(tmp_path / "a")

    def never(*_, **__):
        raise AssertionError("again")

    with monkeypatch.context() as patch:
        patch.setattr(drawing, "sample", never)
        assert draw(model, tmp_path / "a", name=never).unnamed == first.unnamed
    assert contents(tmp_path / "a") == before
    # Another number of images places them anew, without any that are too many.
    fewer = draw(model, tmp_path / "a", name=by_brightness, per_class=3)
    assert [len(list(f.iterdir())) for f in fewer.class_folders] == [3, 3]
    fresh = draw(model, tmp_path / "b", name=by_brightness, per_class=3)
    assert placed(fewer) == placed(fresh)


def halves(labels: torch.Tensor, generator: torch.Generator, channels: int = 3):
    """Grey pictures, a class darker than the next, with a little noise."""
    shape = (len(labels), channels, 8, 8)
    noise = 0.1 * torch.randn(shape, generator=generator)
    return noise + labels.view(-1, 1, 1, 1) * 0.5 - 0.25


def refining(model: Path, draw_from=halves, rows=(2, 0), sigma=0.5, **changes):
    return refined(
        from_moments(draw_from), load_checkpoint(model), rows=lambda: rows,
        sigma=sigma, steps=2, hardware=HARDWARE, **changes,
    )  # fmt: skip


def test_refined_images_are_the_same_again_and_of_their_number_alone(model):
    first = refining(model)(1, 4, 3)
    assert torch.equal(first, refining(model)(1, 4, 3))
    assert not torch.equal(first, refining(model)(1, 7, 3))
    assert not torch.equal(first, refining(model, seed=2)(1, 4, 3))
    assert first.shape == (3, 3, 8, 8) and first.dtype == torch.float32


def test_each_class_is_refined_as_the_public_one_that_was_chosen(model, monkeypatch):
    asked = []

    def listen(network, images, labels, **_):
        asked.append((images.clone(), labels.tolist()))
        return images

    monkeypatch.setattr(drawing, "refine", listen)
    found = refining(model)(1, 0, 2)
    ((images, labels),) = asked
    assert labels == [0, 0] and images.mean() > 0.1
    assert torch.equal(found, from_moments(halves)(1, 0, 2))
    refining(model)(0, 0, 2)
    assert asked[1][1] == [2, 2] and asked[1][0].mean() < -0.1


def test_the_noise_of_refining_is_not_that_of_the_drawing(model, monkeypatch):
    seeds = []
    real = drawing._generator

    def listen(seed, label, first, device):
        seeds.append(real(seed, label, first, device).initial_seed())
        return real(seed, label, first, device)

    monkeypatch.setattr(drawing, "_generator", listen)
    refining(model)(1, 4, 3)
    assert len(seeds) == 2 and len(set(seeds)) == 2


def test_grey_images_stay_grey(model, monkeypatch):
    def grey(labels, generator):
        return halves(labels, generator, channels=1)

    assert refining(model, draw_from=grey)(0, 0, 2).shape == (2, 1, 8, 8)
    monkeypatch.setattr(drawing, "refine", lambda network, images, labels, **_: images)
    found = refining(model, draw_from=grey)(0, 0, 2)
    torch.testing.assert_close(found, from_moments(grey)(0, 0, 2))


def test_the_rows_are_asked_for_once_and_not_before_an_image_is_drawn(model):
    calls = []

    def rows():
        calls.append(1)
        return [0, 0]

    draw_from = refined(
        from_moments(halves), load_checkpoint(model), rows=rows, sigma=0.5, steps=2,
        hardware=HARDWARE,
    )  # fmt: skip
    assert not calls
    draw_from(0, 0, 2), draw_from(1, 0, 2)
    assert len(calls) == 1
