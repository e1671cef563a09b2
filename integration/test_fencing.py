"""Fencing on real guests: when it must happen, when it must not, and what counts as proof.

Not here: the fence adapter against a BMC alone (test_fencing_adapter), failover's own course (test_failover).
"""

from __future__ import annotations

import re
import threading
import time

import pytest

from integration import watch
from integration.conftest import Sites
from integration.site import Site
from integration.watch import GUESTS, REFUSED, SETTINGS, Log, Places, configured, run, wait_for


@pytest.fixture
def site(sites: Sites) -> Site:
    """The shared site: three hosts, GUESTS running, nothing wrong."""
    return watch.ready(sites)


def empty_host(site: Site) -> str:
    """A host without a guest; there is one after each failover, else one is made by a fencing."""
    taken = {host for name in GUESTS for host in site.lab.qemu_hosts(name)}
    free = [name for name in site.lab.host_names if name not in taken]
    if not free:
        places = Places(site)
        lost = min(site.lab.host_names, key=lambda host: len(places.on(host)))
        site.dr("host", "fence", lost, "--yes", "--reason", "make room")
        places.wait_moved(lost)
        site.wait(site.all_online, 30, "its return")
        free = [lost]
    return free[0]


# ---- when to fence, and when not


def test_management_link_alone_cut_is_not_fenced(site: Site) -> None:
    """A host that its peers hear on the storage network keeps its guests; people are told that its agent is lost."""
    places, log = Places(site), Log(site)
    lost = places.fullest()
    site.lab.faults.link_down(lost, "mgmt")
    log.wait_alert(f"host/{lost}/agent-lost")
    time.sleep(3)
    said = run(site, "status").stdout
    assert f"the agent of {lost} is lost; the host lives, nothing is fenced" in said
    assert not log.lines("host.fencing")
    places.assert_unmoved()
    site.lab.faults.heal()
    log.wait("host.agent_back", host=lost)
    site.wait(lambda: not site.status()["alerts"], 20, "the alert to clear")
    places.assert_unmoved()


def test_all_links_cut_is_fenced_first_then_restarted(site: Site) -> None:
    """Guests that live on a cut-off host are started elsewhere only after that host was really switched off."""
    places, log = Places(site), Log(site)
    lost = places.fullest()
    moved = places.on(lost)
    site.lab.faults.link_down(lost)
    together = []
    end = time.monotonic() + watch.MOVED_S
    while not all(set(site.lab.qemu_hosts(name)) - {lost, ""} for name in moved):
        assert time.monotonic() < end, log.text()[-3000:]
        together += [name for name in moved if len(site.lab.qemu_hosts(name)) > 1]
    assert not together
    places.assert_moved_once(lost)
    kinds = log.kinds()
    assert kinds.index("fence.off") < kinds.index("host.fenced") < kinds.index("guest.starting")


def test_with_its_bmc_dead_as_well_everything_waits_for_confirm_down(site: Site) -> None:
    """What cannot be proven off keeps its guests until a person says so, and status says exactly that."""
    places, log = Places(site), Log(site)
    lost = places.fullest()
    with configured(site, SETTINGS.replace("limits: {", "limits: {fence_attempts_per_level: 1, ")):
        site.lab.faults.bmc_dead(lost)
        site.lab.faults.link_down(lost)
        log.wait("fence.failed", 30, host=lost)
        said = run(site, "status").stdout
        assert f"{lost} cannot be proven off; nothing of it is restarted" in said
        assert f"dr host confirm-down {lost}" in said
        waits = [line for line in said.splitlines() if re.match(rf"  ({'|'.join(places.on(lost))}):", line)]
        assert len(waits) == len(places.on(lost)), said
        places.assert_unmoved()
        site.lab.host(lost).power_off()
        log = Log(site)
        confirm(site, lost)
        places.wait_moved(lost)
        assert "confirmed that it is off: pulled the plug" in log.text()


