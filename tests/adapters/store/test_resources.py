"""Resources in the store, on each backend: what is written is what was said, and nothing of others' is overwritten."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgpd.adapters.store import keys, records
from bgpd.adapters.store.base import TXN_OPS_MAX, Compare, Put, Store, Transient, TxnResult, Write
from bgpd.adapters.store.ipam.claim import claim_block
from bgpd.adapters.store.keys import Malformed
from bgpd.adapters.store.memory import MemoryStore
from bgpd.adapters.store.resources import (
    Conflict,
    Invalid,
    Outcome,
    Removal,
    Stored,
    Verb,
    blocks,
    commit,
    foreign_keys,
    get_resource,
    key_of,
    list_resources,
    prepare,
)
from bgpd.adapters.store.transact import ensure_pool
from bgpd.core.resource import check, kinds
from bgpd.core.resource.check import Document
from bgpd.core.resource.kind import Kind
from bgpd.core.resource.merge import completed, created
from bgpd.core.resource.pools import ipam_stored
from bgpd.model.pool import Block, Mode, Pool, Use, parse_preference
from bgpd.model.prefix import Prefix
from tests.core.resource.examples import EVERY_FIELD, Resource, resource, resources

pytestmark = pytest.mark.adapter

OnStore = Callable[[Callable[[Store], Awaitable[Any]]], Any]
POOL = resource("IPPool", {"cidr": "10.65.0.0/24", "xUnknown": {"deep": [None, 1.5]}}, "p", labels={"a": "b"})


def document(value: Resource) -> Document:
    found, defects = check.read("doc", value)
    assert found is not None, [str(defect) for defect in defects]
    return found


async def change(store: Store, verb: Verb, *values: Resource, gone: tuple[Removal, ...] = ()) -> list[Outcome]:
    prepared = await prepare(store, verb, [document(value) for value in values], gone)
    await commit(store, prepared)
    return list(prepared.outcomes)


async def stored(store: Store, kind: Kind, name: str) -> Stored:
    found = await get_resource(store, kind, name)
    assert found is not None
    return found


def bare(value: Resource) -> Resource:
    """Return a resource without what its creation adds."""
    metadata = {name: item for name, item in value["metadata"].items() if name not in {"uid", "creationTimestamp"}}
    return {**value, "metadata": metadata}


def test_key_and_value_are_calicos(on_store: OnStore) -> None:
    """A resource is stored under Calico's key, whole, with uid and creation time and without resourceVersion."""

    async def work(store: Store) -> None:
        await change(store, Verb.CREATE, POOL | {"metadata": POOL["metadata"] | {"uid": "theirs"}})
        item = await store.get("/calico/resources/v3/projectcalico.org/ippools/p")
        assert item is not None
        value = msgspec.json.decode(item.value)

        assert value["kind"] == "IPPool"
        assert value["apiVersion"] == "projectcalico.org/v3"
        assert re.fullmatch(r"[0-9a-f-]{36}", value["metadata"].pop("uid"))
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", value["metadata"].pop("creationTimestamp"))
        assert value["metadata"] == {"name": "p", "labels": {"a": "b"}}
        assert value["spec"] == completed(kinds.IPPOOL, POOL["spec"])
        assert (await stored(store, kinds.IPPOOL, "p")).shown()["metadata"]["resourceVersion"] == str(item.mod_revision)

    on_store(work)


def test_filters_have_capitals_in_their_key() -> None:
    """BGPFilters are kept under their plural as Calico writes it."""
    assert key_of(kinds.BGPFILTER, "f") == "/calico/resources/v3/projectcalico.org/BGPFilters/f"
    assert key_of(kinds.BGPPEER, "p") == "/calico/resources/v3/projectcalico.org/bgppeers/p"


