"""The documents say what the code does: diagrams, tables, defaults, commands and links are checked against it.

What is rendered stands between markers, `<!-- tables:NAME -->` and `<!-- /tables:NAME -->`. After a change of the code:
`.venv/bin/python -m tests.test_docs` writes these parts anew; everything else that a test here names is for a person.
"""

from __future__ import annotations

import ast
import re
import shlex
import sys
import typing
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path

import msgspec
import pytest
import typer
from pydantic import BaseModel

from dr.adapters.notify.message import Message
from dr.cli import agent_config, config
from dr.cli.app import app
from dr.cli.config_schema import HooksSection, ScheduleSection
from dr.cli.failure import Exit
from dr.cli.notifiers import BAD_RELOAD
from dr.cli.playbook_file import load
from dr.cli.yamlfile import parse
from dr.coordinator import journal
from dr.core import preflight
from dr.core.detector import VERDICTS
from dr.core.playbooks import reference as playbooks
from dr.core.tables import GUEST_TABLE, HOST_TABLE, mermaid
from dr.model import wire
from dr.model.base import Record
from dr.model.evidence import ProofKind
from dr.model.policy import GuestPolicy, Limits, Timers
from dr.model.preflight import CheckName
from dr.model.records import Condition, GuestPhase, HostPhase
from dr.sim.scenario import reference

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
UPDATE = "run: .venv/bin/python -m tests.test_docs"


# ---- what is rendered


def verdicts() -> str:
    """The detection table; with a live link the rest does not matter, so it is one row."""
    rows = ["| agent link | witnesses | power | verdict | in words |", "|---|---|---|---|---|"]
    live = {row for (link, _, _), row in VERDICTS.items() if link}
    assert len(live) == 1, "with a live link there is one verdict"
    verdict, words = live.pop()
    rows.append(f"| up | any | any | `{verdict}` | {words} |")
    for (link, peers, power), (verdict, words) in VERDICTS.items():
        if not link:
            rows.append(f"| down | {peers} | {power} | `{verdict}` | {words} |")
    return "\n".join(rows)


def fenced(diagram: str) -> str:
    return f"```mermaid\n{diagram}\n```"


def preflight_checks() -> str:
    """What each check says when nothing is wrong."""
    names = {"guest": "it", "source": "its host", "to": "the other host"}
    told = preflight.AT_SOURCE | preflight.AT_DESTINATION
    assert list(told) == list(CheckName), "in the order in which they are told"
    rows = ["| check | ok means |", "|---|---|"]
    return "\n".join(rows + [f"| `{name}` | {text.format(**names)} |" for name, text in told.items()])


PAGE = DOCS / "architecture.md"
RENDERED: dict[Path, dict[str, Callable[[], str]]] = {
    PAGE: {
        "host": lambda: fenced(mermaid(HOST_TABLE)),
        "guest": lambda: fenced(mermaid(GUEST_TABLE)),
        "verdicts": verdicts,
    },
    DOCS / "operations.md": {"preflight": preflight_checks},
    DOCS / "playbooks.md": dict(playbooks.RENDERED),
    DOCS / "simulator.md": dict(reference.RENDERED),
}
MARKED = re.compile(r"(<!-- tables:(\w+) -->\n)(.*?)(<!-- /tables:\2 -->)", re.DOTALL)


@pytest.mark.parametrize("page", RENDERED, ids=lambda page: page.name)
def test_rendered_parts_are_what_the_code_says(page: Path) -> None:
    found = {name: body for _, name, body, _ in MARKED.findall(page.read_text())}
    assert found.keys() == RENDERED[page].keys()
    for name, render in RENDERED[page].items():
        assert found[name] == render() + "\n", f"{page.name}, {name}: {UPDATE}"


def write_rendered() -> None:
    """Bring the rendered parts up to date."""
    for page, parts in RENDERED.items():
        text = page.read_text()
        page.write_text(MARKED.sub(lambda m, parts=parts: m[1] + parts[m[2]]() + "\n" + m[4], text))  # type: ignore[misc]


# ---- commands


def nodes(command: typing.Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], typing.Any]]:
    """Every command that does something, with the words that lead to it."""
    if hasattr(command, "commands"):
        for name, below in command.commands.items():
            yield from nodes(below, (*path, name))
    else:
        yield path, command


TREE = typer.main.get_command(app)
COMMANDS = dict(nodes(TREE))


