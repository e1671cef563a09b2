"""What people do and what the configuration says, at any moment: asks, rules, policies, hosts that come and go.

Here: each as verbs of the scenario language, and its odds. Not here: what breaks (`dr.sim.faults`).
"""

from __future__ import annotations

from dr.model import playbooks, verbs
from dr.model.checks import Agent, Ping
from dr.model.policy import After, GuestRule, HostRule, Isolation, OnUnhealthy, Rule
from dr.model.records import Desired
from dr.sim.drawing import SECONDS, Drawing, Faults, Kind, Then, lasting
from dr.sim.scenario.facts import AutomationIs, GuestIs, HostIs
from dr.sim.scenario.verb import Verb
from dr.sim.scenario.verbs_guests import AddGuest, VirshRename
from dr.sim.scenario.verbs_hosts import Join, Messages, PowerOn, Reboot, Scrap, Shutdown
from dr.sim.scenario.verbs_people import (
    AddRule,
    Apply,
    CancelMove,
    ClearQuarantine,
    ConfirmDown,
    Cordon,
    Drain,
    FenceHost,
    FenceTest,
    LabelHost,
    Migrate,
    Pause,
    PlanEvacuation,
    Protect,
    Relocate,
    RemoveHost,
    RemoveRule,
    Resume,
    Set,
    Start,
    Stop,
    Uncordon,
    Undrain,
    Unprotect,
)
from dr.sim.scenario.verbs_playbooks import CancelPlaybook, ClonesFail, During, RunPlaybook

HOSTS_MIN = 3  # so many stay, however many are scrapped
JOINS_MAX = 2
GUESTS_MAX = 2  # that are added
LABEL = "tier"
TIERS = ("web", "db")
LONGER = (10.0, 45.0, 120.0)


def _unprotect(d: Drawing) -> Faults:
    """Only of a guest that runs in one place, so that nobody's own double start follows."""
    guest = (d.guest(),)
    runs = GuestIs(guest=guest, is_=("running",))
    if d.one((True, False)):
        yield Then(Messages(messages="late", kind="list", of=(d.host(),), by=5.0), only=runs)
    yield Then(Unprotect(unprotect=guest, answer="any"), only=runs)
    yield Then(Protect(protect=guest, answer="any"), d.one(SECONDS))


def _join(d: Drawing) -> Faults:
    if d.joined < JOINS_MAX:
        d.joined += 1
        yield Then(Join(join=f"h{len(d.hosts) + d.joined}"))


def _scrapped(d: Drawing) -> Faults:
    """A machine that is off for good; its record goes when nothing may run on it."""
    host = d.host()
    if host != d.home and len(d.hosts) - len(d.scrapped | {host}) >= HOSTS_MIN:
        d.scrapped.add(host)
        yield Then(Scrap(scrap=(host,)), only=HostIs(host=(host,), up=False))
        yield Then(RemoveHost(remove_host=host, answer="any"), only=HostIs(host=(host,), up=False))


def _ask_guest(d: Drawing) -> Faults:
    guest = (d.guest(),)
    asks: list[Verb] = [
        *[Start(start=guest, answer="any")] * 2,
        Stop(stop=guest, answer="any"),
        Stop(stop=guest, mode="destroy", answer="any"),
    ]
    yield Then(d.one(asks))


def _ask_host(d: Drawing) -> Faults:
    host = d.host()
    asks: list[Verb] = [
        FenceHost(fence_host=host, answer="any"),
        FenceHost(fence_host=d.home or host, answer="any"),
        FenceTest(fence_test=host, answer="any"),
        ClearQuarantine(clear_quarantine=host, answer="any"),
    ]
    yield Then(d.one(asks))


def _remove_in_use(d: Drawing) -> Faults:
    host = d.host()
    yield Then(RemoveHost(remove_host=host, answer="any"), only=HostIs(host=(host,), up=True))


def _confirm(d: Drawing) -> Faults:
    """A person confirms what is so, or errs about a host that everybody hears: any other error is admitted."""
    host = d.host()
    so = d.one((HostIs(host=(host,), up=False), HostIs(host=(host,), heard=True)))
    yield Then(ConfirmDown(confirm_down=host, answer="any"), only=so)


def _ask_cluster(d: Drawing) -> Faults:
    if d.rng.random() < 1 / 3:
        yield Then(Pause(pause="to see", answer="any"))
    else:
        yield Then(Resume(resume="seen", answer="any"), only=AutomationIs(automation="paused"))


def _moved(d: Drawing) -> Faults:
    guest = (d.guest(),)
    asks: list[Verb] = [
        *[Migrate(migrate=guest, answer="any")] * 3,
        Relocate(relocate=guest, answer="any"),
        CancelMove(cancel_move=guest, answer="any"),
    ]
    yield Then(d.one(asks))


# ---- policies, rules, work on hosts