def test_ipam_configuration_is_a_view(on_store: OnStore) -> None:
    """IPAMConfiguration default is Calico's IPAM configuration; fields are omitted when zero, unknown ones are kept."""

    async def work(store: Store) -> None:
        assert await get_resource(store, kinds.IPAMCONFIGURATION, "default") is None
        await store.txn(
            [], [Put(keys.IPAM_CONFIG, b'{"auto_allocate_blocks":true,"new":{"a":1},"ipCooldownSeconds":9}')]
        )
        view = await stored(store, kinds.IPAMCONFIGURATION, "default")
        assert view.resource["spec"] == {
            "strictAffinity": False,
            "autoAllocateBlocks": True,
            "maxBlocksPerHost": 0,
            "new": {"a": 1},
            "ipCooldownSeconds": 9,
        }
        edited = view.shown()
        edited["spec"] |= {"strictAffinity": True, "autoAllocateBlocks": False, "ipCooldownSeconds": 0}
        await change(store, Verb.REPLACE, edited)
        item = await store.get(keys.IPAM_CONFIG)
        assert item is not None
        assert msgspec.json.decode(item.value) == {"strict_affinity": True, "new": {"a": 1}}
        await change(store, Verb.APPLY, gone=(Removal(kinds.IPAMCONFIGURATION, "default"),))
        assert await store.get(keys.IPAM_CONFIG) is None

    on_store(work)


def test_stale_resource_version_is_a_conflict(on_store: OnStore) -> None:
    """A document that rests on an older revision overwrites nothing, nor do the documents beside it."""

    async def work(store: Store) -> None:
        await change(store, Verb.CREATE, POOL)
        old = (await stored(store, kinds.IPPOOL, "p")).shown()
        await change(store, Verb.REPLACE, old | {"spec": old["spec"] | {"natOutgoing": True}})
        before = await stored(store, kinds.IPPOOL, "p")

        with pytest.raises(Conflict, match="was changed meanwhile"):
            await change(store, Verb.APPLY, old | {"spec": old["spec"] | {"disabled": True}}, EVERY_FIELD["Node"])

        assert await stored(store, kinds.IPPOOL, "p") == before
        assert await get_resource(store, kinds.NODE, "Node_A") is None

    on_store(work)


def test_change_between_reading_and_writing_is_a_conflict(on_store: OnStore) -> None:
    """Who writes between prepare and commit wins, though no resourceVersion was given."""

    async def work(store: Store) -> None:
        await change(store, Verb.CREATE, POOL)
        late = await prepare(store, Verb.APPLY, [document(POOL | {"spec": POOL["spec"] | {"disabled": True}})])
        await change(store, Verb.APPLY, POOL | {"spec": POOL["spec"] | {"natOutgoing": True}})

        with pytest.raises(Conflict):
            await commit(store, late)

        assert "disabled" not in (await stored(store, kinds.IPPOOL, "p")).resource["spec"]

    on_store(work)


def test_create_and_replace_know_what_is_there(on_store: OnStore) -> None:
    """Create refuses what exists, replace what does not, and a resourceVersion of what is gone is refused."""

    async def work(store: Store) -> None:
        with pytest.raises(Conflict, match="does not exist"):
            await change(store, Verb.REPLACE, POOL)
        with pytest.raises(Conflict, match="does not exist; remove the resourceVersion"):
            await change(store, Verb.APPLY, POOL | {"metadata": {"name": "p", "resourceVersion": "7"}})
        assert [one.action for one in await change(store, Verb.CREATE, POOL)] == ["created"]
        with pytest.raises(Conflict, match="exists already"):
            await change(store, Verb.CREATE, POOL)

    on_store(work)


def test_unknown_fields_of_others_survive_an_edit(on_store: OnStore) -> None:
    """What another tool wrote and nobody here knows survives read, edit and write, at any depth."""
    value = {
        "kind": "Node",
        "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": "n", "generation": 3, "managedFields": [{"x": None}], "uid": "u"},
        "spec": {"bgp": {"ipv4Address": "192.0.2.1/24", "future": {"a": [1, {"b": 2.5}]}}, "new": "x"},
        "status": {"podCIDRs": [], "later": True},
        "extra": 18446744073709551615,
    }

    async def work(store: Store) -> None:
        await store.txn([], [Put(keys.node_key("n"), msgspec.json.encode(value))])
        shown = (await stored(store, kinds.NODE, "n")).shown()
        await change(store, Verb.REPLACE, shown | {"metadata": shown["metadata"] | {"labels": {"rack": "1"}}})
        item = await store.get(keys.node_key("n"))
        assert item is not None

        assert msgspec.json.decode(item.value) == value | {"metadata": value["metadata"] | {"labels": {"rack": "1"}}}

    on_store(work)


