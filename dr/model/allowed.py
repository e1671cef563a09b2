"""Commands that playbooks may run, as the configuration allows them: words of their own, never a line for a shell.

Here: a command, what it may not be, its words with values in place of parameters. Not here: how it is run
(`dr.adapters.ssh`), the step that asks for it (`dr.core.playbooks.commands`).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from typing import Literal

from dr.model.base import Record

WORDS_MAX = 64
WORD_MAX = 4096  # characters
VALUE_MAX = 1024
TIMEOUT_S_MAX = 86_400.0
PARAMETER = re.compile(r"\$\{([A-Za-z][A-Za-z0-9_-]{0,62})\}")

# What starts, stops or moves guests, or is the ground they stand on. `dr` does that itself, with its guards.
DRIVES_GUESTS = re.compile(r"virsh|virt-.*|virt[a-z]+d|libvirt.*|qemu.*|kvm|guestfish|guestmount|crosvm")
# They run what their words say: a value there could say anything.
RUNS_OTHERS = re.compile(
    r"r?(ba|da|z|k|mk|c|tc|a|fi)?sh|busybox|toybox|node(js)?|(python|pypy|perl|ruby|php|lua|guile)[0-9.]*(-(dbg|cgi|cli|jit))?|"
    r"[gmn]?awk|tclsh|expect|unbuffer|env|sudo|doas|su|pkexec|runuser|runcon|setpriv|setarch|linux(32|64)|nice|ionice|"
    r"chrt|choom|taskset|numactl|prlimit|cgexec|capsh|timeout|nohup|setsid|stdbuf|xargs|parallel|find|ssh|socat|nsenter|"
    r"unshare|bwrap|chroot|systemd-(run|nspawn|inhibit)|machinectl|start-stop-daemon|dbus-run-session|flock|watch|"
    r"script|screen|tmux|time|strace|gdb|ip|at|batch|crontab|docker|podman|ansible[\w-]*|make|sed|ed|vi|vim|tar|rsync|"
    r"git|ld[-.][\w.-]*so[\w.]*"
)
# Who is told so is waited for, and only where the host is empty.
ENDS_HOST = frozenset({"reboot", "soft-reboot", "poweroff", "halt", "shutdown", "kexec"})
SPEAK_TO_INIT = frozenset({"systemctl", "loginctl"})
TOKEN = re.compile(r"[A-Za-z0-9_+-]+")


class Allowed(Record):
    """One command of the allow-list."""

    name: str
    argv: tuple[str, ...]  # a word that is `${name}`, and nothing else, stands for what a step says `with`
    where: Literal["host", "guest"] = "host"
    timeout_s: float = 300.0  # then it is ended; of one that reboots: until the host is back
    reboots: bool = False  # the host comes back with a new boot
    powers_off: bool = False  # the host goes down, and stays so
    dashes: bool = False  # values may begin with "-"

    @property
    def parameters(self) -> tuple[str, ...]:
        found = (PARAMETER.fullmatch(word) for word in self.argv)
        return tuple(dict.fromkeys(match[1] for match in found if match))


def why_not_allowed(argv: tuple[str, ...]) -> str:
    """Why no configuration may allow it; "" if it may. It reads names: what a program does inside, it cannot see."""
    for word in argv:
        for token in TOKEN.findall(word):
            if DRIVES_GUESTS.fullmatch(token):
                return (
                    f"{token} drives guests, or what they stand on: playbooks have verbs for that (start, stop, "
                    "migrate, drain …), and those have guards"
                )
    if "${" in "".join(PARAMETER.sub("", word) for word in argv):
        return "`${` begins a parameter, as in ${name}"
    if mixed := next((word for word in argv if PARAMETER.search(word) and not PARAMETER.fullmatch(word)), ""):
        return f'a parameter is a whole word of its own, not a part of one as in "{mixed[:60]}"'
    if not argv[0].startswith("/"):
        return "the program must be named by its whole path, and is no parameter"
    runner = next((name for word in argv if RUNS_OTHERS.fullmatch(name := word.rpartition("/")[2])), "")
    if runner and any(PARAMETER.fullmatch(word) for word in argv):
        return (
            f"{runner} runs what its words say, so none of them can be a parameter: "
            "put the command into a script of its own, and give it the parameter"
        )
    return ""


def ends_host(argv: tuple[str, ...]) -> str:
    """The word by which it ends the host that it runs on; "" if none is seen."""
    program = posixpath.basename(argv[0])
    if program in ("init", "telinit"):
        return next((word for word in argv[1:] if word in ("0", "6")), "")
    if program == "shutdown" and "-c" in argv[1:]:
        return ""  # it calls one off
    more = argv[1:] if program in SPEAK_TO_INIT or RUNS_OTHERS.fullmatch(program) else ()
    words = (program, *(token for word in more for token in TOKEN.findall(word)))
    return next((word for word in words if word in ENDS_HOST), "")


def why_no_value(command: Allowed, name: str, value: str) -> str:
    """Why a parameter of a command cannot have that value; "" if it can."""
    if len(value) > VALUE_MAX:
        return f"{name} is longer than {VALUE_MAX} characters"
    if not value:
        return f"{name} is empty"
    if odd := next((each for each in value if not each.isprintable()), ""):
        return f"{name} has a character that is not allowed: U+{ord(odd):04X}"
    ends = command.where == "host" and posixpath.basename(value).partition(".")[0] in ENDS_HOST
    if ends and not (command.reboots or command.powers_off):
        return f"{name} is {value}, which ends a host: a command of its own says that of itself"
    if value.startswith("-") and not command.dashes:
        return f"{name} begins with a dash, as options do; `dashes: true` in the configuration allows it"
    return ""


def wrong_with(command: Allowed, values: Mapping[str, str]) -> list[str]:
    """What is wrong with the values that a step gives; [] if nothing is."""
    wanted = command.parameters
    wrong = [f"{command.name} needs `with: {{{name}: …}}`" for name in wanted if name not in values]
    has = f"; it has: {', '.join(wanted)}" if wanted else "; it has none"
    wrong += [f"{command.name} has no parameter {name}{has}" for name in values if name not in wanted]
    told = ((name, values[name]) for name in wanted if name in values)
    return wrong + [why for name, value in told if (why := why_no_value(command, name, value))]


def filled(command: Allowed, values: Mapping[str, str]) -> tuple[str, ...]:
    """Its words, with values in place of parameters: each stays one word, whatever is in it."""

    def word(given: str) -> str:
        match = PARAMETER.fullmatch(given)
        return values[match[1]] if match else given

    return tuple(word(each) for each in command.argv)


class Report(Record):
    """What came of one attempt to run a command, or to hear what came of it."""

    # ended: it has, `code` says how. unknown: it began, and nobody knows what came of it. lost: it may run, or not.
    # By this attempt it was not begun, and never will be: unreached, other_boot (the host runs another boot); nor will
    # it be by any: refused.
    state: Literal["ended", "unknown", "lost", "unreached", "other_boot", "refused"]
    code: int | None = None  # exit code; negative: the signal that ended it
    timed_out: bool = False  # it was ended because it took too long
    output: str = ""  # stdout and stderr as they came; of much, the first and the last
    bytes: int = 0  # all of it
    digest: str = ""  # sha256 of all of it
    reason: str = ""


class Output(Record):
    """What a command said: evidence, under a key of its own."""

    operation: str
    command: str  # the effect's id
    step: int  # from 1
    name: str
    on: str  # a host or a guest
    argv: tuple[str, ...]
    report: Report
    at: float  # leader time
