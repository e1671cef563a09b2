"""How checks are written: every one can be written and read back, and nothing else is taken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dr.model.checks import (
    EVIDENCE_MAX,
    TEXT_MAX,
    Agent,
    Check,
    Http,
    Ping,
    Running,
    Screenshot,
    Tcp,
    bounded,
)
from dr.model.spelling import check_of, check_text, checks_of

ADDRESSES = st.ip_addresses().map(str)
PORTS = st.integers(1, 65535)
TEXTS = st.just("") | st.text(min_size=1, max_size=TEXT_MAX).filter(str.isprintable)
PATHS = st.text("abcXYZ019-._~%/?&=:", max_size=40).map(lambda rest: f"/{rest}")
HOSTS = st.sampled_from(["", "localhost", "www.example.org"])
CHECKS: st.SearchStrategy[Check] = st.one_of(
    st.sampled_from([Running(), Agent(), Screenshot()]),
    st.builds(Ping, address=ADDRESSES),
    st.builds(Tcp, address=ADDRESSES, port=PORTS, text=TEXTS),
    st.builds(
        Http,
        address=ADDRESSES,
        port=PORTS,
        path=PATHS,
        host=HOSTS,
        tls=st.just(True),
        verify=st.booleans(),
        status=st.just(0) | st.integers(100, 599),
        text=TEXTS,
    ),
    st.builds(Http, address=ADDRESSES, port=PORTS, path=PATHS, host=HOSTS, text=TEXTS),
)


@given(CHECKS)
def test_what_is_written_reads_back(check: Check) -> None:
    assert check_of(check_text(check)) == check


@pytest.mark.parametrize(
    ("text", "check"),
    [
        ("ping:fd00::5", Ping(address="fd00::5")),
        ("http://10.0.0.5", Http(address="10.0.0.5", port=80)),
        ("https://[fd00::5] verify=no", Http(address="fd00::5", port=443, tls=True, verify=False)),
        ("tcp:10.0.0.5:22 text=a = b text=c", Tcp(address="10.0.0.5", port=22, text="a = b text=c")),
    ],
)
def test_short_forms(text: str, check: Check) -> None:
    assert check_of(text) == check


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "must be running, agent, "),
        ("none", "must be running, agent, "),
        ("running now", "nothing can follow"),
        ("running:", "must be running, agent, "),
        ("ping:db", "an address, not a name"),
        ("ping:10.0.0.5:80", "a ping has no port"),
        ("ping:10.0.0.5 text=x", "nothing can follow"),
        ("tcp:10.0.0.5", "a port is 1 to 65535"),
        ("tcp:fd00::5:22", "a port is 1 to 65535"),
        ("tcp:10.0.0.5:70000", "a port is 1 to 65535"),
        ("tcp:10.0.0.5:22 status=200", "only text= can follow, each once"),
        ("http://10.0.0.5/ verify=no", "only host=, status=, text= can follow, each once"),
        ("http://10.0.0.5/ status=200 status=200", "each once"),
        ("http://10.0.0.5/ status=20", "a status from 100 to 599"),
        ("http://10.0.0.5/ text=", "1 to 200 printable characters after text="),
        ("http://10.0.0.5/ text=a\r\nHost: evil", "printable"),
        ("http://10.0.0.5/ host=a/b", "must be a host's name"),
        ("http://10.0.0.5/a#b", "must be running, agent, "),
        ("http://10.0.0.5/a\r\nX:y", "must be running, agent, "),
        ("http://me:secret@10.0.0.5/", "must be running, agent, "),
        ("http://10.0.0.5/" + "a" * 501, "500 characters at most"),
        ("https://10.0.0.5/", "must say verify=yes"),
        ("https://10.0.0.5/ verify=maybe", "must say verify=yes"),
    ],
)
def test_what_is_not_a_check_is_refused_with_what_is(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        check_of(text)
    assert why in str(caught.value)


@given(st.text(max_size=80))
def test_whatever_is_typed_is_a_check_or_refused(text: str) -> None:
    try:
        check = check_of(text)
    except ValueError:
        return
    assert check_of(check_text(check)) == check


def test_lists() -> None:
    assert checks_of(["none"]) == checks_of([]) == ()
    with pytest.raises(ValueError, match="8 checks at most"):
        checks_of([f"tcp:10.0.0.5:{port}" for port in range(1, 10)])
    with pytest.raises(ValueError, match=r"running stands here twice"):
        checks_of(["running", "running"])
    with pytest.raises(ValueError, match="must be running"):
        checks_of(["running", "none"])


@given(st.text())
def test_evidence_is_one_short_line(text: str) -> None:
    kept = bounded(text)
    assert len(kept) <= EVIDENCE_MAX
    assert kept.isprintable()