def confirm(site: Site, host: str) -> None:
    """`dr host confirm-down`, again as long as it is only refused for a fencing that is under way."""
    while True:
        done = run(site, "host", "confirm-down", host, "--yes", "--reason", "pulled the plug")
        if done.returncode == 0:
            return
        assert "a fencing of it is under way" in done.stderr, done.stderr
        time.sleep(0.5)


def test_swapped_bmc_is_caught_before_it_switches_another_machine(site: Site) -> None:
    """A BMC with another GUID than the proven one is neither used nor believed."""
    places, log = Places(site), Log(site)
    lost = places.fullest()
    innocent = next(name for name in site.lab.host_names if name != lost)
    boot = site.lab.host(innocent).boot_id
    site.lab.faults.bmc_swap(lost, innocent)
    site.lab.faults.link_down(lost)
    failed = log.wait("fence.failed", host=lost)
    assert "is not the device that was proven" in failed["event"]
    assert not log.lines("fence.begin")
    assert site.lab.host(innocent).is_on()
    assert site.lab.host(innocent).boot_id == boot
    places.assert_unmoved()


def test_fence_asked_by_a_person_does_not_switch_another_machine_through_a_swapped_bmc(site: Site) -> None:
    """`dr host fence` reads the BMC first: with another identity it switches nothing, and says why."""
    places = Places(site)
    host = places.fullest()
    innocent = next(name for name in site.lab.host_names if name != host)
    site.lab.faults.bmc_swap(host, innocent)
    done = run(site, "host", "fence", host, "--yes", "--reason", "test")
    assert done.returncode == 1
    assert "is not the device that was proven" in done.stderr
    assert site.lab.host(innocent).is_on()
    assert site.lab.host(host).is_on()
    places.assert_unmoved()


def test_bmc_that_says_off_for_another_machine_is_no_proof(site: Site) -> None:
    """Off, said by a BMC with the identity of another machine, restarts nothing."""
    other = empty_host(site)
    places, log = Places(site), Log(site)
    lost = places.fullest()
    site.lab.host(other).power_off()
    log.wait("host.fenced", host=other)
    site.lab.faults.bmc_swap(lost, other)
    site.lab.faults.link_down(lost)
    failed = log.wait("fence.failed", host=lost)
    assert "is not the device that was proven" in failed["event"]
    time.sleep(1)
    assert not log.lines("host.fenced", lost)
    assert "is not the device that was proven" in run(site, "status").stdout
    places.assert_unmoved()


@pytest.mark.parametrize("lie", ["lie-off", "ignore"])
def test_success_of_a_fence_agent_is_no_proof_while_the_host_answers(site: Site, lie: str) -> None:
    """A fence that says success, of a host that still answers or reads on, restarts nothing and raises an alert."""
    places, log = Places(site), Log(site)
    lost = places.fullest()
    site.lab.faults.bmc_lie(lost, lie)  # type: ignore[arg-type]  # both are modes
    with configured(site, SETTINGS.replace("limits: {", "limits: {fence_attempts_per_level: 1, ")):
        run(site, "host", "fence", lost, "--yes", "--no-wait", "--reason", "test")
        why = log.wait("host.online", host=lost)["event"]
        if lie == "lie-off":
            assert "fence devices say off, yet the host answers" in why
            assert "is not believed; nothing of it is restarted" in run(site, "status").stdout
        else:
            assert "it answers and was not switched off" in why
        assert not log.lines("host.fenced")
        assert not log.lines("guest.recovering")
        places.assert_unmoved()


def test_silent_host_whose_fence_does_nothing_is_not_dead(site: Site) -> None:
    """All links cut, the BMC says success and switches nothing: nothing restarts, and all is well after healing."""
    places, log = Places(site), Log(site)
    lost = places.fullest()
    site.lab.faults.bmc_lie(lost, "ignore")
    site.lab.faults.link_down(lost)
    log.wait("fence.failed", 20, host=lost)
    assert not log.lines("host.fenced")
    places.assert_unmoved()
    # The BMC comes to its senses later: else it may obey the fencing that goes on.
    site.lab.faults.link_up(lost)
    log.wait("host.online", host=lost)
    places.assert_unmoved()


