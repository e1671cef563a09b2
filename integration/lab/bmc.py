"""The hosts' BMCs: one `ipmi_sim` for each, in a network namespace of its own, on standby power of its own.

chassis.sh is what it runs to read and switch its machine. How a BMC lies or dies is set here, asked for in faults.py.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Final, Literal

from integration.lab import proc
from integration.lab.layout import BMC_PORT, BMC_USER, LabError, Layout, address

BmcMode = Literal["honest", "lie-off", "ignore"]
MODES: Final[tuple[BmcMode, ...]] = ("honest", "lie-off", "ignore")
_CHASSIS: Final = Path(__file__).with_name("chassis.sh")
_ROOT: Final = Path(__file__).resolve().parents[2]
_LAN_CONF: Final = """\
name "{host}"
set_working_mc 0x20
  startlan 1
    addr {address} {port}
    priv_limit admin
    allowed_auths_user none md2 md5 straight
    allowed_auths_operator none md2 md5 straight
    allowed_auths_admin none md2 md5 straight
    guid {guid}
  endlan
  chassis_control "{chassis}"
  user 1 false "" "unused" user 10 none md2 md5 straight
  user 2 true "{user}" "{password}" admin 10 none md2 md5 straight
"""
_COMMANDS: Final = """\
mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr
mc_enable 0x20
"""


def guid(layout: Layout, host: str) -> str:
    """The system GUID that `ipmitool mc guid` shows for this host's BMC."""
    return str(layout.identity(f"bmc-{host}"))


def role(host: str) -> str:
    return f"bmc-{host}"


def start(layout: Layout, host: str, *, answers_for: str | None = None) -> None:
    """Start (again) the BMC at this host's BMC address; `answers_for` another host it has that one's identity."""
    target = answers_for or host
    directory = layout.bmc(host)
    stop(layout, host)
    (directory / "state").mkdir(parents=True, exist_ok=True)
    proc.write_atomic(
        directory / "env",
        f"LAB_ROOT={shlex.quote(str(_ROOT))}\nLAB_PYTHON={shlex.quote(sys.executable)}\n"
        f"DR_LAB={layout.name}\nexport DR_LAB\n",
    )
    if not (directory / "mode").exists():
        set_mode(layout, host, "honest")
    proc.write_atomic(directory / "target", target)
    config, commands = directory / "lan.conf", directory / "sim.emu"
    proc.write_atomic(
        config,
        _LAN_CONF.format(
            host=host,
            address=address("bmc", host),
            port=BMC_PORT,
            user=BMC_USER,
            password=layout.bmc_password(host),
            # IPMI sends a GUID last byte first.
            guid=layout.identity(f"bmc-{target}").bytes[::-1].hex(),
            chassis=f"{_CHASSIS} {directory} {layout.machine(target)}",
        ),
    )
    proc.write_atomic(commands, _COMMANDS)
    proc.spawn(
        ["ipmi_sim", "-n", "-c", str(config), "-f", str(commands), "-s", str(directory / "state")],
        pid_file=layout.pid_file(role(host)),
        log=layout.log(role(host)),
        netns=layout.netns_path(role(host)),
    )


def stop(layout: Layout, host: str) -> None:
    running = proc.recorded(layout.pid_file(role(host)))
    if running is not None:
        running.kill()


def ensure(layout: Layout, host: str) -> None:
    """Start the BMC unless it runs."""
    if proc.recorded(layout.pid_file(role(host))) is None:
        start(layout, host, answers_for=answers_for(layout, host))


def answers_for(layout: Layout, host: str) -> str:
    """The host whose identity and power this BMC has: its own, unless swapped."""
    try:
        return (layout.bmc(host) / "target").read_text().strip()
    except FileNotFoundError:
        return host


def set_mode(layout: Layout, host: str, mode: BmcMode) -> None:
    """Whether the BMC is honest, or how it lies. Takes effect at its next answer."""
    if mode not in MODES:
        raise LabError(f"BMC mode {mode!r} is not one of {', '.join(MODES)}")
    proc.write_atomic(layout.bmc(host) / "mode", mode)
