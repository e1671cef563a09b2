"""From `dr cluster init` over `dr agent join` to a coordinator process that is reloaded and stopped."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from dr.adapters.pki.credentials import client_context, identity_in, read_credentials
from dr.adapters.pki.identity import Role
from dr.cli import agent_config, coordinator_process, credentials, restore
from dr.cli.failure import Exit
from tests.api.service import Service
from tests.cli.conftest import Dr, Ended

DR = [sys.executable, "-m", "dr.cli.main"]


def init(dr: Dr, folder: Path, *more: str) -> Ended:
    return dr(
        "cluster", "init", "--name", "lab", "--address", "127.0.0.1",
        "--config-dir", str(folder / "etc"), "--state-dir", str(folder / "state"), *more,
    )  # fmt: skip


# ---- init


def test_init_makes_a_cluster_once(dr: Dr, tmp_path: Path) -> None:
    made = init(dr, tmp_path, "--admin", "alice")
    assert (made.code, made.out) == (0, "")
    assert "dr cluster token HOST" in made.err
    config, pki, client = tmp_path / "etc/coordinator.yaml", tmp_path / "state/pki", tmp_path / "etc/client"
    assert dr("config", "check", str(config)).code == 0
    own, admin = read_credentials(pki), read_credentials(client)
    assert identity_in(own.certificate).role is Role.COORDINATOR
    assert (identity_in(admin.certificate).role, identity_in(admin.certificate).name) == (Role.ADMIN, "alice")
    for secret in (config, pki / "ca.pem", pki / "tls.pem", client / "tls.pem"):
        assert secret.stat().st_mode & 0o077 == 0, secret

    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    again = init(dr, tmp_path)
    assert again.code == Exit.REFUSED
    assert f"{pki / 'ca.pem'} exists" in again.err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_init_keeps_a_configuration_that_is_there(dr: Dr, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/coordinator.yaml").write_text("mine")
    assert "left as it is" in init(dr, tmp_path).err
    assert (tmp_path / "etc/coordinator.yaml").read_text() == "mine"


def test_renew_makes_new_certificates_of_the_same_ca(dr: Dr, tmp_path: Path) -> None:
    init(dr, tmp_path)
    ca, old = (tmp_path / "state/pki/ca.pem").read_bytes(), read_credentials(tmp_path / "state/pki")
    assert init(dr, tmp_path, "--renew").code == 0
    assert (tmp_path / "state/pki/ca.pem").read_bytes() == ca
    new = read_credentials(tmp_path / "state/pki")
    assert new.certificate != old.certificate
    assert new.ca == old.ca


@pytest.mark.parametrize(("option", "value"), [("--name", "Lab!"), ("--address", "a b")])
def test_init_refuses_what_cannot_be_before_it_writes(
    dr: Dr, tmp_path: Path, option: str, value: str
) -> None:
    assert init(dr, tmp_path, option, value).code == Exit.USAGE
    assert not list(tmp_path.iterdir())


# ---- join


def join(dr: Dr, folder: Path, source: str, *more: str) -> Ended:
    return dr(
        "agent", "join", source, "--config", str(folder / "agent.yaml"),
        "--state-dir", str(folder / "agent"), "--libvirt-uri", "test:///default", *more,
    )  # fmt: skip


def test_join_with_a_token_file_and_only_once(service: Service, dr: Dr, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(dr("cluster", "token", "h3").out)
    joined = join(dr, tmp_path, str(token))
    assert joined.code == 0, joined.err
    assert "systemctl enable --now dr-agent" in joined.err
    config = agent_config.load(tmp_path / "agent.yaml")
    assert (config.host, config.cluster, config.coordinators) == ("h3", "lab", ["127.0.0.1:7311"])
    credentials = read_credentials(config.pki_dir)
    assert (identity_in(credentials.certificate).role, identity_in(credentials.certificate).name) == (
        Role.AGENT,
        "h3",
    )
    assert credentials.key not in token.read_text()

    before = read_credentials(config.pki_dir)
    again = join(dr, tmp_path, str(token))
    assert again.code == Exit.REFUSED
    assert "dr cluster token h3" in again.err
    assert read_credentials(config.pki_dir) == before
    renewed = join(dr, tmp_path, dr("cluster", "token", "h3").out.strip())
    assert renewed.code == 0, "the same host may join again"
    other = dr("cluster", "token", "h1").out.strip()
    refused = join(dr, tmp_path, other)
    assert refused.code == Exit.REFUSED
    assert "is host h3 of cluster lab already" in refused.err
    assert join(dr, tmp_path, other, "--force").code == 0, "a refusal here does not use the token up"


def test_join_keeps_the_way_of_migrations(service: Service, dr: Dr, tmp_path: Path) -> None:
    """A renewed certificate does not lose it; one that is none is refused before the token is spent."""
    token = dr("cluster", "token", "h3").out.strip()
    bad = join(dr, tmp_path, token, "--migration-uri", "qemu+tls://h2/system")
    assert bad.code == Exit.USAGE
    assert "{address} or {host}" in bad.err
    way = "qemu+tls://{address}/system"
    assert join(dr, tmp_path, token, "--migration-uri", way).code == 0
    assert agent_config.load(tmp_path / "agent.yaml").migration_uri == way
    with (tmp_path / "agent.yaml").open("a") as file:
        file.write("migration_tls: true\nmigration_address: 10.9.0.3\ncopy_port: 17312\n")
    assert join(dr, tmp_path, dr("cluster", "token", "h3").out.strip()).code == 0
    assert agent_config.load(tmp_path / "agent.yaml").migration_uri == way
    assert agent_config.load(tmp_path / "agent.yaml").migration_tls
    assert agent_config.load(tmp_path / "agent.yaml").migration_address == "10.9.0.3"
    assert agent_config.load(tmp_path / "agent.yaml").copy_port == 17312
    assert join(dr, tmp_path, dr("cluster", "token", "h3").out.strip(), "--migration-uri", "").code == 0
    assert agent_config.load(tmp_path / "agent.yaml").migration_uri == ""


@pytest.mark.parametrize("source", ["nothing-there", "drjoin1.AAAA", "drjoin9.AAAA"])
def test_join_with_what_is_no_token(dr: Dr, tmp_path: Path, source: str) -> None:
    assert join(dr, tmp_path, source).code == Exit.BAD_DATA
    assert not list(tmp_path.iterdir())


# ---- the processes


class Process:
    """A `dr coordinator` with its log."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "etc/coordinator.yaml"
        self.log = folder / "log"
        self.notes = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notes.bind(str(folder / "notify"))
        self.notes.settimeout(20)
        environment = os.environ | {"NOTIFY_SOCKET": str(folder / "notify")}
        with self.log.open("wb") as log:
            self.popen = subprocess.Popen(
                [*DR, "coordinator", "--config", str(self.config)], stderr=log, stdout=log, env=environment
            )

    def told(self, expected: str) -> None:
        """Wait until systemd was told this."""
        while self.notes.recv(4096).decode() != expected:
            pass

    def logged(self, text: str) -> None:
        deadline = time.monotonic() + 20
        while text not in self.log.read_text():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)


