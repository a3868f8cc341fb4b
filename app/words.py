"""Numbers as people say them."""

from __future__ import annotations

import math


def count(number: int, noun: str, plural: str = "") -> str:
    """
    >>> count(1, "image"), count(60_000, "image"), count(2, "class", "classes")
    ('1 image', '60,000 images', '2 classes')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def duration(seconds: float) -> str:
    """
    >>> duration(20), duration(100), duration(3000)
    ('under a minute', 'about 2 minutes', 'about 50 minutes')
    >>> duration(9000), duration(200_000)
    ('about 2.5 hours', 'about 2.3 days')
    """
    if seconds < 60:
        return "under a minute"
    if seconds < 90 * 60:
        return f"about {count(math.ceil(seconds / 60), 'minute')}"
    if seconds < 48 * 3600:
        return f"about {seconds / 3600:.1f} hours"
    return f"about {seconds / 86_400:.1f} days"


def epsilon(value: float) -> str:
    """ε rounded up to two decimals, as a bound must be.

    >>> epsilon(3.0), epsilon(0.121), epsilon(10.0)
    ('3', '0.13', '10')
    """
    rounded = math.ceil(round(value * 100, 6)) / 100
    return f"{rounded:g}"


def percent(share: float) -> str:
    """A bound on a share, rounded up to two decimals.

    >>> percent(0.89088), percent(1.0)
    ('89.09 %', '100.00 %')
    """
    return f"{math.ceil(round(share * 10_000, 6)) / 100:.2f} %"


def size_on_disk(number: float) -> str:
    """
    >>> size_on_disk(2_000_000), size_on_disk(409_600_000_000)
    ('2 MB', '410 GB')
    """
    megabytes = max(1, math.ceil(number / 1e6))
    if megabytes < 1000:
        return f"{megabytes} MB"
    gigabytes = megabytes / 1000
    return f"{gigabytes:.1f} GB" if gigabytes < 10 else f"{math.ceil(gigabytes):,} GB"


def probability(value: float) -> str:
    """
    >>> probability(1e-5), probability(0.001), probability(2.5e-6)
    ('1e-5', '1e-3', '2.5e-6')
    """
    mantissa, exponent = f"{value:e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}e{int(exponent)}"


def read_number(text: str) -> float | None:
    """A number as typed, with a comma or a point; None where it is not one.

    >>> read_number("1e-5"), read_number("0,001"), read_number("one")
    (1e-05, 0.001, None)
    """
    try:
        value = float(text.strip().replace(",", "."))
    except ValueError:
        return None
    return value if math.isfinite(value) else None
