"""Every deliberate fault in the privacy engine must make a test fail."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.privacy_mutations.harness import HANGS_OR_DIES, Laboratory, Mutant
from tests.privacy_mutations.mutants import MUTANTS

FAILED, PASSED = 1, 0
TESTS = {test for mutant in MUTANTS for test in mutant.tests}


@pytest.fixture(scope="module")
def laboratory() -> Iterator[Laboratory]:
    opened = Laboratory()
    yield opened
    opened.close()


@pytest.mark.parametrize("file", sorted({test.partition("::")[0] for test in TESTS}))
def test_without_a_fault_the_same_tests_pass(laboratory, file: str):
    tests = sorted(test for test in TESTS if test.partition("::")[0] == file)
    code, said = laboratory.attempt(None, tests)
    assert code == PASSED, said


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_fault_is_noticed(laboratory, mutant: Mutant):
    code, said = laboratory.attempt(mutant, mutant.tests)
    assert code in (FAILED, HANGS_OR_DIES), f"nothing noticed: {said}"


def test_names_are_unique_and_there_are_enough():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 25
