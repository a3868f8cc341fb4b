"""What is asked on the command line: its kinds, its bounds, and what nobody said."""

from __future__ import annotations

import pytest

from core import cli
from core.workspace import Project, Workspace
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
