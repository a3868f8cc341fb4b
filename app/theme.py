"""The look: two palettes, one accent colour, and the style sheet made from them.

System font throughout. Colour never carries a meaning alone: text says it too.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib import resources
from string import Template

from PySide6.QtCore import QDir, Qt
from PySide6.QtGui import QColor, QFontInfo, QGuiApplication, QPalette
from PySide6.QtWidgets import QApplication


@dataclass(frozen=True, kw_only=True)
class Theme:
    """The colours by their task. Text on its ground keeps a contrast above 4.5 : 1."""

    name: str
    window: str
    card: str
    field: str
    line: str
    border: str
    text: str
    muted: str
    accent: str
    accent_hover: str
    on_accent: str
    tint: str
    warning_ground: str
    warning_line: str
    error_ground: str
    error_line: str
    error_text: str


LIGHT = Theme(
    name="light",
    window="#f4f6f7",
    card="#ffffff",
    field="#ffffff",
    line="#dde3e6",
    border="#8b989f",
    text="#1c2529",
    muted="#56646b",
    accent="#12657a",
    accent_hover="#0d5163",
    on_accent="#ffffff",
    tint="#e6f1f4",
    warning_ground="#fdf4e0",
    warning_line="#a86a00",
    error_ground="#fdeceb",
    error_line="#b3261e",
    error_text="#a3211a",
)

DARK = Theme(
    name="dark",
    window="#161b1e",
    card="#1f262a",
    field="#171d20",
    line="#333e44",
    border="#74838b",
    text="#e6ecef",
    muted="#a6b4bb",
    accent="#74c4d6",
    accent_hover="#92d3e2",
    on_accent="#0b2229",
    tint="#1d343b",
    warning_ground="#352b14",
    warning_line="#e0b050",
    error_ground="#3a1f1e",
    error_line="#f0857d",
    error_text="#ffaaa3",
)

SIZES = {"brand": 1.3, "title": 1.8, "heading": 1.15, "figure": 1.6}
"""Of the letters of a role, in parts of the system font's."""

