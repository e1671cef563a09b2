"""Verbs: what operators ask of the coordinator, and what its configuration says.

An ask is made again until somebody answers. It must be accepted, unless the scenario says otherwise.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from dr.core import approval, forecast
from dr.core.state import Draft
from dr.core.volatile import View
from dr.model.base import changed
from dr.model.events import (
    AskApply,
    AskCancelMove,
    AskCheck,
    AskClearQuarantine,
    AskConfirmDown,
    AskCordon,
    AskDrain,
    AskFence,
    AskFenceTest,
    AskLabel,
    AskMigrate,
    AskPause,
    AskProtect,
    AskRelocate,
    AskRemoveHost,
    AskResume,
    AskSet,
    AskStart,
    AskStop,
    AskUncordon,
    AskUndrain,
    AskUnprotect,
)
from dr.model.policy import GuestPolicy, PolicyChange, Rule, StopMode
from dr.model.records import Desired, Wish
from dr.model.words import (
    Guests,
    HostRef,
    Hosts,
    Kind,
    Problems,
    Seconds,
    Text,
    Where,
    fields_of,
    read_fields,
)
from dr.sim.scenario.rule import RULE
from dr.sim.scenario.stage import ASK_AGAIN_S, Make, Stage
from dr.sim.scenario.verb import Verb

BY = "ops"
WHY = "to see"
Reason = Annotated[str, Text(empty=True), "the reason that is given"]


class AskVerb(Verb):
    """Something that a person asks."""

    answer: Annotated[Literal["accepted", "refused", "any"], "what the coordinator must say to it"] = (
        "accepted"
    )
    because: Annotated[str, "a part of its words"] = ""

    def asks(self, stage: Stage) -> list[Make]:
        raise NotImplementedError

    def do(self, stage: Stage) -> None:
        for make in self.asks(stage):
            stage.ask(make, self.answer, self.because)


class Protect(AskVerb):
    """`dr guest protect`: all that are named, in one command."""

    protect: Annotated[Guests, "guests"]
    local_disks: Annotated[bool | None, "also if their disks lie on their own host only"] = None

    def asks(self, stage: Stage) -> list[Make]:
        guests = tuple(stage.guests(self.protect))
        return [lambda key: AskProtect(id=key, by=BY, guests=guests, local_disks=self.local_disks)]


class Unprotect(AskVerb):
    """`dr guest unprotect`."""

    unprotect: Annotated[Guests, "guests"]

    def asks(self, stage: Stage) -> list[Make]:
        return [lambda key: AskUnprotect(id=key, by=BY, guests=tuple(stage.guests(self.unprotect)))]


class Start(AskVerb):
    """`dr guest start`."""

    start: Annotated[Guests, "guests"]
    disks_on: Annotated[HostRef, "the host with the newest copy of their local disks, by a person's word"] = (
        ""
    )

    def asks(self, stage: Stage) -> list[Make]:
        guests = tuple(stage.guests(self.start))
        return [lambda key: AskStart(id=key, by=BY, guests=guests, disks_on=self.disks_on)]


class Stop(AskVerb):
    """`dr guest stop`."""

    stop: Annotated[Guests, "guests"]
    mode: Annotated[StopMode, "a clean shutdown, or a pulled plug"] = "shutdown"

    def asks(self, stage: Stage) -> list[Make]:
        return [lambda key: AskStop(id=key, by=BY, guests=tuple(stage.guests(self.stop)), mode=self.mode)]


class PolicyPart(Kind):
    """Some fields of a guest's policy."""

    means = "a mapping of fields of a policy"

    def read(self, value: Any, where: Where, problems: Problems) -> dict[str, Any]:
        if not isinstance(value, dict):
            self.wrong(value, where, problems)
            return {}
        policy = read_fields(GuestPolicy, value, where, problems)
        return {} if policy is None else {key: getattr(policy, key) for key in value}

    def write(self, value: Any) -> Any:
        return {
            field.key: field.kind.write(value[field.key])
            for field in fields_of(GuestPolicy)
            if field.key in value
        }


class Set(AskVerb):
    """`dr guest set`: another desired state, other parts of the policy."""

    set: Annotated[Guests, "guests"]
    desired: Annotated[Desired | None, "what their owner wants"] = None
    policy: Annotated[dict[str, Any], PolicyPart(), "fields of the policy that change"] = {}

    def asks(self, stage: Stage) -> list[Make]:
        names, change = tuple(stage.guests(self.set)), PolicyChange(**self.policy)
        return [lambda key: AskSet(id=key, by=BY, guests=names, desired=self.desired, policy=change)]


