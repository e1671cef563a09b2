"""Whether the CPU that a guest runs with can be had elsewhere: refused only where it surely cannot."""

from __future__ import annotations

from typing import Any

import pytest

from dr.core import cpus, moves, preflight
from dr.model.base import changed
from dr.model.events import Reported
from dr.model.facts import CpuOffer, HostFacts, RunningCpu
from dr.model.preflight import Check, CheckName, Verdict
from tests.core.build import OFFER, Bench, domain, facts, guest, host

OLD = CpuOffer(models=("Nehalem",), model="Nehalem", vendor="Intel", features=("sse4.2",))
AMD = changed(OFFER, vendor="AMD")
MORE = changed(OFFER, features=("avx2", "avx512f", "sse4.2"))


def running(**fields: Any) -> RunningCpu:
    return changed(RunningCpu(domain_type="kvm", vendor="Intel", features=("avx2", "sse4.2")), **fields)


def bench(cpu: RunningCpu | None = None, here: CpuOffer = OFFER, **there: CpuOffer | None) -> Bench:
    """g1 runs on h1 with that CPU; what h2 and h3 offer, None: they cannot tell."""
    made = Bench("h1", "h2", "h3")
    offers: dict[str, CpuOffer | None] = {"h1": here, "h2": OFFER, "h3": OFFER, **there}
    for name, offer in offers.items():
        fields: dict[str, Any] = {"cpu_offers": {"kvm": offer} if offer else {}, "libvirt_version": "9.0.0"}
        made.put(host(name, facts=facts(name, live_migration=True, **fields)))
    if cpu is not None:
        h1 = made.host("h1")
        made.put(changed(h1, facts=changed(h1.facts, running_cpus={"c1": cpu})))
    made.put(guest("g1", "h1"))
    made.see("h1", domain("g1", ties=()))
    return made


def told(made: Bench, to: str = "h2") -> Check | None:
    return cpus.check(made.draft(), made.guest("g1"), made.host(to))


def verdict(made: Bench, to: str = "h2") -> Verdict:
    found = told(made, to)
    return found.verdict if found is not None else Verdict.OK


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (bench(), Verdict.OK),
        (bench(h2=MORE), Verdict.OK),
        (bench(h2=OLD), Verdict.BLOCKED),
        (bench(running(features=("sse4.2",)), h2=OLD), Verdict.OK),  # it has less than its host
        (bench(running(features=("avx2", "kvm-only"))), Verdict.OK),  # its own host does not name that either
        (bench(h2=AMD), Verdict.BLOCKED),
        (bench(running(vendor=""), h2=AMD), Verdict.WARNING),
        (bench(running(vendor=""), h2=changed(AMD, features=("sse4.2",))), Verdict.BLOCKED),
        (bench(running(own=True, vendor="", features=())), Verdict.OK),
        (bench(running(own=True, vendor="", features=()), h2=MORE), Verdict.WARNING),
        (bench(running(own=True, vendor="", features=()), h2=OLD), Verdict.BLOCKED),
        (bench(running(own=True, vendor="", features=()), h2=AMD), Verdict.BLOCKED),
        (bench(h2=None), Verdict.UNKNOWN),
        (bench(h2=changed(OFFER, features=())), Verdict.UNKNOWN),
        (bench(here=changed(OFFER, features=())), Verdict.UNKNOWN),
        (
            bench(running(domain_type="qemu"), h2=OLD),
            Verdict.UNKNOWN,
        ),  # KVM's CPUs say nothing of emulated ones
    ],
)
def test_compared(made: Bench, expected: Verdict) -> None:
    assert verdict(made) is expected
    assert all(check.verdict is expected for check in _all(made) if check.name is CheckName.CPU)
    assert bool(moves.objections(made.draft(), made.guest("g1"), "h2")) is (expected is Verdict.BLOCKED)


def _all(made: Bench) -> tuple[Check, ...]:
    return preflight.of(made.draft(), made.guest("g1"), "h2").checks


def test_a_guest_whose_cpu_is_not_told_is_not_refused() -> None:
    made = bench(h2=OLD)
    made.see("h1", domain("g1", ties=(), cpu=""))
    assert verdict(made) is Verdict.UNKNOWN
    made.see("h1", domain("g1", ties=(), cpu="not told yet"))
    assert verdict(made) is Verdict.UNKNOWN
    assert moves.objections(made.draft(), made.guest("g1"), "h2") == []


