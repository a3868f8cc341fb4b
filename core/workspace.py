"""A project on disk: the custodian's wishes, and one folder per finished stage."""

from __future__ import annotations

import os
import tomllib
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import platformdirs

from core.errors import UserError
from core.files import (
    explained,
    private_folder,
    read_json,
    remove_unfinished,
    write_atomically,
    write_json,
)

PROJECT_FILE = "project.toml"
STAGES = ("dataset", "plan", "training", "samples", "utility", "utility-published",
          "release")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Project:
    """The wishes of the custodian; None means: what the recipe says.

    Attributes:
        source: Folder of private images.
        resolution: Working resolution, pixels per side.
        grey: Whether the images are declared to be grey; the layout decides otherwise.
        window: Values shown as black and white, "-160,240", where pixels have more than
            8 bits; "" for none.
        classes: Names of the classes that the custodian confirmed; () for those found.
        unit_column: What names the patient, "" for what the layout usually takes.
        missing_unit: Images without a patient: "own_unit", "leave_out"; "" not said.
        path_column, label_column, split_column: Columns of a table of images.
        cache: Where reduced copies of the images are kept: "disk" (readable by their
            owner only), "encrypted" (with a key from the keyring) or "memory".
        declared_count: A public number, at least as many as there are training units.
            Sampling rates and divisors come from it, never from the folder.
        unit: "image" or "patient".
        max_images_per_unit: Images of a patient looked at in one step.
        checkpoint: Name in the catalogue, or a checkpoint folder.
        overlap_answer: Could the checkpoint have been trained on these people: "no",
            "unsure", "yes"; "" when not asked.
        overlap_reason: Why, in the custodian's words, for the report.
        epsilon, delta, relation: The budget.
        recipe: Name of a recipe, or a TOML file.
        steps, batch_size, augmentation_multiplicity: Changes to the recipe.
        images_per_class: Size of the synthetic data set.
        title: Name of the release.
        device: "auto", "cpu" or "cuda".
    """

    source: str = ""
    resolution: int = 32
    grey: bool = False
    window: str = ""
    classes: tuple[str, ...] = ()
    unit_column: str = ""
    missing_unit: str = ""
    path_column: str = ""
    label_column: str = ""
    split_column: str = ""
    cache: str = "disk"
    declared_count: int | None = None
    unit: str = "image"
    max_images_per_unit: int = 1
    checkpoint: str = "starter"
    overlap_answer: str = ""
    overlap_reason: str = ""
    epsilon: float = 10.0
    delta: float = 1e-5
    relation: str = "add_or_remove_one"
    recipe: str = "useful"
    steps: int | None = None
    batch_size: int | None = None
    augmentation_multiplicity: int | None = None
    images_per_class: int | None = None
    title: str = "Synthetic images"
    device: str = "auto"

    def changed(self, **changes: Any) -> Project:
        """The same wishes with some fields replaced; a field of None is left alone."""
        given = {name: value for name, value in changes.items() if value is not None}
        return replace(self, **given)


def read_wishes(path: Path) -> dict[str, Any]:
    """The fields that a project file on disk names.

    Raises:
        UserError: naming the file, the line or the field that is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(
            f"The project file {path} is not text in UTF-8: save it as such, or "
            "restore it."
        ) from None
    except OSError as error:
        raise explained(error, path) from error
    return parse_wishes(text, path)


def saved_wishes(folder: Path) -> dict[str, Any] | None:
    """The fields that a project folder keeps, None where there is no project."""
    path = folder / PROJECT_FILE
    return read_wishes(path) if os.path.isfile(path) else None


def parse_project(text: str, path: Path) -> Project:
    """The wishes in the text of a project file; see `parse_wishes`."""
    return Project(**parse_wishes(text, path))


def parse_wishes(text: str, path: Path) -> dict[str, Any]:
    """The fields that the text of a project file names.

    Raises:
        UserError: naming the line or the field that is wrong.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(
            f"The project file {path} is not valid TOML ({error}): correct that line."
        ) from None
    defaults = {field.name: field.default for field in fields(Project)}
    for name, value in content.items():
        if name not in defaults:
            known = ", ".join(defaults)
            raise UserError(
                f"The project file {path} has an unknown field {name!r}: use {known}."
            )
        if isinstance(value, list) and all(isinstance(text, str) for text in value):
            content[name] = value = tuple(value)
        wanted = _kind(defaults[name], name)
        if isinstance(value, bool) != (wanted is bool) or not isinstance(value, wanted):
            raise UserError(
                f"The field {name!r} in {path} has the wrong kind of value: {value!r}."
            )
    return content


