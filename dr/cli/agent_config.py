"""The agent's configuration file: reading it, and what it may contain. Not here: the settings (`agent_settings`)."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

import msgspec

from dr.adapters.libvirt import way
from dr.cli.agent_settings import COPY_PORT, DEFAULT_CLONES_DIR, DEFAULT_FILE, LEVELS, AgentConfig
from dr.cli.yamlfile import BadFile, Document, Problem, read

KNOWN = {
    "host": "the host's name in the cluster; it must be the one in its certificate",
    "cluster": "the cluster's name",
    "coordinators": "where the coordinator's agent link listens, as ADDRESS:PORT; tried in turn",
    "state_dir": "what the agent must not forget: epoch, seals, its key and certificate",
    "libvirt_uri": "which libvirt to use",
    "migration_uri": "how libvirtd here reaches libvirtd on another host, for live migration; {address} is that host's",
    "migration_tls": "true: what a live migration sends is encrypted, with the certificates in /etc/pki/qemu",
    "migration_address": "this host's address in the network for memory and disks of guests that come here",
    "copy_port": "where this agent listens while disks of guests that are off come here, a TCP port",
    "clones_dir": "where disks of guests are copied to for drills, and removed from at their end",
    "log_level": "debug, info, warning or error",
}


def load(path: Path = DEFAULT_FILE) -> AgentConfig:
    """Raises BadFile with everything that is wrong with it."""
    return translate(read(path))


def translate(document: Document) -> AgentConfig:
    """Raises BadFile."""
    data = document.data
    if not isinstance(data, dict):
        text = "must be a mapping of keys and values; `dr agent join` writes one"
        raise BadFile(document.file, [Problem(0, "", text)])
    problems = [*_unknown(document, data), *_wrong(document, data)]
    if problems:
        raise BadFile(document.file, problems)
    return msgspec.convert(data, AgentConfig)


def _unknown(document: Document, data: dict[str, object]) -> list[Problem]:
    found = []
    for key in data:
        if key not in KNOWN:
            nearest = difflib.get_close_matches(key, KNOWN, n=1)
            hint = f"did you mean {nearest[0]}? " if nearest else ""
            text = f"unknown key; {hint}Allowed: {', '.join(KNOWN)}"
            found.append(Problem(document.line((key,)), key, text))
    return found


def _wrong(document: Document, data: dict[str, object]) -> list[Problem]:
    found = []

    def wrong(key: str, message: str) -> None:
        found.append(Problem(document.line((key,)), key, f"{message} ({KNOWN[key]})"))

    for key in ("host", "cluster", "coordinators"):
        if key not in data:
            wrong(key, "is required")
    for key in (
        "host",
        "cluster",
        "state_dir",
        "libvirt_uri",
        "migration_uri",
        "migration_address",
        "clones_dir",
        "log_level",
    ):
        if key in data and not (isinstance(data[key], str) and data[key]):
            wrong(key, "must be text")
    if not isinstance(data.get("migration_tls", False), bool):
        wrong("migration_tls", "must be true or false")
    for key in ("state_dir", "clones_dir"):
        folder = data.get(key)
        if isinstance(folder, str) and not folder.startswith("/"):
            wrong(key, f'must be a whole path that starts with /, not "{folder}"')
    uri = data.get("migration_uri")
    if isinstance(uri, str) and uri and (why := way.why_not(uri)):
        wrong("migration_uri", why)
    address = data.get("migration_address")
    if isinstance(address, str) and address and not way.is_address(address):
        wrong("migration_address", f'must be an address or a name without a port, not "{address}"')
    port = data.get("copy_port", COPY_PORT)
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
        wrong("copy_port", f'must be a port from 1 to 65535, not "{port}"')
    level = data.get("log_level", "info")
    if isinstance(level, str) and level not in LEVELS:
        wrong("log_level", f'must be one of {", ".join(LEVELS)}, not "{level}"')
    for text in _wrong_coordinators(data.get("coordinators", ["127.0.0.1:1"])):
        wrong("coordinators", text)
    return found


def _wrong_coordinators(addresses: object) -> list[str]:
    if not isinstance(addresses, list) or not addresses:
        return ["must be a list with at least one address"]
    return [
        f'must be ADDRESS:PORT, not "{address}"'
        for address in addresses
        if not isinstance(address, str) or not _endpoint(address)
    ]


def _endpoint(text: str) -> bool:
    match = re.fullmatch(r"(?:\[[0-9a-fA-F:.%a-z]+\]|[^:\s/\[\]]+):(\d{1,5})", text)
    return match is not None and 0 < int(match[1]) < 65536


STARTER = """\
# The dr agent of this host; written by `dr agent join`. Apply changes with: systemctl restart dr-agent

# The host's name in the cluster, as in its certificate.
host: {host}
cluster: {cluster}

# Where the coordinator's agent link listens; tried in turn.
coordinators: [{coordinators}]

# Epoch, seals, certificate: what the agent must not forget.
state_dir: {state_dir}

# Live migration: how this host's libvirtd reaches that of another host, {{address}} being the other's address there.
# libvirtd must listen for it on every host (TLS, with certificates of its own, or SSH between the hosts' roots).
# migration_uri: qemu+tls://{{address}}/system
# migration_tls: false             # true: also the memory is encrypted, with the certificates in /etc/pki/qemu
# migration_address: 10.9.0.11     # this host's own, in the network that memory and disks of guests come over

# Disks of guests that are off come to this port, at migration_address if that is set. It is open only while they do.
# copy_port: {copy_port}

# Drills copy disks of guests to this folder, and remove the copies at their end. It needs room for them.
# clones_dir: {clones_dir}

# log_level: info                  # debug, info, warning, error
"""


def starter(config: AgentConfig) -> str:
    """The file that `dr agent join` writes."""
    text = STARTER.format(
        host=config.host,
        cluster=config.cluster,
        coordinators=", ".join(f'"{each}"' for each in config.coordinators),
        state_dir=config.state_dir,
        copy_port=COPY_PORT,
        clones_dir=DEFAULT_CLONES_DIR,
    )
    if config.libvirt_uri != "qemu:///system":
        text += f"libvirt_uri: {config.libvirt_uri}\n"
    if config.migration_uri:
        text += f'migration_uri: "{config.migration_uri}"\n'
    if config.migration_tls:
        text += "migration_tls: true\n"
    if config.migration_address:
        text += f'migration_address: "{config.migration_address}"\n'
    if config.copy_port != COPY_PORT:
        text += f"copy_port: {config.copy_port}\n"
    if config.clones_dir != DEFAULT_CLONES_DIR:
        text += f"clones_dir: {config.clones_dir}\n"
    return text
