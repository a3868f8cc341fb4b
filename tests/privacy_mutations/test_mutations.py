"""Every deliberate fault in the privacy engine must make a test fail."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.privacy_mutations.harness import HANGS_OR_DIES, Laboratory, Mutant
from tests.privacy_mutations.mutants import MUTANTS

FAILED, PASSED = 1, 0


@pytest.fixture(scope="module")
def laboratory() -> Iterator[Laboratory]:
    opened = Laboratory()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def attempts(laboratory):
    """All of them at once, as many at a time as there are cores."""
    every_test = sorted({test for mutant in MUTANTS for test in mutant.tests})
    started = {"": laboratory.attempt(None, every_test)}
    for mutant in MUTANTS:
        started[mutant.name] = laboratory.attempt(mutant, mutant.tests)
    return started


def test_without_a_fault_the_same_tests_pass(attempts):
    code, said = attempts[""].result()
    assert code == PASSED, said


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_fault_is_noticed(attempts, mutant: Mutant):
    code, said = attempts[mutant.name].result()
    assert code in (FAILED, HANGS_OR_DIES), f"nothing noticed: {said}"


def test_names_are_unique_and_there_are_enough():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 25
