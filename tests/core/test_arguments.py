"""What is asked on the command line: its kinds, its bounds, and what nobody said."""

from __future__ import annotations

import pytest

from core import cli
from core.arguments import anchored, project_wished
from core.workspace import PROJECT_FILE, Project, Workspace
from tests.core.test_cli import Done, complaint


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize("content", [None, b'title = "B\xfccher"'])
def test_a_config_that_cannot_be_read_is_a_mistake(tmp_path, capsys, content):
    config = tmp_path / "wishes.toml"
    if content is not None:
        config.write_bytes(content)
    project = str(tmp_path / "project")
    assert cli.main(["run", project, "--config", str(config)]) == cli.MISTAKE
    said = complaint(capsys)
    assert str(config) in said and "Errno" not in said
    assert ("check the path" if content is None else "UTF-8: save it") in said


@pytest.mark.parametrize("config", ["", 'title = "Ours"', "epsilon = 2"])
@pytest.mark.parametrize("saved", ["", "epsilon = 3"])
@pytest.mark.parametrize("asked", [[], ["--epsilon", "1"]])
def test_nothing_is_spent_that_nobody_asked_for(
    tmp_path, capsys, monkeypatch, config, saved, asked
):
    """A file of wishes takes the place of those saved, its epsilon too."""
    done = []
    monkeypatch.setattr(
        "core.run.run_project",
        lambda _, project, *__, **___: done.append(project) or Done(),
    )
    project, given = tmp_path / "project", list(asked)
    if saved:
        project.mkdir()
        (project / "project.toml").write_text(saved)
    if config:
        (tmp_path / "wishes.toml").write_text(config)
        given += ["--config", str(tmp_path / "wishes.toml")]
    code = cli.main(["run", str(project), "--source", "scans", *given])
    said = asked or "epsilon" in (config or saved)
    assert code == (cli.DONE if said else cli.MISTAKE)
    if said:
        expected = 1 if asked else 2 if config else 3
        assert [wishes.epsilon for wishes in done] == [expected]
    else:
        assert complaint(capsys) == (
            "sfumato: Say how much may be spent: --epsilon (1 is strict, 10 is what "
            "published work uses); `sfumato budget` shows what it means and spends "
            "nothing."
        )
        assert not done and project.exists() == bool(saved)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--epsilon", "abc", "--epsilon must be a number such as 3, not 'abc' "),
        ("--steps", "1.5", "--steps must be a whole number such as 3, not '1.5' "),
        ("--steps", "1,50", "--steps must be a whole number such as 3, not '1,50' "),
        ("--nonsense", "3", "unrecognized arguments: --nonsense 3 "),
    ],
)
def test_what_the_parser_refuses_is_one_sentence(capsys, option, value, said):
    with pytest.raises(SystemExit) as ended:
        cli.main(["budget", option, value])
    assert ended.value.code == cli.MISTAKE
    assert capsys.readouterr().err == f"sfumato: {said}(see sfumato budget --help).\n"


def test_thousands_may_be_parted_by_commas():
    options = cli.build_parser().parse_args(
        ["budget", "--declared-count", "1,060,000", "--steps", "60000"]
    )
    assert (options.declared_count, options.steps) == (1_060_000, 60_000)


def test_every_option_says_what_it_is_for():
    (commands,) = (
        action.choices
        for action in cli.build_parser()._actions
        if isinstance(action.choices, dict)
    )
    for name, command in commands.items():
        for action in command._actions:
            assert action.help, (name, action.dest)
            assert command.format_help()
    shown = " ".join(commands["run"].format_help().split())
    assert "(default: 1e-05)" in shown and "(default: add_or_remove_one)" in shown
    assert "(default: 10" not in shown, "no epsilon is taken for granted"


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--epsilon", "1e9", "bounds nothing for anyone: take 10 or less"),
        ("--delta", "1e-300", "delta = 1e-300 is smaller"),
        ("--resolution", "4096", "choose 8 to 1024 (--resolution)"),
        ("--resolution", "1000000", "choose 8 to 1024 (--resolution)"),
        ("--images-per-class", "1,000,001", "ask for 1,000,000 or fewer"),
        ("--unit", "person", "The unit 'person' is unknown: use image or patient."),
        ("--relation", "x", "The relation 'x' is unknown: use add_or_remove_one, "
         "replace_special or replace_one."),
    ],
)  # fmt: skip
@pytest.mark.parametrize("recipe", ["useful", "demo"])
def test_a_wish_beyond_all_bounds_is_refused_before_it_is_tried_out(
    monkeypatch, capsys, option, value, said, recipe
):
    def tried(*_, **__):
        raise AssertionError("too late")

    monkeypatch.setattr("core.training.preview.bind", tried)
    given = ["--declared-count", "4000", "--recipe", recipe, option, value]
    assert cli.main(["budget", *given]) == cli.MISTAKE
    assert said in complaint(capsys)


