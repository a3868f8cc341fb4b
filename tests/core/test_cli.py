"""Exit codes: 0 done, 2 the user's mistake in one sentence, 1 a bug."""

from __future__ import annotations

import inspect
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from core import cli
from core.bundled import classifier_folder
from core.checkpoints.cards import read_card
from core.checkpoints.catalogue import bundled_folder
from core.diffusion.presets import PRESETS
from core.errors import Stopped, UserError
from core.evaluation.report import CHANCE, PRIVATE, REAL, SYNTHETIC
from core.training.starter import pretrain_starter
from core.workspace import Project, Workspace
from tests.core.tiny import CONFIG, make_checkpoint, make_plan, write_recipe


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def write_images(folder, classes=("dark", "bright"), count=12):
    rng = np.random.default_rng(0)
    for shade, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = rng.integers(0, 120, (9, 9, 3), dtype=np.uint8) + 120 * shade
            Image.fromarray(pixels.astype(np.uint8)).save(
                folder / name / f"{index}.png"
            )
    return folder


@pytest.fixture
def arguments(tmp_path):
    """A run that would work."""
    make_checkpoint(tmp_path / "checkpoint")
    return {
        "--source": write_images(tmp_path / "images"),
        "--classes": "dark;bright",
        "--resolution": 8,
        "--declared-count": 40,
        "--checkpoint": tmp_path / "checkpoint",
        "--recipe": write_recipe(tmp_path),
        "--epsilon": 0.5,
        "--delta": 1e-3,
        "--device": "cpu",
        "--overlap-answer": "no",
    }


def run(project, arguments) -> int:
    flags = [str(part) for pair in arguments.items() for part in pair]
    return cli.main(["run", str(project), *flags])


def complaint(capsys) -> str:
    text = capsys.readouterr().err
    assert "Traceback" not in text
    lines = [line for line in text.splitlines() if line.startswith("sfumato: ")]
    assert len(lines) == 1, text
    return lines[0]


def ledger_rows(home) -> int:
    from core.privacy.ledger import Ledger

    if not (home / "ledger.sqlite3").exists():
        return 0
    ledger = Ledger(home / "ledger.sqlite3")
    rows = len(ledger.entries())
    ledger.close()
    return rows


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"--source": "/nowhere/at/all"}, "/nowhere/at/all"),
        ({"--epsilon": 0}, "epsilon"),
        ({"--delta": 0.5}, "delta"),
        ({"--batch-size": 40}, "batch"),
        ({"--batch-size": 4000}, "batch"),
        ({"--recipe": "nonesuch"}, "nonesuch"),
        ({"--checkpoint": "nonesuch"}, "nonesuch"),
        ({"--declared-count": 5}, "declare"),
        ({"--unit": "hospital"}, "hospital"),
        ({"--overlap-answer": "yes"}, "checkpoint"),
        ({"--device": "tpu"}, "tpu"),
        ({"--classes": ""}, '--classes "bright;dark"'),
    ],
)
def test_a_mistake_is_one_sentence_and_costs_nothing(
    tmp_path, home, arguments, capsys, changes, named
):
    assert run(tmp_path / "project", arguments | changes) == cli.MISTAKE
    assert named in complaint(capsys)
    assert ledger_rows(home) == 0


@pytest.mark.parametrize(
    "option",
    ["--batch-size", "--steps", "--augmentation-multiplicity", "--images-per-class",
     "--resolution", "--declared-count", "--epsilon", "--delta",
     "--max-images-per-unit"],
)  # fmt: skip
@pytest.mark.parametrize("value", [0, -3])
@pytest.mark.parametrize("command", ["run", "budget"])
def test_a_number_that_nobody_can_mean_is_blamed_on_whoever_asked(
    tmp_path, home, arguments, capsys, option, value, command
):
    """And it replaces no wish that was good before."""
    wishes = arguments | {option: value}
    if command == "run":
        assert run(tmp_path / "project", wishes) == cli.MISTAKE
    else:
        flags = [str(part) for pair in wishes.items() for part in pair]
        assert cli.main(["budget", *flags]) == cli.MISTAKE
    said = complaint(capsys)
    named = {
        "--max-images-per-unit": "images per patient",
        "--declared-count": "declared number",
    }.get(option, option.strip("-").replace("-", " "))
    assert named in said and "recipe" not in said
    assert not (tmp_path / "project" / "project.toml").exists()


