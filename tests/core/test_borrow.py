"""Who announces and who routes blocks and borrowed addresses, as they change hands."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bgpd.core.overlay.choose import How
from bgpd.core.pipeline import Pipeline
from bgpd.model import event as ev
from bgpd.model.forwarding import KernelRoute, Leg, RouteKey, RouteKind
from bgpd.model.peer import Peer
from bgpd.model.pool import Affinity, AffinityState, Block, BlockRelease, Mode, Pool
from bgpd.model.prefix import Address, Family, Prefix
from tests.core import world as w
from tests.core.test_pipeline import NATIVE, TUNNEL, how, legs

pytestmark = pytest.mark.core

NAMES = ("node1", "node2", "node3")
BLACKHOLE = KernelRoute(RouteKind.BLACKHOLE)


def host(text: str) -> Prefix:
    return Prefix.of(w.A(text), w.A(text).family.bits)


def lent(cidr: Prefix, node: str | None, **borrowers: str) -> ev.BlockChanged:
    """A block of *node* of which others hold addresses: ``_5="node3"`` is the fifth of it."""
    pairs = tuple((cidr.address(int(at[1:])), name) for at, name in borrowers.items())
    return ev.BlockChanged(Block(cidr=cidr, node=node, in_use=len(pairs), borrowed=pairs))


def announced(pipeline: Pipeline) -> set[Prefix]:
    return {prefix for (_, prefix), _ in pipeline.tables.adj_rib_out.items()}


def kernel_route(pipeline: Pipeline, prefix: Prefix) -> object:
    return pipeline.tables.kernel.get(RouteKey(prefix))


def test_a_borrowed_address_goes_out_from_its_borrower_only() -> None:
    """We announce what we borrow as a single address, without a blackhole or route of ours for it; what we lend we do not."""
    pipeline = w.feed(w.running(), [lent(w.BLOCK2, "node2", _5="node1"), lent(w.OWN_BLOCK, "node1", _6="node3")])

    assert {w.OWN_BLOCK, host("10.65.2.5")} == announced(pipeline)
    assert kernel_route(pipeline, host("10.65.2.5")) is None
    assert How.OWN is how(pipeline, host("10.65.2.5"))
    assert BLACKHOLE == kernel_route(pipeline, w.OWN_BLOCK)


def test_a_borrowed_address_is_routed_to_its_borrower_with_its_blocks() -> None:
    """On every other node a borrowed address shares the group of its borrower's blocks, whichever way they are reached."""
    borrowed = host("10.65.2.5")
    changed = lent(w.BLOCK2, "node2", _5="node3")
    pipeline = w.feed(w.running(), [changed, w.learned(w.TOR1, borrowed), w.learned(w.TOR2, borrowed)])

    assert NATIVE == legs(pipeline, borrowed)
    assert kernel_route(pipeline, w.BLOCK3) == kernel_route(pipeline, borrowed)
    assert "node3" == pipeline.forwarder.reached[borrowed].node

    always = msgspec.structs.replace(w.POOL, vxlan_mode=Mode.ALWAYS)
    w.feed(pipeline, [ev.PoolChanged(always)])

    assert legs(pipeline, w.BLOCK3) == legs(pipeline, borrowed) != legs(pipeline, w.BLOCK2)
    assert kernel_route(pipeline, w.BLOCK3) == kernel_route(pipeline, borrowed)


def test_a_path_to_the_block_is_none_to_the_borrowed_address() -> None:
    """Where BGP knows only the block that the address is borrowed of, its path leads to the owner: the borrower is reached by tunnel."""
    borrowed = host("10.65.2.5")
    pipeline = w.feed(w.running(), [lent(w.BLOCK2, "node2", _5="node3")])

    assert NATIVE == legs(pipeline, w.BLOCK2)
    assert (Leg(TUNNEL[0].device, w.A("10.0.0.3"), onlink=True),) == legs(pipeline, borrowed)
    assert How.FALLBACK is how(pipeline, borrowed)


def test_the_lender_routes_to_the_borrower() -> None:
    """The owner of a block takes BGP's path of an address that it lent, though that is inside its own block."""
    lent_out = host("10.65.1.6")
    pipeline = w.feed(w.running(), [lent(w.OWN_BLOCK, "node1", _6="node3"), w.learned(w.TOR1, lent_out)])

    assert NATIVE[:1] == legs(pipeline, lent_out)
    assert BLACKHOLE == kernel_route(pipeline, w.OWN_BLOCK)

    w.feed(pipeline, [lent(w.OWN_BLOCK, "node1")])

    assert kernel_route(pipeline, lent_out) is None
    ((_, reason),) = pipeline.state.ineligible[lent_out]
    assert "it is inside a block of ours" == reason


