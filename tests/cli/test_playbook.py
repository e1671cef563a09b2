"""`dr playbook` but its runs: files good and bad, hostile ones, the shipped ones, the schema."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from dr.cli import playbook_file
from dr.cli.failure import Exit
from dr.cli.playbook_file import SHIPPED, load
from dr.cli.yamlfile import BadFile, read
from dr.core.playbooks.schema import schema
from dr.model.verbs import VERBS
from tests.api.service import Service
from tests.cli.conftest import Dr
from tests.core.playbooks.test_check import GOOD

SIMPLE = "playbook: x\nsteps:\n  - cordon: h1\n"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The team's own folder."""
    folder = tmp_path / "own"
    folder.mkdir()
    monkeypatch.setattr(playbook_file, "OWN", folder)
    return folder


def written(folder: Path, text: str | bytes, name: str = "x.yaml") -> str:
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(file)


# ---- validate


def test_a_good_file_is_said_to_be_good(dr: Dr, tmp_path: Path) -> None:
    ended = dr("playbook", "validate", "--offline", written(tmp_path, GOOD))
    assert ended.code == Exit.OK
    assert ended.err.endswith("x.yaml: good (good, 7 steps, 3 parameters; checked without the fleet)\n")
    assert ended.out == ""


def test_all_problems_of_all_files_are_told_with_file_line_and_field(dr: Dr, tmp_path: Path) -> None:
    one = written(
        tmp_path, "playbook: x\nsteps:\n  - darin: h1\n  - cordon: h1\n    tiemout: 5s\n", "one.yaml"
    )
    two = written(tmp_path, "playbook: x\nsteps:\n  - cordon: ${h}\n    on_fail: rollback\n", "two.yaml")
    good = written(tmp_path, SIMPLE, "good.yaml")
    ended = dr("playbook", "validate", "--offline", one, good, two)
    assert ended.code == Exit.BAD_CONFIG
    lines = [line.removeprefix("    - ") for line in ended.err.splitlines() if line.startswith("    - ")]
    for line, told in zip(
        lines,
        (
            f"{one}:3: steps[0].darin: unknown key; did you mean drain?",
            f"{one}:5: steps[1].tiemout: unknown key; did you mean timeout?",
            f"{two}:3: steps[0].cordon: no parameter is named h; params has: none",
            f"{two}:4: steps[0].on_fail: neither this step nor one before it has an `undo`",
        ),
        strict=True,
    ):
        assert line.startswith(told)
    assert "2 of 3 files cannot be used." in ended.err
    assert "good.yaml: good" in ended.err


def test_names_are_looked_up_where_a_coordinator_answers(service: Service, dr: Dr, tmp_path: Path) -> None:
    steps = "\n  - start: [web, webb]\n  - start: loose\n  - cordon: label:rack=a\n"
    ended = dr("playbook", "validate", written(tmp_path, f"playbook: x\nsteps:{steps}"))
    assert ended.code == Exit.BAD_CONFIG
    assert "x.yaml:3: steps[0].start[1]: no protected guest is named webb; did you mean web?" in ended.err
    assert "x.yaml:4: steps[1].start: no protected guest is named loose" in ended.err
    assert "rack" not in ended.err
    ended = dr("playbook", "validate", written(tmp_path, SIMPLE))
    assert ended.code == Exit.OK
    assert "checked against the fleet of 3 hosts and 2 guests" in ended.err