def test_invalid_documents_write_nothing(on_store: OnStore) -> None:
    """All that is wrong beside what is stored is named, and nothing is written."""

    async def work(store: Store) -> None:
        await change(store, Verb.CREATE, POOL)
        peer = resource("BGPPeer", {"peerSelector": "all()", "filters": ["lost"]}, "x")
        over = resource("IPPool", {"cidr": "10.65.0.0/16"}, "over")
        moved = resource("IPPool", {"cidr": "10.66.0.0/24"}, "p")

        with pytest.raises(Invalid) as raised:
            await change(store, Verb.APPLY, EVERY_FIELD["Node"], moved, over, peer)

        assert [defect.document for defect in raised.value.defects] == [
            "doc (IPPool p)",
            "doc (BGPPeer x)",
        ]
        assert await get_resource(store, kinds.NODE, "Node_A") is None

    on_store(work)


def test_two_who_create_overlapping_pools_do_not_both_succeed(on_store: OnStore) -> None:
    """Neither sees the other's pool, but only one of them is written; so it is with the daemon's default pool."""

    async def work(store: Store) -> None:
        first = await prepare(store, Verb.CREATE, [document(resource("IPPool", {"cidr": "10.0.0.0/16"}, "a"))])
        second = await prepare(store, Verb.CREATE, [document(resource("IPPool", {"cidr": "10.0.0.0/8"}, "b"))])
        await commit(store, first)
        with pytest.raises(Conflict):
            await commit(store, second)
        assert not await ensure_pool(store, Pool(name="default", cidr=Prefix.parse("10.0.0.0/12")))

    on_store(work)


def test_filter_must_last_until_its_peer_is_written(on_store: OnStore) -> None:
    """A peer whose filter is deleted meanwhile is not written."""

    async def work(store: Store) -> None:
        await change(store, Verb.CREATE, resource("BGPFilter", {}, "f"))
        peer = resource("BGPPeer", {"peerSelector": "all()", "filters": ["f"]}, "x")
        prepared = await prepare(store, Verb.CREATE, [document(peer)])
        await change(store, Verb.APPLY, gone=(Removal(kinds.BGPFILTER, "f"),))
        with pytest.raises(Conflict):
            await commit(store, prepared)

    on_store(work)


def test_filter_in_use_is_not_deleted(on_store: OnStore) -> None:
    """A filter that a peer names stays, unless the peer goes with it."""

    async def work(store: Store) -> None:
        peer = resource("BGPPeer", {"peerSelector": "all()", "filters": ["f"]}, "x")
        await change(store, Verb.CREATE, resource("BGPFilter", {}, "f"), peer)
        gone = Removal(kinds.BGPFILTER, "f")
        with pytest.raises(Conflict, match="BGPFilter f: cannot be deleted, since BGPPeer x names it"):
            await change(store, Verb.APPLY, gone=(gone,))
        await change(store, Verb.APPLY, gone=(gone, Removal(kinds.BGPPEER, "x")))
        assert await get_resource(store, kinds.BGPFILTER, "f") is None

    on_store(work)


def test_pool_with_blocks_is_not_deleted(on_store: OnStore) -> None:
    """A pool whose addresses may be in use stays, unless that is insisted on."""

    async def work(store: Store) -> None:
        await change(store, Verb.CREATE, POOL)
        pool = Pool(name="p", cidr=Prefix.parse("10.65.0.0/24"))
        block = await claim_block(store, pool, "n")
        assert await blocks(store) == (Block(cidr=block, node="n", in_use=0),)
        removal = Removal(kinds.IPPOOL, "p")
        with pytest.raises(Conflict, match="still has 1 blocks with 0 addresses in use"):
            await prepare(store, Verb.APPLY, [], [removal])
        await commit(store, await prepare(store, Verb.APPLY, [], [removal], force=True))
        assert await get_resource(store, kinds.IPPOOL, "p") is None

    on_store(work)


