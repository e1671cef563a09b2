"""One guard less: what a mutant is, and the core with it.

Here: the edit of functions in memory. Not here: the list of guards (`tests.sim.mutants`), who catches them
(`tests.sim.test_mutants`).
"""

from __future__ import annotations

import builtins
import dis
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType
from typing import Any

Function = Callable[..., Any]


@dataclass(frozen=True)
class Edit:
    """In that function, or method, `old` becomes `new`."""

    function: Function
    old: str
    new: str


@dataclass(frozen=True)
class Mutant:
    """`name`: the guard that is missing. `scenario`: which of tests/scenarios shows that it is."""

    name: str
    scenario: str
    edits: tuple[Edit, ...]


def m(name: str, scenario: str, *edits: tuple[Function, str, str]) -> Mutant:
    """Where guards stand one behind the other, all are broken: alone, none of them can be missed."""
    return Mutant(name, scenario, tuple(Edit(*edit) for edit in edits))


@contextmanager
def broken(mutant: Mutant) -> Iterator[None]:
    """The guard is missing within this block."""
    undo: list[tuple[Any, str, Function]] = []
    try:
        for function in dict.fromkeys(edit.function for edit in mutant.edits):
            made = _edited(mutant, function)
            for home in _homes(function):
                for name, value in list(vars(home).items()):
                    if value is function:
                        undo.append((home, name, value))
                        setattr(home, name, made)
        yield
    finally:
        for home, name, value in undo:
            setattr(home, name, value)


def _homes(function: Function) -> list[Any]:
    """Where it may be known: its class, or every module that imported it."""
    owner, _, _ = function.__qualname__.rpartition(".")
    if owner:
        return [getattr(sys.modules[function.__module__], owner)]
    return [module for name, module in sys.modules.items() if name.startswith("dr.")]


def _edited(mutant: Mutant, function: Function) -> Function:
    source, name = textwrap.dedent(inspect.getsource(function)), function.__name__
    for edit in mutant.edits:
        if edit.function is function:
            assert source.count(edit.old) == 1, f"{mutant.name}: not once in {name}, adapt it: {edit.old!r}"
            source = source.replace(edit.old, edit.new)
    scope: dict[str, Any] = {}
    code = compile("from __future__ import annotations\n" + source, name, "exec")
    exec(code, function.__globals__, scope)
    made: Function = scope[name]
    unknown = sorted(set(_globals_of(made.__code__)) - function.__globals__.keys() - vars(builtins).keys())
    assert not unknown, f"{mutant.name}: {name} knows no {unknown}: it would fail for that alone"
    return made


def _globals_of(code: CodeType) -> Iterator[str]:
    """Names that it looks for in its module, and so do functions within it."""
    yield from (step.argval for step in dis.get_instructions(code) if step.opname == "LOAD_GLOBAL")
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield from _globals_of(part)
