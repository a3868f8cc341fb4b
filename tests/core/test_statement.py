"""`sfumato ledger`: what was spent, the caps, and whether the chain holds."""

from __future__ import annotations

import json
import math
import shutil
import sqlite3

import pytest

from core import cli
from core.privacy import lifetime
from core.privacy.accounting import Charge
from core.privacy.budget import Relation
from core.privacy.ledger import Account, Ledger
from core.spending import alone_with, open_ledger
from core.workspace import Project, Workspace

IMAGE, PATIENT = "image, add_or_remove_one", "patient (at most 4), add_or_remove_one"
ONE, OTHER = "1a" * 32, "1b" * 32
STEP = Charge(
    noise_multiplier=3.0,
    count=1,
    sampling_probability=0.1,
    population=500,
    batch_cap=91,
)
SUM = Charge(noise_multiplier=9.0, count=1)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(lifetime, "epsilon", quickly)
    return tmp_path / "home"


def quickly(charges, delta, relation) -> float:
    """Something that tells charges, δ and relations apart; ε is tested elsewhere."""
    spent = sum(charge.count / charge.noise_multiplier for charge in charges)
    return spent - math.log10(delta) + (relation is Relation.REPLACE_ONE)


def charge(dataset, run, terms, *charges) -> None:
    with open_ledger() as ledger:
        for spent in charges:
            ledger.commit(Account(dataset=dataset, run=run, terms=terms), spent)


@pytest.fixture
def charged():
    """Two runs on one data set, one on another."""
    charge(ONE, "run a", IMAGE, SUM, STEP, STEP)
    charge(OTHER, "run b", IMAGE, STEP)
    charge(ONE, "run c", IMAGE, STEP)


@pytest.fixture
def project(tmp_path):
    """A project on the first data set, with wishes of its own."""
    folder = tmp_path / "project"
    with Workspace.open(folder) as workspace:
        workspace.save_project(
            Project(delta=1e-7, unit="patient", max_images_per_unit=4)
        )
        workspace.finish("dataset", {"fingerprint": ONE})
    return folder


def test_a_project_is_about_the_data_that_it_spent_on(charged, project, capsys):
    """And not about those that it read since."""
    with Workspace.open(project) as workspace:
        kept = {"plan": {"run": "run b"}, "wishes": {"fingerprint": OTHER}}
        workspace.finish("plan", kept)
    (told,) = found(capsys, project)["datasets"]
    assert told["fingerprint"] == OTHER
    with Workspace.open(project) as workspace:
        workspace.finish("plan", kept | {"plan": {"run": "run d"}})
    (told,) = found(capsys, project)["datasets"]
    assert told["fingerprint"] == ONE, "nothing was spent under the plan"


def ledger(*arguments) -> int:
    return cli.main(["ledger", *map(str, arguments)])


def found(capsys, *arguments) -> dict:
    assert ledger(*arguments, "--json") == cli.DONE
    return json.loads(capsys.readouterr().out)


def refusal(capsys, *arguments) -> str:
    """The one sentence that it ends with."""
    assert ledger(*arguments) == cli.MISTAKE
    output = capsys.readouterr()
    assert output.out == "" and output.err.count("sfumato: ") == 1
    return output.err


def test_an_empty_ledger_says_so(capsys):
    assert found(capsys)["datasets"] == []
    assert ledger() == cli.DONE
    assert "0 entries" in capsys.readouterr().out


@pytest.mark.usefixtures("charged")
def test_it_lists_data_sets_runs_and_charges(capsys, home):
    content = found(capsys)
    assert (content["entries"], content["chain_holds"]) == (5, True)
    assert content["path"] == str(home / "ledger.sqlite3")
    first, second = content["datasets"]
    assert [d["fingerprint"] for d in (first, second)] == [ONE, OTHER]
    assert [run["run"] for run in first["runs"]] == ["run a", "run c"]
    assert [c["count"] for c in first["runs"][0]["charges"]] == [1, 2]
    assert first["runs"][0]["begun"] <= first["runs"][0]["ended"]
    assert first["cap"] is None and first["delta"] == 1e-5
    everything = quickly((SUM, STEP, STEP, STEP), 1e-5, Relation.ADD_OR_REMOVE_ONE)
    assert first["epsilons"] == {IMAGE: pytest.approx(everything)}
    assert ledger() == cli.DONE
    text = capsys.readouterr().out
    for part in ("holds", ONE[:12], "run a: 2 steps and 1 noisy", "at δ = 1e-05"):
        assert part in text
    assert ONE not in text


@pytest.mark.usefixtures("charged")
def test_one_data_set_by_its_project_or_fingerprint(capsys, project):
    for about in (project, ONE, ONE[:4]):
        (only,) = found(capsys, about)["datasets"]
        assert only["fingerprint"] == ONE
    assert found(capsys, project)["datasets"][0]["delta"] == 1e-7
    assert found(capsys, project, "--delta", "1e-3")["datasets"][0]["delta"] == 1e-3


@pytest.mark.usefixtures("charged")
def test_a_project_may_be_asked_about_while_it_works(capsys, project):
    with Workspace.open(project), open_ledger():
        assert len(found(capsys, project)["datasets"]) == 1


@pytest.mark.usefixtures("charged")
def test_what_bounds_nothing_is_infinite_and_valid_json(capsys):
    charge(ONE, "run d", PATIENT, STEP)
    epsilons = found(capsys, ONE)["datasets"][0]["epsilons"]
    assert epsilons[PATIENT] is None and epsilons[IMAGE] > 0
    assert ledger(ONE) == cli.DONE
    assert "ε = infinite" in capsys.readouterr().out


