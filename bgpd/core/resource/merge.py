"""From a document and what is stored to what will be stored.

Laws: a document replaces spec, labels and annotations as a whole, as calicoctl's apply and replace do, so a field that it
does not have is gone, and one that is null counts as absent; what belongs to controllers (status, and metadata such as
finalizers) stays where the document does not speak of it; uid and creationTimestamp are those of the creation;
metadata.resourceVersion is never stored.
"""

from __future__ import annotations

from typing import Any

from bgpd.core.resource.check import API_VERSION, Resource
from bgpd.core.resource.kind import Kind, Spec

_OF_THE_DOCUMENT = frozenset({"labels", "annotations"})


def completed(kind: Kind, spec: Spec, stored: Spec | None = None) -> Spec:
    """Add to a spec what it leaves to Calico's defaults and what Calico stores all the same; fixed fields stay as *stored*."""
    fixed = {name: (stored or {}).get(name) for name in kind.immutable}
    defaults = kind.defaults(spec) | {name: value for name, value in fixed.items() if value is not None}
    whole = {name: value for name, value in spec.items() if value is not None or name not in kind.spec.shapes}
    for name in kind.stored_defaults:
        if whole.get(name) in (None, "", []) or (name in kind.immutable and not whole[name]):
            whole[name] = defaults[name]
    return whole


def effective(kind: Kind, spec: Spec) -> Spec:
    """Return a spec with what its absent fields mean."""
    return kind.defaults(spec) | {name: value for name, value in spec.items() if value is not None}


def created(kind: Kind, resource: Resource, uid: str, now: str) -> Resource:
    """Return the new object for a document; *uid* and *now* (RFC 3339) are used where its metadata has none of them."""
    given = _without_version(resource)
    metadata = {"name": given["name"], "uid": given.get("uid") or uid}
    metadata["creationTimestamp"] = given.get("creationTimestamp") or now
    return _whole(kind, resource, {**given, **metadata}, None)


def replaced(kind: Kind, resource: Resource, stored: Resource) -> Resource:
    """Return the object that takes the place of *stored*."""
    before = stored.get("metadata") or {}
    kept = {name: value for name, value in before.items() if name not in _OF_THE_DOCUMENT}
    given = _without_version(resource)
    fixed = {name: before[name] for name in ("uid", "creationTimestamp") if before.get(name)}
    after = _whole(kind, resource, {**kept, **given, **fixed}, stored.get("spec"))
    if after.get("status") is None and stored.get("status") is not None:
        after["status"] = stored["status"]
    return after


def _without_version(resource: Resource) -> dict[str, Any]:
    """Return a document's metadata without what the store knows better, and without an empty creationTimestamp."""
    metadata = dict(resource["metadata"])
    metadata.pop("resourceVersion", None)
    if metadata.get("creationTimestamp", "") is None:
        del metadata["creationTimestamp"]
    return metadata


def _whole(kind: Kind, resource: Resource, metadata: dict[str, Any], stored_spec: Spec | None) -> Resource:
    rest = {name: value for name, value in resource.items() if name not in {"kind", "apiVersion", "metadata", "spec"}}
    spec = completed(kind, resource.get("spec") or {}, stored_spec)
    return {"kind": kind.kind, "apiVersion": API_VERSION, "metadata": metadata, "spec": spec, **rest}
