"""What people are told: one alert with the cluster's name and the wall time, as JSON, environment or plain text."""

from __future__ import annotations

from datetime import datetime

import msgspec

from dr.model.base import Record
from dr.model.records import Alert


class Message(Record):
    """One alert as it is told. Field names are a contract with users' scripts."""

    cluster: str
    key: str
    severity: str
    what: str
    why: str
    todo: str
    at: str  # wall time, ISO 8601 with zone
    cleared: bool

    def json(self) -> bytes:
        """Every field, also the empty ones."""
        return msgspec.json.encode(self)  # no field has a default, so none is omitted

    def environment(self) -> dict[str, str]:
        """DR_ALERT_WHAT, DR_ALERT_WHY, …; DR_ALERT_CLEARED is 1 or 0."""
        values: dict[str, object] = msgspec.to_builtins(self)
        texts = {field: str(int(v)) if isinstance(v, bool) else str(v) for field, v in values.items()}
        return {f"DR_ALERT_{field.upper()}": text.replace("\0", "") for field, text in texts.items()}

    def text(self) -> str:
        """For chats: what, why, what to do."""
        head = f"[{'cleared' if self.cleared else self.severity}] {self.cluster}: {self.what}"
        todo = "" if self.cleared else self.todo
        lines = [head, self.why and f"Why: {self.why}", todo and f"To do: {todo}", self.at]
        return "\n".join(line for line in lines if line)


def message(alert: Alert, cleared: bool, cluster: str, now: datetime) -> Message:
    """The message about this alert, told at `now` (with its time zone)."""
    assert now.tzinfo is not None
    return Message(
        cluster=cluster,
        key=alert.key,
        severity=alert.severity,
        what=alert.what,
        why=alert.why,
        todo=alert.todo,
        at=now.isoformat(timespec="seconds"),
        cleared=cleared,
    )
