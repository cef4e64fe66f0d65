"""Is a document right, alone and against the other resources? All that is wrong is named, not the first of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from bgpd.core.resource import kinds, rules
from bgpd.core.resource.bgp import BGPFILTER, BGPPEER
from bgpd.core.resource.kind import Kind
from bgpd.core.resource.pools import IPPOOL
from bgpd.core.resource.schema import Choice, Fields, Finding, Tested, Text, TextMap, unknown
from bgpd.model.prefix import Prefix

API_VERSION: Final = "projectcalico.org/v3"
VALUE_SHOWN: Final = 80
"""Characters of a wrong value that are shown: enough to find it."""

Resource = dict[str, Any]
Known = Mapping[tuple[str, str], Resource]
"""Resources by kind and name."""


class Defect(msgspec.Struct, frozen=True):
    """One thing that is wrong with a document."""

    document: str
    """Where it was read, and what it is about."""
    path: str
    value: Any
    rule: str

    def __str__(self) -> str:
        head = f"{self.document}: {self.path}" if self.path else self.document
        if self.value is None:
            return f"{head}: {self.rule}"
        shown = msgspec.json.encode(self.value, enc_hook=str).decode()
        if len(shown) > VALUE_SHOWN:
            shown = f"{shown[:VALUE_SHOWN]}…"
        return f"{head}: {shown}: {self.rule}"


class Document(msgspec.Struct, frozen=True):
    """A resource, and where it comes from."""

    origin: str
    kind: Kind
    name: str
    resource: Resource

    @property
    def title(self) -> str:
        about = f"{self.kind.kind} {self.name}"
        return f"{self.origin} ({about})" if self.origin else about

    @property
    def revision(self) -> int | None:
        """The mod_revision that the document says it rests on."""
        text = self.resource["metadata"].get("resourceVersion")
        return int(text) if text not in (None, "") else None

    @property
    def spec(self) -> dict[str, Any]:
        return self.resource.get("spec") or {}


def read(origin: str, value: Any) -> tuple[Document | None, list[Defect]]:
    """Judge one document by itself; return it where nothing is wrong with it, and all that is."""
    kind = kinds.named(value.get("kind")) if isinstance(value, dict) else None
    if kind is None:
        return None, [_no_kind(origin, value)]
    name = _name(value)
    title = f"{origin} ({kind.kind} {name})" if origin else f"{kind.kind} {name}"
    defects = [Defect(title, found.path, found.value, found.rule) for found in findings(kind, name, value)]
    return (None if defects else Document(origin, kind, name, value)), defects


def surplus(origin: str, value: Any) -> Iterator[str]:
    """Say which fields of a document's spec nobody here knows; they are kept, but may be misspelt."""
    kind = kinds.named(value.get("kind")) if isinstance(value, dict) else None
    if kind is None:
        return
    for path, close in unknown(kind.spec, "spec", value.get("spec")):
        hint = f"; did you mean {close}?" if close else ""
        yield f"{origin} ({kind.kind} {_name(value)}): {path} is not known here and is kept as it is{hint}"


def _name(value: Resource) -> str:
    metadata = value.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return name if isinstance(name, str) else ""


def _no_kind(origin: str, value: Any) -> Defect:
    if not isinstance(value, dict):
        return Defect(origin, "", value, "a document is an object with kind, apiVersion, metadata and spec")
    kind = value.get("kind")
    close = kinds.find(kind) if isinstance(kind, str) else None
    if close is not None:
        return Defect(origin, "kind", kind, f"must be written {close.kind}")
    known = ", ".join(one.kind for one in kinds.KINDS)
    return Defect(origin, "kind", kind, f"{'is required' if kind is None else 'is not managed here'}: one of {known}")


def _revision(value: Any) -> str:
    text = str(value)
    sound = not isinstance(value, bool) and text.isascii() and (text.isdecimal() or not text)
    return "" if sound and len(text) <= 19 else "must be a number, as `get` shows it"


def findings(kind: Kind, name: str, value: Resource) -> Iterator[Finding]:
    """Yield all that is wrong with one resource by itself."""
    metadata = Fields(
        {
            "name": Text(kind.name_test, most=253),
            "uid": Text(most=253),
            "creationTimestamp": Text(most=64),
            "resourceVersion": Tested(_revision),
            "labels": TextMap(rules.label_name),
            "annotations": TextMap(lambda _: "", kind.annotation_tests),
        },
        required=("name",),
    )
    whole = Fields(
        {
            "apiVersion": Choice((API_VERSION,)),
            "metadata": metadata,
            "spec": kind.spec,
            "status": kind.status,
        },
        required=("apiVersion", "metadata", *(("spec",) if kind.spec.required else ())),
    )
    found = list(whole.check("", value))
    yield from found
    if not found:
        spec = value.get("spec") or {}
        annotations = value["metadata"].get("annotations") or {}
        for path, rule in kind.cross(name, spec, annotations):
            place = path.removeprefix("metadata.annotations[").removesuffix("]")
            yield Finding(path, annotations.get(place) or spec.get(path.removeprefix("spec.")), rule)
    if kind.view:
        yield from _unstorable(kind, value)


