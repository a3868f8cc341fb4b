"""The audit report as PDF: the same pages as the HTML, from the same document.

The file is the same for the same document: `verify` makes it again and compares every
byte. It holds its own fonts, and the digest of audit.json in its keywords.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape

from core.release.audit import digest
from core.release.report import front_page, missing, parts

_FONTS = {
    "Report": "STIXGeneral.ttf",
    "Report-Bold": "STIXGeneralBol.ttf",
    "Report-Italic": "STIXGeneralItalic.ttf",
    "Report-Mono": "DejaVuSansMono.ttf",
}
_INK, _QUIET, _RULE, _PANEL = "#1c1c1c", "#4a5660", "#9aa3ab", "#f5f7f9"
_ACCENT, _ALARM = "#33475b", "#9c1c1c"
_MARGIN = 54.0
_WIDTH = 595.27 - 2 * _MARGIN
_ROOM = 90.0
"""Points that a heading wants below it, or it goes to the next page."""
_HASH = re.compile(r"\b[0-9a-f]{64}\b")


def pdf(audit: Mapping[str, Any]) -> bytes:
    """The report of an audit document as the bytes of a PDF file (A4)."""
    from reportlab.lib.pagesizes import A4
    from reportlab.platypus import BaseDocTemplate, Frame, PageBreak, PageTemplate

    _register_fonts()
    style = _styles()
    story = [*_front(audit, style), PageBreak(), *_following(audit, style)]
    buffer = io.BytesIO()
    sha256 = digest(audit)
    document = BaseDocTemplate(
        buffer,
        pagesize=A4,
        title=f"Privacy report: {audit['title']}",
        author="",
        creator="Sfumato",
        subject="Privacy report of a synthetic image dataset",
        keywords=f"audit-sha256:{sha256}",
        invariant=1,
        # Compressed, the bytes would hang on the zlib of the machine.
        pageCompression=0,
    )
    frame = Frame(_MARGIN, 46, _WIDTH, A4[1] - 46 - 40, 0, 0, 0, 0)
    document.addPageTemplates(PageTemplate(frames=[frame]))
    footer = f"Report {audit['report_id']}"
    document.build(story, canvasmaker=_numbered_canvas(footer, sha256))
    return buffer.getvalue()


def _register_fonts() -> None:
    from pathlib import Path

    import matplotlib
    from reportlab.lib.fonts import addMapping
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.ttfonts import TTFont

    if "Report" in pdfmetrics.getRegisteredFontNames():
        return
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    for name, file in _FONTS.items():
        pdfmetrics.registerFont(TTFont(name, folder / file))
    for bold, italic, name in (
        (0, 0, "Report"),
        (1, 0, "Report-Bold"),
        (0, 1, "Report-Italic"),
        (1, 1, "Report-Bold"),
    ):
        addMapping("Report", bold, italic, name)


def _styles() -> dict[str, Any]:
    from reportlab.lib.enums import TA_CENTER, TA_RIGHT
    from reportlab.lib.styles import ParagraphStyle

    body = ParagraphStyle(
        "body", fontName="Report", fontSize=10, leading=12.6, textColor=_INK
    )

    def derived(name: str, **changes: Any) -> Any:
        return ParagraphStyle(name, parent=body, **changes)

    return {
        "body": body,
        "kind": derived("kind", fontSize=8.5, leading=11, textColor=_QUIET),
        "title": derived("title", fontName="Report-Bold", fontSize=18, leading=21),
        "small": derived("small", fontSize=8.5, leading=10.6, textColor=_QUIET),
        "heading": derived(
            "heading",
            fontName="Report-Bold",
            fontSize=11.5,
            leading=14,
            textColor=_ACCENT,
            spaceBefore=7,
            spaceAfter=2.5,
        ),
        "bullet": derived("bullet", leftIndent=11, bulletIndent=2, spaceAfter=1),
        "cell": derived("cell", fontSize=9.3, leading=11.4),
        "item": derived(
            "item", fontSize=9.3, leading=11.4, leftIndent=8, firstLineIndent=-8
        ),
        "label": derived("label", fontSize=9.3, leading=11.4, textColor=_ACCENT),
        "figure": derived("figure", fontSize=9.5, leading=11.6, alignment=TA_RIGHT),
        "stamp": derived(
            "stamp",
            fontName="Report-Bold",
            fontSize=20,
            leading=24,
            textColor=_ALARM,
            alignment=TA_CENTER,
        ),
    }


def _front(audit: Mapping[str, Any], style: dict[str, Any]) -> list[Any]:
    from reportlab.platypus import Spacer

    page = front_page(audit)
    unit = audit["unit_of_privacy"]["unit"]
    story = [
        _text("PRIVACY REPORT OF A SYNTHETIC IMAGE DATASET", style["kind"]),
        _text(page.title, style["title"]),
        Spacer(0, 2),
        _text(page.identity, style["small"]),
    ]
    if page.stamp:
        story += [Spacer(0, 6), _panel(page.stamp, style["stamp"], _ALARM)]
    story += [
        _text("1. What was made", style["heading"]),
        _text(page.made, style["body"]),
        _text("2. The promise", style["heading"]),
        _panel(page.claim, style["body"], _ACCENT),
    ]
    if not page.stamp:
        story += [
            Spacer(0, 4),
            _text(page.promise, style["body"]),
            _text(f"3. What it means for one {unit}", style["heading"]),
            _text(
                "The worst case: an attacker who knows every other record, the program "
                f"and all its settings, and asks of one {unit} whether it was used.",
                style["body"],
            ),
            Spacer(0, 3),
            _chances(page.chances, style),
            Spacer(0, 4),
            _text(page.scale, style["body"]),
        ]
    story.append(_text("4. What it does not promise", style["heading"]))
    story += [_bullet(line, style["bullet"]) for line in page.not_promised]
    rows = [
        [_text(name, style["label"]), _text(value, style["cell"])]
        for name, value in page.choices
    ]
    story += [
        _text("5. Choices made", style["heading"]),
        _table(rows, (0.22, 0.78)),
        _signatures(style),
    ]
    return story


def _chances(chances: tuple[tuple[str, str, str], ...], style: dict[str, Any]) -> Any:
    rows = [
        [
            _text("Attacker's chance", style["label"]),
            _text("by guessing", style["figure"]),
            _text("at most, with this release", style["figure"]),
        ]
    ]
    rows += [
        [
            _text(question, style["cell"]),
            _text(before, style["figure"]),
            _bold(after, style["figure"]),
        ]
        for question, before, after in chances
    ]
    return _table(rows, (0.62, 0.14, 0.24), header=True)


def _signatures(style: dict[str, Any]) -> Any:
    from reportlab.lib import colors
    from reportlab.platypus import KeepTogether, Spacer, Table

    labels = (
        ("Custodian: name", "Role", "Date", "Signature"),
        ("Data protection officer: name", "Conclusion", "Date", "Signature"),
    )
    rows = [[_text(label, style["small"]) for label in row] for row in labels]
    table = Table(
        rows, colWidths=[_WIDTH * w for w in (0.3, 0.27, 0.15, 0.28)], rowHeights=34
    )
    table.setStyle(
        [
            ("GRID", (0, 0), (-1, -1), 0.6, colors.HexColor(_RULE)),
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
            ("TOPPADDING", (0, 0), (-1, -1), 1.5),
        ]
    )
    return KeepTogether(
        [
            _text("6. Signatures", style["heading"]),
            _text(
                "The custodian has read this page and releases the images listed under "
                "1. The conclusion under data protection law is left to the data "
                "protection officer.",
                style["body"],
            ),
            Spacer(0, 4),
            table,
        ]
    )


def _following(audit: Mapping[str, Any], style: dict[str, Any]) -> list[Any]:
    from reportlab.platypus import CondPageBreak

    story: list[Any] = []
    for part in parts(audit):
        rows = [
            [
                _text(str(number), style["small"]),
                _text(label, style["label"]),
                [
                    _text(line, style["item" if line.startswith("– ") else "cell"])
                    for line in lines
                ],
            ]
            for number, label, lines in part.rows
        ]
        story += [
            CondPageBreak(_ROOM),
            _text(f"{part.letter}. {part.title}", style["heading"]),
            _table(rows, (0.05, 0.23, 0.72)),
        ]
    if lacking := missing(audit):
        rows = [
            [
                _text(str(number), style["small"]),
                _text(label, style["label"]),
                _text(keys, style["cell"]),
            ]
            for number, label, keys in lacking
        ]
        story += [
            CondPageBreak(_ROOM),
            _text("Not yet reported", style["heading"]),
            _text(
                "These required items are not known to this version of the program, or "
                "were not recorded in this run:",
                style["body"],
            ),
            _table(rows, (0.05, 0.33, 0.62)),
        ]
    return story


def _text(text: str, style: Any) -> Any:
    from reportlab.platypus import Paragraph

    marked = _HASH.sub(
        lambda found: f'<font name="Report-Mono" size="7.4">{found.group()}</font>',
        escape(text),
    )
    return Paragraph(marked, style)


def _bold(text: str, style: Any) -> Any:
    from reportlab.platypus import Paragraph

    return Paragraph(f"<b>{escape(text)}</b>", style)


def _bullet(text: str, style: Any) -> Any:
    from reportlab.platypus import Paragraph

    return Paragraph(escape(text), style, bulletText="•")


def _panel(text: str, style: Any, edge: str) -> Any:
    from reportlab.lib import colors
    from reportlab.platypus import Table

    table = Table([[_text(text, style)]], colWidths=[_WIDTH])
    table.setStyle(
        [
            ("BACKGROUND", (0, 0), (-1, -1), colors.HexColor(_PANEL)),
            ("BOX", (0, 0), (-1, -1), 0.6, colors.HexColor(edge)),
            ("LINEBEFORE", (0, 0), (0, -1), 4, colors.HexColor(edge)),
            ("LEFTPADDING", (0, 0), (-1, -1), 11),
            ("TOPPADDING", (0, 0), (-1, -1), 4),
            ("BOTTOMPADDING", (0, 0), (-1, -1), 6),
        ]
    )
    return table


def _table(rows: list[Any], shares: tuple[float, ...], *, header: bool = False) -> Any:
    from reportlab.lib import colors
    from reportlab.platypus import Table

    table = Table(
        rows,
        colWidths=[_WIDTH * share for share in shares],
        repeatRows=int(header),
        splitInRow=1,
    )
    table.setStyle(
        [
            ("LINEBELOW", (0, 0), (-1, -1), 0.4, colors.HexColor("#d3d8dc")),
            ("LINEABOVE", (0, 0), (-1, 0), 0.8, colors.HexColor(_ACCENT)),
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
            ("LEFTPADDING", (0, 0), (-1, -1), 0),
            ("RIGHTPADDING", (0, 0), (-1, -1), 6),
            ("RIGHTPADDING", (-1, 0), (-1, -1), 0),
            ("TOPPADDING", (0, 0), (-1, -1), 1.4),
            ("BOTTOMPADDING", (0, 0), (-1, -1), 2.4),
        ]
    )
    return table


def _numbered_canvas(footer: str, sha256: str) -> Any:
    """A canvas that knows how many pages there are when it writes "page 1 of 5"."""
    from reportlab.pdfgen.canvas import Canvas

    class NumberedCanvas(Canvas):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self._pages: list[dict[str, Any]] = []

        def showPage(self) -> None:
            self._pages.append(dict(self.__dict__))
            self._startPage()

        def save(self) -> None:
            for number, page in enumerate(self._pages, start=1):
                self.__dict__.update(page)
                self._foot(number)
                super().showPage()
            super().save()

        def _foot(self, number: int) -> None:
            self.setStrokeColor(_RULE)
            self.setLineWidth(0.5)
            self.line(_MARGIN, 38, _MARGIN + _WIDTH, 38)
            self.setFillColor(_QUIET)
            self.setFont("Report", 8)
            self.drawString(_MARGIN, 28, footer)
            of = f"page {number} of {len(self._pages)}"
            self.drawRightString(_MARGIN + _WIDTH, 28, of)
            self.setFont("Report-Mono", 6)
            self.drawString(_MARGIN, 18.5, f"audit.json SHA-256 {sha256}")

    return NumberedCanvas
