"""What the reports say, taken from the audit document alone.

`front_page` is the plain-words page that a custodian signs; `parts` is everything else,
generic over `core.release.fields`, so that a later field appears by itself. HTML, PDF
and the dataset card are layouts of these two.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.release.audit import canonical, digest, lookup
from core.release.exact import bound
from core.release.fields import FIELDS, PARTS
from core.release.wording import (
    UNITS,
    VERIFY_COMMAND,
    format_delta,
    format_epsilon,
    format_percent,
    relation_words,
)

_CLASSES_SHOWN = 12
_SHORT = 20
_SYMBOLS = {"epsilon": "ε", "delta": "δ"}
_CODE_NAME = re.compile(r"[a-z]+(?:_[a-z]+)+")


@dataclass(frozen=True, kw_only=True)
class FrontPage:
    """The first page, in plain words.

    Attributes:
        stamp: "NO PRIVACY", or empty.
        identity: One line: report, date, program.
        made: What was made.
        claim: The promise in one sentence.
        promise: The same without the field's words.
        chances: Rows of (question, without this release, at most with it).
        scale: Where ε stands on a published scale.
        not_promised: What the bound does not promise.
        choices: Rows of (choice, value).
    """

    title: str
    stamp: str
    identity: str
    made: str
    claim: str
    promise: str
    chances: tuple[tuple[str, str, str], ...]
    scale: str
    not_promised: tuple[str, ...]
    choices: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One table of the following pages: rows of (number, label, lines of text)."""

    letter: str
    title: str
    rows: tuple[tuple[int, str, tuple[str, ...]], ...]


def front_page(audit: Mapping[str, Any]) -> FrontPage:
    """The first page of an audit document.

    Raises:
        KeyError, TypeError, ValueError: If the document is malformed.
    """
    product, meaning = audit["product"], audit["interpretation"]
    stamp = str(audit.get("stamp", ""))
    return FrontPage(
        title=str(audit["title"]),
        stamp=stamp,
        identity=f"Report {audit['report_id']}, made {audit['created_utc']} by "
        f"{audit['tool']['name']} {audit['tool']['version']}",
        made=f"{product['images']:,} synthetic images ({product['width']} × "
        f"{product['height']} pixels, {product['colour']}), {_per_class(product)}. "
        f"{_how(audit)} The private images themselves are not part of this release.",
        claim=str(audit["claim"]),
        promise="" if stamp else _promise(audit),
        chances=() if stamp else _chances(meaning),
        scale="" if stamp else str(meaning["scale"]),
        not_promised=tuple(meaning["does_not_promise"]),
        choices=_choices(audit),
    )


def _how(audit: Mapping[str, Any]) -> str:
    if not audit["steps_committed"]:
        return (
            "They were drawn from statistics of the custodian's private images, which "
            "were measured with noise, by a differentially private method; no network "
            "was trained."
        )
    return (
        f"A network trained before on public images ({audit['public_model']['name']}) "
        "was trained further on the custodian's private images by a differentially "
        "private method, and then computed these images."
    )


def _per_class(product: Mapping[str, Any]) -> str:
    names = list(product["class_names"])
    shown = ", ".join(names[:_CLASSES_SHOWN])
    more = f" and {len(names) - _CLASSES_SHOWN} more" * (len(names) > _CLASSES_SHOWN)
    return f"{product['images_per_class']:,} for each of the classes {shown}{more}"


def _promise(audit: Mapping[str, Any]) -> str:
    unit = UNITS[audit["unit_of_privacy"]["unit"]]
    epsilon = float(audit["epsilon_claimed"])
    factor = math.exp(epsilon) if epsilon < 700 else math.inf
    return (
        f"Compare a world with {relation_words(_relation(audit), unit)}: whatever "
        "could be seen in or concluded from this release, but for what the report says "
        "of other runs (field 49), could have come about in the "
        "other world too, with a probability that differs by a factor of at most "
        f"{format_epsilon(factor)} (that is e to the power ε), but for a remaining "
        f"probability of {format_delta(audit['delta'])}. This holds for every "
        f"{unit} in the data, and for attackers of any skill."
    )


def _relation(audit: Mapping[str, Any]) -> str:
    return str(audit["neighbouring_relation"]["relation"])


def _chances(meaning: Mapping[str, Any]) -> tuple[tuple[str, str, str], ...]:
    return (
        (
            "Records rightly named as used, when 1 % of the unused ones are wrongly "
            "named too",
            "1 %",
            format_percent(meaning["max_tpr_at_fpr_1_percent"]),
        ),
        (
            "Probability that such an accusation is right, if it was an even chance "
            "beforehand",
            "50 %",
            format_percent(meaning["posterior_from_50_percent_at_fpr_1_percent"]),
        ),
        (
            "Right answers to “was this record used?” over an even mix",
            "50 %",
            format_percent(meaning["best_accuracy_from_50_percent"]),
        ),
    )


