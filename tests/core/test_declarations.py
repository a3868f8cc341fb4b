"""What the custodian declares about a folder reaches the reading, from every door."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from core import cli, pipeline
from core.data import ReadOptions, Split
from core.data.options import coarser_than_patients, refuse_wrong_unit
from core.disclosure import audit_facts
from core.errors import Undeclared, UserError
from core.events import Watcher
from core.privacy.ledger import Ledger
from core.training.wishes import refuse_unconfirmed
from core.workspace import Project, Workspace, parse_project
from tests.core.data.fakes import class_folders
from tests.core.tiny import make_checkpoint, make_dataset, write_recipe

OLD_PROJECT = """
source = "/images"
resolution = 32
grey = true
declared_count = 400
unit = "image"
max_images_per_unit = 1
checkpoint = "starter"
overlap_answer = "no"
epsilon = 10.0
delta = 1e-5
relation = "add_or_remove_one"
recipe = "starter"
title = "Synthetic images"
device = "auto"
"""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path / "home"))


@pytest.fixture
def deep(tmp_path):
    """Two classes of 16-bit files, as a scanner writes them."""
    rng = np.random.default_rng(0)
    for shade, name in enumerate(("dark", "bright")):
        (tmp_path / "deep" / name).mkdir(parents=True)
        for number in range(12):
            values = rng.integers(0, 1500, (9, 9)) + 2000 * shade
            image = Image.fromarray(values.astype(np.uint16))
            image.save(tmp_path / "deep" / name / f"{number}.png")
    return tmp_path / "deep"


@pytest.fixture
def table(tmp_path):
    """A table with a hospital's own columns, and the images that it names."""
    root = class_folders(tmp_path / "ward", {"x": 12})
    rows = [["Bild", "Befund", "Fall"]]
    rows += [[f"x/{n}.png", "ab"[n % 2], f"F{n // 2}"] for n in range(12)]
    with (root / "liste.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root / "liste.csv"


def read(tmp_path, project):
    with Workspace.open(tmp_path / "project") as workspace:
        return pipeline.load_dataset(workspace, project, Watcher())


def test_an_older_project_file_still_loads(tmp_path):
    project = parse_project(OLD_PROJECT, tmp_path / "project.toml")
    assert project.grey and project.declared_count == 400
    assert pipeline.declarations(project) == ReadOptions(grey=True)


def test_declarations_survive_the_project_file(tmp_path):
    wishes = Project(
        source="/images",
        window="-160,240",
        classes=("a; b", " c"),
        unit_column="Fall",
        missing_unit="leave_out",
        path_column="Bild",
        label_column="Befund",
        split_column="Satz",
    )
    with Workspace.open(tmp_path / "project") as workspace:
        workspace.save_project(wishes)
        assert workspace.project == wishes
    options = pipeline.declarations(wishes)
    assert options.window == (-160, 240) and options.classes == ("a; b", " c")
    assert options.unit_column == "Fall" and options.missing_unit == "leave_out"
    assert (options.path_column, options.label_column) == ("Bild", "Befund")
    assert options.split_column == "Satz"


@pytest.mark.parametrize("text", ["classes = 3", "classes = [1]", 'classes = "a"'])
def test_classes_must_be_a_list_of_names(tmp_path, text):
    with pytest.raises(UserError, match="classes"):
        parse_project(text, tmp_path / "project.toml")


def test_deep_images_ask_for_a_window_and_are_read_with_it(tmp_path, deep):
    wishes = Project(source=str(deep), resolution=8)
    with pytest.raises(Undeclared, match="24 files have more than 8 bits") as asked:
        read(tmp_path, wishes)
    assert asked.value.wanted == ("window",)
    dataset = read(tmp_path, wishes.changed(window="0,4095"))
    assert len(dataset) == 24
    means = [dataset.images[dataset.labels == label].mean() for label in (0, 1)]
    assert max(means) > 2 * min(means)


def test_a_table_asks_for_its_columns_and_offers_them(tmp_path, table):
    wishes = Project(source=str(table), resolution=8)
    with pytest.raises(Undeclared) as asked:
        read(tmp_path, wishes)
    assert asked.value.wanted == ("path_column",)
    assert asked.value.choices == ("Bild", "Befund", "Fall")
    wishes = wishes.changed(path_column="Bild", label_column="Befund")
    unnamed = read(tmp_path, wishes)
    assert not unnamed.has_groups and unnamed.unit_choices == ("Fall",)
    dataset = read(tmp_path, wishes.changed(unit_column="Fall"))
    assert dataset.unit_column == "Fall" and len(np.unique(dataset.units)) == 6


def test_images_without_a_patient_ask_what_becomes_of_them(tmp_path):
    root = class_folders(tmp_path / "d", {"a": 8, "b": 8})
    rows = [f"{name}/{n}.png,p{n}" for n in range(4) for name in "ab"]
    (root / "units.csv").write_text("\n".join(["file,unit", *rows]))
    wishes = Project(source=str(root), resolution=8)
    with pytest.raises(Undeclared) as asked:
        read(tmp_path, wishes)
    assert asked.value.wanted == ("missing_unit",)
    assert len(read(tmp_path, wishes.changed(missing_unit="own_unit"))) == 16
    assert len(read(tmp_path, wishes.changed(missing_unit="leave_out"))) == 8


def run(tmp_path, source, *more):
    make_checkpoint(tmp_path / "checkpoint")
    return cli.main(
        [
            "run", str(tmp_path / "project"), "--source", str(source), "--resolution",
            "8", "--declared-count", "40", "--checkpoint", str(tmp_path / "checkpoint"),
            "--recipe", str(write_recipe(tmp_path)), "--epsilon", "0.5", "--delta",
            "1e-3", "--device", "cpu", "--overlap-answer", "no", *more,
        ]
    )  # fmt: skip


def stages(tmp_path) -> list[str]:
    found = (tmp_path / "project").glob("*/finished.json")
    return sorted(file.parent.name for file in found)


def stopped_after_the_plan(monkeypatch):
    def stop(*_, **__):
        raise UserError("Enough.")

    monkeypatch.setattr(pipeline, "fine_tune", stop)


def test_run_takes_the_declarations(tmp_path, deep, monkeypatch, capsys):
    stopped_after_the_plan(monkeypatch)
    assert run(tmp_path, deep) == cli.MISTAKE
    assert "declare a window" in capsys.readouterr().err
    assert run(tmp_path, deep, "--window", "-10,4095") == cli.MISTAKE
    said = capsys.readouterr().err
    assert "(bright, dark)" in said and '--classes "bright;dark"' in said
    assert stages(tmp_path) == ["dataset"]
    assert run(tmp_path, deep, "--classes", "dark;bright") == cli.MISTAKE
    assert "Enough" in capsys.readouterr().err
    assert stages(tmp_path) == ["dataset", "plan"]
    with Workspace.open(tmp_path / "project") as workspace:
        assert workspace.project.window == "-10,4095"
        assert workspace.project.classes == ("dark", "bright")


def test_run_takes_the_declarations_from_a_file(tmp_path, table, monkeypatch, capsys):
    stopped_after_the_plan(monkeypatch)
    config = tmp_path / "wishes.toml"
    config.write_text(
        'path_column = "Bild"\nlabel_column = "Befund"\nunit_column = "Fall"\n'
        'unit = "patient"\nclasses = ["a", "b"]\n'
    )
    assert run(tmp_path, table, "--config", str(config)) == cli.MISTAKE
    assert "Enough" in capsys.readouterr().err


def test_a_declaration_that_makes_no_sense_changes_no_project(tmp_path, deep, capsys):
    assert run(tmp_path, deep, "--window", "5") == cli.MISTAKE
    assert "not two numbers" in capsys.readouterr().err
    assert not (tmp_path / "project" / "project.toml").exists()


@pytest.fixture
def planned(tmp_path):
    """Makes the plan of a project over the same images."""
    make_checkpoint(tmp_path / "checkpoint")
    wishes = Project(
        resolution=8,
        declared_count=40,
        checkpoint=str(tmp_path / "checkpoint"),
        epsilon=0.5,
        delta=1e-3,
        recipe=str(write_recipe(tmp_path)),
        overlap_answer="no",
        classes=("dark", "bright"),
    )

    def plan(dataset=None, **changes):
        data = dataset or make_dataset()
        with Workspace.open(tmp_path / "project") as workspace:
            project = wishes.changed(**changes)
            made = pipeline.make_plan(workspace, project, data, Watcher())
            return project, made

    return plan


@pytest.mark.parametrize(
    "classes", [(), ("dark",), ("dark", "bright", "rare"), ("dark", "brighter")]
)
def test_nothing_is_planned_for_classes_that_nobody_confirmed(planned, classes):
    """One image in a folder of its own would add a name to the release."""
    with pytest.raises(UserError, match=r"\(dark, bright\).*--classes"):
        planned(classes=classes)


def test_a_name_that_the_command_line_cannot_say_goes_into_a_file():
    with pytest.raises(UserError, match="project file"):
        refuse_unconfirmed(Project(), ("a;b", "c"))


def test_another_window_is_another_run_but_the_order_of_classes_is_not(planned):
    run = planned()[1].run
    assert planned(classes=("bright", "dark"))[1].run == run
    assert planned(window="0,9")[1].run != run


@pytest.mark.parametrize(
    "unit",
    ["slide", "wsi", "study", "series", "Slide", "slide_id", "SlideID", "slideid",
     "WSI", "StudyInstanceUID", "seriesinstanceuid", "visit", "lesion id", "image",
     "scan", "scans", "slice", "frameno", "patient_eye", "lymph_node", "core_id",
     "Block", "biopsy", "specimen", "sample", "exam", "acquisition", "nodule",
     "breast", "side", "laterality", "image_file_name", "site_visit", "hadm_id",
     "stay_id", "icustay_id", "order_no", "appointment", "report", "dicom_id", "polyp",
     "tumor_id", "volume"],
)  # fmt: skip
def test_no_smaller_unit_stands_for_a_patient(unit):
    with pytest.raises(UserError, match=f"grouped by {unit}, and one patient may"):
        refuse_wrong_unit(unit, "patient")
    refuse_wrong_unit(unit, "image")


@pytest.mark.parametrize(
    "unit",
    ["hospital", "Hospital", "site", "siteid", "centre", "center", "study_site",
     "studysite", "InstitutionName", "institute", "clinic", "scanner", "scanner_id",
     "slide_scanner", "imaging device", "ManufacturerModelName", "lab", "core_lab",
     "ward", "department", "city", "country", "cohort", "patient_hospital",
     "care_unit", "bed", "room", "team", "consultant", "fold", "sex"],
)  # fmt: skip
def test_no_larger_unit_stands_for_a_patient(unit):
    with pytest.raises(UserError, match=f"grouped by {unit}, which patients may share"):
        refuse_wrong_unit(unit, "patient")
    refuse_wrong_unit(unit, "image")


@pytest.mark.parametrize(
    "unit",
    ["patient", "PatientID", "patient_no", "study_subject", "subject", "SiteSubjectID",
     "hospital_patient", "unit", "Fall-Nr", "case", "risk_score", "label", "framework",
     "capacity", "website", ""],
)  # fmt: skip
def test_what_names_patients_or_nothing_known_stands_for_them(unit):
    refuse_wrong_unit(unit, "patient")


def test_no_name_of_a_column_takes_long_to_be_read():
    for piece in ("instance", "file", "exam", "studysite", "no"):
        assert not coarser_than_patients(piece * 500 + "q")


def test_a_plan_for_patients_wants_patients(planned):
    """One that was made already as well: its images may be grouped anew."""

    def grouped(unit):
        return replace(make_dataset(patients=10), unit_column=unit)

    assert planned(unit="patient", dataset=grouped("patient"))
    with pytest.raises(UserError, match="one patient may have several"):
        planned(unit="patient", dataset=grouped("slide"))
    with pytest.raises(UserError, match="which patients may share"):
        planned(unit="patient", dataset=grouped("hospital"))
    assert planned(unit="image", dataset=grouped("hospital"))


def test_files_of_a_study_are_not_patients_each(planned):
    apart = replace(make_dataset(patients=10), studies_apart=True)
    assert planned(unit="image", dataset=apart)
    with pytest.raises(UserError, match="are of one study"):
        planned(unit="patient", dataset=apart)


def test_frames_that_are_read_together_are_not_protected_singly(planned):
    frames = replace(make_dataset(patients=10), several_frames=True)
    assert planned(unit="patient", dataset=frames)
    with pytest.raises(UserError, match="protect patients instead"):
        planned(unit="image", dataset=frames)


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({}, "preprocessing", "decoded to 8 bits per channel"),
        ({"window": "-160,240"}, "preprocessing", "values from -160 to 240"),
        ({}, "unit_definition", "Every image is a unit"),
        ({"unit": "patient"}, "unit_definition", "the column 'Case no.' of"),
        ({"unit": "patient"}, "units_without_key_policy", "others are refused"),
        (
            {"unit": "patient", "missing_unit": "own_unit"},
            "units_without_key_policy",
            "protected less than the bound says",
        ),
        (
            {"unit": "patient", "missing_unit": "leave_out"},
            "units_without_key_policy",
            "images without a patient are left out",
        ),
    ],
)
def test_the_audit_says_what_was_declared(planned, changes, field, said):
    patients = 10 if "unit" in changes else 0
    dataset = replace(make_dataset(patients=patients), unit_column="Case no.")
    project, plan = planned(dataset, **changes)
    facts = audit_facts(
        plan,
        project,
        trainable_parameters=1,
        updates=1,
        steps_charged=1,
        epsilon_charged=0.1,
        lifetime_epsilon=0.1,
        lifetime_runs=1,
        sealed_head="0" * 64,
    )
    text = str(getattr(facts, field))
    assert said in text
    if not changes:
        assert "window" not in text


def test_a_grown_folder_is_told_of_once_budget_was_spent_on_it(tmp_path, monkeypatch):
    root = class_folders(tmp_path / "d", {"a": 9, "b": 9})
    wishes = Project(source=str(root), resolution=8)
    first = read(tmp_path, wishes)
    Image.new("RGB", (9, 9), "red").save(root / "a" / "new.png")
    grown = read(tmp_path, wishes)
    assert grown.fingerprint != first.fingerprint
    assert grown.problems == (), "nothing was spent, so there is nothing to add up"
    spent = {first.fingerprint: ("a charge",)}
    monkeypatch.setattr(Ledger, "charged", lambda _, dataset: spent.get(dataset, ()))
    grown = read(tmp_path, wishes)
    assert [p.left_out for p in grown.problems] == [False]
    assert "(grown:" in grown.problems[0].message
    assert len(grown.subset(Split.TRAIN)) > 0
