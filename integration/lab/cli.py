"""The command line of the lab: `python -m integration.lab up|down|status|fault|guest|exec`.

Only parsing and printing; everything else is the Python API.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from integration.lab import bmc
from integration.lab.lab import Lab
from integration.lab.layout import NAS, LabError, Network, as_network
from integration.lab.machine import Machine
from integration.lab.network import as_direction

_FAULTS = """\
faults (TARGET is ctl, h1...; NET is mgmt, stor, guest, bmc; `all` for TARGET where it makes sense):
  power-off T | power-on T | reboot T           links first, then SIGKILL to its PID 1; a new boot id at power-on
  link-down T [NET] | link-up T [NET]           NET bmc of a host is its BMC's cable; T nas is the storage server
  drop T NET [in|out|both] [PEER] | undrop T [NET]
  loss T NET PERCENT
  slow T NET MIB_S | fast T [NET]               what the cable carries, each way
  freeze T [SERVICE] | thaw T [SERVICE]         the whole machine (links too), or one service by SIGSTOP
  kill T SERVICE [stay-down]                    SIGKILL; restarted after 1 s unless stay-down
  bmc-dead T | bmc-alive T
  bmc-lie T lie-off|ignore | bmc-swap T OTHER | bmc-honest T
  storage-cut T|all | storage-restore T|all
  disk-full T | disk-free T
  clock T SERVICE OFFSET_S                      a service installed with faketime=True
  disk-server-stop G | disk-server-start G      the qemu-nbd of a guest
  heal [T]                                      undo every fault and power on
