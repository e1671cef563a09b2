"""A host's own clean shutdown or reboot, simulated: announcement, dr-leave.service, libvirt-guests, agent's end, power.

Here: the order in which systemd ends things. Not here: what an agent or a coordinator makes of it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dr.model.base import GuestId
from dr.model.wire import LeaveKind

if TYPE_CHECKING:
    from dr.sim.host import SimHost


LOOK_S = 0.2


def go_down(host: SimHost, kind: LeaveKind, *, announced: bool = True, held: bool = True) -> None:
    """`systemctl poweroff` or `reboot`.

    Not `announced`: its agent does not notice, as without systemd. Not `held`: dr-leave.service is not enabled.
    """
    if not host.up or host.frozen or host.leaving:
        return
    host.world.say(f"{host.name} begins its {kind}", "host.leaving", host=host.name)
    if announced:
        host.leaving = kind
        host.agent.announce()
    if held:
        _wait(host, kind)
    else:
        _go_on(host, kind)


def _wait(host: SimHost, kind: LeaveKind) -> None:
    """dr-leave.service, as it is stopped."""
    if host.agent.holds:
        host.later(LOOK_S, partial(_wait, host, kind))
    else:
        _go_on(host, kind)


def _go_on(host: SimHost, kind: LeaveKind) -> None:
    rng = host.world.rng
    for guest in sorted(host.domains):
        host.later(rng.uniform(0.3, 2.0), partial(_stop, host, guest))
    host.later(rng.uniform(2.5, 3.0), host.agent.stop)
    host.later(rng.uniform(3.5, 6.0), lambda: _end(host, kind))


def _stop(host: SimHost, guest: GuestId) -> None:
    """libvirt-guests, with ON_SHUTDOWN=shutdown."""
    host.end(guest, "shutdown")


def _end(host: SimHost, kind: LeaveKind) -> None:
    """The last guests end with it; a shutdown switches the machine off, a reboot starts it anew."""
    if kind == "reboot":
        host.reboot("clean reboot")
    else:
        host.chassis_on = False
        host.power_changed("clean shutdown")