def test_host_that_reboots_by_itself_between_fence_and_proof_is_not_fenced_again(site: Site) -> None:
    """Off as the device says, and on again before the last look: its new boot is the proof, and it is left alone."""
    places, log = Places(site), Log(site)
    lost = places.fullest()
    site.lab.faults.link_down(lost)
    log.wait("fence.off", host=lost)
    site.lab.faults.link_up(lost)
    site.lab.host(lost).power_on()
    boot = site.lab.host(lost).boot_id
    places.wait_moved(lost) if log.lines("host.fenced", lost) else settle_after_reboot(site, places, lost)
    log.wait("host.online", 30, host=lost)
    assert len(log.lines("fence.begin", lost)) == 1
    assert site.lab.host(lost).boot_id == boot, "it was fenced a second time"


def settle_after_reboot(site: Site, places: Places, lost: str) -> None:
    """Each guest of the rebooted host booted once more, anywhere."""
    for name in places.on(lost):
        wait_for(site, lambda name=name: watch.boots(site, name) > places.boots[name], 40, f"{name} to boot")
        site.lab.guest(name).wait_answering(30)
    site.assert_once(*GUESTS)
    assert all(watch.boots(site, name) == places.boots[name] + 1 for name in places.on(lost))


def test_more_than_half_silent_with_dead_bmcs_is_not_fenced(site: Site) -> None:
    """The brake: two of three hosts gone dark at once, power unknown, is likelier a fault here. Hold, and say so."""
    places, log = Places(site), Log(site)
    lost = ["h1", "h2"]
    for host in lost:
        site.lab.faults.bmc_dead(host)
        site.lab.faults.link_down(host)
    for host in lost:
        log.wait("host.held", 30, host=host)
    time.sleep(2)
    assert "more than half, so the fault is likelier here than there" in run(site, "status").stdout
    assert not log.lines("fence.begin")
    places.assert_unmoved()
    site.lab.faults.heal()
    site.wait(site.all_online, 20, "both to be online again")
    places.assert_unmoved()


# ---- people


def test_fence_test_is_refused_for_a_host_with_guests(site: Site) -> None:
    """`dr fence test` names every guest that stands in the way and cuts no power."""
    places = Places(site)
    host = places.fullest()
    done = run(site, "fence", "test", host, "--yes", "--reason", "test")
    assert done.returncode == REFUSED, done.stderr
    assert (
        f"guests run on it, and the test cuts its power: {', '.join(sorted(places.on(host)))}" in done.stderr
    )
    places.assert_unmoved()


def test_fence_test_proves_identity(site: Site) -> None:
    """`dr fence test` power-cycles an empty host and remembers the BMC's own GUID."""
    host = empty_host(site)
    places = Places(site)
    boot = site.lab.host(host).boot_id
    site.dr("fence", "test", host, "--yes", "--reason", "test")
    assert site.lab.host(host).boot_id != boot
    (row,) = [row for row in site.dr_json("fence", "list")["items"] if row["host"] == host]
    assert row["proven"]
    assert row["guid"].replace("-", "") == site.lab.bmc(host).guid.replace("-", "")
    places.assert_unmoved()


def test_fence_of_a_live_host_moves_its_guests_and_switches_it_on_again(site: Site) -> None:
    """`dr host fence` on a healthy host: off, its guests elsewhere, on again by policy, online."""
    places, log = Places(site), Log(site)
    host = places.fullest()
    boot = site.lab.host(host).boot_id
    site.dr("host", "fence", host, "--yes", "--reason", "test")
    places.wait_moved(host)
    log.wait("host.online", 30, host=host)
    assert site.lab.host(host).boot_id != boot
    assert len(log.lines("fence.begin")) == 1
    places.assert_moved_once(host)