@pytest.mark.parametrize(
    ("given", "passed_on"),
    [
        ([], {}),
        (["--steps", "9", "--images", "80", "--batch-size", "4", "--seed", "2"],
         {"steps": 9, "images": 80, "batch_size": 4, "seed": 2}),
    ],
)  # fmt: skip
def test_the_starter_is_made_as_its_card_says(monkeypatch, tmp_path, given, passed_on):
    asked = []

    def pretrain_starter(folder, **settings):
        asked.append(settings)
        return read_card(bundled_folder() / "starter")

    monkeypatch.setattr("core.training.starter.pretrain_starter", pretrain_starter)
    assert cli.main(["pretrain", str(tmp_path / "out"), *given]) == cli.DONE
    usual = {"device": "auto", "seed": 0}
    assert asked[0].pop("watcher") and asked == [usual | passed_on]


def test_what_the_budget_page_warns_of_is_said_before_a_run_spends(
    tmp_path, home, arguments, capsys, monkeypatch
):
    def at_once(*_):
        assert "note: δ = 1e-2 is above the customary limit" in capsys.readouterr().out
        raise Stopped

    monkeypatch.setattr("core.pipeline.fine_tune", at_once)
    wishes = arguments | {"--delta": 1e-2}
    assert run(tmp_path / "project", wishes) == cli.INTERRUPTED
    assert ledger_rows(home) == 0


def test_the_starters_card_names_the_command_that_makes_it_again():
    usual = inspect.signature(pretrain_starter).parameters
    command = read_card(bundled_folder() / "starter").command
    for name in ("steps", "images", "batch_size", "seed"):
        option = "--" + name.replace("_", "-")
        assert f"{option} {usual[name].default}" in command


@pytest.mark.parametrize(
    "command",
    [["pretrain", "OUT", "--steps", "0"], ["pretrain", "OUT", "--batch-size", "-1"],
     ["pretrain", "OUT", "--images", "0"],
     ["pretrain", "OUT", "--source", "X", "--data", "noise", "--steps", "0"],
     ["sample", "OUT", "--images-per-class", "0"],
     ["inspect", "OUT", "--resolution", "0"], ["phantom", "OUT", "--images", "0"]],
)  # fmt: skip
def test_other_commands_blame_the_wish_too(tmp_path, capsys, command):
    out = str(tmp_path / "out")
    assert cli.main([part.replace("OUT", out) for part in command]) == cli.MISTAKE
    said = complaint(capsys)
    assert f"{command[-2]}" in said and command[-1] in said and "recipe" not in said


EVERYTHING = {
    "parameterisation": '"v"',
    "crop": 1,
    "label_dropout": 0.2,
    "guidance": 0.5,
    "sampler": '"heun"',
    "churn_amount": 1.0,
    "steps_at_epsilon": 0.25,
    "moment_share": 0.3,
    "central_share": 0.2,
    "central_draws": 2,
    "central_images": 64,
    "class_rows": '"nearest"',
    "teacher_share": 0.2,
    "teacher_steps": 3,
    "teacher_labels": "true",
}


@pytest.mark.parametrize("scratch", [False, True])
def test_a_recipe_with_everything_runs_and_its_release_holds(
    tmp_path, arguments, capsys, monkeypatch, scratch
):
    wishes = dict(EVERYTHING)
    if scratch:
        monkeypatch.setitem(PRESETS, "dpdm-grey", CONFIG)
        wishes |= {"network": '"dpdm-grey"', "parameterisation": '"edm"'}
    recipe = write_recipe(tmp_path / "recipe", **wishes)
    release = tmp_path / "release"
    changes = {"--recipe": recipe, "--release": release}
    assert run(tmp_path / "project", arguments | changes) == cli.DONE
    assert "HOLDS" not in capsys.readouterr().out.replace("DOES NOT HOLD", "HOLDS")
    assert cli.main(["verify", str(release)]) == cli.DONE
    audit = json.loads((release / "audit.json").read_text())
    assert [e["count"] for e in audit["composition"]["events"]] == [2, 1, 1, 3, 6]
    assert "private teacher" in audit["sampler"]["post_filtering_rule"]
    assert audit["sampler"] | {"guidance": 0.5, "name": "heun"} == audit["sampler"]
    assert "shifted by up to 1 pixels" in audit["views"]
    model = audit["public_model"]
    assert model["trained_as"] == ("edm" if scratch else "v")
    assert model["name"] == ("scratch-dpdm-grey-edm" if scratch else "tiny")