def policy_part(d: Drawing, guest: str) -> dict[str, object]:
    """One field of a guest's policy. A guest waits only for guests that stand before it, so there is no circle."""
    before = d.guests[: d.guests.index(guest)]
    parts: list[dict[str, object]] = [
        {"priority": d.one((1, 50, 200))},
        {"failback": d.one((True, True, False))},
        {"isolation": d.one(tuple(Isolation))},
        {"max_restarts": d.one((0, 1, 5))},
        {"max_relocations": d.one((0, 1, 5))},
        {"checks": (Ping(address="10.0.0.5"), Agent()), "on_unhealthy": d.one(tuple(OnUnhealthy))},
    ]
    if before:
        parts.append({"boot_after": (After(guest=d.one(before)),)})
    return d.one(parts)


def rule(d: Drawing, name: str) -> Rule:
    """About one to three guests, or all with a label."""
    some = tuple(sorted(d.rng.sample(d.guests, d.rng.randint(1, min(3, len(d.guests))))))
    guests = (f"label:{LABEL}={d.one(TIERS)}",) if d.rng.random() < 0.25 else some
    strict = d.one((True, False))
    if d.rng.random() < 0.5:
        hosts = d.rng.sample(d.hosts, d.rng.randint(1, len(d.hosts) - 1))
        return HostRule(
            name=name, guests=guests, hosts={host: d.one((1, 2)) for host in sorted(hosts)}, strict=strict
        )
    return GuestRule(name=name, guests=guests, kind=d.one(("together", "apart", "apart")), strict=strict)


def _set(d: Drawing) -> Faults:
    guest = d.guest()
    if d.rng.random() < 0.4:
        desired = d.one((Desired.RUNNING, Desired.RUNNING, Desired.STOPPED, Desired.IGNORED))
        yield Then(Set(set=(guest,), desired=desired, answer="any"))
    else:
        yield Then(Set(set=(guest,), policy=policy_part(d, guest), answer="any"))


def _rule_added(d: Drawing) -> Faults:
    d.rules_made += 1
    name = f"r{d.rules_made}"
    d.rules.append(name)
    yield Then(AddRule(add_rule=rule(d, name)))


def _rule_removed(d: Drawing) -> Faults:
    if d.rules:
        yield Then(RemoveRule(remove_rule=d.rules.pop(d.rng.randrange(len(d.rules)))))


def _host_labelled(d: Drawing) -> Faults:
    yield Then(LabelHost(label_host=d.host(), labels={LABEL: d.one(TIERS)}, answer="any"))


def _cordoned(d: Drawing) -> Faults:
    host = d.host()
    return lasting(Cordon(cordon=host, answer="any"), Uncordon(uncordon=host, answer="any"), d.one(LONGER))


def _drained(d: Drawing) -> Faults:
    host = d.host()
    drain = Drain(drain=host, answer="any", deadline=d.one((0.0, 0.0, 30.0, 90.0)))
    return lasting(drain, Undrain(undrain=host, answer="any"), d.one(LONGER))


def _drained_by_plan(d: Drawing) -> Faults:
    """One host or two, by a plan that somebody approved a while before; the world goes on meanwhile."""
    d.plans += 1
    name, hosts = f"p{d.plans}", tuple(dict.fromkeys((d.host(), d.host())))
    applied_s, lasts_s = d.one(SECONDS), d.one(LONGER)
    yield Then(PlanEvacuation(plan_evacuation=hosts, as_=name, deadline=d.one((0.0, 0.0, 60.0))))
    yield Then(Apply(apply=name, anyway=d.one((True, False)), answer="any"), applied_s)
    for host in hosts:
        yield Then(Undrain(undrain=host, answer="any"), applied_s + lasts_s)


def _commands(d: Drawing, host: tuple[str, ...], guest: tuple[str, ...]) -> tuple[playbooks.StepSpec, ...]:
    """Sometimes the host that was emptied is updated, and boots anew; or something is run in a guest."""
    runs = d.one(
        (
            (),
            (verbs.RunCommand(run="update", on=host), verbs.RunCommand(run="reboot", on=host)),
            (verbs.RunCommand(run="flush", in_=guest),),
        )
    )
    return tuple(playbooks.StepSpec(verb=each, timeout=60.0, on_fail="continue") for each in runs)