class Migrate(AskVerb):
    """Guests are moved while they run."""

    migrate: Annotated[Guests, "guests"]
    to: Annotated[HostRef, "where; wherever they fit best, if not named"] = ""

    def asks(self, stage: Stage) -> list[Make]:
        return [lambda key: AskMigrate(id=key, by=BY, guests=tuple(stage.guests(self.migrate)), to=self.to)]


class Relocate(AskVerb):
    """Guests are stopped where they run, and started elsewhere."""

    relocate: Annotated[Guests, "guests"]
    to: Annotated[HostRef, "where; wherever they fit best, if not named"] = ""
    mode: Annotated[StopMode, "a clean shutdown, or a pulled plug"] = "shutdown"

    def asks(self, stage: Stage) -> list[Make]:
        names = tuple(stage.guests(self.relocate))
        return [lambda key: AskRelocate(id=key, by=BY, guests=names, to=self.to, mode=self.mode)]


class CancelMove(AskVerb):
    """The migration of guests is called off."""

    cancel_move: Annotated[Guests, "guests"]

    def asks(self, stage: Stage) -> list[Make]:
        return [lambda key: AskCancelMove(id=key, by=BY, guests=tuple(stage.guests(self.cancel_move)))]


class CheckGuests(AskVerb):
    """`dr guest check`: one round of their checks, now."""

    check_guests: Annotated[Guests, "guests"]

    def asks(self, stage: Stage) -> list[Make]:
        return [lambda key: AskCheck(id=key, by=BY, guests=tuple(stage.guests(self.check_guests)))]


class FenceHost(AskVerb):
    """`dr host fence`."""

    fence_host: Annotated[HostRef, "the host"]
    reason: Reason = WHY

    def asks(self, stage: Stage) -> list[Make]:
        return [lambda key: AskFence(id=key, by=BY, reason=self.reason, host=self.fence_host)]


class FenceTest(AskVerb):
    """`dr fence test`."""

    fence_test: Annotated[HostRef, "the host"]

    def asks(self, stage: Stage) -> list[Make]:
        return [lambda key: AskFenceTest(id=key, by=BY, reason=WHY, host=self.fence_test)]


class ConfirmDown(AskVerb):
    """`dr host confirm-down`: a person's word that it is off."""

    confirm_down: Annotated[HostRef, "the host"]
    reason: Reason = "I stand beside it"

    def asks(self, stage: Stage) -> list[Make]:
        return [lambda key: AskConfirmDown(id=key, by=BY, reason=self.reason, host=self.confirm_down)]


class RemoveHost(AskVerb):
    """`dr host remove`."""

    remove_host: Annotated[HostRef, "the host"]

    def asks(self, stage: Stage) -> list[Make]:
        return [lambda key: AskRemoveHost(id=key, by=BY, host=self.remove_host)]


class ClearQuarantine(AskVerb):
    """`dr host clear-quarantine`: a host that was fenced too often takes guests again."""

    clear_quarantine: Annotated[HostRef, "the host"]

    def asks(self, stage: Stage) -> list[Make]:
        return [lambda key: AskClearQuarantine(id=key, by=BY, host=self.clear_quarantine)]


class Cordon(AskVerb):
    """`dr host cordon`: it takes no more guests, those on it stay."""

    cordon: Annotated[HostRef, "the host"]

    def asks(self, stage: Stage) -> list[Make]:
        return [lambda key: AskCordon(id=key, by=BY, reason=WHY, host=self.cordon)]


class Uncordon(AskVerb):
    """`dr host uncordon`."""

    uncordon: Annotated[HostRef, "the host"]

    def asks(self, stage: Stage) -> list[Make]:
        return [lambda key: AskUncordon(id=key, by=BY, host=self.uncordon)]


class Drain(AskVerb):
    """`dr host drain`: its guests are moved away, then it is set aside for maintenance."""

    drain: Annotated[HostRef, "the host"]
    deadline: Annotated[Seconds, "so long after it must be empty; what would be late is stopped"] = 0.0

    def asks(self, stage: Stage) -> list[Make]:
        return [lambda key: AskDrain(id=key, by=BY, reason=WHY, host=self.drain, deadline_s=self.deadline)]