def test_a_run_without_images_to_test_on_ends_with_its_release(
    tmp_path, arguments, capsys
):
    """All that is left to do after spending is never lost for want of a test set."""
    source = arguments["--source"]
    paths = sorted(p.relative_to(source).as_posix() for p in source.rglob("*.png"))
    rows = [f"{path},{path.split('/')[0]},train" for path in paths]
    (source / "manifest.csv").write_text("\n".join(["path,label,split", *rows]))
    release = tmp_path / "release"
    assert run(tmp_path / "project", arguments | {"--release": release}) == cli.DONE
    assert "Usefulness: not measured" in capsys.readouterr().out
    assert cli.main(["verify", str(release)]) == cli.DONE


@pytest.mark.parametrize("place", ["file", "missing/release", "full"])
def test_a_place_that_takes_no_release_is_refused_before_spending(
    tmp_path, home, arguments, capsys, place
):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    wishes = arguments | {"--release": tmp_path / place}
    assert run(tmp_path / "project", wishes) == cli.MISTAKE
    assert "release" in complaint(capsys)
    assert ledger_rows(home) == 0


@pytest.mark.parametrize("kind", ["empty", "one class", "single image"])
def test_a_folder_without_a_dataset_is_a_mistake(
    tmp_path, home, arguments, capsys, kind
):
    folder = tmp_path / "poor"
    folder.mkdir()
    if kind != "empty":
        write_images(folder, ("only",), 12 if kind == "one class" else 1)
    poor = arguments | {"--source": folder, "--classes": ""}
    assert run(tmp_path / "project", poor) == cli.MISTAKE
    named = str(folder) if kind == "empty" else kind
    assert named in complaint(capsys)
    assert ledger_rows(home) == 0


def test_a_project_that_cannot_be_written_is_a_mistake(tmp_path, arguments, capsys):
    (tmp_path / "in the way").write_text("")
    assert run(tmp_path / "in the way" / "project", arguments) == cli.MISTAKE
    assert "in the way" in complaint(capsys)
    assert (tmp_path / "in the way").read_text() == ""


def test_a_ledger_that_cannot_be_written_is_a_mistake(
    tmp_path, home, arguments, capsys
):
    home.write_text("a file where the folder should be")
    assert run(tmp_path / "project", arguments) == cli.MISTAKE
    assert "ledger" in complaint(capsys)


@pytest.mark.parametrize("command", ["sample", "evaluate"])
def test_a_project_that_is_not_there_is_a_mistake(tmp_path, capsys, command):
    assert cli.main([command, str(tmp_path / "none")]) == cli.MISTAKE
    assert str(tmp_path / "none") in complaint(capsys)


