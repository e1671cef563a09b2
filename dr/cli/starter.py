"""The documented configuration that `dr cluster init` writes. Figures shown are the defaults of `dr.model.policy`."""

from __future__ import annotations

import typing
from typing import Any

import msgspec

from dr.cli.config_shown import shown_policy
from dr.model.policy import GuestPolicy, Limits, Timers

NOTES = {
    "heartbeat_s": "how often each agent says that it lives",
    "late_floor_s": "silence shorter than this is never late; at least two heartbeats",
    "late_ceiling_s": "silence longer than this is late, whatever the link's jitter",
    "jitter_factor": "late = two heartbeats + this x the link's measured deviation",
    "settle_s": "after a start of the coordinator, unheard is not late",
    "gap_s": "a stall of the coordinator itself that makes it doubt itself first",
    "probe_s": "a witness that was asked to look has this long",
    "probe_every_s": "how often a host that is down is looked at again",
    "fence_s": "one fencing level, all devices, status read before and after",
    "fence_retry_s": "after a failed fencing; doubles up to fence_retry_max_s",
    "start_s": "a start without an answer after this is `unknown`, and is asked about",
    "stop_s": "a clean shutdown may take this long",
    "restart_backoff_s": "doubles with each restart of a guest",
    "restart_backoff_max_s": "the longest such wait",
    "boot_after_s": "a guest waits at most so long for those that start before it",
    "health_s": "how often the checks of guests are made that are looked after (on_unhealthy)",
    "check_s": "a job waits at most so long for the checks of a guest that it brought up or moved",
    "isolation_s": "a host that hears nobody for this long shuts down guests with isolation: shut_down",
    "leave_s": "a host that announced its shutdown may be silent this long",
    "leave_drain_s": "its guests are moved away first for at most this long (on_leave: migrate)",
    "hold_s": "its guests wait this long for it to come back (on_leave: hold)",
    "failback_after_s": "a guest with failback goes home when its home has been well for so long",
    "recovery_retry_s": "a guest that fitted nowhere is tried again this often",
    "starts_per_host": "guests that start at once on one host",
    "migration_mib_s": "that a host can send, and receive, of live migrations; 0 = not known, then measured",
    "fence_attempts_per_level": "before the next level is tried",
    "fences_per_window": "a host fenced more often within fence_window_s is quarantined",
    "returns_per_window": "so is one that came back with a new boot more often, unless most hosts did",
    "brake_window_s": "hosts lost within this count together: more than half = hold, ask a person",
    "unhealthy_rounds": "so many rounds of its checks that fail in a row: unhealthy",
    "memory_reserve_mib": "kept free on every host",
    "memory_overcommit": "memory of guests over that of the host; huge pages are never over-committed",
    "cpu_overcommit": "virtual CPUs of guests over CPUs of the host",
    "guests_per_host": "at most; 0 = no limit",
    "definitions_kept": "versions of each guest's definition",
    "priority": "higher starts first",
    "max_restarts": "in place, within restart_window_s; then it is moved",
    "max_relocations": "within relocation_window_s; then a person decides",
    "failback": "true: goes back to the host that its rules like best when that is well again",
    "boot_after": "names of guests that must run first; NAME:check waits for its checks",
    "isolation": "of a host that nobody hears although it is on: leave, shut_down or fence",
    "checks": "how to tell that it works, all of: running, agent, screenshot, ping:ADDRESS, tcp:ADDRESS:PORT, http://…",
    "on_unhealthy": "its checks fail after they had passed: ignore, alert, or restart as after a crash",
    "move_s": "a live migration that has not ended by then is called off",
    "move_downtime_s": "it may stand still for so long at the switch-over, if it does not converge otherwise",
    "move_auto_converge": "false: QEMU never slows it down so that it converges",
    "move_mib_s": "bandwidth of its live migration; 0 = as libvirt has it",
    "move_streams": "connections that its memory is sent over",
    "local_disks": "true: also with disks that only its host has; it moves with them, and starts nowhere else",
    "remove_old_disks": "true: those that a move left behind are removed once it runs elsewhere; else set aside",
}