"""

_CHASSIS: Final[Mapping[str, Callable[[Machine], None]]] = {
    "power-on": Machine.power_on,
    "power-off": Machine.power_off,
    "reset": Machine.reboot,
    "restarted": lambda machine: machine.went_down(again=True),
    "switched-off": lambda machine: machine.went_down(again=False),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    args = _parser().parse_args(argv)
    lab = Lab(args.lab)
    try:
        code: int = args.run(lab, args)
    except (LabError, OSError, subprocess.TimeoutExpired) as error:
        print(f"lab {lab.name}: {error}", file=sys.stderr)
        return 1
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m integration.lab", description="Several KVM hosts on one machine."
    )
    parser.add_argument("--lab", help="name of the lab (default: DR_LAB, else `lab`)")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[[Lab, argparse.Namespace], int], text: str
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name, help=text, description=text, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        added.set_defaults(run=run)
        return added

    up = command("up", _up, "make the lab, or what is missing of it")
    up.add_argument("--hosts", type=int, default=3)
    command("down", _down, "remove everything of the lab")
    command("status", _status, "machines, guests and active faults")
    fault = command("fault", _fault, "break or heal something")
    fault.epilog = _FAULTS
    fault.add_argument("kind")
    fault.add_argument("words", nargs="*")
    guest = command("guest", _guest, "define, start, look at guests")
    guest.add_argument(
        "act",
        choices=(
            "define",
            "start",
            "shutdown",
            "destroy",
            "undefine",
            "remove",
            "http",
            "report",
            "where",
            "console",
        ),
    )
    guest.add_argument("guest")
    guest.add_argument("where", nargs="?", help="a host; for http a path")
    guest.add_argument("--mem-mib", type=int, default=96)
    guest.add_argument("--busy", action="store_true", help="its memory may be dirtied while it is migrated")
    guest.add_argument("--dirty-mib-s", type=int, default=0)
    guest.add_argument("--autostart", action="store_true")
    run = command("exec", _exec, "run a command inside a machine: exec h1 -- virsh list")
    run.add_argument("machine")
    run.add_argument("argv", nargs=argparse.REMAINDER)
    chassis = command("chassis", _chassis, "what a BMC and a machine's power run (chassis.sh, power.sh)")
    chassis.add_argument("machine")
    chassis.add_argument("act", choices=_CHASSIS)
    return parser


def _up(lab: Lab, args: argparse.Namespace) -> int:
    began = time.monotonic()
    lab.up(args.hosts)
    print(f"lab {lab.name} is up: {', '.join(lab.host_names)}, {time.monotonic() - began:.1f} s")
    return 0


def _down(lab: Lab, args: argparse.Namespace) -> int:
    lab.down()
    print(f"lab {lab.name} is down")
    return 0


def _status(lab: Lab, args: argparse.Namespace) -> int:
    if not lab.is_up():
        print(f"lab {lab.name} is not up: python -m integration.lab up", file=sys.stderr)
        return 1
    rows = [("MACHINE", "POWER", "BOOT", "MGMT", "BMC", "FAULTS")]
    for machine in lab.machines:
        power = "frozen" if machine.is_frozen() else "on" if machine.is_on() else "off"
        faults = "; ".join(str(fault) for fault in lab.faults.active(machine.name)) or "-"
        rows.append(
            (
                machine.name,
                power,
                machine.boot_id[:8],
                machine.address("mgmt"),
                machine.address("bmc") if machine.is_host else "-",
                faults,
            )
        )
    _table(rows)
    for fault in lab.faults.active(NAS):
        print(f"{NAS}: {fault}")
    if lab.guests:
        print()
        rows2 = [("GUEST", "ADDRESS", "RUNS ON", "ANSWERS", "DISK")]
        for guest in lab.guests:
            rows2.append(
                (
                    guest.name,
                    guest.address,
                    ",".join(lab.qemu_hosts(guest.name)) or "-",
                    "yes" if guest.answers() else "no",
                    str(guest.disk_report()),
                )
            )
        _table(rows2)
    return 0


def _table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _exec(lab: Lab, args: argparse.Namespace) -> int:
    argv = args.argv[1:] if args.argv[:1] == ["--"] else args.argv
    if not argv:
        raise LabError("nothing to run: exec h1 -- virsh list")
    with lab.machine(args.machine).popen(argv, stdin=None) as child:
        return child.wait()


def _chassis(lab: Lab, args: argparse.Namespace) -> int:
    machine = lab.machine(args.machine)
    _CHASSIS[args.act](machine)
    return 0


def _guest(lab: Lab, args: argparse.Namespace) -> int:
    guest = lab.guest(args.guest)
    if args.act == "report":
        report = guest.disk_report()
        print(report)
        for sentence in report.evidence:
            print(f"  {sentence}")
        return 3 if report.second_writer else 0
    if args.act == "where":
        for host, presence in lab.running_on(guest.name).items():
            print(f"{host}: libvirt says {presence.libvirt_state}, QEMU processes {list(presence.qemu_pids)}")
    elif args.act == "http":
        print(json.dumps(vars(guest.http(args.where or "/"))))
    elif args.act == "remove":
        guest.remove()
    elif not args.where:
        raise LabError(f"which host? python -m integration.lab guest {args.act} {guest.name} h1")
    elif args.act == "define":
        guest.define(
            args.where,
            mem_mib=args.mem_mib,
            busy=args.busy,
            dirty_mib_s=args.dirty_mib_s,
            autostart=args.autostart,
        )
    elif args.act == "console":
        print(guest.console(args.where), end="")
    else:
        {
            "start": guest.start,
            "shutdown": guest.shutdown,
            "destroy": guest.destroy,
            "undefine": guest.undefine,
        }[args.act](args.where)
    return 0


def _fault(lab: Lab, args: argparse.Namespace) -> int:
    words: list[str] = args.words

    def word(index: int, what: str) -> str:
        if len(words) <= index:
            raise LabError(f"fault {args.kind} needs {what}: see python -m integration.lab fault --help")
        return words[index]

    def optional(index: int) -> str | None:
        return words[index] if len(words) > index else None

    faults = lab.faults
    kind: str = args.kind
    if kind == "heal":
        faults.heal(optional(0))
        return 0
    target = word(0, "a target")
    some = None if target == "all" else target
    simple: dict[str, Callable[[], object]] = {
        "power-off": lambda: lab.machine(target).power_off(),
        "power-on": lambda: lab.machine(target).power_on(),
        "reboot": lambda: lab.machine(target).reboot(),
        "link-down": lambda: faults.link_down(target, _network(optional(1))),
        "link-up": lambda: faults.link_up(target, _network(optional(1))),
        "drop": lambda: faults.drop(
            target, as_network(word(1, "a network")), as_direction(optional(2) or "both"), peer=optional(3)
        ),
        "undrop": lambda: faults.undrop(target, _network(optional(1))),
        "loss": lambda: faults.loss(target, as_network(word(1, "a network")), int(word(2, "a percentage"))),
        "slow": lambda: faults.slow(target, as_network(word(1, "a network")), int(word(2, "MiB/s"))),
        "fast": lambda: faults.fast(target, _network(optional(1))),
        "freeze": lambda: faults.freeze_service(target, words[1]) if optional(1) else faults.freeze(target),
        "thaw": lambda: faults.thaw_service(target, words[1]) if optional(1) else faults.thaw(target),
        "kill": lambda: lab.machine(target).kill_service(
            word(1, "a service"), stay_down=optional(2) == "stay-down"
        ),
        "bmc-dead": lambda: faults.bmc_dead(target),
        "bmc-alive": lambda: faults.bmc_alive(target),
        "bmc-lie": lambda: faults.bmc_lie(target, _mode(word(1, "a mode"))),
        "bmc-swap": lambda: faults.bmc_swap(target, word(1, "the other host")),
        "bmc-honest": lambda: faults.bmc_honest(target),
        "storage-cut": lambda: faults.storage_cut(some),
        "storage-restore": lambda: faults.storage_restore(some),
        "disk-full": lambda: faults.disk_full(target),
        "disk-free": lambda: faults.disk_free(target),
        "clock": lambda: faults.clock_jump(target, word(1, "a service"), float(word(2, "seconds"))),
        "disk-server-stop": lambda: faults.disk_server_stop(target),
        "disk-server-start": lambda: faults.disk_server_start(target),
    }
    if kind not in simple:
        raise LabError(f"no fault {kind!r}: {', '.join([*simple, 'heal'])}")
    simple[kind]()
    return 0


def _network(text: str | None) -> Network | None:
    return None if text is None else as_network(text)


def _mode(text: str) -> bmc.BmcMode:
    for mode in bmc.MODES:
        if text == mode:
            return mode
    raise LabError(f"{text!r} is not a way to lie: {', '.join(bmc.MODES)}")