def test_a_path_to_our_own_borrowed_address_is_none() -> None:
    """What others announce of an address that we hold is not used."""
    mine = host("10.65.2.5")
    pipeline = w.feed(w.running(), [w.learned(w.TOR1, mine), lent(w.BLOCK2, "node2", _5="node1")])

    assert kernel_route(pipeline, mine) is None
    assert () == pipeline.state.selection(mine).chosen


def test_an_address_of_nobodys_block_is_its_holders() -> None:
    """A block without affinity is announced by nobody as a whole, and each of its addresses by its holder."""
    cidr = w.P("10.65.9.0/26")
    pipeline = w.feed(w.running(), [lent(cidr, None, _1="node1", _2="node2")])

    assert {w.OWN_BLOCK, host("10.65.9.1")} == announced(pipeline)
    assert kernel_route(pipeline, cidr) is None
    assert legs(pipeline, host("10.65.9.2"))


def test_an_aggregate_that_comes_later_is_seen() -> None:
    """A path to an aggregate of a borrowed address is used once it comes, also where its borrower has nothing else there."""
    pipeline = w.feed(w.running(), [lent(w.P("10.77.0.0/26"), None, _2="node2")])
    assert () == tuple(leg for leg in legs(pipeline, host("10.77.0.2")) if leg in NATIVE)

    w.feed(pipeline, [w.learned(w.TOR1, w.P("10.77.0.0/16"))], now=1000.0)
    w.feed(pipeline, [ev.Tick()], now=2000.0)

    assert NATIVE[:1] == legs(pipeline, host("10.77.0.2"))


def test_a_block_of_one_address_that_is_borrowed_has_one_announcer() -> None:
    """The only address of a /32 block is its borrower's, not its owner's as well."""
    one = w.P("10.65.9.9/32")
    owner = w.feed(w.running(), [*w.owned(one, "node1"), lent(one, "node1", _0="node2")])
    assert one not in announced(owner)
    assert "node2" == owner.forwarder.reached[one].node

    borrower = w.feed(w.running(), [*w.owned(one, "node2"), lent(one, "node2", _0="node1")])
    assert one in announced(borrower)
    assert kernel_route(borrower, one) is None


def test_own_blocks_of_ipv6_are_dropped_and_announced_and_others_go_by_bgp() -> None:
    """IPv6 blocks are aggregates and blackholes of their owner; a remote one without a tunnel is reached by BGP alone."""
    mine, theirs = w.P("fd00::/122"), w.P("fd00::40/122")
    both = (Family.IPV4, Family.IPV6)
    peers = tuple(msgspec.structs.replace(peer, families=both) for peer in (w.peer(1), w.peer(2)))
    pool = ev.PoolChanged(Pool(name="v6", cidr=w.P("fd00::/112"), block_size=122, fallback=()))
    pipeline = w.feed(Pipeline(), [msgspec.structs.replace(w.CONFIGURED, peers=peers), *w.whole()[1:]])
    for peer in peers:
        w.feed(pipeline, [ev.EndOfRib(peer.address, Family.IPV6)])
    w.feed(pipeline, [pool, *w.owned(mine, "node1"), *w.owned(theirs, "node2")])

    assert mine in announced(pipeline)
    assert BLACKHOLE == kernel_route(pipeline, mine)
    assert KernelRoute(RouteKind.UNREACHABLE) == kernel_route(pipeline, theirs)
    assert "the pool allows none" in pipeline.forwarder.reached[theirs].reason

    w.feed(pipeline, [w.learned(w.TOR1, theirs)], now=1000.0)
    w.feed(pipeline, [ev.Tick()], now=2000.0)

    assert NATIVE[:1] == legs(pipeline, theirs)


def test_an_empty_block_goes_back_when_its_pool_selects_us_no_more() -> None:
    """Once labels or selectors part us from an own block, it is given back as soon as it is empty; the pool is not claimed."""
    pipeline = w.running()
    assert {} == pipeline.tables.releases.snapshot()
    in_use = ev.BlockChanged(Block(cidr=w.OWN_BLOCK, node="node1", in_use=1))
    elsewhere = msgspec.structs.replace(w.POOL, node_selector="rack == 'a'")

    w.feed(pipeline, [in_use, ev.PoolChanged(elsewhere)])
    assert {} == pipeline.tables.releases.snapshot()
    w.feed(pipeline, [ev.BlockChanged(Block(cidr=w.OWN_BLOCK, node="node1"))])
    assert {w.OWN_BLOCK: BlockRelease(cidr=w.OWN_BLOCK, node="node1")} == pipeline.tables.releases.snapshot()

    labelled = msgspec.structs.replace(w.node(1), labels=(("rack", "a"),))
    w.feed(pipeline, [ev.NodeChanged(labelled)])
    assert {} == pipeline.tables.releases.snapshot()

    w.feed(
        pipeline, [ev.NodeChanged(w.node(1)), ev.BlockRemoved(w.OWN_BLOCK), ev.AffinityRemoved(w.OWN_BLOCK, "node1")]
    )
    assert {} == pipeline.tables.releases.snapshot()
    assert {} == pipeline.tables.claims.snapshot()

    w.feed(pipeline, [ev.PoolChanged(w.POOL)])
    assert ["default"] == list(pipeline.tables.claims.snapshot())


