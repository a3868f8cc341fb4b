"""How much room images take, and what is left when drawing them is stopped."""

from __future__ import annotations

import pytest

from core.errors import Stopped, UserError


def reopening(engine, monkeypatch, error):
    """Have the engine end early in drawing another number than there are."""

    def draw(workspace, plan, watcher):
        workspace.reopen("samples")
        raise error

    monkeypatch.setattr(engine, "synthesise", draw)


def test_the_room_that_images_take_is_told_before_they_are_made(at):
    page = at("samples")
    page.number.setValue(60)
    assert page._total.text() == "120 images in 2 classes, about 1 MB on the disk"
    page.number.setValue(10_000_000)
    assert "20,000,000 images" in page._total.text()
    assert "about 82 GB" in page._total.text()


@pytest.mark.parametrize("error", [Stopped(), UserError("The disk is full.")])
def test_a_set_that_was_opened_again_no_longer_counts(
    at, engine, calm, window, monkeypatch, error
):
    page = at("samples")
    page.number.setValue(12)
    page.make.click()
    calm(window)
    assert page.ready() is None and page._shown.isVisible()
    reopening(engine, monkeypatch, error)
    page.number.setValue(40)
    page.make.click()
    calm(window)
    assert "Make the images" in page.ready()
    assert window.state.samples is None and not page._shown.isVisible()
    stopped = isinstance(error, Stopped)
    assert ("type 12 first" in page.message.text) is stopped
    assert ("disk is full" in page.message.text) is not stopped


def test_a_set_that_the_engine_kept_still_counts(at, engine, calm, window, monkeypatch):
    page = at("samples")
    page.make.click()
    calm(window)
    engine.fail["synthesise"] = UserError("The disk has no room.")
    page.number.setValue(40)
    page.make.click()
    calm(window)
    assert page.ready() is None and window.state.samples is not None
