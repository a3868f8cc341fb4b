"""Who may know whom, and what may be used where: read from the sources."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = sorted((ROOT / "core").rglob("*.py"))
APP = sorted((ROOT / "app").rglob("*.py"))
PRIVACY = sorted((ROOT / "core" / "privacy").rglob("*.py"))
QT = ("PySide6", "PyQt5", "PyQt6", "pyqtgraph", "shiboken6")
ALONE = ("data", "privacy", "diffusion")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path: Path, *, at_start_only: bool = False) -> set[str]:
    """Full names of the modules that a file imports."""
    body = tree(path)
    lazy = {
        inner
        for node in ast.walk(body)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
    }
    names = set()
    for node in ast.walk(body):
        if at_start_only and node in lazy:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def test_the_sources_were_found():
    assert len(CORE) > 40 and len(APP) > 5 and len(PRIVACY) > 9


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.stem)
def test_core_knows_neither_app_nor_qt(path):
    for name in imported(path):
        assert not any(within(name, other) for other in ("app", *QT)), name


@pytest.mark.parametrize("room", ALONE)
def test_data_privacy_and_diffusion_know_nothing_of_one_another(room):
    others = [f"core.{other}" for other in ALONE if other != room]
    later = ("training", "synthesis", "evaluation", "release", "checkpoints",
             "pipeline", "run", "cli", "demo")  # fmt: skip
    forbidden = [*others, *(f"core.{name}" for name in later)]
    files = sorted((ROOT / "core" / room).rglob("*.py"))
    assert len(files) > 3
    for path in files:
        for name in imported(path):
            assert not any(within(name, other) for other in forbidden), (path, name)


def test_each_later_room_knows_only_the_ones_it_may():
    may = {
        "checkpoints": {"diffusion"},
        "synthesis": {"diffusion", "checkpoints"},
        "evaluation": {"data"},
    }
    rooms = {path.name for path in (ROOT / "core").iterdir() if path.is_dir()}
    for room, known in may.items():
        for path in sorted((ROOT / "core" / room).rglob("*.py")):
            for other in rooms - known - {room}:
                assert not any(
                    within(name, f"core.{other}") for name in imported(path)
                ), (path, other)


def test_there_are_no_import_circles():
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in CORE
    }
    modules = {name.removesuffix(".__init__"): path for name, path in modules.items()}
    edges = {
        name: {
            other
            for target in imported(path, at_start_only=True)
            for other in (target, target.rpartition(".")[0])
            if other in modules and other != name and not within(name, other)
        }
        for name, path in modules.items()
    }
    finished: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " → ".join((*above, name))
        if name not in finished:
            for other in edges[name]:
                visit(other, (*above, name))
            finished.add(name)

    for name in modules:
        visit(name, ())


LIGHT = """
import contextlib, io, sys
import core.cli
with contextlib.redirect_stdout(io.StringIO()) as help, contextlib.suppress(SystemExit):
    core.cli.main(["--help"])
assert "COMMAND" in help.getvalue()
for command in ("run", "budget"):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        core.cli.main([command, "--help"])
heavy = ("torch", "diffusers", "opacus", "matplotlib", "pandas", "scipy",
         "dp_accounting", "PySide6")
print(*(name for name in heavy if name in sys.modules))
"""


def test_the_command_line_starts_without_heavy_packages():
    done = subprocess.run(
        [sys.executable, "-c", LIGHT], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def calls(path: Path) -> set[str]:
    return {
        ast.unparse(node.func)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
    }


@pytest.mark.parametrize("path", [*CORE, *APP], ids=lambda path: path.stem)
def test_nothing_that_runs_what_it_reads(path):
    """A checkpoint or a project file from elsewhere must not be able to run code."""
    for name in imported(path):
        packages = ("pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve",
                    "marshal")  # fmt: skip
        assert not any(within(name, package) for package in packages), name
    forbidden = {"torch.load", "torch.hub.load", "eval", "exec", "compile",
                 "yaml.load", "os.system"}  # fmt: skip
    assert not calls(path) & forbidden
    assert "allow_pickle=True" not in path.read_text(encoding="utf-8")


def test_the_audit_surface_is_short():
    lines = (ROOT / "core/privacy/mechanism.py").read_text().splitlines()
    assert len(lines) < 200
    for path in PRIVACY:
        assert len(path.read_text().splitlines()) < 400, path


@pytest.mark.parametrize(
    "name",
    [
        "mechanism",
        "clipping",
        "noise",
        "sampling",
        "moments",
        "central",
        "teacher",
        "ledger",
        "accounting",
        "exact",
    ],
)
def test_the_lines_that_keep_the_rules_are_marked(name):
    text = (ROOT / f"core/privacy/{name}.py").read_text()
    assert re.search(r"^\s+# PRIVACY: \w", text, re.MULTILINE)


def test_the_privacy_room_draws_from_the_systems_keys_only():
    """No seed, no global generator, no clock: noise.py is the only source."""
    for path in PRIVACY:
        for call in calls(path):
            assert not re.match(
                r"(np\.random\.(?!Generator|Philox)|torch\.(rand|normal|manual_seed)"
                r"|random\.|.*\.seed$|.*manual_seed$)",
                call,
            ), (path.name, call)
        if path.stem != "noise":
            assert not any(within(name, "secrets") for name in imported(path))
    signature = (ROOT / "core/privacy/noise.py").read_text()
    assert "seed:" not in signature and "seed=" not in signature


def test_no_forbidden_promise_is_written_anywhere():
    """Rule 7: the words are only ever named in order to be refused."""
    for path in [*CORE, *APP]:
        if path.stem == "wording":
            continue
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value.lower()
                assert "verified private" not in text, path
                assert not re.search(r"\b(is|are|be) (fully )?anonymous", text), path