def test_host_fenced_too_often_is_quarantined_until_a_person_clears_it(site: Site) -> None:
    """Quarantined, a host stays off and takes no guests; `dr host clear-quarantine` ends that."""
    places, log = Places(site), Log(site)
    host = places.fullest()
    with configured(site, SETTINGS.replace("fences_per_window: 1000", "fences_per_window: 1")):
        site.dr("host", "fence", host, "--yes", "--reason", "test")
        places.wait_moved(host)
        assert f"dr host clear-quarantine {host}" in run(site, "status").stdout
        assert site.hosts()[host]["conditions"] == ["quarantined"]
        time.sleep(1)
        assert not log.lines("fence.on")
        site.dr("host", "clear-quarantine", host, "--reason", "repaired")
        log.wait("host.online", 30, host=host)
    assert site.hosts()[host]["conditions"] == []
    places.assert_moved_once(host)


def test_host_stays_off_after_fencing_where_policy_says_so(site: Site) -> None:
    """`power_on_after_fence: false` leaves a fenced host for a person to look at."""
    places, log = Places(site), Log(site)
    host = places.fullest()
    off = (f"  {host}:\n", f"  {host}:\n    power_on_after_fence: false\n")
    with configured(site, SETTINGS, replace=off):
        site.dr("host", "fence", host, "--yes", "--reason", "test")
        places.wait_moved(host)
        time.sleep(1)
        assert not log.lines("fence.on")
        assert not site.lab.host(host).is_on()


def test_confirm_down_is_refused_with_every_sign_of_life(site: Site) -> None:
    """A person's word does not count against a link that is up, peers that hear the host, or a BMC that says on."""
    places, log = Places(site), Log(site)
    host = places.fullest()
    words = ("host", "confirm-down", host, "--yes", "--reason", "I believe so")
    connected = run(site, *words)
    assert connected.returncode == REFUSED
    assert "its agent answers" in connected.stderr
    site.lab.faults.link_down(host, "mgmt")
    log.wait_alert(f"host/{host}/agent-lost")
    heard = run(site, *words)
    assert heard.returncode == REFUSED
    assert "witnesses hear it" in heard.stderr
    assert "its fence device says that it is on" in heard.stderr
    places.assert_unmoved()


def test_secrets_appear_nowhere(site: Site) -> None:
    """A BMC's password is in the configuration and on fence agents' stdin: in no log, event, answer or command line."""
    places, log = Places(site), Log(site)
    host = places.fullest()
    secrets = [site.lab.bmc(name).password for name in site.lab.host_names]
    seen: list[str] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            # Debian's fence_ipmilan itself hands it to ipmitool as -P, which blots it out at its start.
            seen.extend(line for line in watch.command_lines(site.lab.ctl) if "ipmitool -I" not in line)
            time.sleep(0.005)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        site.dr("host", "fence", host, "--yes", "--reason", "test")
    finally:
        done.set()
        looking.join()
    places.wait_moved(host)
    said = {
        "command lines": "\n".join(seen),
        "log": site.lab.ctl.service_log("coordinator"),
        "events": site.dr("events", "--lines", "5000", "-o", "json"),
        "config show": site.dr("config", "show") + site.dr("config", "show", "-o", "json"),
        "fence list": site.dr("fence", "list", "-o", "json"),
        "host show": site.dr("host", "show", host, "-o", "json"),
        "doctor": run(site, "doctor").stdout,
        "metrics and jobs": site.dr("job", "list", "-o", "json"),
    }
    assert "fence_ipmilan" in said["command lines"], "the fence agent was not seen at work"
    assert "********" in said["config show"]
    assert log.lines("fence.off")
    assert {where for where, text in said.items() for secret in secrets if secret in text} == set()
    places.assert_moved_once(host)