def test_a_demo_goes_into_a_folder_of_its_own(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.odt").write_text("")
    (tmp_path / "done" / "release").mkdir(parents=True)
    for name, said in (("file", "is a file"), ("full", "other things"),
                       ("done", "done already")):  # fmt: skip
        assert cli.main(["demo", str(tmp_path / name)]) == cli.MISTAKE
        told = complaint(capsys)
        assert said in told and str(tmp_path / name) in told


def test_a_wrong_config_is_a_mistake(tmp_path, capsys):
    config = tmp_path / "wishes.toml"
    config.write_text("epsilom = 3\n")
    project = str(tmp_path / "project")
    assert cli.main(["run", project, "--config", str(config)]) == cli.MISTAKE
    assert "epsilom" in complaint(capsys)


class Done:
    """What a run ended with."""

    def text(self):
        return "done"


def test_a_project_among_the_images_leaves_nothing_there(tmp_path, arguments, capsys):
    source = arguments["--source"]
    before = sorted(source.rglob("*"))
    assert run(source / "project", arguments) == cli.MISTAKE
    assert "lies inside the folder of images" in complaint(capsys)
    assert sorted(source.rglob("*")) == before


def test_a_single_patient_is_not_trained_on(tmp_path, home, arguments, capsys):
    """The others are held back."""
    source = arguments["--source"]
    paths = sorted(p.relative_to(source).as_posix() for p in source.rglob("*.png"))
    rows = [
        f"{path},{path.split('/')[0]},{'p' if n % 2 else f'q{n}'},"
        f"{'train' if n % 2 else 'test'}"
        for n, path in enumerate(paths)
    ]
    header = "path,label,patient,split"
    (source / "manifest.csv").write_text("\n".join([header, *rows]))
    wishes = arguments | {"--unit": "patient", "--max-images-per-unit": 2}
    assert run(tmp_path / "project", wishes) == cli.MISTAKE
    assert "Only one patient is left to train on" in complaint(capsys)
    assert ledger_rows(home) == 0


@pytest.mark.parametrize("column", ["patient", "hospital"])
def test_where_patients_are_known_somebody_says_whom_to_protect(
    tmp_path, home, arguments, capsys, column
):
    """A bound for each image protects nobody who has several, and cannot be undone."""
    source = arguments["--source"]
    paths = sorted(p.relative_to(source).as_posix() for p in source.rglob("*.png"))
    rows = [f"{path},{path.split('/')[0]},p{n // 2}" for n, path in enumerate(paths)]
    (source / "manifest.csv").write_text("\n".join([f"path,label,{column}", *rows]))
    arguments = arguments | {"--unit-column": column}
    for _ in range(2):  # What was refused is not kept as a wish.
        assert run(tmp_path / "project", arguments) == cli.MISTAKE
        said = complaint(capsys)
        assert f"Several images are of one {column} here" in said
        assert "--unit patient or --unit image" in said
    assert ledger_rows(home) == 0
    assert run(tmp_path / "project", arguments | {"--unit": "image"}) == cli.DONE


def test_a_number_of_images_that_the_disk_does_not_hold_is_not_kept(
    tmp_path, capsys, monkeypatch
):
    with Workspace.open(tmp_path / "p") as workspace:
        workspace.save_project(Project(images_per_class=3))

    def full(*_):
        raise UserError("No space for them.")

    plan = make_plan(tmp_path)
    monkeypatch.setattr("core.run._planned", lambda *_: plan)
    monkeypatch.setattr("core.pipeline.synthesise", full)
    asked = ["sample", str(tmp_path / "p"), "--images-per-class", "9000"]
    assert cli.main(asked) == cli.MISTAKE
    assert "No space" in complaint(capsys)
    assert Workspace.look(tmp_path / "p").project == Project(images_per_class=3)


def test_a_bug_is_owned_up_to(monkeypatch, tmp_path, capsys):
    def broken(*_):
        raise ZeroDivisionError("surprise")

    monkeypatch.setattr(cli, "_inspect", broken)
    assert cli.main(["inspect", str(tmp_path)]) == cli.BUG
    text = capsys.readouterr().err
    assert "ZeroDivisionError" in text and "bug in Sfumato" in text


def test_a_stop_says_how_to_go_on(monkeypatch, tmp_path, capsys):
    def stopped(*_):
        raise Stopped

    monkeypatch.setattr(cli, "_inspect", stopped)
    assert cli.main(["inspect", str(tmp_path)]) == cli.INTERRUPTED
    assert "goes on from here" in complaint(capsys)


def test_the_whole_line_from_images_to_a_verified_release(
    tmp_path, home, arguments, capsys, monkeypatch
):
    monkeypatch.setattr(
        "core.evaluation.report.evaluate.__kwdefaults__", {"updates": 3}
    )
    assert run(tmp_path / "project", arguments) == cli.DONE
    out = capsys.readouterr().out
    assert "ε = 0.5" in out and "do not publish" in out
    assert ledger_rows(home) == 5  # two moment releases, three steps
    release = tmp_path / "project" / "release" / "dataset"
    assert cli.main(["verify", str(release), "--json"]) == cli.DONE
    assert json.loads(capsys.readouterr().out)["holds"] is True

    again = tmp_path / "again"
    assert run(tmp_path / "project", arguments | {"--release": again}) == cli.DONE
    assert ledger_rows(home) == 5
    capsys.readouterr()
    project, release = str(tmp_path / "project"), str(tmp_path / "third")
    assert cli.main(["run", project, "--release", release, "--json"]) == cli.DONE
    said = capsys.readouterr()
    assert json.loads(said.out)["verified"] is True and "ε = 0.5" in said.err
    for line in ("sample", "evaluate"):
        project = str(tmp_path / "project")
        assert cli.main([line, project, "--json"]) == cli.DONE
        json.loads(capsys.readouterr().out)

    ours = ["evaluate", project, "--json"]
    theirs = [*ours, "--classifier", str(published_classifier(tmp_path))]
    for given, words in ((theirs, " (little)"), (ours, ""), (theirs, " (little)")):
        assert cli.main(given) == cli.DONE
        figures = json.loads(capsys.readouterr().out)["figures"]
        assert {REAL + words, SYNTHETIC + words, CHANCE} == {f["name"] for f in figures}
    private = published_classifier(tmp_path, "paper-private-mnist")
    assert cli.main([*ours, "--classifier", str(private)]) == cli.DONE
    figures = json.loads(capsys.readouterr().out)["figures"]
    assert {PRIVATE + " (little)", CHANCE} == {f["name"] for f in figures}
    assert cli.main([*ours, "--classifier", "none"]) == cli.MISTAKE
    assert "paper-mnist" in complaint(capsys)
    assert ledger_rows(home) == 5


def published_classifier(folder, name="paper-selection-wrn"):
    """A published one's settings, cut to a few steps of a small network."""
    text = (classifier_folder() / f"{name}.toml").read_text()
    for field, value in (
        ("depth", 10), ("width", 1), ("batch_size", 4), ("learning_rates", [0.1]),
        ("weight_decays", [0.0]), ("iterations", 0 if "private" in name else 2),
    ):  # fmt: skip
        text = re.sub(rf"(?m)^{field} = .*$", f"{field} = {value}", text)
    (folder / "little.toml").write_text(text)
    return folder / "little.toml"


def test_verify_says_what_it_could_not_check(tmp_path, monkeypatch, capsys):
    from core.release.verify import Verification

    found = Verification(
        holds=True,
        findings=(),
        notes=("The lifetime ε is over other runs too: it cannot be checked.",),
        claim="",
        epsilon_recomputed=1.0,
    )
    monkeypatch.setattr("core.release.verify", lambda _: found)
    assert cli.main(["verify", str(tmp_path)]) == cli.DONE
    assert "Note: The lifetime ε is over other runs" in capsys.readouterr().out


def test_paths_of_a_run_hold_wherever_the_next_command_is_given(tmp_path, monkeypatch):
    """The wizard may open the project from another folder."""
    asked = []
    monkeypatch.setattr(
        "core.run.run_project",
        lambda _, project, *__, **___: asked.append(project) or Done(),
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "net").mkdir()
    own = ["--recipe", "own.toml", "--checkpoint", "net", "--epsilon", "1"]
    assert cli.main(["run", "p", "--source", "scans", *own]) == 0
    assert cli.main(["run", "q", "--source", str(tmp_path / "scans"), *own[-2:]]) == 0
    (tmp_path / "wishes.toml").write_text('source = "~/scans"\nepsilon = 1')
    assert cli.main(["run", "r", "--config", "wishes.toml"]) == 0
    assert {project.source for project in asked} == {str(tmp_path / "scans")}
    assert [project.recipe for project in asked] == [
        str(tmp_path / "own.toml"), "useful", "useful"
    ]  # fmt: skip
    assert [project.checkpoint for project in asked] == [
        str(tmp_path / "net"), "starter", "starter"
    ]  # fmt: skip


def test_images_that_moved_are_of_the_same_people(
    tmp_path, arguments, capsys, monkeypatch
):
    """And others are not: the answer on the checkpoint is asked for anew."""
    project, moved = tmp_path / "project", tmp_path / "moved"
    asked = []
    monkeypatch.setattr(
        "core.pipeline.fine_tune", lambda _, plan, *__: asked.append(plan) or stop()
    )
    assert run(project, arguments) == cli.INTERRUPTED
    shutil.move(arguments["--source"], moved)
    silent = {k: v for k, v in arguments.items() if k != "--overlap-answer"}
    assert run(project, silent | {"--source": moved}) == cli.INTERRUPTED
    assert asked[0] == asked[1]
    capsys.readouterr()
    others = write_images(tmp_path / "others", count=14)
    assert run(project, silent | {"--source": others}) == cli.MISTAKE
    assert "Say whether the checkpoint" in complaint(capsys)
    # Nor is it answered by asking twice.
    assert run(project, silent | {"--source": others}) == cli.MISTAKE
    assert run(project, arguments | {"--source": others}) == cli.INTERRUPTED


def test_wishes_that_are_refused_do_not_take_the_place_of_those_planned_with(
    tmp_path, arguments, monkeypatch
):
    asked = []
    monkeypatch.setattr(
        "core.pipeline.fine_tune", lambda _, plan, *__: asked.append(plan) or stop()
    )
    project = tmp_path / "project"
    assert run(project, arguments) == cli.INTERRUPTED
    assert run(project, {"--checkpoint": "adm-imagenet64"}) == cli.MISTAKE
    assert run(project, {"--overlap-answer": "yes"}) == cli.MISTAKE
    assert run(project, {}) == cli.INTERRUPTED
    assert asked[0] == asked[1]
    # Before there is a plan, all that was said is kept.
    new = tmp_path / "new"
    without = {k: v for k, v in arguments.items() if k != "--classes"}
    assert run(new, without) == cli.MISTAKE
    assert run(new, {"--classes": "dark;bright"}) == cli.INTERRUPTED


def stop():
    raise Stopped
