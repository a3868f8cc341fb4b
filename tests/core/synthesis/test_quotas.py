"""Every class gets its number; a name decides, as long as there is patience."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from core.synthesis.quotas import PATIENCE, Quotas


def filled(quotas: Quotas, name) -> list[int]:
    """Run to the end; how many images were drawn for each class."""
    drawn = [0] * quotas.classes
    while batches := quotas.next_round():
        for label, first in batches:
            assert first == drawn[label]
            numbers = range(first, first + quotas.size)
            quotas.arrived((label, first), [name(label, n) for n in numbers])
            drawn[label] += quotas.size
    return drawn


def test_images_that_are_named_as_drawn_stay_and_no_more_are_drawn():
    quotas = Quotas(classes=3, per_class=5, size=2)
    assert filled(quotas, lambda label, _: label) == [6, 6, 6]
    assert quotas.places == [[(label, n) for n in range(5)] for label in range(3)]
    assert quotas.unnamed == [0, 0, 0]


def test_an_image_goes_where_it_is_named():
    quotas = Quotas(classes=2, per_class=4, size=2)
    assert filled(quotas, lambda label, _: 1 - label) == [4, 4]
    assert quotas.places[0] == [(1, n) for n in range(4)]
    assert quotas.unnamed == [0, 0]


def test_a_class_that_is_short_is_drawn_for_again():
    """Every other image of class 1 is named 0: twice as many are drawn for it."""
    quotas = Quotas(classes=2, per_class=4, size=2)
    drawn = filled(quotas, lambda label, n: label * (n % 2))
    assert drawn == [4, 8] and quotas.unnamed == [0, 0]
    assert quotas.places[1] == [(1, n) for n in (1, 3, 5, 7)]


def test_a_class_that_is_never_named_is_filled_up_and_it_is_said():
    quotas = Quotas(classes=2, per_class=4, size=2)
    drawn = filled(quotas, lambda *_: 0)
    assert drawn == [4, PATIENCE * 4] and quotas.unnamed == [0, 4]
    assert quotas.places[1] == [(1, n) for n in range(4)]


def test_where_all_was_taken_by_others_more_is_drawn():
    """Those drawn for the last class fill the others, which wait for them."""
    others = 5

    def name(label, number):
        return 0 if label < others else 1 + number % (others - 1)

    quotas = Quotas(classes=others + 1, per_class=4, size=4)
    drawn = filled(quotas, name)
    assert drawn[-1] == (PATIENCE + 1) * 4 and quotas.unnamed[-1] == 4
    assert quotas.places[-1] == [(others, n) for n in range(16, 20)]


def test_what_is_left_fills_up_once_and_the_rest_is_drawn():
    """As above, but one image is left over."""
    others = 5

    def name(label, number):
        return 0 if label < others or number == 3 else 1 + number % (others - 1)

    quotas = Quotas(classes=others + 1, per_class=4, size=4)
    drawn = filled(quotas, name)
    assert drawn[-1] == (PATIENCE + 1) * 4 and quotas.unnamed[-1] == 4
    assert quotas.places[-1] == [(others, n) for n in (3, 16, 17, 18)]


@settings(max_examples=100, deadline=None)
@given(
    names=st.lists(st.integers(0, 3), min_size=1, max_size=40),
    per_class=st.integers(1, 9),
    size=st.integers(1, 4),
)
def test_every_class_is_full_and_no_image_is_used_twice(names, per_class, size):
    quotas = Quotas(classes=4, per_class=per_class, size=size)
    drawn = filled(quotas, lambda label, n: names[(7 * label + n) % len(names)])
    placed = [image for place in quotas.places for image in place]
    assert [len(place) for place in quotas.places] == [per_class] * 4
    assert len(set(placed)) == len(placed)
    assert max(drawn) <= (PATIENCE + 1) * (per_class + size)
    named = [
        sum(names[(7 * of + n) % len(names)] != label for of, n in place)
        for label, place in enumerate(quotas.places)
    ]
    assert all(a <= b for a, b in zip(named, quotas.unnamed, strict=True))


@pytest.mark.parametrize("per_class", [1, 7])
def test_the_first_round_is_what_is_drawn_without_names(per_class):
    quotas = Quotas(classes=2, per_class=per_class, size=3)
    number = -(-per_class // 3)
    assert quotas.next_round() == [
        (label, 3 * k) for label in range(2) for k in range(number)
    ]