@pytest.mark.parametrize("command", ["sample", "export"])
def test_what_is_asked_too_early_says_what_comes_first(tmp_path, capsys, command):
    with Workspace.open(tmp_path / "new") as workspace:
        workspace.save_project(Project())
    more = [str(tmp_path / "release")] if command == "export" else []
    assert cli.main([command, str(tmp_path / "new"), *more]) == cli.MISTAKE
    said = complaint(capsys)
    assert f"Nothing was learned in {tmp_path / 'new'} yet: run sfumato run" in said


def test_anchored_paths_are_whole_and_start_in_the_right_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "me"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net").mkdir()
    (tmp_path / "own").write_text("")
    (tmp_path / "me" / "net").mkdir(parents=True)
    wishes = Project(source="~/scans", checkpoint="~/net", recipe="~/own.toml")
    assert anchored(wishes) == Project(
        source=str(tmp_path / "me" / "scans"),
        checkpoint=str(tmp_path / "me" / "net"),
        recipe=str(tmp_path / "me" / "own.toml"),
    )
    here = anchored(Project(source="scans", checkpoint="net", recipe="own"))
    assert here == Project(
        source=str(tmp_path / "scans"),
        checkpoint=str(tmp_path / "net"),
        recipe=str(tmp_path / "own"),
    )
    assert anchored(here, wishes) == here == anchored(here)
    assert anchored(Project(checkpoint="")) == Project(checkpoint="")


def test_a_checkpoint_that_was_paid_for_keeps_its_wording(tmp_path, monkeypatch):
    """Other words for the same folder would be refused as other wishes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net").mkdir()
    (tmp_path / "other").mkdir()
    saved = Project(checkpoint="./net")
    again = anchored(Project(source="scans", checkpoint="net"), saved)
    assert again == Project(source=str(tmp_path / "scans"), checkpoint="./net")
    other = anchored(Project(checkpoint="other"), saved)
    assert other.checkpoint == str(tmp_path / "other")


def test_a_name_of_ours_stays_one_beside_a_file_or_folder_called_so(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home" / "checkpoints" / "mine").mkdir(parents=True)
    names = ("starter", "mine", "scratch-dpdm-grey-edm")
    for name in (*names, "useful"):
        (tmp_path / name).mkdir()
    for name in names:
        assert anchored(Project(checkpoint=name)) == Project(checkpoint=name)
        path = anchored(Project(checkpoint=f"./{name}"))
        assert path.checkpoint == str(tmp_path / name)
    assert anchored(Project(checkpoint="nonesuch", recipe="nonesuch")) == Project(
        checkpoint="nonesuch", recipe="nonesuch"
    )
    (tmp_path / "upright").write_text("")
    assert anchored(Project(recipe="upright")).recipe == "upright"


def wished(project, *more) -> tuple[str, str, bool]:
    """The answer and its reason that `sfumato run` would go by, and if it is of these
    images whatever they are."""
    options = cli.build_parser().parse_args(["run", str(project), *map(str, more)])
    asked, said = project_wished(options)
    return asked.overlap_answer, asked.overlap_reason, said.overlap


def test_an_answer_is_about_one_checkpoint_and_these_people(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("one", "other", "pictures", "others"):
        (tmp_path / name).mkdir()
    told = ("no", "they are of 2024")
    project, config = tmp_path / "project", tmp_path / "wishes.toml"
    lines = (
        'source = "pictures"\ncheckpoint = "./one"\nepsilon = 1.0\n'
        f'overlap_answer = "{told[0]}"\noverlap_reason = "{told[1]}"\n'
    )
    config.write_text(lines)
    project.mkdir()
    (project / PROJECT_FILE).write_text(lines)
    for given in ((project,), (tmp_path / "new", "--config", config)):
        assert wished(*given) == (*told, True)
        assert wished(*given, "--source", tmp_path / "pictures") == (*told, True)
        assert wished(*given, "--checkpoint", tmp_path / "one") == (*told, True)
        assert wished(*given, "--epsilon", "2") == (*told, True)
        assert wished(*given, "--checkpoint", "other") == ("", "", True)
        # Whether other people lie there, only the images can tell.
        assert wished(*given, "--source", "others") == (*told, False)
        again = ("--overlap-answer", "unsure", "--overlap-reason", "asked")
        assert wished(*given, "--source", "others", *again) == (*again[1::2], True)
    # Where the file names neither, its answer is about what comes with it.
    config.write_text('epsilon = 1.0\noverlap_answer = "no"\n')
    chosen = ("--config", config, "--source", "others", "--checkpoint", "other")
    assert wished(tmp_path / "new", *chosen) == ("no", "", True)
    # Of images without a checkpoint it was about the usual one.
    config.write_text('source = "others"\nepsilon = 1.0\noverlap_answer = "no"\n')
    assert wished(tmp_path / "new", *chosen) == ("", "", True)