_SHEET = Template(
    """
QWidget { color: $text; }
QMainWindow, QStackedWidget, QScrollArea { background: $window; }
#content, #footer, #band { background: $window; }
QScrollArea { border: none; }
#sidebar { background: $card; border-right: 1px solid $line; }
#footer { border-top: 1px solid $line; }
#summary { background: $tint; border-radius: 6px; padding: 7px 12px; color: $text; }
QLabel { background: transparent; }
QLabel[role="brand"] { font-size: ${brand}px; font-weight: 600; }
QLabel[role="title"] { font-size: ${title}px; font-weight: 600; }
QLabel[role="heading"] { font-size: ${heading}px; font-weight: 600; }
QLabel[role="strong"] { font-weight: 600; }
QLabel[role="figure"] { font-size: ${figure}px; font-weight: 600; }
QLabel[role="hint"] { color: $muted; }
QLabel[role="path"] { font-family: monospace; }
QFrame[role="card"] {
    background: $card; border: 1px solid $line; border-radius: 8px;
}
QFrame[role="card"][chosen="true"] { border: 2px solid $accent; }
QFrame[role="card"][dropping="true"] { border: 2px dashed $accent; }
QFrame[role="note"], QFrame[role="warning"], QFrame[role="error"] {
    background: $tint; border: none; border-left: 4px solid $accent; border-radius: 4px;
}
QFrame[role="warning"] {
    background: $warning_ground; border-left-color: $warning_line;
}
QFrame[role="error"] { background: $error_ground; border-left-color: $error_line; }
QLabel[role="error"] {
    color: $error_text; font-weight: 600; background: transparent; border: none;
}

QPushButton {
    background: $card; border: 1px solid $border; border-radius: 6px;
    padding: 7px 16px; min-height: 18px;
}
QPushButton:hover { border-color: $accent; background: $tint; }
QPushButton:focus { border: 2px solid $accent; padding: 6px 15px; }
QPushButton[primary="true"] {
    background: $accent; border-color: $accent; color: $on_accent; font-weight: 600;
}
QPushButton[primary="true"]:hover { background: $accent_hover; }
QPushButton[primary="true"]:focus {
    border: 2px solid $text; padding: 6px 15px; background: $accent_hover;
}
QPushButton:checked {
    background: $tint; border: 2px solid $accent; padding: 6px 15px;
}
QPushButton:disabled, QPushButton[primary="true"]:disabled {
    background: $window; border: 1px solid $line; color: $muted; font-weight: 400;
}

QToolButton {
    background: transparent; border: 1px solid transparent; border-radius: 6px;
    padding: 5px 8px; font-weight: 600;
}
QToolButton:hover { background: $tint; }
QToolButton:focus { border: 2px solid $accent; padding: 4px 7px; }

QLineEdit, QSpinBox, QDoubleSpinBox, QComboBox {
    background: $field; border: 1px solid $border; border-radius: 6px;
    padding: 6px 9px; min-height: 18px; selection-background-color: $accent;
    selection-color: $on_accent;
}
QLineEdit:focus, QSpinBox:focus, QDoubleSpinBox:focus, QComboBox:focus {
    border: 2px solid $accent; padding: 5px 8px;
}
QLineEdit:disabled, QSpinBox:disabled, QDoubleSpinBox:disabled, QComboBox:disabled {
    background: $window; border-color: $line; color: $muted;
}
QLineEdit[wrong="true"], QSpinBox[wrong="true"], QDoubleSpinBox[wrong="true"] {
    border: 2px solid $error_line; padding: 5px 8px;
}
QAbstractSpinBox QLineEdit, QAbstractSpinBox QLineEdit:focus {
    border: none; background: transparent; padding: 0;
}
QSpinBox::up-button, QDoubleSpinBox::up-button {
    subcontrol-origin: border; subcontrol-position: top right;
    width: 24px; border: none; margin-top: 3px;
}
QSpinBox::down-button, QDoubleSpinBox::down-button {
    subcontrol-origin: border; subcontrol-position: bottom right;
    width: 24px; border: none; margin-bottom: 3px;
}
QSpinBox::up-arrow, QDoubleSpinBox::up-arrow {
    image: url(icons:up-$name.svg); width: 10px; height: 10px;
}
QSpinBox::down-arrow, QDoubleSpinBox::down-arrow {
    image: url(icons:down-$name.svg); width: 10px; height: 10px;
}
QComboBox::drop-down { border: none; width: 26px; }
QComboBox::down-arrow { image: url(icons:down-$name.svg); width: 10px; height: 10px; }
QComboBox QAbstractItemView { background: $card; border: 1px solid $border; }

QRadioButton, QCheckBox { spacing: 9px; padding: 3px 6px; border-radius: 5px; }
QRadioButton, QCheckBox { border: 2px solid transparent; }
QRadioButton:focus, QCheckBox:focus { border: 2px solid $accent; }
QRadioButton::indicator {
    width: 14px; height: 14px; border: 2px solid $border; border-radius: 9px;
    background: $field;
}
QRadioButton::indicator:checked {
    width: 6px; height: 6px; border: 6px solid $accent; border-radius: 9px;
    background: $on_accent;
}
QCheckBox::indicator, QListView::indicator {
    width: 14px; height: 14px; border: 2px solid $border; border-radius: 4px;
    background: $field;
}
QCheckBox::indicator:checked, QListView::indicator:checked {
    border-color: $accent; background: $accent; image: url(icons:check-$name.svg);
}
QRadioButton::indicator:checked:disabled { border-color: $border; }
QRadioButton:disabled, QCheckBox:disabled { color: $muted; }

QSlider { min-height: 28px; }
QSlider::groove:horizontal { height: 6px; border-radius: 3px; background: $line; }
QSlider::sub-page:horizontal { height: 6px; border-radius: 3px; background: $accent; }
QSlider::handle:horizontal {
    background: $card; border: 2px solid $accent; width: 16px; height: 16px;
    margin: -7px 0; border-radius: 10px;
}
QSlider::handle:horizontal:focus { background: $accent; border-color: $text; }
QSlider::sub-page:horizontal:disabled { background: $border; }
QSlider::handle:horizontal:disabled { border-color: $border; }

QProgressBar {
    background: $line; border: none; border-radius: 5px;
    min-height: 10px; max-height: 10px;
}
QProgressBar::chunk { background: $accent; border-radius: 5px; }
QProgressBar[tall="true"] { min-height: 20px; max-height: 20px; }
QProgressBar[quiet="true"]::chunk { background: $border; }

QTableView, QListView, QPlainTextEdit, QTextBrowser {
    background: $card; border: 1px solid $line; border-radius: 6px;
    alternate-background-color: $window; gridline-color: $line;
    selection-background-color: $tint; selection-color: $text;
}
QTableView:focus, QListView:focus { border: 2px solid $accent; }
QTableView::item { padding: 3px 8px; }
QListView::item { padding: 5px 8px; color: $text; }
QHeaderView, QHeaderView::section { background: $card; color: $muted; }
QHeaderView::section {
    border: none; border-bottom: 1px solid $line; padding: 6px 8px; font-weight: 600;
}
#steps { border: none; background: transparent; outline: none; }
#steps:focus { border: none; }
QToolTip { background: $card; color: $text; border: 1px solid $border; }
QMenuBar, QMenu { background: $card; }
QMenuBar::item { padding: 5px 10px; background: transparent; }
QMenu { border: 1px solid $line; padding: 4px; }
QMenu::item { padding: 6px 24px; }
QMenuBar::item:selected, QMenu::item:selected { background: $tint; }
QMessageBox, QDialog { background: $card; }
QScrollBar:vertical { background: transparent; width: 12px; margin: 0; }
QScrollBar::handle:vertical {
    background: $border; border-radius: 4px; min-height: 32px; margin: 2px;
}
QScrollBar:horizontal { background: transparent; height: 12px; margin: 0; }
QScrollBar::handle:horizontal {
    background: $border; border-radius: 4px; min-width: 32px; margin: 2px;
}
QScrollBar::add-line, QScrollBar::sub-line { width: 0; height: 0; }
QScrollBar::add-page, QScrollBar::sub-page { background: transparent; }
"""
)


