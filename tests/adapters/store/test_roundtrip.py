"""YAML into the store and out again: nothing is added that Calico does not add, and nothing is lost, known or not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from bgpd.adapters.store import keys
from bgpd.adapters.store.base import Store
from bgpd.adapters.store.memory import MemoryStore
from bgpd.adapters.store.resources import Stored, Verb, get_resource, list_resources
from bgpd.cli import manifest
from bgpd.core.resource import kinds
from bgpd.core.resource.kind import Kind
from bgpd.core.resource.merge import completed
from bgpd.core.resource.pools import ipam_stored
from tests.adapters.store.test_resources import bare, change, document
from tests.core.resource.examples import EVERY_FIELD, Resource, resource, resources

pytestmark = pytest.mark.adapter

OnStore = Callable[[Callable[[Store], Awaitable[Any]]], Any]
DOCUMENTED = sorted((Path(__file__).parents[3] / "config" / "resources").glob("*.yaml"))


def read(text: str) -> list[Resource]:
    places, defects = manifest.parse("text", text)
    assert [] == [str(defect) for defect in defects]
    return [value for _, value in places]


def written(stored: list[Stored]) -> list[Resource]:
    """What `bgpd get -o yaml` writes of them, read as any other file is."""
    return read(manifest.dump([item.shown() for item in stored]))


def anonymous(value: Resource) -> Resource:
    """Return a resource without what its creation and its storage add."""
    value = bare(value)
    return {**value, "metadata": {k: v for k, v in value["metadata"].items() if k != "resourceVersion"}}


def expected(value: Resource) -> Resource:
    """Return a resource with what Calico stores beside it; the view of the IPAM configuration omits what is zero."""
    kind = document(value).kind
    return {**value, "spec": _spec(kind, value["spec"])}


def _spec(kind: Kind, spec: dict[str, Any]) -> dict[str, Any]:
    whole = completed(kind, spec)
    if not kind.view:
        return whole
    zero = {name for name, value in whole.items() if value in (False, 0, "", None) and name in kind.spec.shapes}
    assert not zero & ipam_stored(whole).keys()
    shown = {"strictAffinity", "autoAllocateBlocks", "maxBlocksPerHost"}
    return {name: value for name, value in whole.items() if name not in zero or name in shown}


def test_every_example_comes_back(on_store: OnStore) -> None:
    """One resource of each kind with every known field goes in as YAML, with one transaction, and comes out as it was."""
    examples = read(manifest.dump(list(EVERY_FIELD.values())))

    async def work(store: Store) -> None:
        outcomes = await change(store, Verb.APPLY, *examples)
        found = {kind.kind: written(list((await list_resources(store, kind)).items)) for kind in kinds.KINDS}
        page = await store.range(keys.RESOURCES)

        assert {outcome.action for outcome in outcomes} == {"created"}
        assert {kind: [anonymous(value) for value in each] for kind, each in found.items()} == {
            kind: [value] for kind, value in EVERY_FIELD.items()
        }
        assert {item.mod_revision for item in page.items} == {page.revision}
        back = [value for each in found.values() for value in each]
        assert {one.action for one in await change(store, Verb.APPLY, *back)} == {"unchanged"}
        assert (await store.range(keys.RESOURCES)).revision == page.revision

    on_store(work)


def test_every_documented_resource_comes_back(on_store: OnStore) -> None:
    """The files that show users the data model go in as they stand there, with an unknown field, and come out as they were."""
    values = [value for file in DOCUMENTED for value in read(file.read_text())]
    assert {value["kind"] for value in values} == {kind.kind for kind in kinds.KINDS}
    for value in values:
        value["spec"]["ofAnotherVersion"] = {"deep": [1, None, "yes"]}

    async def work(store: Store) -> None:
        await change(store, Verb.APPLY, *values)
        for value in values:
            found = await get_resource(store, document(value).kind, value["metadata"]["name"])
            assert found is not None
            assert [expected(value)] == [anonymous(one) for one in written([found])]

    on_store(work)


@settings(max_examples=150)
@given(resources())
def test_any_resource_comes_back(value: Resource) -> None:
    """Any resource, with unknown fields anywhere, is the same after YAML, store and YAML, and once more."""

    async def work() -> Resource:
        store = MemoryStore()
        for needed in value["spec"].get("filters") or []:
            await change(store, Verb.APPLY, resource("BGPFilter", {}, needed))
        await change(store, Verb.APPLY, *read(manifest.dump([value])))
        kind, name = document(value).kind, value["metadata"]["name"]
        first = await get_resource(store, kind, name)
        assert first is not None
        shown = written([first])
        await change(store, Verb.APPLY, *shown)
        assert first == await get_resource(store, kind, name)
        return anonymous(shown[0])

    assert expected(value) == asyncio.run(work())