class PlanEvacuation(Verb):
    """`dr plan evacuate`, saved: what drains of these hosts would do now is kept as a plan."""

    plan_evacuation: Annotated[Hosts, "the hosts, which are emptied together"]
    as_: Annotated[str, "a name for it"]
    deadline: Annotated[Seconds, "so long after it is applied they must be empty"] = 0.0

    def do(self, stage: Stage) -> None:
        self._when_ready(stage, stage.world.clock.now + stage.patience_s)

    def _when_ready(self, stage: Stage, until: float) -> None:
        """Somebody who meets a coordinator that is down, or has just started, looks again."""
        world = stage.world
        views = [world.coordinator.state.views.get(name, View()) for name in world.store.hosts]
        known = world.coordinator.listening and all(view.session and view.inventory for view in views)
        if known or (world.coordinator.listening and world.clock.now >= until):
            self._keep(stage)
        else:
            world.clock.after(ASK_AGAIN_S, lambda: self._when_ready(stage, until))

    def _keep(self, stage: Stage) -> None:
        coordinator = stage.world.coordinator
        draft = Draft(coordinator.state, coordinator.now)
        deadline = draft.now + self.deadline if self.deadline else 0.0
        wish = Wish(by=BY, at=draft.now, deadline=deadline)
        hosts = tuple(stage.hosts(self.plan_evacuation))
        members = [
            name for name in hosts if draft.host(name) is not None
        ]  # others are refused when it is applied
        told = forecast.of_drains(draft, dict.fromkeys(members, wish))
        stage.plans[self.as_] = AskApply(
            id="",
            by=BY,
            reason=WHY,
            plan=self.as_,
            hosts=hosts,
            approved=approval.approved(draft, told.guests),
            revision=draft.state.revision + draft.cluster.revision_offset,
            rules=approval.digest_of_rules(draft.config),
            deadline_s=self.deadline,
        )


class Apply(AskVerb):
    """`dr apply`."""

    apply: Annotated[str, "the name that `plan_evacuation` gave it"]
    anyway: Annotated[bool, "also if something is different now"] = False

    def do(self, stage: Stage) -> None:
        if self.apply in stage.plans:
            super().do(stage)
        else:  # nobody could make it yet
            stage.world.clock.after(ASK_AGAIN_S, lambda: self.do(stage))

    def asks(self, stage: Stage) -> list[Make]:
        return [lambda key: changed(stage.plans[self.apply], id=key, anyway=self.anyway)]


class Undrain(AskVerb):
    """`dr host undrain`: back in use."""

    undrain: Annotated[HostRef, "the host"]

    def asks(self, stage: Stage) -> list[Make]:
        return [lambda key: AskUndrain(id=key, by=BY, host=self.undrain)]


class LabelHost(AskVerb):
    """`dr host label`."""

    label_host: Annotated[HostRef, "the host"]
    labels: Annotated[dict[str, str], "keys and values"]

    def asks(self, stage: Stage) -> list[Make]:
        return [
            lambda key: AskLabel(id=key, by=BY, kind="host", name=self.label_host, labels=dict(self.labels))
        ]


class Pause(AskVerb):
    """`dr pause`: automation off."""

    pause: Annotated[str, "the reason"]

    def asks(self, stage: Stage) -> list[Make]:
        return [lambda key: AskPause(id=key, by=BY, reason=self.pause)]


class Resume(AskVerb):
    """`dr resume`: automation on; also a person's word that a restored store was looked over."""

    resume: Annotated[str, "the reason"]

    def asks(self, stage: Stage) -> list[Make]:
        return [lambda key: AskResume(id=key, by=BY, reason=self.resume)]


class AutoFence(Verb):
    """The configuration is read anew with `auto_fence` on or off."""

    auto_fence: Annotated[bool, "whether hosts are fenced without a person"]

    def do(self, stage: Stage) -> None:
        stage.reconfigure(lambda old: changed(old, auto_fence=self.auto_fence))


class AddRule(Verb):
    """The configuration is read anew with one rule more."""

    add_rule: Annotated[Rule, RULE, "the rule, as in `rules`"]

    def do(self, stage: Stage) -> None:
        stage.reconfigure(lambda old: changed(old, rules=(*old.rules, self.add_rule)))


class RemoveRule(Verb):
    """The configuration is read anew without that rule."""

    remove_rule: Annotated[str, "its name"]

    def do(self, stage: Stage) -> None:
        stage.reconfigure(
            lambda old: changed(old, rules=tuple(rule for rule in old.rules if rule.name != self.remove_rule))
        )


class Heal(Verb):
    """Everything that can be repaired is repaired: power, cables, devices, processes."""

    heal: Annotated[Literal["everything"], "always `everything`"]

    def do(self, stage: Stage) -> None:
        stage.world.heal()


VERBS: tuple[type[Verb], ...] = (
    Protect,
    Unprotect,
    Start,
    Stop,
    Set,
    Migrate,
    Relocate,
    CancelMove,
    CheckGuests,
    FenceHost,
    FenceTest,
    ConfirmDown,
    RemoveHost,
    ClearQuarantine,
    Cordon,
    Uncordon,
    Drain,
    PlanEvacuation,
    Apply,
    Undrain,
    LabelHost,
    Pause,
    Resume,
    AutoFence,
    AddRule,
    RemoveRule,
    Heal,
)