@pytest.mark.usefixtures("charged")
def test_a_cap_is_set_with_the_projects_terms_and_recorded(capsys, project):
    for epsilon in (20, 7.5):
        assert ledger(project, "--cap", epsilon) == cli.DONE
        text = capsys.readouterr().out
        assert f"cap: ε = {epsilon} at δ = 1e-07 ({PATIENT})" in text
    content = found(capsys, ONE)
    cap = {"epsilon": 7.5, "delta": 1e-7, "terms": PATIENT}
    assert content["datasets"][0]["cap"] == cap
    assert content["entries"] == 7, "both are kept"
    assert content["datasets"][0]["delta"] == 1e-7, "the cap's δ is shown"
    assert found(capsys, OTHER)["datasets"][0]["cap"] is None


@pytest.mark.usefixtures("charged")
def test_a_delta_that_nobody_chose_is_said_to_be_none_of_the_projects(capsys, project):
    note = "(shown at δ = 1e-05; `sfumato ledger PROJECT` shows it at the project's own"
    for about, told in (((), True), ((ONE,), True), ((project,), False),
                        ((ONE, "--delta", "1e-4"), False)):  # fmt: skip
        assert ledger(*about) == cli.DONE
        assert (note in capsys.readouterr().out) == told
    assert ledger(project, "--cap", 90) == cli.DONE
    capsys.readouterr()
    assert ledger(ONE) == cli.DONE
    assert note not in capsys.readouterr().out, "it is at the cap's δ"


@pytest.mark.usefixtures("charged")
@pytest.mark.parametrize(("cap", "above"), [(1, True), (90, False)])
def test_a_cap_below_what_was_charged_says_so(capsys, cap, above):
    assert ledger(ONE, "--cap", cap) == cli.DONE
    said = "Already above this cap: nothing more can be trained on these images."
    assert (said in capsys.readouterr().out) == above
    assert found(capsys, ONE)["datasets"][0]["above_cap"] == above


@pytest.mark.usefixtures("charged")
def test_a_cap_may_name_its_own_terms(capsys, project):
    own = ("--unit", "image", "--relation", "replace_one", "--delta", "1e-4")
    for about in (project, OTHER):
        cap = found(capsys, about, "--cap", 3, *own)["datasets"][0]["cap"]
        assert cap == {"epsilon": 3.0, "delta": 1e-4, "terms": "image, replace_one"}


@pytest.mark.usefixtures("charged")
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--cap", 3), "project"),
        (("nowhere",), "nowhere"),
        (("ffff", "--cap", 3), "ffff"),
        (("1", "--cap", 3), "one data set"),
        ((ONE, "--cap", 0), "cap"),
        ((ONE, "--cap", "nan"), "cap"),
        ((ONE, "--cap", 3, "--delta", 2), "delta"),
        ((ONE, "--cap", 3, "--delta", 0), "delta"),
        *(((ONE, "--delta", delta), "delta must") for delta in (2, 1, 0, -1, "nan")),
        ((ONE, "--cap", 3, "--unit", "slide"), "slide"),
        ((ONE, "--cap", 3, "--relation", "x"), "relation"),
    ],
)
def test_a_mistake_is_one_sentence_and_records_nothing(capsys, arguments, named):
    assert named in refusal(capsys, *arguments)
    assert found(capsys)["entries"] == 5


@pytest.mark.usefixtures("charged")
def test_a_cap_is_not_set_while_the_data_are_spent_on(capsys):
    with alone_with(ONE):
        assert "Another training" in refusal(capsys, ONE, "--cap", 3)
    assert found(capsys)["entries"] == 5


def test_a_folder_without_a_project_and_one_not_read_yet(capsys, tmp_path):
    (tmp_path / "folder").mkdir()
    assert "no project" in refusal(capsys, tmp_path / "folder")
    with Workspace.open(tmp_path / "new") as workspace:
        workspace.save_project(Project())
    assert "No images were read" in refusal(capsys, tmp_path / "new")


@pytest.mark.usefixtures("charged")
def test_an_edited_ledger_is_told(capsys, home):
    database = sqlite3.connect(home / "ledger.sqlite3")
    database.executescript("DROP TRIGGER no_update; UPDATE entries SET count = 9")
    database.close()
    assert "edited (row 1" in refusal(capsys)


@pytest.mark.usefixtures("charged")
def test_a_ledger_that_was_rolled_back_is_told(capsys, home, tmp_path, project):
    shutil.copy(home / "ledger.sqlite3", tmp_path / "backup")
    charge(ONE, "run d", IMAGE, STEP)
    with Workspace.open(project) as workspace, open_ledger(workspace):
        pass
    shutil.copy(tmp_path / "backup", home / "ledger.sqlite3")
    assert "forgotten" in refusal(capsys)
    shutil.rmtree(home / "witness")
    # The project alone remembers now.
    assert "project/ledger-head.json" in refusal(capsys, project)
    (home / "ledger.sqlite3").unlink()
    assert "is gone" in refusal(capsys, project)
    assert not (home / "ledger.sqlite3").exists()


def test_it_is_the_same_ledger_that_the_training_charges(home, charged):
    opened = Ledger(home / "ledger.sqlite3", [home / "witness" / "ledger-head.json"])
    assert len(opened.entries()) == 5
    opened.close()
