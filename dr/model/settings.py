"""The settings that decisions read, as a whole. Their parts are in `policy` and `schedules`."""

from __future__ import annotations

from dr.model.allowed import Allowed
from dr.model.base import HostName, Record
from dr.model.hooks import Hooks
from dr.model.policy import GuestPolicy, HostPolicy, Limits, OnCritical, OnLeave, Rule, Timers
from dr.model.schedules import Schedule


class Settings(Record):
    """Everything `decide` may know that is not a record or an observation."""

    timers: Timers = Timers()
    limits: Limits = Limits()
    hosts: dict[HostName, HostPolicy] = {}
    guests: GuestPolicy = GuestPolicy()  # of guests from the moment when they are protected
    rules: tuple[Rule, ...] = ()
    on_leave: OnLeave = OnLeave.MIGRATE
    on_critical: OnCritical = OnCritical.ALERT
    auto_fence: bool = True
    commands: dict[str, Allowed] = {}  # that playbooks may run
    schedules: dict[str, Schedule] = {}
    hooks: Hooks = Hooks()
