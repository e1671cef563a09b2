"""What the two ends of a copy say to each other, in MessagePack, each after its length in four bytes.

The sender says Hello, the taker Welcome. Then, file by file and window by window, the sender asks what is held there
(Window, Held; always one window ahead), and sends what differs (Chunk with its bytes after it, Zero). Finish asks for
proof that the file is whole (Whole); when all are, and the sender's have not changed, it says Complete, the taker
Placed, the sender Bye. Alive is said, by who is busy, to show that it is. Failed ends it from either side.
"""

from __future__ import annotations

import msgspec

from dr.adapters.courier.chunks import Pieces
from dr.model.base import GuestId, Record

PROTOCOL = 1
MESSAGE_BYTES_MAX = 16 * 1024
HEAD_BYTES = 4


class Hello(Record, tag="hello"):
    """First of all: which copy this is, and the files' lengths, in the order that both were told."""

    protocol: int
    copy: str
    guest: GuestId
    lengths_b: tuple[int, ...]


class Welcome(Record, tag="welcome"):
    """Go on; where the sender was with this very taker, or else from the beginning."""

    taker: str  # another for each `take`


class Window(Record, tag="window"):
    """What is held there of these chunks? All that was sent before is written when the answer comes."""

    file: int
    window: int


class Held(Record, tag="held"):
    """The digest of each chunk of that window that is no hole there."""

    file: int
    window: int
    digests: dict[int, bytes]


class Chunk(Record, tag="chunk"):
    """This chunk is these pieces and otherwise zero; their bytes follow."""

    file: int
    index: int
    pieces: Pieces


class Zero(Record, tag="zero"):
    """This chunk is zero."""

    file: int
    index: int


class Finish(Record, tag="finish"):
    """All of that file was sent; it must come to this digest (`chunks.Total`)."""

    file: int
    total: bytes


class Whole(Record, tag="whole"):
    """That file is durable, was read again, and comes to that digest."""

    file: int


class Complete(Record, tag="complete"):
    """All files are whole, and none changed at the source: put them in their places."""


class Placed(Record, tag="placed"):
    """They are."""


class Bye(Record, tag="bye"):
    """The sender knows: nobody waits for it any more."""


class Alive(Record, tag="alive"):
    """Busy with disks, and well."""


class Failed(Record, tag="failed"):
    """Why this ends. Final: to try again would change nothing."""

    reason: str
    final: bool = True


Message = (
    Hello | Welcome | Window | Held | Chunk | Zero | Finish | Whole | Complete | Placed | Bye | Alive | Failed
)

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Message).decode
