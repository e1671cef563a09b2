"""Elements of a page: a tree, so that text is text whatever stands in it. Not here: pages (`drill_page`)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from lxml import etree

Node = etree._Element
Child = Node | str

# What no page can hold: control characters, halves of characters.
UNFIT = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def fit(text: str) -> str:
    return UNFIT.sub("\ufffd", text)


def node(tag: str, *inside: Child | Mapping[str, str], **attributes: str) -> Node:
    """An element. A mapping gives attributes whose names are no words of Python; so do keywords."""
    made = etree.Element(tag)
    last: Node | None = None
    for each in inside:
        if isinstance(each, str):
            if last is None:
                made.text = (made.text or "") + fit(each)
            else:
                last.tail = (last.tail or "") + fit(each)
        elif isinstance(each, Mapping):
            attributes |= each
        else:
            made.append(each)
            last = each
    for name, value in attributes.items():
        if value:
            made.set(name, fit(value))
    return made