def _choices(audit: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    unit = audit["unit_of_privacy"]
    lifetime = audit["lifetime_budget"]
    overlap = lookup(audit, "public_model.overlap_answer") or "not stated"
    if reason := lookup(audit, "public_model.overlap_reason"):
        overlap += f" (reason: {reason})"
    delta = format_delta(audit["delta"])
    within = "within" if audit["delta_vs_n"]["holds"] else "above"
    rows = [
        ("Unit of privacy", f"one {UNITS[unit['unit']]}: {unit['definition']}"),
        (
            "Declared number",
            f"N = {audit['n_public']['count']:,} {unit['unit']}s; δ is {within} the "
            "customary limit of 1/(10 N)",
        ),
        (
            "All runs on these data",
            f"{lifetime['runs']:,} so far, together ε = "
            f"{format_epsilon(bound(lifetime['epsilon'], 'epsilon'))} at δ = "
            f"{format_delta(lifetime['delta'])}, as this unit and relation count it",
        ),
        ("Public network", _network(audit["public_model"], overlap)),
    ]
    if "epsilon_claimed" in audit:
        budget = (
            f"claimed ε = {format_epsilon(audit['epsilon_claimed'])} (committed), "
            f"spent {format_epsilon(audit['epsilon_spent'])}, at δ = {delta}"
        )
        rows.insert(0, ("Budget", budget))
    missing = len(audit["not_yet_reported"])
    if missing:
        rows.append(
            ("Not reported", f"{missing} required items, listed on the last page")
        )
    return tuple(rows)


def _network(model: Mapping[str, Any], overlap: str) -> str:
    if model["name"] == "none":
        return str(model["pretraining_data"])
    licence = model.get("licence", "not stated")
    return (
        f"{model['name']}, licence {licence}; could it hold the same people? {overlap}"
    )


def parts(audit: Mapping[str, Any]) -> tuple[Part, ...]:
    """Every reported field, part by part, in the order of `core.release.fields`."""
    tables = []
    for letter, title in PARTS.items():
        rows = [
            (field.number, field.label, lines)
            for field in FIELDS
            if field.part == letter and (lines := _field_lines(audit, field.keys))
        ]
        if rows:
            tables.append(Part(letter=letter, title=title, rows=tuple(rows)))
    return tuple(tables)


def missing(audit: Mapping[str, Any]) -> tuple[tuple[int, str, str], ...]:
    """(number, label, keys) of the required fields that the document lacks."""
    rows: dict[int, tuple[str, list[str]]] = {}
    for item in audit["not_yet_reported"]:
        rows.setdefault(int(item["field"]), (item["name"], []))[1].append(item["key"])
    return tuple((n, name, ", ".join(keys)) for n, (name, keys) in rows.items())


def _field_lines(audit: Mapping[str, Any], keys: tuple[str, ...]) -> tuple[str, ...]:
    found = [(key, lookup(audit, key)) for key in keys]
    found = [(key, value) for key, value in found if value is not None]
    if len(keys) == 1:
        return tuple(line for key, value in found for line in _top(key, value))
    return tuple(
        line
        for key, value in found
        for line in _labelled(key.rpartition(".")[2], _lines(key, value))
    )


def _top(key: str, value: Any) -> tuple[str, ...]:
    lines = _lines(key, value)
    listed = isinstance(value, list) and len(lines) > 1
    return tuple(f"– {line}" for line in lines) if listed else lines


def _labelled(key: str, lines: tuple[str, ...]) -> tuple[str, ...]:
    if len(lines) == 1:
        return (f"{_label(key)}: {lines[0]}",)
    return (f"{_label(key)}:", *(f"– {line}" for line in lines))


def _lines(key: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, Mapping):
        return tuple(
            line
            for name, item in value.items()
            for line in _labelled(str(name), _lines(str(name), item))
        )
    if isinstance(value, list):
        lines = tuple(_line(key, item) for item in value)
        short = all(isinstance(i, str) and len(i) <= _SHORT for i in value) and lines
        return (", ".join(lines),) if short else lines or ("none",)
    return (_scalar(key, value),)


def _line(key: str, value: Any) -> str:
    if isinstance(value, Mapping):
        items = "; ".join(
            f"{_label(name)}: {_line(name, item)}"
            for name, item in value.items()
            if item is not None and name != "what"
        )
        return f"{value['what']}: {items}" if "what" in value else items
    if isinstance(value, list):
        return ", ".join(_line(key, item) for item in value)
    return _scalar(key, value)


def _label(key: str) -> str:
    return " ".join(_SYMBOLS.get(word, word) for word in key.split("_"))


def _scalar(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value.replace("_", " ") if _CODE_NAME.fullmatch(value) else value
    if "epsilon" in key.split("_") or key.startswith("replace_"):
        return format_epsilon(value)
    if isinstance(value, int):
        return f"{value:,}"
    if key == "delta":
        return format_delta(value)
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


def html(audit: Mapping[str, Any]) -> str:
    """The report as one HTML file: no scripts, nothing loaded from elsewhere."""
    return _environment().get_template("report.html.j2").render(**_context(audit))


def card(audit: Mapping[str, Any], folders: tuple[str, ...]) -> str:
    """README.md of the release.

    Args:
        audit: The audit document.
        folders: Folder name of each class, in the order of the labels.
    """
    names = audit["product"]["class_names"]
    rows = [
        (folder, label, sorted(folders).index(folder), name)
        for label, (folder, name) in enumerate(zip(folders, names, strict=True))
    ]
    template = _environment().get_template("card.md.j2")
    return template.render(**_context(audit), rows=rows)


def _context(audit: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "audit": audit,
        "front": front_page(audit),
        "parts": parts(audit),
        "missing": missing(audit),
        "digest": digest(audit),
        "verify_command": VERIFY_COMMAND,
        "size": len(canonical(audit)),
    }


def _environment() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("resources", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["markdown"] = _escape_markdown
    environment.filters["yaml"] = _yaml_string
    return environment


def _escape_markdown(text: str) -> Any:
    """Text as Markdown that shows just this text: neither markup nor HTML."""
    from markupsafe import Markup, escape

    shown = str(escape(text))
    for character in "\\`*_[]|#~":
        shown = shown.replace(character, "\\" + character)
    return Markup(shown.replace("&\\#39;", "'").replace("&\\#34;", '"'))


def _yaml_string(text: str) -> Any:
    import json

    from markupsafe import Markup

    return Markup(json.dumps(text, ensure_ascii=False))
