"""The kinds that bgpd manages, and how people may call them."""

from __future__ import annotations

from typing import Final

from bgpd.core.resource.bgp import BGPCONFIGURATION, BGPFILTER, BGPPEER
from bgpd.core.resource.kind import Kind
from bgpd.core.resource.nodes import FELIXCONFIGURATION, NODE
from bgpd.core.resource.pools import IPAMCONFIGURATION, IPPOOL, IPRESERVATION

KINDS: Final = (
    IPAMCONFIGURATION,
    FELIXCONFIGURATION,
    BGPCONFIGURATION,
    IPPOOL,
    IPRESERVATION,
    BGPFILTER,
    BGPPEER,
    NODE,
)
"""In the order of export and import: what others refer to comes first."""

_WORDS: Final = {
    word.lower(): kind for kind in KINDS for word in (kind.kind, kind.plural, f"{kind.kind}s", *kind.short)
}


def find(word: str) -> Kind | None:
    """Return the kind that *word* means: singular, plural or short name, in any case."""
    return _WORDS.get(word.lower())


def named(kind: object) -> Kind | None:
    """Return the kind that a document's ``kind`` names, exactly as written."""
    return next((one for one in KINDS if one.kind == kind), None)
