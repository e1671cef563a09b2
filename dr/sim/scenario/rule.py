"""How a rule is written, in `rules` and behind `add_rule`."""

from __future__ import annotations

from typing import Any

from dr.model.policy import GuestRule, HostRule, Rule
from dr.model.words import Kind, Problems, Where, read_fields, write_fields


class RuleKind(Kind):
    """A rule with `hosts` is about hosts, one with `kind` about guests."""

    means = "a mapping with name, guests, and either hosts or kind"

    def read(self, value: Any, where: Where, problems: Problems) -> Rule | None:
        if not isinstance(value, dict) or ("hosts" in value) == ("kind" in value):
            self.wrong(value, where, problems)
            return None
        if isinstance(value.get("hosts"), list | str):  # all alike
            names = [value["hosts"]] if isinstance(value["hosts"], str) else value["hosts"]
            value = value | {"hosts": {str(name): 1 for name in names}}
        rule: Rule | None = read_fields(HostRule if "hosts" in value else GuestRule, value, where, problems)
        return rule

    def write(self, value: Any) -> Any:
        return write_fields(value)


RULE = RuleKind()
