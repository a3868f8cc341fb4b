"""The two ways a stage ends early: the user has to act, or the user asked to stop.

Anything else that is raised is a bug, and the command line and the wizard say so.
"""

from __future__ import annotations


class UserError(Exception):
    """Something the custodian can put right.

    The message is one sentence in their words: what is wrong, naming the file or the
    field, and what to do about it. It is shown as it is.
    """


class Undeclared(UserError):
    """Something that only the custodian can say, and has not said yet.

    Attributes:
        fact: The first half of the message: what was found.
        wanted: What to declare: names of fields of a project.
        choices: What there is to choose from, such as the columns of a table; empty
            where anything may be typed.
    """

    def __init__(
        self,
        fact: str,
        remedy: str,
        *,
        wanted: tuple[str, ...],
        choices: tuple[str, ...] = (),
    ) -> None:
        super().__init__(f"{fact}: {remedy}")
        self.fact = fact
        self.wanted = wanted
        self.choices = choices


class Unfinishable(UserError):
    """Budget is charged, and what it paid for is lost: the project cannot go on."""


class Stopped(Exception):
    """The caller asked to stop, and the stage stopped at a safe point.

    What the stage had done is on disk; calling it again goes on from there.
    """