def test_where_no_coordinator_answers_it_says_so(
    dr: Dr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DR_CLIENT_DIR", str(tmp_path / "nobody"))
    ended = dr("playbook", "validate", written(tmp_path, SIMPLE))
    assert ended.code == Exit.OK
    assert "checked without the fleet: There is no administrator's credential" in ended.err


# ---- hostile files


HOSTILE: dict[str, tuple[str | bytes, str]] = {
    "10 MB": (b"# x\n" * 2_500_000, "larger than 65536 bytes"),
    "many values": ("playbook: x\nsteps: [" + 20_000 * "a," + "]", "more than 5000 values"),
    "10,000 brackets": ("playbook: x\nsteps: " + 10_000 * "[", "nested too deeply"),
    "10,000 braces": ("playbook: x\nsteps: " + 10_000 * "{a: ", "nested too deeply"),
    "10,000 dashes": ("playbook: x\nsteps:\n  " + 10_000 * "- ", "nested too deeply"),
    "alias bomb": (
        "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)),
        "more than 5000 values",
    ),
    "an alias that contains itself": ("playbook: x\nsteps: &a [*a]", "nested too deeply, or an alias"),
    "duplicate keys": (SIMPLE + "    cordon: h2\n", "given twice, first on line 3"),
    "no mapping": ("root:x:0:0:root:/root:/bin/bash\n", "a playbook is a mapping"),
    "nothing": ("", "a playbook is a mapping"),
    "not UTF-8": (b"playbook: \xff\xfe\n", "not UTF-8 text"),
    "UTF-16": (SIMPLE.encode("utf-16"), "not UTF-8 text"),
    "NUL": (b"playbook: x\0y\n", "special characters are not allowed"),
    "a tag": ("playbook: !!python/object/apply:os.system [reboot]", "YAML tags such as"),
    "another tag": ("playbook: x\nsteps: !include /etc/passwd", "YAML tags such as !include"),
    "two documents": (SIMPLE + "---\n" + SIMPLE, "another document"),
    "path escape": (SIMPLE.replace("x", "../../etc/passwd"), "must be a name: letters"),
    "name with $()": (SIMPLE.replace("x", "$(reboot)"), "must be a name: letters"),
    "name with a newline": (SIMPLE.replace("x", '"a\\nb"'), "must be a name: letters"),
    "host with ;": (SIMPLE.replace("h1", '"h1;reboot"'), "must be the name of a host"),
    "host with backticks": (SIMPLE.replace("h1", "h1`reboot`"), "must be the name of a host"),
    "host with $()": (SIMPLE.replace("h1", "$(reboot)"), "must be the name of a host"),
    "host with a newline": (SIMPLE.replace("h1", '"h1\\nreboot"'), "must be the name of a host"),
    "host with a NUL": (SIMPLE.replace("h1", '"h1\\0"'), "must be the name of a host"),
    "host that is a path": (SIMPLE.replace("h1", "../h1"), "must be the name of a host"),
    "host that is a flag": (SIMPLE.replace("h1", "--all"), "must be the name of a host"),
    "label with ;": (SIMPLE.replace("h1", '"label:a=b;c"'), "must be the name of a host"),
    "expression in an expression": (SIMPLE.replace("h1", "${${x}}"), "must be the name of a host"),
    "expression in a text": (SIMPLE.replace("cordon: h1", "notify: ${${x}}"), "`${` begins a parameter"),
    "arithmetic": (SIMPLE.replace("h1", "${1+1}"), "must be the name of a host"),
    "default with metacharacters": (
        "playbook: x\nparams: {h: {is: host, default: 'h1;`reboot`'}}\nsteps: [{cordon: '${h}'}]",
        "must be the name of one host",
    ),
    "key that paints the terminal": (SIMPLE + '"\\e[2J\\nok": 1\n', "unknown key"),
    "text that paints the terminal": (SIMPLE + '  - notify: "\\e[2J"\n', "cannot be shown: U+001B"),
    "endless key": (SIMPLE + "? " + "k" * 30_000 + "\n: 1\n", "unknown key"),
    "endless word": (SIMPLE.replace("h1", "h" * 30_000), "must be the name of a host"),
    "endless number": (SIMPLE + f"    timeout: 0x{'f' * 9000}\n", "must be a time"),
    "infinity": (SIMPLE + "    timeout: .inf\n", "must be a time"),
    "not a number": (SIMPLE + "    timeout: .nan\n", "must be a time"),
    "the words of YAML 1.1": (
        "%YAML 1.1\n---\nplaybook: x\nsteps: [{drain: h1, leave_unprotected: yes}]",
        "must be true or false",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_refused_with_one_sentence_and_soon(kind: str, dr: Dr, tmp_path: Path) -> None:
    text, told = HOSTILE[kind]
    file = written(tmp_path, text)
    began = time.monotonic()
    ended = dr("playbook", "validate", "--offline", file)
    assert time.monotonic() - began < 15, "an order of magnitude above what it takes"
    assert ended.code == Exit.BAD_CONFIG
    first, because, sentence, todo = ended.err.splitlines()
    assert (first, because) == (f"error: {file} cannot be used.", "  because:")
    assert sentence.startswith(f"    - {file}:")
    assert told in sentence
    assert len(sentence) < len(file) + 1300
    assert ended.err.replace("\n", "").isprintable()
    assert todo.startswith("  next: correct it;")


def test_a_folder_or_nothing_at_all_is_no_playbook(dr: Dr, tmp_path: Path) -> None:
    assert "cannot be read: Is a directory" in dr("playbook", "validate", "--offline", str(tmp_path)).err
    assert "no such file" in dr("playbook", "show", str(tmp_path / "gone.yaml")).err
    assert "no such file" not in dr("playbook", "show", "/etc/passwd").err
    assert "a playbook is a mapping" in dr("playbook", "show", "/etc/passwd").err


def test_a_thousand_problems_are_not_a_thousand_lines(dr: Dr, tmp_path: Path) -> None:
    ended = dr(
        "playbook", "validate", "--offline", written(tmp_path, "playbook: x\nsteps:\n" + 1000 * "  - x\n")
    )
    assert ended.code == Exit.BAD_CONFIG
    assert len(ended.err.splitlines()) < 60
    assert "… and 950 more" in ended.err


# ---- list and show


def test_shipped_ones_are_listed_and_own_ones_stand_for_them(dr: Dr, own: Path) -> None:
    ended = dr("playbook", "list")
    assert re.search(r"^evacuate-host +source +Empties one host", ended.out, re.MULTILINE)
    written(own, SIMPLE.replace("x", "evacuate-host") + "description: ours\n", "a.yaml")
    written(own, "steps: 1", "broken.yaml")
    told = json.loads(dr("playbook", "list", "-o", "json").out)
    items = {each["name"]: each for each in told["items"]}
    assert items["evacuate-host"]["description"] == "ours"
    assert items["evacuate-host"]["file"] == str(own / "a.yaml")
    assert items["broken"]["usable"] is False
    assert f"dr playbook validate {own / 'broken.yaml'}" in dr("playbook", "list").out
    assert dr("playbook", "list", "-o", "name").out.split() == sorted(items)
    assert dr("playbook", "show", "broken").code == Exit.BAD_CONFIG


def test_show_tells_all_of_it(dr: Dr, tmp_path: Path, own: Path) -> None:
    file = written(tmp_path, GOOD)
    out = dr("playbook", "show", file).out
    for line in (
        "vm (guest, else web1)",
        "hosts: ${source}",
        "1h for the whole run",
        "1. cordon: targets",
        "undo: {migrate: ${vm}}",
        "on_fail: rollback",
        "4. for each guest of label:tier=web, label:tier=db, one after the other:",
        "4.1 stop ${guest}: ${why}: stop: ${guest}",
        "1. notify: over: ${why}",
    ):
        assert line in out, line
    told = YAML(typ="safe").load(dr("playbook", "show", file, "-o", "yaml").out)
    again = written(tmp_path, json.dumps(told["playbook"]), "again.yaml")
    assert load(Path(again)) == load(Path(file))


def test_a_name_that_no_playbook_has(dr: Dr, own: Path) -> None:
    ended = dr("playbook", "show", "evacuate-hots")
    assert ended.code == Exit.MISSING
    assert "did you mean evacuate-host?" in ended.err


@pytest.mark.parametrize("file", sorted(SHIPPED.glob("*.yaml")), ids=lambda file: file.stem)
def test_shipped_ones_are_good_and_say_what_they_are_for(file: Path) -> None:
    playbook = load(file)
    assert playbook.playbook == file.stem
    assert playbook.description
    assert all(each.says for each in playbook.params.values())


# ---- the schema


def misfits(value: Any, rule: dict[str, Any], defs: dict[str, Any]) -> list[str]:
    """Why a value does not fit: as much of JSON Schema as `schema` uses, written apart from it."""
    known = {
        "$schema",
        "$defs",
        "title",
        "description",
        "default",
        "$ref",
        "anyOf",
        "enum",
        "type",
        "pattern",
    }
    known |= {
        "properties",
        "required",
        "additionalProperties",
        "propertyNames",
        "items",
        "minItems",
        "minimum",
    }
    assert set(rule) <= known, "the validator of this test knows all of it"
    if "$ref" in rule:
        return misfits(value, defs[rule["$ref"].removeprefix("#/$defs/")], defs)
    if "anyOf" in rule:
        each = [misfits(value, one, defs) for one in rule["anyOf"]]
        return [] if not all(each) else [f"{value!r} fits none of {len(each)}"]
    if "enum" in rule:
        return [] if value in rule["enum"] else [f"{value!r} is none of {rule['enum']}"]
    types: dict[str, Any] = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int}
    wanted = types.get(rule["type"], (int, float))
    if not isinstance(value, wanted) or (isinstance(value, bool) and rule["type"] != "boolean"):
        return [f"{value!r} is no {rule['type']}"]
    found = []
    if isinstance(value, str) and "pattern" in rule and not re.search(rule["pattern"], value):
        found.append(f"{value!r} is not like {rule['pattern']}")
    if isinstance(value, int | float) and value < rule.get("minimum", value):
        found.append(f"{value} is less than {rule['minimum']}")
    if isinstance(value, list):
        found += ["too few"] if len(value) < rule.get("minItems", 0) else []
        found += [why for each in value for why in misfits(each, rule["items"], defs)]
    if isinstance(value, dict):
        found += [f"{key} is missing" for key in rule.get("required", []) if key not in value]
        for key, inner in value.items():
            if "propertyNames" in rule:
                found += misfits(key, rule["propertyNames"], defs)
            own = rule.get("properties", {}).get(key, rule.get("additionalProperties", False))
            found += misfits(inner, own, defs) if own else [f"{key} is not allowed"]
    return found


def fits(data: Any) -> bool:
    made = schema()
    return not misfits(data, made, made["$defs"])


@pytest.mark.parametrize("file", sorted(SHIPPED.glob("*.yaml")), ids=lambda file: file.stem)
def test_shipped_ones_fit_the_schema(file: Path) -> None:
    assert fits(read(file).data)


def test_it_is_printed_and_describes_every_key(dr: Dr) -> None:
    made = json.loads(dr("playbook", "schema").out)
    assert made == schema()
    assert made["$schema"].endswith("2020-12/schema")
    assert all(each["description"] for each in made["properties"].values())
    for each in made["$defs"].values():
        assert all(key.get("description") for key in each.get("properties", {}).values())
        refs = re.findall(r'"\$ref": "#/\$defs/([^"]+)"', json.dumps(each))
        assert set(refs) <= set(made["$defs"])
    assert {f"Step{verb.__name__}" for verb in VERBS.values()} <= set(made["$defs"])


STEPS = {
    "{cordon: h1}": True,
    "{cordon: [h1, '${x}', 'label:a=b'], timeout: 5m, undo: uncordon, when: {host: h1, is: online}}": True,
    "{drain: h1, deadline: 10, undo: {undrain: h1}}": True,
    "{start: 'on:${x}'}": True,
    "{each_host: all, steps: {cordon: '${host}'}}": True,
    "{no_open: drain}": False,
    "{crodon: h1}": False,
    "{cordon: h1, tiemout: 5m}": False,
    "{cordon: h1, timeout: soon}": False,
    "{cordon: h1, on_fail: rolback}": False,
    "{cordon: h1, undo: uncordn}": False,
    "{cordon: h1, undo: {uncordn: h1}}": False,
    "{cordon: h1, when: {hots: h1}}": False,
    "{cordon: h1, when: {host: h1, is: onlin}}": False,
    "{cordon: h1, drain: h2}": False,
    "{cordon: 'h1;reboot'}": False,
    "{cordon: 'on:h1'}": False,
    "{cordon: [ ]}": False,
    "{cordon: 5}": False,
    "{start: a, retry: -1}": False,
    "{start: a, retry: yes}": False,
    "{notify: ' '}": False,
    "{each_host: all, each_guest: all, steps: [{cordon: '${host}'}]}": False,
    "{each_host: all}": False,
    "{each_host: all, steps: [{each_guest: all, steps: [{stop: a}]}]}": False,
}


@pytest.mark.parametrize("step", STEPS)
def test_the_schema_takes_what_is_read_and_nothing_else(step: str, tmp_path: Path) -> None:
    file = Path(
        written(tmp_path, f"playbook: x\nparams: {{x: {{is: host}}}}\nsteps: [{step}, {{cordon: '${{x}}'}}]")
    )
    try:
        load(file)
        good = True
    except BadFile:
        good = False
    assert (good, fits(read(file).data)) == (STEPS[step], STEPS[step])


@pytest.mark.parametrize(
    "wrong",
    [
        "discription: x",
        "params: {x: {si: host}}",
        "params: {'x y': {}}",
        "targets: {host: a}",
        "limits: {timeout: x}",
    ],
)
def test_a_misspelt_key_does_not_fit(wrong: str, tmp_path: Path) -> None:
    file = Path(written(tmp_path, f"{SIMPLE}{wrong}\n"))
    assert not fits(read(file).data)
    with pytest.raises(BadFile):
        load(file)


def test_the_test_playbook_fits(tmp_path: Path) -> None:
    assert fits(read(Path(written(tmp_path, GOOD))).data)
    assert not fits({"playbook": "x"})