@pytest.fixture
def process(dr: Dr, tmp_path: Path) -> Iterator[Process]:
    ports = []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(str(probe.getsockname()[1]))
    init(dr, tmp_path, "--agent-port", ports[0], "--api-port", ports[1])
    running = Process(tmp_path)
    yield running
    if running.popen.poll() is None:
        running.popen.kill()
        running.popen.wait()
    running.notes.close()


def _http() -> httpx.Client:
    client = credentials.load()
    return httpx.Client(base_url=client.urls[0], verify=client_context(client.credentials), trust_env=False)


def test_a_coordinator_from_start_to_stop(
    process: Process, dr: Dr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DR_CLIENT_DIR", str(tmp_path / "etc/client"))
    process.told("READY=1")
    assert dr("status").code == 0
    assert dr("pause", "--reason", "test").code == 0
    assert "PAUSED" in dr("status").out

    good = process.config.read_text()
    process.config.write_text(good + "nonsense: 1\n")
    process.popen.send_signal(signal.SIGHUP)
    process.logged("reload refused")
    shown = dr("status")
    assert shown.code == 0, "a bad file never stops a running coordinator"
    assert "configuration on disk is bad" in shown.out
    assert "nonsense" in shown.out
    assert dr("status", "--check").code == Exit.DEGRADED
    with _http() as http:
        standing = re.search(r'dr_alerts{severity="warning"} (\d+)', http.get("/metrics").text)
        assert standing is not None
        assert int(standing[1]) == 2, "this, and that it is paused"
    hosts = good.replace("hosts: {}", "hosts: {h9: {fencing: [{agent: fence_dummy}]}}")
    process.config.write_text(hosts)
    process.popen.send_signal(signal.SIGHUP)
    process.logged('"event": "reloaded"')
    deadline = time.monotonic() + 5
    while "h9" not in dr("fence", "list").out:
        assert time.monotonic() < deadline
    assert "is bad" not in dr("status").out

    second = subprocess.run(process.popen.args, capture_output=True, text=True, check=False)
    assert second.returncode == Exit.BAD_DATA
    assert "in use by process" in second.stderr

    process.popen.send_signal(signal.SIGTERM)
    process.told("STOPPING=1")
    assert process.popen.wait(10) == 0
    assert "Traceback" not in process.log.read_text()

    monkeypatch.setattr(coordinator_process, "set_up_logging", lambda *_: None)
    monkeypatch.setattr(coordinator_process, "machine", lambda: "another-machine")
    elsewhere = dr("coordinator", "--config", str(process.config))
    assert elsewhere.code == Exit.REFUSED
    assert "machine" in elsewhere.err


# ---- backup and restore


@pytest.mark.long(keep=0)
def test_a_backup_makes_another_machine_the_coordinator(
    process: Process, dr: Dr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DR_CLIENT_DIR", str(tmp_path / "etc/client"))
    process.told("READY=1")
    assert dr("cluster", "token", "h1").code == 0
    file = tmp_path / "backup.tar"
    saved = dr("cluster", "backup", str(file))
    assert (saved.code, saved.out) == (0, "")
    assert file.stat().st_mode & 0o777 == 0o600
    assert list((tmp_path / "state/backups").iterdir()) == []
    assert dr("cluster", "backup", str(file)).code == 0, "a backup replaces a backup"
    assert dr("cluster", "backup", str(process.config)).code == Exit.REFUSED
    assert process.config.read_text().startswith("#"), "and nothing else"

    arguments = ("cluster", "restore", str(file), "--reason", "ctl burnt", "--config", str(process.config))
    running = dr(*arguments, "--yes")
    assert running.code == Exit.REFUSED
    assert "A coordinator runs" in running.err
    process.popen.terminate()
    assert process.popen.wait(10) == 0
    in_the_way = dr(*arguments, "--yes")
    assert in_the_way.code == Exit.REFUSED
    assert str(tmp_path / "state/store.db") in in_the_way.err
    assert dr(*arguments, "--replace").code == Exit.USAGE, "nobody typed that the old one is off"
    assert not list((tmp_path / "state").glob("*.before-restore-*"))

    for lost in ("state", "etc"):
        shutil.rmtree(tmp_path / lost)
    monkeypatch.setattr(restore, "machine", lambda: "another-machine")
    put_back = dr(*arguments, "--yes")
    assert put_back.code == 0, put_back.err
    assert "dr resume" in put_back.err
    assert (tmp_path / "state/pki/ca.pem").stat().st_mode & 0o777 == 0o600
    assert not list((tmp_path / "state").glob(".restore-*"))

    monkeypatch.setattr(coordinator_process, "set_up_logging", lambda *_: None)
    assert "machine" in dr("coordinator", "--config", str(process.config)).err, "it is bound to the other one"
    monkeypatch.undo()
    monkeypatch.setenv("DR_CLIENT_DIR", str(tmp_path / "etc/client"))
    assert (
        dr("cluster", "restore", "--here", "--yes", "--reason", "moved", "--config", str(process.config)).code
        == 0
    )
    (tmp_path / "notify").unlink()
    again = Process(tmp_path)
    try:
        again.told("READY=1")
        status = dr("status")
        assert "RESTORED COPY: restored by" in status.out
        assert "moved" in status.out
        assert "h1" in status.out
        assert dr("status", "--check").code == Exit.DEGRADED
        assert dr("resume", "--reason", "looked").code == 0
        assert "RESTORED" not in dr("status").out
    finally:
        again.popen.terminate()
        again.popen.wait(10)
        again.notes.close()


def _tar(file: Path, members: dict[str, bytes], kind: bytes = tarfile.REGTYPE) -> Path:
    with tarfile.open(file, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size, member.type, member.linkname = len(content), kind, "/etc/passwd"
            tar.addfile(member, io.BytesIO(content))
    return file


def test_what_is_no_backup_is_refused(dr: Dr, tmp_path: Path) -> None:
    state = tmp_path / "state"
    manifest = {
        "format": 1, "cluster": "lab", "wall": 0.0, "version": "0", "config": "/c", "state_dir": str(state)
    }  # fmt: skip
    first = {"manifest.json": json.dumps(manifest).encode()}
    newer = {"manifest.json": json.dumps(manifest | {"format": 2}).encode()}
    for members, said in (
        ({}, "is empty"),
        ({"x": b""}, "no part of a backup"),
        ({"store.db": b""}, "not a backup"),
        (newer, "has format 2"),
        (first, "not whole"),
        (first | {"../../evil": b""}, "no part of a backup"),
        (first | {"pki/..": b""}, "no part of a backup"),
        (first | {"coordinator.yaml": b"", "store.db": b"", "pki/ca.pem": b""}, "its CA cannot be used"),
    ):
        file = _tar(tmp_path / "b.tar", members)
        ended = dr(
            "cluster", "restore", str(file), "--yes", "--reason", "r", "--config", str(tmp_path / "c.yaml")
        )
        assert (ended.code, said in ended.err) == (Exit.BAD_DATA, True), ended.err
    (tmp_path / "b.tar").write_bytes(b"x" * 2000)
    ended = dr("cluster", "restore", str(tmp_path / "b.tar"), "--yes", "--reason", "r")
    assert ended.code == Exit.BAD_DATA
    _tar(tmp_path / "b.tar", first, tarfile.SYMTYPE)
    ended = dr("cluster", "restore", str(tmp_path / "b.tar"), "--yes", "--reason", "r")
    assert ended.code == Exit.BAD_DATA
    assert not (tmp_path / "c.yaml").exists()
    assert [path.name for path in state.iterdir()] == ["store.db.lock"]
    assert dr("cluster", "restore", "--reason", "r").code == Exit.USAGE


def test_processes_that_cannot_start_say_why(dr: Dr, tmp_path: Path) -> None:
    config = tmp_path / "etc/coordinator.yaml"
    init(dr, tmp_path)
    config.write_text("cluster: lab\n")
    for command in (["coordinator"], ["agent"], ["agent", "run"]):
        run = subprocess.run(
            [*DR, *command, "--config", str(config)], capture_output=True, text=True, check=False
        )
        assert run.returncode == Exit.BAD_CONFIG
        assert run.stderr.startswith("error: ")
        assert "Traceback" not in run.stderr
    good = tmp_path / "agent.yaml"
    good.write_text(f"host: h1\ncluster: lab\ncoordinators: ['127.0.0.1:1']\nstate_dir: {tmp_path}/agent\n")
    run = subprocess.run([*DR, "agent", "--config", str(good)], capture_output=True, text=True, check=False)
    assert run.returncode == Exit.BAD_CONFIG
    assert "dr agent join" in run.stderr