def current() -> Theme:
    """The theme in use, for widgets that paint themselves."""
    ground = QGuiApplication.palette().color(QPalette.ColorRole.Window)
    return DARK if ground.lightness() < 128 else LIGHT


def install(application: QApplication) -> None:
    """Dress the application, and follow the system when it turns dark or light."""
    application.setStyle("Fusion")
    icons = resources.files("resources") / "icons"
    QDir.addSearchPath("icons", str(icons))
    hints = application.styleHints()
    hints.colorSchemeChanged.connect(lambda scheme: wear(application, scheme))
    wear(application, hints.colorScheme())


def wear(application: QApplication, scheme: Qt.ColorScheme) -> None:
    """Put on the dark theme for a dark scheme, the light one for any other."""
    theme = DARK if scheme == Qt.ColorScheme.Dark else LIGHT
    application.setPalette(_palette(theme))
    letters = QFontInfo(application.font()).pixelSize()
    sizes = {role: round(share * letters) for role, share in SIZES.items()}
    application.setStyleSheet(_SHEET.substitute(asdict(theme) | sizes))


def _palette(theme: Theme) -> QPalette:
    role = QPalette.ColorRole
    palette = QPalette()
    for name, colour in (
        (role.Window, theme.window),
        (role.WindowText, theme.text),
        (role.Base, theme.field),
        (role.AlternateBase, theme.window),
        (role.Text, theme.text),
        (role.PlaceholderText, theme.muted),
        (role.Button, theme.card),
        (role.ButtonText, theme.text),
        (role.BrightText, theme.error_text),
        (role.Highlight, theme.accent),
        (role.HighlightedText, theme.on_accent),
        (role.ToolTipBase, theme.card),
        (role.ToolTipText, theme.text),
        (role.Link, theme.accent),
        (role.Mid, theme.border),
        (role.Midlight, theme.line),
        (role.Light, theme.card),
        (role.Dark, theme.border),
        (role.Shadow, theme.line),
        (role.Accent, theme.accent),
    ):
        palette.setColor(name, QColor(colour))
    for name in (role.Text, role.WindowText, role.ButtonText):
        palette.setColor(QPalette.ColorGroup.Disabled, name, QColor(theme.muted))
    return palette
