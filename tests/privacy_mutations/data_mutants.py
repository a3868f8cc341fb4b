"""Faults in what is read: who belongs to whom, and who is trained on."""

from __future__ import annotations

from tests.privacy_mutations.harness import Mutant

ONLY_IMAGE = (
    "data/test_declared.py::test_the_only_image_of_a_declared_class_decides_nothing",
)

DATA_MUTANTS = (
    Mutant(
        name="the only image of a declared class decides whether there is a release",
        file="data/records.py",
        correct="    if len(read) < 2 and not index.classes_declared:\n",
        wrong="    if len(read) < 2:\n",
        tests=ONLY_IMAGE,
    ),
    Mutant(
        name="the only image of a declared class decides where another is left out",
        file="data/declared.py",
        correct="if none or any(_nearly(name, other) for other in others):",
        wrong="if none or others:",
        tests=ONLY_IMAGE,
    ),
    Mutant(
        name="the only image of a declared class decides on the place of others",
        file="data/declared.py",
        correct="if by_name else kept + absent",
        wrong="if False else kept + absent",
        tests=ONLY_IMAGE,
    ),
    Mutant(
        name="the first record that is held out decides over all others",
        file="data/splitting.py",
        correct="    if not known:\n",
        wrong='    if not set(splits) - {"train", ""}:\n',
        tests=(
            "data/test_class_folders.py::test_the_last_held_out_image_moves_no_other",
        ),
    ),
    Mutant(
        name="the first line of a table says for all whether there are patients",
        file="data/formats/imagefolder.py",
        correct="    if 0 < len(having) < len(entries):\n",
        wrong="    if False:\n",
        tests=("data/test_listed.py::test_one_more_line_of_json_moves_no_other",),
    ),
    Mutant(
        name="the last image of a split says for all whether there are slides",
        file="data/formats/pcam.py",
        correct="        named = None not in slides\n",
        wrong="        named = all(slides)\n",
        tests=(
            "data/test_pcam.py::"
            "test_the_last_image_of_a_split_does_not_say_whether_there_are_slides",
        ),
    ),
    Mutant(
        name="an image of two patients counts for the first of them",
        file="data/formats/listed.py",
        correct="    if first != second:\n",
        wrong="    if False:\n",
        tests=("data/test_listed.py::test_an_image_must_not_belong_to_two_patients",),
    ),
    Mutant(
        name="an image without a patient is held out by its number",
        file="data/records.py",
        correct='if index.groups[row].startswith("\\0")',
        wrong="if False",
        tests=(
            "data/test_declared.py::"
            "test_copies_without_a_patient_are_held_out_together",
        ),
    ),
    Mutant(
        name="a quote takes the rows of other patients with it",
        file="data/tables.py",
        correct='if any("\\n" in cell or "\\r" in cell for cell in cells):',
        wrong="if False:",
        tests=(
            "data/test_listed.py::test_a_stray_quote_takes_no_rows_of_others_with_it",
        ),
    ),
    Mutant(
        name="one DICOM file has others read that are misnamed",
        file="data/reading.py",
        correct='is_picture(self.paths[start + index]) and content[128:132] == b"DICM"',
        wrong="False",
        tests=(
            "data/test_dicom.py::"
            "test_another_dicom_file_does_not_make_misnamed_ones_be_read",
        ),
    ),
    Mutant(
        name="each frame of a file without a patient counts as one",
        file="data/declared.py",
        correct='names[row] = f"\\0{files[row]}"',
        wrong='names[row] = f"\\0{row}"',
        tests=(
            "data/test_dicom.py::"
            "test_the_frames_of_a_file_without_a_patient_are_one_unit",
        ),
    ),
    Mutant(
        name="frames of one file are held out one by one",
        file="data/records.py",
        correct="first.setdefault(index.groups[row], digests[32 * i : 32 * i + 32])",
        wrong="digests[32 * i : 32 * i + 32]",
        tests=(
            "data/test_dicom.py::"
            "test_the_frames_of_a_file_without_a_patient_are_one_unit",
        ),
    ),
    Mutant(
        name="frames that share their fate are protected singly",
        file="pipeline.py",
        correct="    refuse_frames_as_units(dataset.several_frames, project.unit)\n",
        wrong="",
        tests=(
            "test_declarations.py::"
            "test_frames_that_are_read_together_are_not_protected_singly",
        ),
    ),
    Mutant(
        name="whom a table does not name is nobody, whatever the header says",
        file="data/formats/dicom.py",
        correct="if header.unit and nobody(index.groups[number]):",
        wrong="if False:",
        tests=(
            "data/test_dicom.py::"
            "test_a_patient_in_the_header_is_not_nobody_for_a_table",
        ),
    ),
    Mutant(
        name="each file of a study without a patient counts as one",
        file="pipeline.py",
        correct="    refuse_studies_apart(dataset.studies_apart, project.unit)\n",
        wrong="",
        tests=("test_declarations.py::test_files_of_a_study_are_not_patients_each",),
    ),
    Mutant(
        name="all who are unknown are one patient",
        file="data/declared.py",
        correct='"" if nobody(group) else group for group',
        wrong="group for group",
        tests=("data/test_declared.py::test_nobody_is_no_patient",),
    ),
    Mutant(
        name="a patient whose name is written in two ways is two",
        file="data/declared.py",
        correct="        if other != name:\n",
        wrong="        if False:\n",
        tests=("data/test_declared.py::test_one_name_written_in_two_ways_is_refused",),
    ),
    Mutant(
        name="a row that finds no file leaves its images to themselves",
        file="data/formats/class_folders.py",
        correct="if options.missing_unit == OWN_UNIT and not known <= unit_of.keys():",
        wrong="if False:",
        tests=(
            "data/test_declared.py::"
            "test_a_row_that_finds_no_file_is_refused_where_others_have_none",
        ),
    ),
    Mutant(
        name="one file counts under each of its names",
        file="data/paths.py",
        correct="if other != path and not leaves(root / path, root):",
        wrong="if False:",
        tests=("data/test_declared.py::test_a_file_under_two_names_is_refused",),
    ),
    Mutant(
        name="a ward called unit is taken for a patient unasked",
        file="data/formats/listed.py",
        correct='("patient_id", "patient", "subject_id", "subject")',
        wrong='("patient_id", "patient", "subject_id", "subject", "unit")',
        tests=(
            "data/test_listed.py::"
            "test_a_column_called_unit_is_not_taken_for_patients_unasked",
        ),
    ),
    Mutant(
        name="the cache remembers whom the images were grouped by",
        file="data/cache.py",
        correct="repr((index.class_names, index.unit_column))",
        wrong="repr(index.class_names)",
        tests=(
            "data/test_declared.py::"
            "test_another_name_of_the_column_is_not_the_one_that_was_cached",
        ),
    ),
    Mutant(
        name="a patient is trained on and tested with",
        file="data/records.py",
        correct="splits[(splits == Split.HELD_OUT) & trained[units]] = Split.UNUSED",
        wrong="",
        tests=("data/test_camelyon17.py::test_no_split_goes_through_a_patient",),
    ),
    Mutant(
        name="images grouped otherwise look the same",
        file="data/records.py",
        correct="for _, rows in groupby(order, key=units.tolist().__getitem__):",
        wrong="for rows in ([i] for i in order):",
        tests=(
            "data/test_class_folders.py::"
            "test_another_table_of_units_makes_another_grouping",
        ),
    ),
    Mutant(
        name="copies of two classes change owners unseen",
        file="data/records.py",
        correct='+ int(label).to_bytes(8, "big") + bytes([split])',
        wrong="+ bytes([split])",
        tests=(
            "data/test_class_folders.py::"
            "test_copies_in_two_classes_that_change_owners_make_another_grouping",
        ),
    ),
    Mutant(
        name="another unit than was declared",
        file="data/declared.py",
        correct='if options.unit_column not in ("", index.unit_column):',
        wrong="if False:",
        tests=("data/test_listed.py::test_a_unit_that_no_column_names_is_refused",),
    ),
    Mutant(
        name="an eye stands for a patient",
        file="data/options.py",
        correct="return _named(unit_column) not in (_FINER, _COARSER)",
        wrong="return _named(unit_column) is not _COARSER",
        tests=("test_declarations.py::test_no_smaller_unit_stands_for_a_patient",),
    ),
    Mutant(
        name="a hospital stands for its patients",
        file="data/options.py",
        correct="return _named(unit_column) not in (_FINER, _COARSER)",
        wrong="return _named(unit_column) is not _FINER",
        tests=("test_declarations.py::test_no_larger_unit_stands_for_a_patient",),
    ),
    Mutant(
        name="nobody asks whether the groups are patients",
        file="pipeline.py",
        correct="    refuse_wrong_unit(dataset.unit_column, project.unit)\n",
        wrong="",
        tests=("test_declarations.py::test_a_plan_for_patients_wants_patients",),
    ),
)