def test_deletion_rests_on_its_revision(on_store: OnStore) -> None:
    """A deletion that names a revision is refused once that is past; what is not there cannot be deleted."""

    async def work(store: Store) -> None:
        await change(store, Verb.CREATE, POOL)
        revision = (await stored(store, kinds.IPPOOL, "p")).revision
        with pytest.raises(Conflict, match="was changed meanwhile"):
            await change(store, Verb.APPLY, gone=(Removal(kinds.IPPOOL, "p", revision - 1),))
        outcomes = await change(store, Verb.APPLY, gone=(Removal(kinds.IPPOOL, "p", revision),))
        assert [(one.action, one.after) for one in outcomes] == [("deleted", None)]
        with pytest.raises(Conflict, match="IPPool p: does not exist"):
            await change(store, Verb.APPLY, gone=(Removal(kinds.IPPOOL, "p"),))

    on_store(work)


@pytest.mark.parametrize(
    "value", [b"", b"[]", b'{"metadata":[]}', b'{"metadata":{"name":"q"}}', b'{"spec":1}', b"\xff"]
)
def test_unreadable_value_is_told_and_not_overwritten(on_store: OnStore, value: bytes) -> None:
    """A value that is no resource is told beside the others, is never overwritten, and can be deleted."""

    async def work(store: Store) -> None:
        await store.txn(
            [], [Put(keys.node_key("bad"), value), Put(keys.node_key("good"), b'{"metadata":{"name":"good"}}')]
        )
        listing = await list_resources(store, kinds.NODE)
        assert [item.name for item in listing.items] == ["good"]
        assert [error.key for error in listing.unreadable] == [keys.node_key("bad")]
        with pytest.raises(Malformed):
            await change(store, Verb.APPLY, resource("Node", {}, "bad"))
        await change(store, Verb.APPLY, gone=(Removal(kinds.NODE, "bad"),))
        assert await store.get(keys.node_key("bad")) is None

    on_store(work)


def test_what_does_not_fit_one_transaction_is_not_written(on_store: OnStore) -> None:
    """More than a transaction holds is said beforehand, and is refused as a whole."""

    async def work(store: Store) -> None:
        nodes = [document(resource("Node", {}, f"n{index}")) for index in range(TXN_OPS_MAX + 1)]
        fits = await prepare(store, Verb.APPLY, nodes[:-1])
        large = await prepare(store, Verb.APPLY, nodes)
        assert (fits.fits, large.fits) == (True, False)
        with pytest.raises(ValueError, match="too many operations"):
            await commit(store, large)
        assert (await list_resources(store, kinds.NODE)).items == ()
        await commit(store, fits)

    on_store(work)


def test_import_keeps_what_creation_gave(on_store: OnStore) -> None:
    """An import keeps uid and creation time of its documents, and any resourceVersion will do."""
    metadata = {"name": "p", "uid": "theirs", "creationTimestamp": "2020-01-01T00:00:00Z", "resourceVersion": "99999"}

    async def work(store: Store) -> None:
        await change(store, Verb.IMPORT, POOL | {"metadata": metadata})
        assert (await stored(store, kinds.IPPOOL, "p")).resource["metadata"] == {
            name: value for name, value in metadata.items() if name != "resourceVersion"
        }

    on_store(work)


def test_kinds_of_others_are_counted(on_store: OnStore) -> None:
    """Resources that are not managed here are counted, so that an export can say that it is not all."""

    async def work(store: Store) -> None:
        await store.txn([], [Put(keys.RESOURCES + "networkpolicies/ns/p", b"{}"), Put(keys.node_key("n"), b"{}")])
        assert await foreign_keys(store) == 1

    on_store(work)


