"""A fence device's parameters: how an agent gets them, which are secret, and keeping those out of every text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
from urllib.parse import quote, quote_plus

from dr.adapters.fencing.keeper import INPUT_BYTES_MAX
from dr.model.policy import FenceDevice

REASON_CHARS_MAX = 240
_SECRET = re.compile(
    r"passw|passphrase|secret|token|credential|community|(^|_)(api_?key|private_key|key|kg|pin)$"
)

# Values that may be shown. A key that is neither here nor secret by its name may be a misspelled `password`:
# its value is kept out of texts too.
_SHOWN_NAMES = (
    "ip ipaddr ipport username login lanplus cipher privlvl auth method target plug port switch ssl "
    "ssl_secure ssl_insecure ssh secure ssh_options ssh_path identity_file cmd_prompt command_prompt "
    "systems_uri redfish_uri ipmitool_path ipmitool_timeout power_timeout power_wait shell_timeout "
    "login_timeout delay retry_on snmp_version snmp_auth_prot snmp_priv_prot snmp_sec_level inet4_only "
    "inet6_only notls verbose verbose_level separator plug_separator stonith_status_sleep disable_timeout "
    "missing_as_off sudo use_sudo quiet region zone project "
)
_SHOWN = frozenset(_SHOWN_NAMES.split())
_OWN = frozenset({"action", "option", "nodename"})  # dr's to say, never the configuration's


def _plain(key: str) -> str:
    return key.strip().lower().replace("-", "_")


def is_secret(key: str) -> bool:
    """Whether this parameter's value must never be shown, by its name."""
    return _SECRET.search(_plain(key)) is not None


def get(device: FenceDevice, *names: str) -> str:
    """The value under the first of these names (old or new, `-` or `_`) that is set; empty if none."""
    plain = {_plain(key): value for key, value in device.parameters.items()}
    return next((plain[name] for name in names if plain.get(name)), "")


def is_true(value: str) -> bool:
    """As the agents read a boolean."""
    return value.strip().lower() in {"1", "yes", "on", "true"}


def problem(device: FenceDevice) -> str:
    """Why these parameters cannot be used, in one sentence; empty when they can."""
    for key, value in device.parameters.items():
        if _plain(key) in _OWN:
            return f"parameter {key!r} is dr's own: remove it from fence device {device.name}"
        if not key.strip() or re.search(r"[=\s#]", key):
            return f"fence device {device.name} has a parameter with an impossible name: {key!r}"
        if re.search(r"[\0\r\n]", value):
            return f"parameter {key!r} of fence device {device.name} has more than one line"
    if is_true(get(device, "missing_as_off")):
        return f"fence device {device.name} sets missing_as_off: a mistyped plug would pass for a dead host; remove it"
    if len(render(device, "status").encode()) > INPUT_BYTES_MAX:
        return f"the parameters of fence device {device.name} are longer than {INPUT_BYTES_MAX} bytes"
    return ""


def render(device: FenceDevice, action: str, defaults: dict[str, str] | None = None) -> str:
    """What the agent reads: one `key=value` a line. The action comes last, as the last one counts."""
    given = {_plain(key) for key in device.parameters}
    lines = [f"{key}={_quoted(value)}" for key, value in device.parameters.items()]
    lines += [f"{key}={value}" for key, value in (defaults or {}).items() if key not in given]
    return "\n".join([*lines, f"action={action}"]) + "\n"


def _quoted(value: str) -> str:
    """Agents strip a line's ends, and then one pair of double quotes around the value."""
    return f'"{value}"' if value != value.strip() or (value[:1] == '"' == value[-1:]) else value


def fingerprint(device: FenceDevice) -> str:
    """Of the agent and all parameters but secrets. A new password needs no new `dr fence test`, a new address does."""
    public = {key: value for key, value in device.parameters.items() if not is_secret(key)}
    text = json.dumps([device.agent, public], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


class Redactor:
    """Takes the secrets of one device out of a text, however the agent wrote them."""

    def __init__(self, device: FenceDevice, *more: str) -> None:
        secrets = {value for key, value in device.parameters.items() if is_secret(key) and value}
        secrets |= {
            value
            for key, value in device.parameters.items()
            if not is_secret(key) and _plain(key) not in _SHOWN and len(value) > 3
        }
        secrets |= {secret for secret in more if secret}
        user = get(device, "username", "login")
        forms = {form for secret in secrets for form in _written(secret, user)}
        ordered = sorted(forms, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def __call__(self, text: str) -> str:
        """The text without the secrets."""
        return self._pattern.sub("[secret]", text) if self._pattern else text

    def sentence(self, text: str) -> str:
        """The last telling line of an agent's output: short, printable, without secrets."""
        lines = [_tidy(line) for line in self(text).splitlines()]
        telling = [line for line in lines if line and not line.startswith("Please use '-h'")]
        return telling[-1][:REASON_CHARS_MAX] if telling else ""


def _written(secret: str, user: str) -> set[str]:
    return {
        secret,
        secret.strip(),
        shlex.quote(secret),
        quote(secret),
        quote(secret, safe=""),
        quote_plus(secret),
        json.dumps(secret)[1:-1],
        repr(secret)[1:-1],
        base64.b64encode(secret.encode()).decode(),
        base64.b64encode(f"{user}:{secret}".encode()).decode(),
    } - {""}


def _tidy(line: str) -> str:
    """Without unprintable characters, the date, and the level of Python's logging."""
    line = "".join(char if char.isprintable() else " " for char in line)
    line = re.sub(r"^\s*\d{4}-\d\d-\d\d[ T][\d:,.]+\s*", "", line)
    return re.sub(r"^(ERROR|WARNING|CRITICAL|INFO)\s*:\s*(root:)?", "", line).strip().rstrip(".")
