"""The lab: several KVM hosts on one machine, for real. See README.md beside this file.

from integration.lab import Lab
lab = Lab("mytest").up(hosts=3)
"""

from integration.lab.disklog import BootSpan, DiskReport
from integration.lab.guests import Guest, GuestAnswer
from integration.lab.lab import BmcAccess, Lab, Presence
from integration.lab.layout import LabError, MachineFrozen, MachineOff
from integration.lab.machine import Machine
from integration.lab.poller import Outage, Poller

__all__ = [
    "BmcAccess",
    "BootSpan",
    "DiskReport",
    "Guest",
    "GuestAnswer",
    "Lab",
    "LabError",
    "Machine",
    "MachineFrozen",
    "MachineOff",
    "Outage",
    "Poller",
    "Presence",
]