def _unstorable(kind: Kind, value: Resource) -> Iterator[Finding]:
    rule = f"cannot be stored: {kind.kind} is a view of a key that holds the fields of spec only"
    metadata = value.get("metadata")
    if isinstance(metadata, dict):
        for name in ("labels", "annotations"):
            if metadata.get(name):
                yield Finding(f"metadata.{name}", metadata[name], rule)
    for name in value:
        if name not in {"kind", "apiVersion", "metadata", "spec"} and value[name]:
            yield Finding(name, value[name], rule)


# ------------------------------------------------------------------ against each other, and against what is stored


def together(
    documents: Sequence[Document], stored: Known, deleted: Sequence[tuple[Kind, str]] = ()
) -> Iterator[Defect]:
    """Yield what is wrong with *documents* once they stand beside what else is *stored*, less what is *deleted*.

    Resources that are wrong already and are not touched are not judged.
    """
    yield from _twice(documents)
    after = _after(documents, stored, deleted)
    for document in documents:
        before = stored.get((document.kind.kind, document.name))
        if before is not None:
            yield from _immutable(document, before)
    yield from _overlaps(documents, stored, after)
    yield from _filters(documents, after)


def _after(documents: Sequence[Document], stored: Known, deleted: Sequence[tuple[Kind, str]]) -> Known:
    gone = {(kind.kind, name) for kind, name in deleted}
    left = {pair: resource for pair, resource in stored.items() if pair not in gone}
    return left | {(document.kind.kind, document.name): document.resource for document in documents}


def among(documents: Sequence[Document]) -> Iterator[Defect]:
    """Yield what is wrong between *documents*, whatever is stored."""
    yield from _twice(documents)
    yield from _overlaps(documents, {}, {(one.kind.kind, one.name): one.resource for one in documents})


def _twice(documents: Sequence[Document]) -> Iterator[Defect]:
    first: dict[tuple[str, str], str] = {}
    for document in documents:
        before = first.setdefault((document.kind.kind, document.name), document.origin)
        if before != document.origin:
            yield Defect(
                document.title, "metadata.name", document.name, f"must be given once only: {before} has it too"
            )


def _immutable(document: Document, before: Resource) -> Iterator[Defect]:
    old = _spec(before)
    old = document.kind.defaults(old) | {name: value for name, value in old.items() if value is not None}
    for field in document.kind.immutable:
        value = document.spec.get(field)
        if value not in (None, "", 0) and value != old.get(field):
            rule = f"cannot be changed once stored ({old.get(field)}): create another {document.kind.kind}"
            yield Defect(document.title, f"spec.{field}", value, rule)


def _spec(resource: Resource) -> dict[str, Any]:
    spec = resource.get("spec")
    return spec if isinstance(spec, dict) else {}


def _cidr(resource: Resource) -> Prefix | None:
    try:
        return Prefix.parse(_spec(resource).get("cidr", ""))
    except (ValueError, AttributeError):
        return None


def _overlaps(documents: Sequence[Document], stored: Known, after: Known) -> Iterator[Defect]:
    """Judge pools whose range is new; a pool that overlaps already may still be changed, such as disabled."""
    ranges = {name: _cidr(resource) for (kind, name), resource in after.items() if kind == IPPOOL.kind}
    told: set[frozenset[str]] = set()
    for document in documents:
        cidr = ranges.get(document.name) if document.kind is IPPOOL else None
        before = stored.get((IPPOOL.kind, document.name))
        if cidr is None or (before is not None and _cidr(before) == cidr):
            continue
        for name, other in sorted(ranges.items()):
            pair = frozenset({name, document.name})
            if other is None or len(pair) < 2 or pair in told:
                continue
            if other.covers(cidr) or cidr.covers(other):
                told.add(pair)
                yield Defect(document.title, "spec.cidr", str(cidr), f"must not overlap IPPool {name}, {other}")


def _filters(documents: Sequence[Document], after: Known) -> Iterator[Defect]:
    for document in documents:
        if document.kind is not BGPPEER:
            continue
        for index, name in enumerate(document.spec.get("filters") or []):
            if (BGPFILTER.kind, name) not in after:
                path = f"spec.filters[{index}]"
                yield Defect(document.title, path, name, "must name a BGPFilter that exists: nothing fails open")


def needed(
    documents: Sequence[Document], stored: Known, deleted: Sequence[tuple[Kind, str]]
) -> Iterator[tuple[str, str]]:
    """Yield each BGPFilter among *deleted* that a BGPPeer would still name, and that peer's name."""
    after = _after(documents, stored, deleted)
    gone = {name for kind, name in deleted if kind is BGPFILTER and (kind.kind, name) not in after}
    for (kind, name), resource in sorted(after.items(), key=lambda item: item[0]):
        if kind == BGPPEER.kind:
            named = _spec(resource).get("filters")
            yield from (
                (one, name)
                for one in (named if isinstance(named, list) else [])
                if isinstance(one, str) and one in gone
            )