def _kind(default: object, name: str) -> type | tuple[type, ...]:
    if name in ("epsilon", "delta"):
        return (int, float)
    return int if default is None else type(default)


class Workspace:
    """An open project folder; one process at a time.

    The folder is readable by its owner only. Stage results lie in sub-folders, and a
    stage counts as finished when its folder holds `finished.json`.
    """

    def __init__(self, path: Path, lock: int | None) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def open(cls, path: Path) -> Workspace:
        """Open or create a project folder.

        Raises:
            UserError: when the folder cannot be used, or another window or command
                works in it.
        """
        path = path.expanduser().absolute()
        if path.is_file():
            raise UserError(f"{path} is a file: choose a folder for the project.")
        private_folder(path)
        lock = locked(
            path / ".lock",
            f"Another Sfumato window or command works in {path}: close it first.",
        )
        for folder in (path, *(path / stage for stage in STAGES)):
            remove_unfinished(folder)
        return cls(path, lock)

    @classmethod
    def look(cls, path: Path) -> Workspace:
        """A project folder to read only, whoever may be working in it.

        Raises:
            UserError: when it holds no project.
        """
        path = path.expanduser().absolute()
        if not (path / PROJECT_FILE).is_file():
            raise UserError(
                f"There is no project in {path}: make one with sfumato run."
            )
        return cls(path, None)

    def close(self) -> None:
        """Let others open it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Workspace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def project(self) -> Project | None:
        """The saved wishes, None for a new folder."""
        wishes = saved_wishes(self.path)
        return None if wishes is None else Project(**wishes)

    def save_project(self, project: Project) -> None:
        """Keep the wishes."""
        import tomli_w

        wishes = {k: v for k, v in asdict(project).items() if v is not None}
        text = tomli_w.dumps(wishes)
        write_atomically(
            self.path / PROJECT_FILE, lambda file: file.write_text(text, "utf-8")
        )

    def folder(self, stage: str) -> Path:
        """The folder of a stage, made if it is not there."""
        assert stage in STAGES, stage
        return private_folder(self.path / stage)

    def finished(self, stage: str) -> bool:
        """Whether the stage has a whole result."""
        return (self.path / stage / "finished.json").is_file()

    def finish(self, stage: str, result: dict) -> None:
        """Mark a stage as finished, with its facts."""
        write_json(self.folder(stage) / "finished.json", result)

    def reopen(self, stage: str) -> None:
        """Mark a finished stage as unfinished; what it made stays."""
        (self.path / stage / "finished.json").unlink(missing_ok=True)

    def result(self, stage: str) -> dict:
        """The facts of a finished stage.

        Raises:
            UserError: when it is not finished.
        """
        if not self.finished(stage):
            raise UserError(_UNFINISHED[stage].format(self.path))
        return read_json(self.folder(stage) / "finished.json")


_LEARNT_NOTHING = "Nothing was learned in {0} yet: run sfumato run {0} first."
_UNFINISHED = dict.fromkeys(STAGES, _LEARNT_NOTHING) | {
    "dataset": "No images were read in {0} yet: run sfumato run {0} first.",
    "samples": "The set 'samples' of {0} is not finished: run sfumato sample {0} "
    "first.",
}


def user_folder() -> Path:
    """Where Sfumato keeps what outlives a project: the budget ledger.

    `SFUMATO_HOME` moves it.
    """
    moved = os.environ.get("SFUMATO_HOME")
    return Path(moved) if moved else platformdirs.user_data_path("sfumato")


def witness_folder() -> Path:
    """Where Sfumato remembers the ledger's head, apart from the ledger if it can."""
    moved = os.environ.get("SFUMATO_HOME")
    return Path(moved) / "witness" if moved else platformdirs.user_state_path("sfumato")


def locked(path: Path, refusal: str) -> int:
    """An exclusive lock that the operating system drops when the process ends.

    Returns:
        A handle that `os.close` unlocks.

    Raises:
        UserError: saying `refusal` when somebody else holds it.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise explained(error, path.parent) from error
    try:
        if os.name == "posix":
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    except OSError:
        os.close(handle)
        raise UserError(refusal) from None
    return handle
