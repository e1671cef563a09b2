"""The file of a plan: written so that a person can read and approve it, read with every error at its line.

Not here: what is in it (`dr.api.plan_schema`), whether it still holds (the coordinator says).
"""

from __future__ import annotations

import io
import json
from pathlib import Path

from pydantic import ValidationError

from dr.api.plan_schema import EvacuationPlan
from dr.cli.config_errors import at, explain
from dr.cli.failure import Exit, Failure
from dr.cli.output import write_file, yaml_writer
from dr.cli.yamlfile import BadFile, Problem, read

HEAD = """\
# An evacuation plan, made by `dr plan evacuate`. Nothing was done yet. To read, to approve, to keep:
# each guest below is in its turn; `to` is where it goes; `late` is what becomes of it if time is short.
# Applied with `dr apply`, which refuses if anything else would become of a guest by then.
"""


def write(plan: EvacuationPlan, file: Path, *, replace: bool) -> None:
    """As JSON if the file is named so, else as YAML; whole or not at all. Raises Failure."""
    data = plan.model_dump(mode="json")
    if file.suffix == ".json":
        text = json.dumps(data, ensure_ascii=False, indent=2) + "\n"
    else:
        out = io.StringIO()
        yaml_writer().dump(data, out)
        text = HEAD + out.getvalue()
    write_file(file, text.encode(), replace=replace)


def load(file: Path) -> EvacuationPlan:
    """Raises Failure with everything that is wrong with it."""
    try:
        return _plan(file)
    except BadFile as bad:
        raise Failure(
            f"{file} is no plan that can be applied.",
            blockers=[problem.text(bad.file) for problem in bad.problems],
            todo="dr plan evacuate HOST --save FILE makes one",
            code=Exit.BAD_DATA,
        ) from None


def _plan(file: Path) -> EvacuationPlan:
    document = read(file)
    if not isinstance(document.data, dict):
        raise BadFile(document.file, [Problem(0, "", "must be a mapping of keys and values")])
    kind = document.data.get("kind", "")
    if kind != "evacuation-plan":
        raise BadFile(document.file, [at(document, ("kind",), f'must be evacuation-plan, not "{kind}"')])
    try:
        plan = EvacuationPlan.model_validate(document.data, strict=True)
    except ValidationError as error:
        problems = [explain(document, each, EvacuationPlan) for each in error.errors()]
        raise BadFile(document.file, problems) from None
    if problems := [at(document, path, text) for path, text in plan.wrong()]:
        raise BadFile(document.file, problems)
    return plan
