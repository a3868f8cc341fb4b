"""Faults of the ledger, and of the cap that hangs on it."""

from __future__ import annotations

from tests.privacy_mutations.harness import Mutant

LEDGER = "privacy/ledger.py"
SPENDING = "spending.py"
PIPELINE = "pipeline.py"

IN_SPENDING = "test_spending.py::"

LEDGER_MUTANTS = (
    Mutant(
        name="a charge is never committed",
        file=LEDGER,
        correct='self._database.execute("COMMIT")',
        wrong='self._database.execute("ROLLBACK")',
        tests=("privacy/test_ledger.py",),
    ),
    Mutant(
        name="a charge does not wait for the disk",
        file=LEDGER,
        correct="PRAGMA synchronous = FULL",
        wrong="PRAGMA synchronous = NORMAL",
        tests=("privacy/test_ledger.py",),
    ),
    Mutant(
        name="an error in a transaction leaves the row",
        file=LEDGER,
        correct='self._database.execute("ROLLBACK")\n',
        wrong='self._database.execute("COMMIT")\n',
        tests=("privacy/test_ledger.py",),
    ),
    Mutant(
        name="rows can be changed",
        file=LEDGER,
        correct="BEFORE UPDATE ON entries\n"
        "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;",
        wrong="BEFORE UPDATE ON entries\nBEGIN SELECT 1; END;",
        tests=("privacy/test_ledger.py",),
    ),
    Mutant(
        name="rows can be deleted",
        file=LEDGER,
        correct="BEFORE DELETE ON entries\n"
        "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;",
        wrong="BEFORE DELETE ON entries\nBEGIN SELECT 1; END;",
        tests=("privacy/test_ledger.py",),
    ),
    Mutant(
        name="the chain is not checked",
        file=LEDGER,
        correct="            self._check_chain()\n",
        wrong="",
        tests=("privacy/test_ledger_witness.py",),
    ),
    Mutant(
        name="a row is not compared with its hash",
        file=LEDGER,
        correct="row[-1] != previous or digest != _digest(row)",
        wrong="row[-1] != previous",
        tests=("privacy/test_ledger_witness.py",),
    ),
    Mutant(
        name="a row is not compared with the one before",
        file=LEDGER,
        correct="row[-1] != previous or digest != _digest(row)",
        wrong="digest != _digest(row)",
        tests=("privacy/test_ledger_witness.py",),
    ),
    Mutant(
        name="rows missing at the end are not missed",
        file=LEDGER,
        correct="if issued and issued[0][0] != last:",
        wrong="if issued and issued[0][0] < last:",
        tests=("privacy/test_ledger_witness.py",),
    ),
    Mutant(
        name="the count is not part of the hash",
        file=LEDGER,
        correct="text = json.dumps(row, default=repr)",
        wrong="text = json.dumps([v for v in row if not isinstance(v, int)])",
        tests=(
            "privacy/test_ledger.py",
            "privacy/test_ledger_witness.py",
        ),
    ),
    Mutant(
        name="the limit is not checked",
        file=LEDGER,
        correct="            if allowed is not None:\n",
        wrong="            if False:\n",
        tests=("privacy/test_ledger_limits.py",),
    ),
    Mutant(
        name="the limit is checked before the transaction",
        file=LEDGER,
        correct="        with self._exclusive():\n"
        "            # PRIVACY: compared and appended in one transaction, so that two "
        "copies of\n            # a project cannot both take the last step.\n"
        "            if allowed is not None:\n"
        "                self._refuse_beyond(account, charge, allowed)\n",
        wrong="        if allowed is not None:\n"
        "            self._refuse_beyond(account, charge, allowed)\n"
        "        with self._exclusive():\n",
        tests=("privacy/test_ledger_limits.py",),
    ),
    Mutant(
        name="one charge beyond the limit",
        file=LEDGER,
        correct="if kind.count > limits.get(replace(kind, count=0), 0):",
        wrong="if kind.count > 1 + limits.get(replace(kind, count=0), 0):",
        tests=("privacy/test_ledger_limits.py",),
    ),
    Mutant(
        name="a charge that the plan does not know has no limit",
        file=LEDGER,
        correct="limits.get(replace(kind, count=0), 0)",
        wrong="limits.get(replace(kind, count=0), kind.count)",
        tests=("privacy/test_ledger_limits.py",),
    ),
    Mutant(
        name="the limit forgets what was charged before",
        file=LEDGER,
        correct="for kind in added((*before, charge)):",
        wrong="for kind in added((charge,)):",
        tests=("privacy/test_ledger_limits.py",),
    ),
    Mutant(
        name="an edited plan has a new limit",
        file=LEDGER,
        correct="before = self.charged(account.dataset, run=account.run)",
        wrong="before = self.charged(account.dataset, account.terms, account.run)",
        tests=("privacy/test_ledger_limits.py",),
    ),
    Mutant(
        name="witnesses are not asked",
        file=LEDGER,
        correct="if not self.contains(_remembered(witness)):",
        wrong="if False:",
        tests=("privacy/test_ledger_witness.py",),
    ),
    Mutant(
        name="only the first witness is asked",
        file=LEDGER,
        correct="            for witness in self._witnesses:\n"
        "                # PRIVACY",
        wrong="            for witness in self._witnesses[:1]:\n"
        "                # PRIVACY",
        tests=("privacy/test_ledger_witness.py",),
    ),
    Mutant(
        name="witnesses hear of nothing before the end",
        file=LEDGER,
        correct="        self._remember(previous)\n",
        wrong="",
        tests=("privacy/test_ledger_witness.py",),
    ),
    Mutant(
        name="a witness hears of a row before the disk does",
        file=LEDGER,
        correct="        return head\n\n    def _remember",
        wrong="        self._remember(head)\n        return head\n\n    def _remember",
        tests=("privacy/test_ledger_witness.py",),
    ),
    Mutant(
        name="a ledger that is gone is made anew",
        file=LEDGER,
        correct="            self._refuse_if_gone()\n",
        wrong="",
        tests=("privacy/test_ledger_witness.py",),
    ),
    Mutant(
        name="runs are not added up",
        file=LEDGER,
        correct="SUM(count)",
        wrong="MAX(count)",
        tests=("privacy/test_ledger.py",),
    ),
    Mutant(
        name="of runs with equal charges only one counts",
        file=LEDGER,
        correct="GROUP BY run, terms, charge",
        wrong="GROUP BY terms, charge",
        tests=("privacy/test_ledger.py",),
    ),
    Mutant(
        name="runs that were aborted at once are left out",
        file=LEDGER,
        correct='"GROUP BY run, terms, charge ORDER BY',
        wrong='"GROUP BY run, terms, charge HAVING SUM(count) > 1 ORDER BY',
        tests=("privacy/test_ledger.py",),
    ),
    Mutant(
        name="equal charges are taken for one",
        file=LEDGER,
        correct="counts[kind] = counts.get(kind, 0) + charge.count",
        wrong="counts[kind] = charge.count",
        tests=("privacy/test_ledger_limits.py",),
    ),
    Mutant(
        name="the first cap holds for ever",
        file=LEDGER,
        correct="for entry in reversed(self.entries(dataset))",
        wrong="for entry in self.entries(dataset)",
        tests=("privacy/test_lifetime.py",),
    ),
)
SPENDING_MUTANTS = (
    Mutant(
        name="the ledger's head is released as it is",
        file=SPENDING,
        correct='return hmac.digest(key, head.encode(), "sha256").hex()',
        wrong="return head",
        tests=(
            "test_pipeline.py::test_a_release_confirms_no_guess_at_the_private_files",
        ),
    ),
    Mutant(
        name="the head's seal has a key that everybody knows",
        file=SPENDING,
        correct="secrets.token_hex(32)",
        wrong='"00" * 32',
        tests=(
            "test_pipeline.py::test_a_release_confirms_no_guess_at_the_private_files",
        ),
    ),
    Mutant(
        name="a report leaves out what does not add up with it",
        file=SPENDING,
        correct="of_all=_epsilon(plan, _by_terms(accounts)),",
        wrong="of_all=_epsilon(plan, _comparable(_by_terms(accounts), plan)),",
        tests=(
            IN_SPENDING
            + "test_a_report_for_patients_counts_what_was_charged_for_images",
        ),
    ),
    Mutant(
        name="a plan goes on with images grouped otherwise",
        file=PIPELINE,
        correct="{name: getattr(dataset, name) for name in _ABOUT_DATA}",
        wrong='{"fingerprint": dataset.fingerprint}',
        tests=("test_pipeline.py::test_other_tables_are_other_data",),
    ),
    Mutant(
        name="the report is of the wishes tried last",
        file=PIPELINE,
        correct='wishing.as_planned(workspace.project or Project(), kept["wishes"])',
        wrong="workspace.project or Project()",
        tests=(
            "test_pipeline.py::"
            "test_a_report_is_of_what_was_trained_and_not_of_what_was_tried",
        ),
    ),
    Mutant(
        name="a report of nothing spent",
        file=PIPELINE,
        correct="    if not spent.of_run:\n",
        wrong="    if False:\n",
        tests=(
            "test_pipeline.py::test_a_run_that_the_ledger_does_not_know_is_not_released",
        ),
    ),
    Mutant(
        name="two computers write to one ledger",
        file=SPENDING,
        correct="if kind := shared_disk(user_folder()):",
        wrong='if kind := "":',
        tests=("test_disks.py::test_no_ledger_is_opened_on_a_shared_disk",),
    ),
    Mutant(
        name="other runs are left out of the cap",
        file=SPENDING,
        correct="    others = _by_terms(accounts, but=plan.run)\n    total",
        wrong="    others: dict[str, tuple[Charge, ...]] = {}\n    total",
        tests=(IN_SPENDING + "test_all_runs_are_composed",),
    ),
    Mutant(
        name="the plan itself is left out of the cap",
        file=SPENDING,
        correct="lifetime_epsilon(_with_plan(others, plan), cap.terms",
        wrong="lifetime_epsilon(others, cap.terms",
        tests=(IN_SPENDING + "test_a_plan_alone_is_held_to_the_cap",),
    ),
    Mutant(
        name="the cap is looked at for the plan's terms",
        file=SPENDING,
        correct="cap.terms, cap.delta)\n    # PRIVACY",
        wrong="plan.terms, cap.delta)\n    # PRIVACY",
        tests=(
            IN_SPENDING + "test_the_relation_of_the_cap_counts_not_that_of_the_run",
        ),
    ),
    Mutant(
        name="the cap is not looked at before training",
        file=PIPELINE,
        correct="        refuse_above_cap(ledger, plan, dataset.fingerprint)\n"
        "        tuned",
        wrong="        tuned",
        tests=(IN_SPENDING + "test_nothing_is_spent_above_the_cap",),
    ),
    Mutant(
        name="two trainings spend on the same images",
        file=PIPELINE,
        correct="with alone_with(dataset.fingerprint), open_ledger",
        wrong="with open_ledger",
        tests=("test_spending.py",),
    ),
    Mutant(
        name="a run that was stopped is counted twice",
        file=SPENDING,
        correct="if account.run != but:",
        wrong="if True:",
        tests=(IN_SPENDING + "test_what_the_run_was_charged_is_not_counted_twice",),
    ),
)
