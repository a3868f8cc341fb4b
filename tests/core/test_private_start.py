"""The model of one project is no public checkpoint for the next one."""

from __future__ import annotations

import json
import shutil

import pytest

from core import cli
from core.checkpoints import catalogue, importing
from core.checkpoints.cards import CARD, read_card
from core.checkpoints.conversion import convert
from core.checkpoints.store import WEIGHTS
from core.errors import Stopped
from core.training.preview import unfit_checkpoints, unfit_recipes
from core.workspace import Project, Workspace
from tests.core.test_cli import complaint, ledger_rows, run, write_images
from tests.core.tiny import make_checkpoint, write_recipe

LATER, COMMAND = "private_run", "sfumato run"


def stop(*_):
    raise Stopped


def quicken(patch):
    """The other accountant takes ten seconds, and is tested elsewhere."""
    patch.setattr("core.training.plan.second_epsilon", lambda *_: 0.0)


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """Home, and the wishes of a project that has trained a model in it."""
    folder = tmp_path_factory.mktemp("before")
    make_checkpoint(folder / "checkpoint")
    wishes = {
        "--source": write_images(folder / "images"),
        "--classes": "dark;bright",
        "--resolution": 8,
        "--declared-count": 40,
        "--checkpoint": folder / "checkpoint",
        "--recipe": write_recipe(folder),
        "--epsilon": 0.5,
        "--delta": 1e-3,
        "--device": "cpu",
        "--overlap-answer": "unsure",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SFUMATO_HOME", str(folder / "home"))
        quicken(patch)
        patch.setattr("core.pipeline.synthesise", stop)
        assert run(folder / "first", wishes) == cli.INTERRUPTED
    return folder, wishes


@pytest.fixture(autouse=True)
def home(before, monkeypatch):
    monkeypatch.setenv("SFUMATO_HOME", str(before[0] / "home"))
    quicken(monkeypatch)
    return before[0] / "home"


@pytest.fixture(params=["now", "older"])
def model(before, request):
    """The first project's model; an older version wrote no field for the run."""
    card = before[0] / "first" / "training" / "model" / CARD
    written = card.read_text()
    content = json.loads(written)
    assert content[LATER] and content["command"] == COMMAND
    if request.param == "older":
        del content[LATER]
        content["pretraining_data"] = "started from tiny"
    else:  # By its own field, whatever else the card says.
        content["command"] = "another"
    card.write_text(json.dumps(content))
    yield card.parent
    card.write_text(written)


@pytest.fixture
def at_once(monkeypatch):
    """What would be trained was planned: that is all that is asked."""
    monkeypatch.setattr("core.pipeline.fine_tune", stop)


@pytest.fixture
def until_drawn(monkeypatch):
    """Whatever is spent is spent by then."""
    monkeypatch.setattr("core.pipeline.synthesise", stop)


def as_flags(wishes):
    return [str(part) for pair in wishes.items() for part in pair]


def refused(capsys) -> bool:
    said = complaint(capsys)
    return "has learnt from private images" in said and "from, 'tiny'." in said


def test_the_model_names_the_run_that_trained_it(before):
    folder, _ = before
    with Workspace.open(folder / "first") as workspace:
        run_of_plan = workspace.result("plan")["plan"]["run"]
    card = read_card(folder / "first" / "training" / "model")
    assert card.is_private and card.private_run == run_of_plan
    assert not read_card(folder / "checkpoint").is_private


@pytest.mark.usefixtures("until_drawn")
@pytest.mark.parametrize("answer", ["no", "unsure"])
def test_no_project_starts_from_it(tmp_path, before, model, home, capsys, answer):
    wishes = before[1] | {"--checkpoint": model, "--overlap-answer": answer}
    rows = ledger_rows(home)
    assert run(tmp_path / "second", wishes) == cli.MISTAKE
    assert refused(capsys) and ledger_rows(home) == rows > 0
    assert not (tmp_path / "second" / "plan" / "finished.json").exists()
    assert cli.main(["budget", *as_flags(wishes)]) == cli.MISTAKE
    assert refused(capsys)


@pytest.mark.usefixtures("until_drawn")
def test_pictures_are_not_cleaned_with_it(tmp_path, before, model, home, capsys):
    wishes = before[1] | {"--checkpoint": model, "--recipe": "few"}
    rows = ledger_rows(home)
    assert run(tmp_path / "second", wishes) == cli.MISTAKE
    assert refused(capsys) and ledger_rows(home) == rows


def test_it_is_not_imported(model, home, capsys, monkeypatch):
    def here(source, made, hints, card, *_):  # The child has tests of its own.
        convert(source, made, vars(hints), dict(card))

    monkeypatch.setattr(importing, "_convert_in_child", here)
    said = ["--licence", "MIT", "--pretraining-data", "x", "--overlap", "no"]
    for source in (model, model / WEIGHTS):
        command = ["import-checkpoint", str(source), "mine", *said]
        assert cli.main(command) == cli.MISTAKE
        assert refused(capsys)
    assert not (home / "checkpoints" / "mine").exists()


def test_it_is_locked_where_it_was_copied_among_the_checkpoints(
    before, model, monkeypatch
):
    monkeypatch.setattr(catalogue, "bundled_folder", lambda: before[0])
    monkeypatch.setattr(catalogue, "imported_folder", lambda: model.parent)
    public, private = catalogue.available()
    project = Project(resolution=8, recipe=str(before[1]["--recipe"]))
    (locked,) = unfit_checkpoints(project, (public, private)).items()
    assert locked[0] == private.name and "learnt from private images" in locked[1]
    assert "'tiny'" in locked[1]
    fitting = Project(resolution=8, recipe="starter")
    assert "starter" not in unfit_recipes(fitting, (public, private))
    assert "starter" in unfit_recipes(fitting, (private,))


@pytest.mark.usefixtures("model")
def test_its_own_project_draws_and_releases_as_before(tmp_path, before, home):
    first, release = before[0] / "first", tmp_path / "release"
    rows = ledger_rows(home)
    shutil.rmtree(first / "samples", ignore_errors=True)
    wish = ["--images-per-class", "2"]
    assert cli.main(["sample", str(first), *wish]) == cli.DONE
    assert len(list((first / "samples").rglob("*.png"))) == 4
    assert cli.main(["export", str(first), str(release)]) == cli.DONE
    assert (release / "audit.json").is_file() and ledger_rows(home) == rows


@pytest.mark.usefixtures("at_once")
def test_a_plan_that_an_older_version_made_from_it_is_refused(
    tmp_path, before, model, capsys
):
    """It is neither gone on with nor released; other wishes make another plan."""
    wishes, second = before[1], tmp_path / "second"
    assert run(second, wishes) == cli.INTERRUPTED
    capsys.readouterr()
    with Workspace.open(second) as workspace:
        kept = workspace.result("plan")
        card = json.loads((model / CARD).read_text())
        kept["plan"]["checkpoint"] = card | {"folder": str(model)}
        kept["wishes"]["checkpoint"] = str(model)
        workspace.finish("plan", kept)
    own = wishes | {"--checkpoint": model}
    assert run(second, own) == cli.MISTAKE
    assert refused(capsys)
    release = tmp_path / "release"
    assert cli.main(["export", str(second), str(release)]) == cli.MISTAKE
    assert refused(capsys) and not release.exists()
    assert run(second, wishes) == cli.INTERRUPTED


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("source", ["procedural", "folder"])
def test_what_was_pretrained_in_public_is_still_taken(tmp_path, before, capsys, source):
    made = ["pretrain", str(tmp_path / "public"), "--steps", "1", "--batch-size", "2"]
    if source == "folder":
        made += ["--source", str(before[1]["--source"]), "--data", "noise"]
    else:
        made += ["--images", "21"]
    assert cli.main(made) == cli.DONE
    card = read_card(tmp_path / "public")
    assert card.private_run == "" and not card.is_private
    wishes = before[1] | {
        "--checkpoint": tmp_path / "public",
        "--resolution": card.resolution,
    }
    assert run(tmp_path / "second", wishes) == cli.INTERRUPTED
