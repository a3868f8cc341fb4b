"""A project folder: one process at a time, wishes that survive, stages that count."""

from __future__ import annotations

import os
import stat
import sys

import pytest

from core.errors import UserError
from core.workspace import (
    Project,
    Workspace,
    locked,
    parse_project,
    user_folder,
    witness_folder,
)


def test_wishes_survive_a_round_trip(tmp_path):
    wishes = Project(
        source='/images of "ours"',
        declared_count=123,
        epsilon=2,
        delta=1e-7,
        unit="patient",
        max_images_per_unit=4,
        steps=9,
        title="Ünïcode",
    )
    with Workspace.open(tmp_path / "project") as workspace:
        assert workspace.project is None
        workspace.save_project(wishes)
    with Workspace.open(tmp_path / "project") as workspace:
        assert workspace.project == wishes


def test_one_process_at_a_time(tmp_path):
    with Workspace.open(tmp_path / "project"):
        with pytest.raises(UserError, match="Another Sfumato"):
            Workspace.open(tmp_path / "project")
    Workspace.open(tmp_path / "project").close()


def test_folders_are_their_owners(tmp_path):
    with Workspace.open(tmp_path / "project") as workspace:
        for folder in (workspace.path, workspace.folder("training")):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_stage_counts_once_it_is_finished(tmp_path):
    with Workspace.open(tmp_path / "project") as workspace:
        workspace.folder("samples")
        assert not workspace.finished("samples")
        with pytest.raises(UserError, match=r"run sfumato sample .*project first"):
            workspace.result("samples")
        with pytest.raises(UserError) as caught:
            workspace.result("plan")
        assert str(caught.value) == (
            f"Nothing was learned in {workspace.path} yet: run sfumato run "
            f"{workspace.path} first."
        )
        workspace.finish("samples", {"per_class": 3})
        assert workspace.finished("samples")
        assert workspace.result("samples") == {"per_class": 3}


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "project").write_text("")
    with pytest.raises(UserError, match="project is a file"):
        Workspace.open(tmp_path / "project")
    with pytest.raises(UserError, match="project"):
        Workspace.open(tmp_path / "project" / "below")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("epsilon = ", "TOML"),
        ("epsilom = 3", "epsilom"),
        ('epsilon = "three"', "epsilon"),
        ("declared_count = 1.5", "declared_count"),
        ("steps = true", "steps"),
        ("title = 3", "title"),
    ],
)
def test_a_wrong_project_file_names_the_field(tmp_path, text, named):
    with pytest.raises(UserError, match=named):
        parse_project(text, tmp_path / "project.toml")


def test_a_project_file_of_another_encoding_is_no_bug(tmp_path):
    (tmp_path / "project.toml").write_bytes('title = "Bücher"'.encode("latin-1"))
    with pytest.raises(UserError) as caught:
        Workspace.look(tmp_path).project  # noqa: B018
    assert str(caught.value) == (
        f"The project file {tmp_path / 'project.toml'} is not text in UTF-8: save it "
        "as such, or restore it."
    )


def test_none_leaves_a_wish_alone():
    assert Project(steps=3).changed(steps=None, epsilon=2.0) == Project(
        steps=3, epsilon=2.0
    )


def test_the_ledger_is_kept_outside_the_project(monkeypatch, tmp_path):
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path))
    assert user_folder() == tmp_path
    assert witness_folder() == tmp_path / "witness"
    monkeypatch.delenv("SFUMATO_HOME")
    assert "sfumato" in str(user_folder()) and "sfumato" in str(witness_folder())


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere they are one folder")
def test_the_ledger_and_its_witness_lie_apart(monkeypatch):
    monkeypatch.delenv("SFUMATO_HOME", raising=False)
    one, other = user_folder(), witness_folder()
    assert one not in (other, *other.parents) and other not in one.parents


def test_what_a_kill_left_unfinished_is_removed_when_it_is_opened(tmp_path):
    with Workspace.open(tmp_path / "project") as workspace:
        workspace.save_project(Project())
        folders = (workspace.path, workspace.folder("training"))
        for folder in folders:
            (folder / ".state.x1y2.part").write_bytes(b"half")
        with pytest.raises(UserError):  # Somebody may be writing them.
            Workspace.open(tmp_path / "project")
        assert (tmp_path / "project" / ".state.x1y2.part").exists()
    with Workspace.open(tmp_path / "project") as workspace:
        assert [left for f in folders for left in f.glob(".*.part")] == []
        assert workspace.project == Project()


def test_a_project_can_be_looked_at_while_somebody_works_in_it(tmp_path):
    with pytest.raises(UserError, match="no project"):
        Workspace.look(tmp_path)
    with Workspace.open(tmp_path / "project") as workspace:
        workspace.save_project(Project(title="Seen"))
        found = Workspace.look(tmp_path / "project").project
    assert found is not None and found.title == "Seen"


def test_a_lock_says_what_it_is_asked_to(tmp_path):
    held = locked(tmp_path / "lock", "Not now.")
    with pytest.raises(UserError, match="Not now"):
        locked(tmp_path / "lock", "Not now.")
    os.close(held)
    os.close(locked(tmp_path / "lock", "Not now."))
