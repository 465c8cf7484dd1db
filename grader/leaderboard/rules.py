"""What a board's leaderboard.toml says."""

import tomllib
from datetime import datetime
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

import msgspec

from final_project.trace import Phase
from grader.assignment import UnusableInput

DEFAULT = Path(__file__).with_name("leaderboard.toml")
Positive = Annotated[int, msgspec.Meta(ge=1)]


class SystemRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How systems of homework 2 are run."""

    model: str
    """A course model, or a folder."""
    token_budgets: Annotated[list[Positive], msgspec.Meta(min_length=1)]
    """Tokens a question; a system is run under each."""
    questions: Positive
    """Of each task, at most."""
    seconds_per_question: Annotated[float, msgspec.Meta(gt=0)]


class ServerRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How servers of the final project are tested; what is left out is as `grader serve-test` has it."""

    baselines: list[str]
    """Systems of the reference's serve.toml."""
    seconds: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """The window."""
    phases: list[Phase] | None = None


class Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    title: str
    term: str
    time_zone: str
    entries_per_day: Positive
    systems: SystemRules
    servers: ServerRules

    def day(self, moment: datetime) -> str:
        """Return the day of a moment, YYYY-MM-DD, in the board's time zone."""
        return moment.astimezone(ZoneInfo(self.time_zone)).date().isoformat()


def load_rules(board: Path) -> Rules:
    """Read the rules of a board's folder, or the kit's where it has none. Raises UnusableInput."""
    own = board / "leaderboard.toml"
    file = own if own.exists() else DEFAULT
    try:
        rules = msgspec.convert(tomllib.loads(file.read_text("utf-8")), Rules)
        ZoneInfo(rules.time_zone)
    except (OSError, ValueError, KeyError) as error:
        raise UnusableInput(f"{file}: {error}") from error
    return rules