def long_options(command: typing.Any) -> list[str]:
    found = []
    for param in command.params:
        if param.param_type_name == "option":
            found += [option for option in (*param.opts, *param.secondary_opts) if option.startswith("--")]
    return [option for option in found if option not in ("--help", "--output")]


def sections(page: Path) -> dict[str, str]:
    """Text below each heading that is one command in backticks."""
    parts = re.split(r"^#+ `dr ([^`]+)`$", page.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_command_is_in_the_reference_with_its_options() -> None:
    told = sections(DOCS / "commands.md")
    assert set(told) == {" ".join(path) for path in COMMANDS}
    for path, command in COMMANDS.items():
        missing = [option for option in long_options(command) if option not in told[" ".join(path)]]
        assert not missing, f"dr {' '.join(path)}: {missing}"


def test_every_exit_code_is_in_the_reference() -> None:
    text = (DOCS / "commands.md").read_text()
    for code in Exit:
        assert f"| {code.value} |" in text, f"{code.name} = {code.value}"


SPAN = re.compile(r"`([^`\n]+)`")
BLOCK = re.compile(r"^( *)```(?:sh|bash|console)?\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
ENDS = {"|", "||", "&&", ";", ">", ">>", "<", ")", "&"}


def commands_in(page: Path) -> Iterator[str]:
    """Spans that begin with `dr `, and lines of shell blocks."""
    text = page.read_text()
    for block in BLOCK.finditer(text):
        for line in block[2].replace("\\\n", " ").splitlines():
            yield line.strip().removeprefix("$ ").removeprefix("# ")
    for span in SPAN.finditer(BLOCK.sub("", text)):
        yield span[1]


def calls(line: str) -> Iterator[list[str]]:
    """The arguments of each call of dr in a line of shell."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>()")
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:
        return  # a lone quote: prose
    segment: list[str] = []
    for word in [*words, ";"]:
        if word not in ENDS:
            segment.append(word)
            continue
        at = next((i for i, each in enumerate(segment) if each == "dr" or each.endswith("/bin/dr")), None)
        if at is not None and (at == 0 or segment[0] in ("ssh", "sudo")):
            yield segment[at + 1 :]
        segment = []


def why_not(arguments: list[str]) -> str:
    """Why the command line would not take these words; "" = it would. A missing argument is fine in a text."""
    command: typing.Any = TREE
    words, parent = list(arguments), None
    name = "dr"
    while True:
        if not words or words[0] in ("--help", "-h", "--version"):
            return ""
        try:
            parent = command.make_context(name, words, parent=parent)
        except Exception as error:
            missing = type(error).__name__ == "MissingParameter"
            return "" if missing else f"{type(error).__name__}: {error}"
        if not hasattr(command, "commands"):
            return ""
        words = [*parent._protected_args, *parent.args]
        if not words:
            return ""
        name, *words = words
        if name not in command.commands:
            return f"no such command: {name}"
        command = command.commands[name]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_in_a_text_exists(page: Path) -> None:
    bad = []
    for line in commands_in(page):
        for arguments in calls(line):
            if why := why_not(arguments):
                bad.append(f"{line}: {why}")
    assert not bad, "\n".join(bad)


def test_the_check_of_commands_is_not_blind() -> None:
    assert why_not(["guest", "protect", "web1", "--priority", "200"]) == ""
    assert why_not(["job", "show"]) == ""
    assert "no such command" in why_not(["host", "evacuate", "kvm1"])
    assert why_not(["guest", "protect", "--prioritty", "1"])
    assert why_not(["status", "extra"])
    assert list(calls("dr cluster token kvm1 | ssh root@kvm1 dr agent join -")) == [
        ["cluster", "token", "kvm1"],
        ["agent", "join", "-"],
    ]


SAID = re.compile(r"(?<![\w./'-])dr ((?:[a-z][a-z-]*|--[a-z-]+|-[a-z]|[A-Z][A-Z.]+\b)(?: |$|(?=[^\w\s])))+")
# Words that follow "dr" where no command is meant, and what begins only a running agent.
PROSE: tuple[str, ...] = (
    "and",
    "certificate",
    "hook",
    "identity",
    "ipport",
    "is",
    "on",
    "protects",
    "reads",
    "service",
    "tests",
)
PROSE = (*PROSE, "that", "to", "uses", "was", "NAME", "agent of", "agent --config")


def texts_in(source: Path) -> Iterator[tuple[int, str]]:
    """What the code may tell people: its strings, and docstrings only of the command line, where they are the help."""
    if source.suffix != ".py":
        yield from enumerate(source.read_text().splitlines(), start=1)
        return
    tree = ast.parse(source.read_text())
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    silent = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, kinds) and node.body and isinstance(node.body[0], ast.Expr)
    }
    if "cli" in source.parts:
        silent = {id(tree.body[0].value)} if isinstance(tree.body[0], ast.Expr) else set()
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            said = "".join(
                str(each.value) if isinstance(each, ast.Constant) else "NAME" for each in node.values
            )
            yield node.lineno, said
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and not {id(node)} & (silent | parts)
        ):
            yield node.lineno, node.value


def unknown_in(text: str) -> list[str]:
    """Commands that a sentence names and that do not parse. It goes on after them, so words may be left over."""
    bad = []
    for found in SAID.finditer(text):
        words = found[0].split()[1:]
        if {words[0], " ".join(words[:2])} & set(PROSE):
            continue
        words = (
            words[:1] if "NAME" in words[:2] else words
        )  # what the group is asked for stands in a variable
        why = why_not(words)
        while why.startswith(("UsageError", "BadParameter")) and len(words) > 1 and words[-1].islower():
            words.pop()  # "dr resume to go on"
            why = why_not(words)
        if why and not why.endswith("requires an argument."):
            bad.append(f"{found[0].strip()}: {why}")
    return bad


def test_every_command_that_the_code_names_exists() -> None:
    sources = [*(ROOT / "dr").rglob("*.py"), *(ROOT / "dr").rglob("*.sh")]
    bad = [
        f"{source.relative_to(ROOT)}:{line}: {each}"
        for source in sources
        for line, text in texts_in(source)
        for each in unknown_in(text)
    ]
    assert not bad, "\n".join(bad)


def test_the_check_of_texts_is_not_blind() -> None:
    for text in (
        "then `dr cert issue`.",
        "run: dr host evacuate NAME",
        "dr cluster restor FILE",
        "dr reusme",
        "dr status --chek",
    ):
        assert unknown_in(text), text
    for text in (
        "dr resume to go on",
        "dr host list; dr guest list",
        "dr guest unprotect NAME",
        "dr cluster token HOST, then",
    ):
        assert not unknown_in(text), text


# ---- alerts, phases, metrics, notifier, proofs


def alert_keys() -> set[str]:
    """Every key that `draft.alert` is given in dr.core, with HOST and UUID for names; and that of the process."""
    found = {BAD_RELOAD.key}
    for source in sorted((ROOT / "dr" / "core").glob("*.py")):
        tree = ast.parse(source.read_text())
        named = [
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "key" and _is_key(node.value)
        ]
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "draft.alert":
                keys = named if isinstance(node.args[0], ast.Name) else [node.args[0]]
                assert keys, f"{source.name}:{node.lineno}: where does this key come from?"
                found |= {_spelled(key) for key in keys}
    return found


def _is_key(value: ast.expr) -> bool:
    return isinstance(value, ast.JoinedStr)


def _spelled(key: ast.expr) -> str:
    if isinstance(key, ast.Constant):
        return str(key.value)
    assert isinstance(key, ast.JoinedStr), ast.dump(key)
    text = "".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in key.values)
    return text.replace("host/*", "host/HOST").replace("guest/*", "guest/UUID")


def test_every_alert_is_explained() -> None:
    text = (DOCS / "operations.md").read_text()
    keys = alert_keys()
    assert len(keys) > 10
    told = set(re.findall(r"^\| `((?:host|guest|cluster|coordinator)/[^`]+)` \|", text, re.MULTILINE))
    assert told == keys


def test_every_phase_and_condition_is_explained() -> None:
    text = (DOCS / "operations.md").read_text()
    kinds: tuple[type[StrEnum], ...] = (HostPhase, Condition, GuestPhase)
    for kind in kinds:
        for each in kind:
            assert re.search(rf"^\| `{each.value}` \|", text, re.MULTILINE), f"{kind.__name__} {each.value}"


def test_every_metric_is_explained() -> None:
    text = (DOCS / "operations.md").read_text()
    names = set(re.findall(r'"(dr_[a-z_]+)"', (ROOT / "dr" / "api" / "metrics.py").read_text()))
    assert names
    assert set(re.findall(r"^\| `(dr_[a-z_]+)` \|", text, re.MULTILINE)) == names


def test_the_notifier_payload_is_explained() -> None:
    text = (DOCS / "operations.md").read_text()
    for field in msgspec.structs.fields(typing.cast(typing.Any, Message)):
        assert f'"{field.name}":' in text, field.name


def test_every_proof_is_explained() -> None:
    text = (DOCS / "one-copy.md").read_text()
    for kind in ProofKind:
        assert re.search(rf"^\| `{kind.value}` \|", text, re.MULTILINE), kind


# ---- architecture


def test_every_module_of_the_core_is_explained() -> None:
    text = PAGE.read_text()
    for module in (ROOT / "dr" / "core").glob("*.py"):
        assert module.stem == "__init__" or f"\n| `{module.stem}` |" in text, module.stem


def test_every_message_of_the_wire_is_explained() -> None:
    text = PAGE.read_text()
    assert f"has a number, now {wire.PROTOCOL}." in text
    for kind in (*typing.get_args(wire.FromAgent), *typing.get_args(wire.FromCoordinator)):
        assert f"`{kind.__struct_config__.tag}`" in text, kind


def test_every_kind_of_record_is_explained() -> None:
    told = set(re.findall(r"^\| `([a-z]+)(?:/[A-Z/-]+)?` \|", PAGE.read_text(), re.MULTILINE))
    source = (ROOT / "dr" / "coordinator" / "journal.py").read_text()
    kinds = set(re.findall(r'f?"([a-z]+)/', source)) | {journal.CLUSTER, journal.CLOCK}
    assert len(kinds) >= 10
    assert kinds <= told


# ---- configuration


def shown(value: object) -> str:
    if value is None or value == ():
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def policy_defaults(record: type[Record]) -> dict[str, str]:
    return {
        field.name: shown(field.default) for field in msgspec.structs.fields(typing.cast(typing.Any, record))
    }


def told_defaults(heading: str) -> dict[str, str]:
    """Key and default of each row of the first table below that heading of operations.md."""
    text = (DOCS / "operations.md").read_text()
    _, found, rest = text.partition(f"\n#### {heading}\n")
    assert found, heading
    rest = re.split(r"^#{1,4} ", rest, flags=re.MULTILINE)[0]
    return dict(re.findall(r"^\| `([a-z_]+)` \| ([^|]*) \|", rest, re.MULTILINE))


@pytest.mark.parametrize(
    ("heading", "record"), [("timers", Timers), ("limits", Limits), ("guests", GuestPolicy)], ids=str
)
def test_every_figure_is_documented_with_its_default(heading: str, record: type[Record]) -> None:
    assert told_defaults(heading) == policy_defaults(record)


@pytest.mark.parametrize(
    ("heading", "section"),
    [
        ("the whole file", config.FileSection),
        ("listen", config.ListenSection),
        ("log", config.LogSection),
        ("hosts.NAME", config.HostSection),
        ("a fence device", config.DeviceSection),
        ("notify", config.SinkSection),
        ("hooks", HooksSection),
        ("schedules.NAME", ScheduleSection),
    ],
    ids=str,
)
def test_every_key_of_the_file_is_documented(heading: str, section: type[BaseModel]) -> None:
    assert set(told_defaults(heading)) == set(section.model_fields)


def test_every_key_of_the_agents_file_is_documented() -> None:
    assert set(told_defaults("/etc/dr/agent.yaml")) == set(agent_config.KNOWN)


def test_examples_of_configuration_are_good() -> None:
    """A YAML block that begins with `cluster:` is a whole file."""
    found = 0
    for page in PAGES:
        for block in re.findall(r"^```yaml\n(cluster:.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
            text = re.sub(r"password_file: \S+", "password: secret", block)
            config.translate(parse(text, f"{page.name}"))
            found += 1
    assert found


def test_examples_of_playbooks_are_good(tmp_path: Path) -> None:
    """A YAML block that begins with `playbook:` is a whole file. The first one of its page ships with dr."""
    page = (DOCS / "playbooks.md").read_text()
    blocks = re.findall(r"^```yaml\n(playbook:.*?)^```", page, re.DOTALL | re.MULTILINE)
    for block in blocks:
        file = tmp_path / "example.yaml"
        file.write_text(block)
        load(file)
    assert blocks[0] in (ROOT / "playbooks" / "evacuate-host.yaml").read_text()


# ---- links


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.exists(), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", there.read_text(), re.MULTILINE)
            assert anchor in {slug(each) for each in headings}, f"{page.name}: {target}"


def slug(heading: str) -> str:
    """As GitHub makes an anchor."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


if __name__ == "__main__":
    write_rendered()
    print(f"{', '.join(page.name for page in RENDERED)}: up to date", file=sys.stderr)