def configured(number: int) -> Pipeline:
    """The pipeline of one node of three, which has a peer."""
    peer = Peer(name="tor", address=w.TOR1, asn=65100, local_address=w.A("10.1.11.1"), local_asn=65000 + number)
    own = ev.Configured(node=w.node(number), peers=(peer,), options=w.OPTIONS)
    events = [own, *w.kernel(), ev.PoolChanged(w.POOL), ev.SpeakerUp(), ev.StoreSynced()]
    events += [event for n in (1, 2, 3) for event in (ev.NodeChanged(w.node(n)), ev.NodeAlive(f"node{n}"))]
    return w.feed(Pipeline(), [*events, ev.PeerUp(w.TOR1, w.opened(1)), ev.EndOfRib(w.TOR1, Family.IPV4)])


CIDRS = (w.P("10.65.1.0/30"), w.P("10.65.2.0/30"), w.P("10.65.3.3/32"))
MAYBE = st.sampled_from((None, *NAMES))


@st.composite
def changes(draw: st.DrawFn) -> ev.Event:
    """A change of the store as it comes to every node."""
    cidr = draw(st.sampled_from(CIDRS))
    kind = draw(st.sampled_from(("block", "block", "gone", "affinity", "affinity", "free")))
    name = draw(st.sampled_from(NAMES))
    if kind == "gone":
        return ev.BlockRemoved(cidr)
    if kind == "free":
        return ev.AffinityRemoved(cidr, name)
    if kind == "affinity":
        return ev.AffinityChanged(Affinity(cidr=cidr, node=name, state=draw(st.sampled_from(AffinityState))))
    node = draw(MAYBE)
    holders = [draw(MAYBE) for _ in range(min(2, cidr.size))]
    borrowed = tuple((cidr.address(at), one) for at, one in enumerate(holders) if one is not None and one != node)
    return ev.BlockChanged(
        Block(cidr=cidr, node=node, in_use=sum(one is not None for one in holders), borrowed=borrowed)
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(changes(), min_size=1, max_size=25))
def test_no_prefix_has_two_announcers_nor_a_stale_blackhole(events: list[ev.Event]) -> None:
    """Whatever changes hands, after each change that nodes have seen: one announcer of a prefix at most, who owns or borrows it;
    who drops a block announces it; and a borrowed address is dropped nowhere and routed to its borrower everywhere else."""
    nodes = {f"node{number}": configured(number) for number in (1, 2, 3)}
    for event in events:
        for pipeline in nodes.values():
            w.feed(pipeline, [event])

        told = [(name, prefix) for name, pipeline in nodes.items() for prefix in announced(pipeline)]
        assert len(told) == len({prefix for _, prefix in told})
        facts = nodes["node1"].state.facts
        assert {(facts.holder(prefix), prefix) for _, prefix in told} == set(told)
        assert {*facts.owner, *facts.borrower} == {prefix for _, prefix in told}
        for name, pipeline in nodes.items():
            dropped = {key.prefix for key, route in pipeline.tables.kernel.items() if route == BLACKHOLE}  # type: ignore[union-attr]
            assert {block for block, owner in facts.owner.items() if owner == name and not block.is_host} == dropped
            for address, borrower in facts.borrower.items():
                assert bool(legs(pipeline, address)) == (borrower != name)


@given(st.lists(changes(), min_size=1, max_size=25), st.randoms(use_true_random=False))
def test_the_end_is_that_of_the_last_facts(events: list[ev.Event], chance: object) -> None:
    """Law 2: the tables after any history are those of a fresh node that reads what is stored in the end, in any order."""
    last: dict[object, ev.Event] = {}
    for event in events:
        match event:
            case ev.BlockChanged(block=block):
                last[block.cidr] = event
            case ev.BlockRemoved(cidr=cidr):
                last.pop(cidr, None)
            case ev.AffinityChanged(affinity=affinity):
                last[affinity.cidr, affinity.node] = event
            case ev.AffinityRemoved(cidr=cidr, node=name):
                last.pop((cidr, name), None)
    stored = list(last.values())
    chance.shuffle(stored)  # type: ignore[attr-defined]

    grown, fresh = w.feed(configured(1), events), w.feed(configured(1), stored)

    assert w.tables(fresh) == w.tables(grown)


def test_addresses_know_their_family() -> None:
    """A borrowed IPv6 address is routed as /128."""
    cidr = w.P("fd00::/122")
    pipeline = w.feed(w.running(), [lent(cidr, None, _1="node2")])

    assert Prefix.of(Address.parse("fd00::1"), 128) in pipeline.forwarder.reached