def _playbook_run(d: Drawing) -> Faults:
    """A host is emptied and used again, guests move or are stopped and started, all of it by a playbook."""
    d.plans += 1
    name, host, guest = f"book{d.plans}", (d.host(),), (d.guest(),)
    after: tuple[verbs.AnyVerb, ...] = d.one(
        (
            (verbs.Migrate(migrate=guest),),
            (verbs.Stop(stop=guest), verbs.Start(start=guest)),
            (verbs.Check(check=guest),),
            (),
        )
    )
    taken_back = d.one((True, False))
    steps = (
        playbooks.StepSpec(
            verb=verbs.Cordon(cordon=host), undo=verbs.Uncordon(uncordon=host) if taken_back else None
        ),
        playbooks.StepSpec(
            verb=verbs.Drain(drain=host),
            timeout=d.one((10.0, 40.0)),
            on_fail="rollback" if taken_back else d.one(("stop", "continue")),
            undo=verbs.Undrain(undrain=host) if taken_back else None,
        ),
        *_commands(d, host, guest),
        playbooks.StepSpec(verb=verbs.Wait(wait=d.one(SECONDS))),
        *(playbooks.StepSpec(verb=verb, timeout=30.0, retry=d.one((0, 1))) for verb in after),
    )
    last = (
        playbooks.StepSpec(verb=verbs.Undrain(undrain=host), timeout=30.0),
        playbooks.StepSpec(verb=verbs.Uncordon(uncordon=host), timeout=10.0),
        playbooks.StepSpec(verb=verbs.Start(start=guest), timeout=30.0),
    )
    book = playbooks.Playbook(playbook=name, steps=steps, finally_=last)
    yield Then(RunPlaybook(run_playbook=book, answer="any"), d.one(LONGER))
    if d.rng.random() < 0.3:
        yield Then(CancelPlaybook(cancel_playbook=name, answer="any"))


def _drill(d: Drawing) -> Faults:
    """Clones of one or two guests are made and started, and one of them may go wrong."""
    d.plans += 1
    name, guests = f"drill{d.plans}", tuple(dict.fromkeys((d.guest(), d.guest())))
    step = playbooks.StepSpec
    steps = (
        step(verb=verbs.MakeClones(clone=guests), timeout=d.one((5.0, 60.0)), retry=d.one((0, 1))),
        step(verb=verbs.Boot(boot=guests)),
        step(verb=verbs.Check(check=guests), on_fail=d.one(("stop", "continue"))),
        step(verb=verbs.Wait(wait=d.one(SECONDS))),
    )
    if d.rng.random() < 0.4:
        during: During = d.one(("copy", "boot", "check", "end"))
        yield Then(
            ClonesFail(clones_fail=guests, during=during, how=d.one(("fail", "hang")), times=d.one((1, 3)))
        )
    book = playbooks.Playbook(
        playbook=name, kind="drill", bubble=playbooks.Bubble(address="10.0.0.1/24"), steps=steps
    )
    yield Then(RunPlaybook(run_playbook=book, answer="any"), d.one(SECONDS))


def _host_leaves(d: Drawing) -> Faults:
    host, announced, held = (d.host(),), d.rng.random() < 0.8, d.rng.random() < 0.7
    if d.one((True, False)):
        yield Then(Reboot(reboot=host, announced=announced, held=held))
    else:
        shutdown = Shutdown(shutdown=host, announced=announced, held=held)
        yield from lasting(shutdown, PowerOn(power_on=host), d.one(LONGER))


def _guest_added(d: Drawing) -> Faults:
    """One that somebody made by hand, and protects a moment later."""
    if d.added < GUESTS_MAX and d.room_mib >= d.guest_mib:
        d.added += 1
        d.room_mib -= d.guest_mib
        name = f"g{len(d.guests) + 1}"
        d.guests.append(name)
        up = HostIs(host=(d.host(),), up=True)
        yield Then(AddGuest(add_guest=name, on=up.host[0], memory_mib=d.guest_mib), only=up)
        yield Then(Protect(protect=(name,), answer="any"), d.one(SECONDS))


def _renamed(d: Drawing) -> Faults:
    d.renamed += 1
    yield Then(VirshRename(virsh_rename=d.guest(), to=f"n{d.renamed}"))


KINDS: dict[str, Kind] = {
    "host joins": Kind(1, _join),
    "host scrapped": Kind(1, _scrapped),
    "ask for a guest": Kind(5, _ask_guest),
    "ask for a host": Kind(4, _ask_host),
    "removal of a host in use": Kind(1, _remove_in_use),
    "host confirmed down": Kind(2, _confirm),
    "ask for the cluster": Kind(2, _ask_cluster),
    "move": Kind(10, _moved),
    "protection ends and begins": Kind(4, _unprotect),
    "policy set": Kind(5, _set),
    "rule added": Kind(4, _rule_added),
    "rule removed": Kind(3, _rule_removed),
    "host labelled": Kind(1, _host_labelled),
    "host cordoned": Kind(2, _cordoned),
    "host drained": Kind(3, _drained),
    "drained by a plan": Kind(2, _drained_by_plan),
    "playbook run": Kind(3, _playbook_run),
    "drill": Kind(3, _drill),
    "host leaves": Kind(4, _host_leaves),
    "guest added": Kind(1, _guest_added),
    "guest renamed": Kind(1, _renamed),
}
