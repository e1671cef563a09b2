"""Volatile evidence: what is seen of each host in this term, and which effects are still out.

Here: what a restart may lose, on purpose: every decision is right without it. Not here: durable records
(`dr.model.records`), who keeps this and when it is taken over (`state`).
"""

from __future__ import annotations

from dr.core.convergence import Course
from dr.model.base import GuestId, HostName, Record
from dr.model.checks import CheckResult
from dr.model.commands import Testimony
from dr.model.evidence import DeviceReading, PowerReport
from dr.model.facts import DirtyPoint, GuestFacts, Progress

TICKETED = frozenset(
    {"start", "stop", "clean", "receive", "migrate", "resume", "discard", "send", "take"}
)  # kinds of Pending
LOOKS = frozenset({"probe", "look", "power"})  # `detail` is the host that is looked at
OF_SESSION = TICKETED | {"testify", "protect", "describe", "probe", "drill", "drill-end", "exec"}


class LookSeen(Record):
    """What one witness said of a host. `answered` None: asked, no answer yet."""

    witness: HostName  # "" = the coordinator itself
    asked: float
    ended: float = 0.0
    answered: bool | None = None


class TurnedAway(Record):
    """Live moves of one guest to one host that came to nothing, in a row."""

    times: int
    at: float  # the last
    why: str


class Sampled(Record):
    """How fast a guest makes memory dirty, and when that was measured, in leader time."""

    points: tuple[DirtyPoint, ...]
    at: float


class Bidden(Record):
    """What a host that goes down was told in this session: to wait, or (False) that it may go on."""

    wait: bool | None = None  # None: nothing yet
    at: float = 0.0


class View(Record):
    """Volatile evidence about one host. Gone after a restart, on purpose."""

    session: str = ""  # of the live link; empty: down
    process: str = ""  # of its agent, as its hello tells it: another one after each restart
    acked_epoch: int = 0  # the epoch that its agent has acknowledged in this term
    heard: float = 0.0  # leader time of the last message; 0 with no session = never in this term
    fresh: float = 0.0  # issue time of the newest nonce that it echoed: it lived at or after this
    interval: float = 0.0  # measured mean between beats
    deviation: float = 0.0
    goodbye: str = ""
    round_at: float = 0.0  # when the current round of looks began; 0 = none
    # The last complete round before it, if nobody heard the host and no device said on.
    unheard_at: float = 0.0
    looks: dict[HostName, LookSeen] = {}
    power: tuple[PowerReport, ...] = ()
    power_at: float = 0.0
    shown: dict[str, DeviceReading] = {}  # by device: the last reading in which it answered, however old
    guests: dict[GuestId, GuestFacts] = {}
    guests_at: float = 0.0  # when the inventory came
    judged_at: float = 0.0  # the round (its `round_at`) that was judged last
    observed_at: float = 0.0
    # What that inventory told of guests that a testimony has shown to be gone since. Their agent does not repeat it.
    overruled: dict[GuestId, GuestFacts] = {}
    inventory: bool = False  # whether `guests` is a full inventory of this session
    verdict: str = ""
    power_on_at: float = 0.0
    drained_at: float = 0.0  # when its guests were last tried to be moved away
    # Definitions asked for: digest, when, why it failed.
    described: dict[GuestId, tuple[str, float, str]] = {}
    told_moves: int = 0  # State.moves when the list was sent last
    pushed: tuple[int, float] = (0, 0.0)  # the protected list sent last: its version, and when
    asked: dict[GuestId, tuple[int, float]] = {}  # testimonies asked for: generation, and when
    # It could take guests without a doubt since then; 0 = it could not (`core.failback`).
    well_since: float = 0.0
    spare_at: float = 0.0  # when it was last asked what would not fit if this host died (`core.spare`)
    stranded: int = 0  # guests of it that would not
    stranded_why: tuple[str, ...] = ()  # some of them, with their reasons
    stranded_since: float = 0.0  # 0 = all would fit
    # Of guests that are being moved: the last testimony, and when.
    told: dict[GuestId, tuple[Testimony, float]] = {}
    cleaned: dict[GuestId, float] = {}  # when a clean-up was last asked for
    progress: dict[GuestId, Progress] = {}  # of what goes out of it, as last told in this session
    courses: dict[GuestId, Course] = {}  # what was made of that
    sent_mib_s: tuple[float, ...] = ()  # all that went out of it together, at the last moments when any did
    turned_away: dict[
        GuestId, TurnedAway
    ] = {}  # live moves to it that came to nothing: others are tried first
    fails_since: float = (
        0.0  # since when its hardware has been told to fail, beyond what was done about it; 0 = not
    )
    unseen: dict[
        str, float
    ] = {}  # parts that it was drained for and that are not told of any more: since when
    stopped_at: float = 0.0  # when guests that are late for its drain's deadline were last told to stop
    samples: dict[GuestId, Sampled] = {}  # of guests that it runs
    sampling_at: float = -1e9  # when it was last asked to measure some
    bidden: Bidden = Bidden()
    judged_leaving_at: float = 0.0  # when it was last asked whether anybody can still leave it
    left_at: float = 0.0  # when last somebody was on the way from it, or could have been
    aborted: dict[GuestId, float] = {}  # when its host was last asked to end a migration


class Checked(Record):
    """The newest rounds of a guest's checks: the one that is under way, and the last one that ended."""

    began: float  # of the newest
    heard: tuple[CheckResult, ...] = ()  # what is known of the one that is under way
    ended: float = 0.0  # of the last that did; 0 = none has
    results: tuple[CheckResult, ...] = ()  # of that one, in the policy's order
    failures: int = (
        0  # rounds in a row that failed, since it runs as it does now; what could not be made is none
    )


class Pending(Record):
    """An effect whose result is still out."""

    kind: (
        str  # see TICKETED and OF_SESSION; also "look", "power", "fence", "on", "check", "inside", "command"
    )
    host: HostName
    guest: GuestId = ""
    at: float = 0.0
    deadline: float = 0.0
    operation: str = ""
    generation: int = 0
    detail: str = ""
