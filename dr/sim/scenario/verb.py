"""What a verb of the scenario language is: a record whose first field has the verb's own name.

`{power_off: h1}` is `PowerOff(power_off=("h1",))`. Here: what all verbs share. Not here: the verbs (`verbs_*`).
"""

from __future__ import annotations

from dr.model.base import Record
from dr.model.words import Problems, Where, fields_of, write_fields, written
from dr.sim.scenario.stage import Stage


class Verb(Record):
    """Something that happens to the world."""

    @classmethod
    def word(cls) -> str:
        return fields_of(cls)[0].key

    def do(self, stage: Stage) -> None:
        """Let it happen, now."""
        raise NotImplementedError

    def check(self, where: Where, problems: Problems) -> None:
        """Find what its fields cannot mean together."""

    def text(self) -> str:
        """As a scenario writes it."""
        return written(write_fields(self)).removeprefix("{").removesuffix("}")