class Doubtful(MemoryStore):
    """A store whose answer to a transaction is lost, once it was made or before it was sent."""

    made = True

    async def txn(self, compares: Sequence[Compare], writes: Sequence[Write]) -> TxnResult:
        if self.made:
            await super().txn(compares, writes)
        raise Transient("no answer in time")


def test_unknown_outcome_is_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change whose answer was lost counts as made if it stands in the store, and as failed if not."""
    monkeypatch.setattr("bgpd.adapters.store.resources.READ_BACK_PAUSE_S", 0.0)

    async def work() -> None:
        store = Doubtful()
        await change(store, Verb.CREATE, POOL)
        await change(store, Verb.APPLY, gone=(Removal(kinds.IPPOOL, "p"),))
        store.made = False
        with pytest.raises(Transient, match="no answer in time; read back: the change does not stand in the store"):
            await change(store, Verb.CREATE, POOL)

    asyncio.run(work())


def maybe(*values: object) -> st.SearchStrategy[object]:
    """An optional field: absent, null, or one of *values*."""
    return st.sampled_from([ABSENT, None, *values])


ABSENT = object()
MODES = ("", "Never", "Always", "CrossSubnet")


@given(
    st.fixed_dictionaries(
        {
            "cidr": st.sampled_from(["10.0.0.0/16", "fd00::/64"]),
            "blockSize": maybe(0),
            "vxlanMode": maybe(*MODES),
            "disabled": maybe(True, False),
            "disableBGPExport": maybe(True, False),
            "assignmentMode": maybe("", "Automatic", "Manual"),
        }
    ),
    maybe({}, {"bgpd.io/fallback": "VXLAN"}, {"bgpd.io/fallback": "None", "x": ""}),
)
def test_daemons_view_of_a_pool_agrees(spec: dict[str, Any], annotations: Any) -> None:
    """Whatever pool is accepted, the daemon reads from the stored value what the document means."""
    spec = {name: value for name, value in spec.items() if value is not ABSENT}
    metadata = {"name": "p"} | ({} if annotations is ABSENT else {"annotations": annotations})
    found = document(resource("IPPool", spec) | {"metadata": metadata})

    pool = records.pool_from("key", "p", msgspec.json.encode(created(kinds.IPPOOL, found.resource, "u", "t")))

    fallback = metadata.get("annotations") or {}
    assert pool == Pool(
        name="p",
        cidr=Prefix.parse(spec["cidr"]),
        block_size=122 if ":" in spec["cidr"] else 26,
        vxlan_mode=Mode(spec.get("vxlanMode") or "Never"),
        disabled=bool(spec.get("disabled")),
        automatic=(spec.get("assignmentMode") or "Automatic") == "Automatic",
        disable_bgp_export=bool(spec.get("disableBGPExport")),
        fallback=parse_preference(fallback["bgpd.io/fallback"]) if fallback else None,
        ipip_mode=Mode(spec.get("ipipMode") or "Never"),
        node_selector=spec.get("nodeSelector") or "all()",
        namespace_selector=spec.get("namespaceSelector") or "",
        allowed_uses=tuple(map(Use, spec.get("allowedUses") or ("Workload", "Tunnel"))),
    )


@given(resources(kinds.NODE))
def test_daemon_reads_any_node(value: Resource) -> None:
    """Whatever Node is accepted, the daemon can read it."""
    node = records.node_from("key", "n", msgspec.json.encode(created(kinds.NODE, value, "u", "t")))

    assert node.asn == (value["spec"].get("bgp") or {}).get("asNumber")


@given(resources(kinds.IPAMCONFIGURATION))
def test_daemon_reads_any_ipam_configuration(value: Resource) -> None:
    """The daemon reads from the stored IPAM configuration what the resource says."""
    config = records.ipam_config_from(
        msgspec.json.encode(ipam_stored(completed(kinds.IPAMCONFIGURATION, value["spec"])))
    )

    spec = value["spec"]
    assert config == records.IpamConfig(
        spec["autoAllocateBlocks"],
        spec["maxBlocksPerHost"],
        spec.get("strictAffinity", False),
        spec.get("ipCooldownSeconds", 0),
    )
