"""What a text of a report may hold, the same at the export and for the recipient."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

from core.release.wording import FORBIDDEN

CLASS_NAMES = frozenset({"class_names", "product.class_names"})
"""Where the names of classes stand in the facts and in the document: they may use any
word, since they name what is on the images."""

_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Letters and symbols that are drawn as nothing at all."""
_BOUND = re.compile(r"(?<![^\W\d_])(?:ε|ɛ|δ|epsilon|delta)(?![^\W\d_])")


def objections(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(dotted key, what is wrong with a text there), of plain JSON types.

    Words are looked for in what a reader sees: without accents, in small letters.
    """
    for key, text in _texts(document, ""):
        words = _plain(text)
        if not all(map(_seen, text)):
            yield key, "holds line breaks or characters that cannot be seen"
        # PRIVACY: no text may promise more than the bound, or state a bound of its own.
        elif key not in CLASS_NAMES and (word := FORBIDDEN.search(words)):
            yield key, f"says “{word.group()}”, which no bound can promise"
        elif key == "title" and (word := _BOUND.search(words)):
            yield key, f"says “{word.group()}”, which only the report itself may state"


def _texts(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """Every text with its key; the names of items are printed, and so are texts too."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            place = f"{key}.{name}" if key else str(name)
            yield place.rpartition(".")[0], str(name)
            yield from _texts(item, place)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item, key)
    elif isinstance(value, str):
        yield key, value


def _seen(character: str) -> bool:
    # Spaces of every width are seen as spaces; some keyboards type them before a colon.
    spaced = unicodedata.category(character) == "Zs"
    return (character.isprintable() or spaced) and character not in _BLANK


def _plain(text: str) -> str:
    taken_apart = unicodedata.normalize("NFKD", text)
    return "".join(c for c in taken_apart if not _is_mark(c)).casefold()


def _is_mark(character: str) -> bool:
    return unicodedata.category(character) in ("Mn", "Me")