def test_a_guest_that_is_not_seen_has_no_cpu_that_is_known() -> None:
    made = bench()
    made.silence("h1")
    found = told(made)
    assert found is not None
    assert (found.verdict, found.refuses) == (Verdict.UNKNOWN, False)
    assert chosen(made) == "", "and it goes nowhere, for another reason"


def test_another_libvirt_may_only_not_know_their_names() -> None:
    made = bench(h2=OLD)
    there = made.host("h2")
    made.put(changed(there, facts=changed(there.facts, libvirt_version="8.0.0")))
    found = told(made)
    assert found is not None
    assert found.verdict is Verdict.UNKNOWN
    assert "avx2; libvirt is 8.0.0 there, 9.0.0 on h1" in found.text


def test_what_is_missing_and_what_would_do() -> None:
    both = changed(OFFER, models=("Skylake", "Nehalem", "486"))
    found = told(bench(here=both, h2=changed(OLD, models=("Nehalem", "486"))))
    assert found is not None
    assert found.text == "h2 does not offer CPU features that g1 runs with: avx2"
    assert "another host, or <cpu mode='custom'><model>Nehalem</model></cpu>" in found.fix
    many = tuple(f"f{number}" for number in range(8))
    crowd = bench(running(features=many), here=changed(OFFER, features=many), h2=OLD)
    found = told(crowd)
    assert found is not None
    assert found.text.endswith("f0, f1, f2, f3, f4, f5 and 2 more")
    assert found.fix == "another host", "they have no model in common"


# ---- which host of all


def chosen(made: Bench) -> str:
    return preflight.of(made.draft(), made.guest("g1")).to


def test_it_goes_where_its_cpu_is() -> None:
    assert chosen(bench(h2=OLD)) == "h3"
    assert chosen(bench(h3=OLD)) == "h2"
    draft = (made := bench(h2=OLD)).draft()
    assert moves.begin(draft, made.guest("g1")) == []
    after = draft.guest("g1")
    assert after is not None
    assert after.move is not None
    assert after.move.destination == "h3"


def test_a_host_that_is_sure_to_do_comes_first() -> None:
    own = running(own=True, vendor="", features=())
    for perhaps in (None, changed(OFFER, features=())):
        assert chosen(bench(h2=perhaps)) == "h3"
        assert chosen(bench(h2=perhaps, h3=OLD)) == "h2", "and one that may do after that"
    assert chosen(bench(own, h2=MORE)) == "h3"
    assert chosen(bench(own, h2=MORE, h3=OLD)) == "h2"


def test_nowhere_names_each_host_and_what_it_lacks() -> None:
    found = preflight.of((made := bench(h2=OLD, h3=AMD)).draft(), made.guest("g1"))
    assert found.to == ""
    text = "; ".join(found.refusals)
    assert "h2 does not offer CPU features that g1 runs with: avx2" in text
    assert "g1 runs with a CPU of Intel, and that of h3 is of AMD" in text


def test_those_that_go_along_have_their_own_say() -> None:
    made = bench(running(features=("sse4.2",)), h2=OLD)
    h1 = made.host("h1")
    made.put(changed(h1, facts=changed(h1.facts, running_cpus=h1.facts.running_cpus | {"c2": running()})))
    made.put(guest("g2", "h1"))
    made.see("h1", domain("g2", ties=(), cpu="c2"))
    draft = made.draft()
    assert preflight.elsewhere(draft, made.guest("g1"), {"h1"}).host == "h2"
    assert preflight.elsewhere(draft, made.guest("g1"), {"h1"}, (made.guest("g2"),)).host == "h3"


def test_a_cold_start_asks_for_no_more_than_the_definition() -> None:
    """The same guest may start where it could not go live."""
    made = bench(h2=OLD, h3=OLD)
    assert preflight.cold(made.draft(), made.guest("g1"), "h2").refusals == []


# ---- what is kept


def test_the_same_cpus_of_many_hosts_are_kept_once() -> None:
    made = Bench("h1", "h2")
    for name in ("h1", "h2"):
        cpu = RunningCpu(domain_type="kvm", features=("a", "b"))
        offer = CpuOffer(models=("M",), features=("a", "b"))
        told_facts: HostFacts = facts(name, cpu_offers={"kvm": offer}, running_cpus={"c": cpu})
        made.send(Reported(host=name, session=f"s-{name}", facts=told_facts))
    one, other = made.host("h1").facts, made.host("h2").facts
    assert one.cpu_offers["kvm"] is other.cpu_offers["kvm"]
    assert one.running_cpus["c"] is other.running_cpus["c"]
