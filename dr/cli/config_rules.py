"""Placement rules in the coordinator's file: from its section to records, and what is wrong with them together."""

from __future__ import annotations

import difflib
from typing import Any

from dr.cli.config_errors import at
from dr.cli.config_schema import FileSection
from dr.cli.yamlfile import Document, Problem
from dr.core.contradictions import contradictions, imagined
from dr.model.policy import GuestRule, HostRule, Rule


def rules_of(parsed: FileSection, document: Document, problems: list[Problem]) -> tuple[Rule, ...]:
    """The rules, and as problems: names twice, rules of two kinds at once, strict ones that contradict each other."""
    rules: list[Rule] = []
    index: dict[str, int] = {}
    for number, given in enumerate(parsed.rules):
        path = ("rules", number)
        if given.name in index:
            problems.append(at(document, (*path, "name"), f"a second rule named {given.name}"))
        index[given.name] = number
        guests = tuple(dict.fromkeys(given.guests))
        if (given.hosts is None) == (given.keep is None):
            problems.append(at(document, path, "needs `hosts` or `keep`, and not both"))
        elif given.hosts is not None:
            rules.append(HostRule(name=given.name, guests=guests, hosts=given.hosts, strict=given.strict))
        elif given.keep is not None:
            rules.append(GuestRule(name=given.name, guests=guests, kind=given.keep, strict=given.strict))
            if len(guests) == 1 and not guests[0].startswith("label:"):
                problems.append(
                    at(document, (*path, "guests"), f"must name at least two guests to keep {given.keep}")
                )
    if not problems:
        for each in contradictions(rules, imagined(rules)):
            last = max(index[name] for name in each.rules)
            problems.append(at(document, ("rules", last), f"these rules cannot all hold: {each.text}"))
    return tuple(rules)


def rule_warnings(parsed: FileSection, document: Document) -> list[Problem]:
    """Hosts that only rules name: they may join one day, or be misspelt."""
    found = []
    for number, rule in enumerate(parsed.rules):
        for host in rule.hosts or {} if parsed.hosts else {}:
            if host not in parsed.hosts:
                nearest = difflib.get_close_matches(host, parsed.hosts, n=1, cutoff=0.7)
                hint = f"; did you mean {nearest[0]}?" if nearest else ""
                text = f"rule {rule.name} names {host}, which is not among `hosts`{hint}"
                found.append(at(document, ("rules", number, "hosts", host), text))
    return found


def shown_rule(rule: Rule) -> dict[str, Any]:
    """As the file writes it."""
    what = {"hosts": dict(rule.hosts)} if isinstance(rule, HostRule) else {"keep": rule.kind}
    return {"name": rule.name, "guests": list(rule.guests), **what, "strict": rule.strict}