TEMPLATE = """\
# The dr coordinator. Check it with `dr config check`; apply with `systemctl reload dr-coordinator`.
# Every key is shown; what is commented out shows its default.

cluster: {cluster}
state_dir: {state_dir}

# Under which agents and administrators reach this machine. Each must be in its certificate
# (`dr cluster init --renew --address ...` makes a new one).
addresses: [{addresses}]

listen:
  agents: "{agents}"
  api: "{api}"

# log:
#   level: info            # debug, info, warning, error
#   format: auto           # auto: for people on a terminal, JSON lines elsewhere

# false: nothing is fenced by itself; a failed host's guests then wait for a person.
# auto_fence: true

# What becomes of the guests of a host that announces its shutdown or reboot: migrate (it is drained first),
# hold (they start there again when it is back) or failover.
# on_leave: migrate

# What becomes of the guests of a host whose own hardware fails (memory errors that were not corrected, a machine check,
# a dead disk of the system): alert, or evacuate (it is drained too, one host at a time).
# on_critical: alert

# The KVM hosts: how each is switched off for sure, when its guests must move. A host joins with
# `dr cluster token HOST` here and `dr agent join` there; it need not be listed to join, but without
# fencing its guests stay down until `dr host confirm-down`.
hosts: {{}}
#   kvm1:
#     addresses: [10.0.0.1, 10.1.0.1]     # where others look for it; default: what its agent reports
#     coordinator_here: false             # true: the coordinator runs on it, and never fences it
#     power_on_after_fence: true
#     memory_reserve_mib: 2048            # instead of limits.memory_reserve_mib; so do memory_overcommit,
#                                         # cpu_overcommit, guests_max and migration_mib_s
#     on_leave: hold                      # instead of the general one; so does on_critical
#     labels: {{rack: a}}
#     fencing:                            # levels, tried in order
#       - agent: fence_ipmilan            # a level with one device
#         parameters:
#           ip: 10.9.0.1
#           username: dr
#           password_file: /etc/dr/secrets/kvm1-bmc
#           lanplus: true
#       - devices:                        # a level of which all devices must be off: redundant power
#           - name: pdu-a
#             agent: fence_apc_snmp
#             parameters: {{ip: 10.9.0.101, plug: "7"}}
#           - name: pdu-b
#             agent: fence_apc_snmp
#             parameters: {{ip: 10.9.0.102, plug: "7"}}

# Where guests run, and who shares a host. Guests by name or label. `strict: true` holds even if a guest must wait.
rules: []
#   - name: fast-hosts
#     guests: [label:tier=gold]
#     hosts: {{kvm1: 10, kvm2: 5}}          # the higher the better; with `failback` it returns to the best
#   - name: db-apart
#     guests: [db1, db2]
#     keep: apart                         # or together
#     strict: true

# Commands that playbooks may run on hosts, over SSH, or in guests, by their QEMU guest agents: docs/operations.md.
# ssh:
#   key_file: /etc/dr/ssh/id_ed25519      # of a key pair of its own; hosts have its public half
#   known_hosts: /etc/dr/ssh/known_hosts  # the keys of hosts, under their names or addresses
#   user: root
#   port: 22
commands: {{}}
#   update:
#     argv: [/usr/bin/dnf, -y, upgrade]   # whole words, no shell; a word ${{name}} is what a playbook says `with`
#     timeout_s: 1800
#   reboot:
#     argv: [/usr/bin/systemctl, reboot]
#     reboots: true                       # done when the host is back
#     timeout_s: 900

# Whom to tell. A command gets the alert as JSON on stdin, a webhook as a POST. Try it: dr notify test
notify: []
#   - name: mail
#     command: [/usr/local/sbin/dr-mail, ops@example.org]
#   - name: chat
#     webhook: https://chat.example.org/hooks/XXXX

# Playbooks that are run by themselves; see them with `dr drill schedule`.
schedules: {{}}
#   sunday-drill:
#     playbook: drill-host                # one of `dr playbook list`, or a file; read with this file
#     params: {{source: kvm1, address: 10.0.0.1/24}}
#     cron: "0 3 * * sun"                 # minute, hour, day of the month, month, day of the week
#     zone: UTC                           # whose clock that is, such as Europe/Vienna
#     window: 1h                          # so late it may begin; then it is missed, and you are told
#     blackouts: [2026-12-24..2027-01-02] # days on which it is not begun
#     reason: quarterly proof             # as every run of it says

# Playbooks that run beside the built-in failover, which waits for none of them: `dr playbook show failover`.
hooks: {{}}
#   failover_begins: /etc/dr/playbooks/tell-the-balancer.yaml
#   failover_ends: /etc/dr/playbooks/look-around.yaml

# Defaults for protected guests.
# guests:
{guests}

# All in seconds.
# timers:
{timers}

# limits:
{limits}
"""


def starter(*, cluster: str, state_dir: str, addresses: tuple[str, ...], agents: str, api: str) -> str:
    """The whole file."""
    return TEMPLATE.format(
        cluster=cluster,
        state_dir=state_dir,
        addresses=", ".join(f'"{each}"' if ":" in each else each for each in addresses),
        agents=agents,
        api=api,
        guests=_lines(shown_policy(GuestPolicy())),
        timers=_lines(msgspec.structs.asdict(typing.cast(Any, Timers()))),
        limits=_lines(msgspec.structs.asdict(typing.cast(Any, Limits()))),
    )


def _lines(values: dict[str, Any]) -> str:
    lines = []
    for name, value in values.items():
        setting = f"#   {name}: {str(value).lower() if isinstance(value, bool) else value}"
        lines.append(f"{setting:<38}# {NOTES[name]}" if name in NOTES else setting)
    return "\n".join(lines)
