"""What a kind of resource is described by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bgpd.core.resource import rules
from bgpd.core.resource.schema import Fields, Shape, Test, Whatever

Spec = dict[str, Any]


def _default_or_node(text: str) -> str:
    if text == "default" or (text.startswith("node.") and not rules.node_name(text.removeprefix("node."))):
        return ""
    return "must be default, or node.NAME for what differs on one node"


def _only_default(text: str) -> str:
    return "" if text == "default" else "must be default: there is one only"


DEFAULT_OR_NODE: Test = _default_or_node
ONLY_DEFAULT: Test = _only_default


@dataclass(frozen=True)
class Kind:
    """A kind: how it is called, what its documents hold, and what Calico takes for absent fields."""

    kind: str
    plural: str
    """As in keys of the store."""
    short: tuple[str, ...]
    """Other words that the command line takes."""
    spec: Fields
    status: Shape = field(default_factory=Whatever)
    name_test: Test = rules.name
    annotation_tests: Mapping[str, Test] = field(default_factory=dict)
    immutable: tuple[str, ...] = ()
    """Fields of spec that never change once stored."""
    defaults: Callable[[Spec], Spec] = lambda _: {}
    """Return what absent fields of a spec mean."""
    stored_defaults: tuple[str, ...] = ()
    """Defaults that are written into the stored object, since Calico's readers expect them there."""
    cross: Callable[[str, Spec, Mapping[str, str]], list[tuple[str, str]]] = lambda _name, _spec, _annotations: []
    """Return place (within the resource) and rule of what name, spec and annotations together break."""
    view: bool = False
    """The resource is a view of a key that is none: it has no metadata but its name."""
