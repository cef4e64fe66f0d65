"""What is collected, and above all what is not."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bgpd.core.ipam.block import BlockRecord
from bgpd.core.ipam.collect import GRACE_S, UNSEEN_S, Collector, Leak, Surplus, Why
from bgpd.model.pool import Pool
from bgpd.model.prefix import Address, Prefix
from tests.core.ipam.test_census import POOL, block, resting

pytestmark = pytest.mark.core

ONE, TWO, THREE = (Prefix.parse(f"10.65.0.{last}/26") for last in (0, 64, 128))
A0, A1 = Address.parse("10.65.0.0"), Address.parse("10.65.0.1")
BOTH = (Prefix.parse("10.65.0.0/32"), Prefix.parse("10.65.0.1/32"))


def collector(*records: BlockRecord, nodes=("n",), unready=False):
    """A collector that knows *records* and that *nodes* exist."""
    made = Collector()
    made.pool(POOL.name, POOL)
    for name in nodes:
        made.node(name, exists=True, now=0.0)
    for record in records:
        made.block(record.cidr, record, 0.0)
        if record.node is not None:
            made.affinity(record.cidr, record.node, exists=True, now=0.0)
    if not unready:
        made.ready(0.0)
    return made


def quiet(made, now):
    """Whether there is nothing to do, now and later."""
    return made.work(now, 100) == []


def test_a_deleted_node_gives_back_all_at_once():
    """When a node is seen to end, its addresses and blocks are due at once, with what makes a late release harmless."""
    made = collector(block("10.65.0.0/26", "a", "b"))
    made.node("n", exists=False, now=5.0)

    assert 5.0 == made.deadline()
    assert {
        Leak("a", ((A0, 100),), ((ONE, 1),), ("n",), Why.NODE_GONE),
        Leak("b", ((A1, 101),), ((ONE, 1),), ("n",), Why.NODE_GONE),
        Surplus(ONE, "n", Why.NODE_GONE, None),
    } == set(made.work(5.0, 100))
    assert made.work(1e9, 100) == []


@pytest.mark.parametrize("still", ["alive", "resource"])
def test_a_node_exists_by_its_resource_or_its_lease(still):
    """A node whose daemon lives is not gone though its resource is, and the other way round."""
    made = collector(block("10.65.0.0/26", "a"))
    made.alive("n", alive=True, now=1.0)
    if still == "alive":
        made.node("n", exists=False, now=2.0)
    else:
        made.alive("n", alive=False, now=2.0)

    assert quiet(made, 1e9)


def test_a_node_that_nobody_saw_waits():
    """What belongs to a node that was gone from the beginning waits UNSEEN_S; if the node appears meanwhile it is let be."""
    gone = collector(block("10.65.0.0/26", "a"), nodes=())
    assert UNSEEN_S == gone.deadline()
    assert gone.work(UNSEEN_S - 1, 100) == []
    assert ["a"] == [one.handle for one in gone.work(UNSEEN_S, 100) if isinstance(one, Leak)]

    late = collector(block("10.65.0.0/26", "a"), nodes=())
    late.alive("n", alive=True, now=UNSEEN_S - 1)
    assert quiet(late, 1e9)

    later = collector(nodes=())
    later.block(ONE, block("10.65.0.0/26", "a"), 500.0)
    assert later.work(500.0 + UNSEEN_S - 1, 100) == []
    assert later.work(500.0 + UNSEEN_S, 100) != []


def test_nothing_is_judged_before_all_is_read():
    """Until everything was told, nobody is gone."""
    made = collector(block("10.65.0.0/26", "a"), nodes=(), unready=True)

    assert (None, []) == (made.deadline(), made.work(1e9, 100))


def test_an_address_without_trace_is_confirmed_over_the_grace_time():
    """An address goes after two publications without a trace of it that are the grace time apart; fewer do not do."""
    made = collector(block("10.65.0.0/26", "a", "b"))
    made.published("n", BOTH[1:], 7, 10.0)
    assert made.work(10.0 + 2 * GRACE_S, 100) == []
    made.published("n", BOTH[1:], 8, 9.0 + GRACE_S)
    assert made.work(9.0 + GRACE_S, 100) == []
    made.published("n", BOTH[1:], 9, 10.0 + GRACE_S)

    assert [Leak("a", ((A0, 100),), ((ONE, 1),), ("n",), Why.NO_TRACE, (("n", 9),))] == made.work(10.0 + GRACE_S, 100)


@pytest.mark.parametrize("what", ["seen between", "says nothing", "reused", "released", "newer publication"])
def test_any_doubt_begins_anew(what):
    """A trace in between, silence, another holder, a release or a newer publication undo what was suspected."""
    made = collector(block("10.65.0.0/26", "a"))
    made.published("n", (), 7, 0.0)
    if what == "seen between":
        made.published("n", BOTH, 8, 10.0)
    elif what == "says nothing":
        made.published("n", None, 8, 10.0)
    elif what == "reused":
        record = block("10.65.0.0/26", "a")
        made.block(ONE, msgspec.structs.replace(record, sequence_number_for_allocation={"0": 500}), 10.0)
    elif what == "released":
        made.block(ONE, block("10.65.0.0/26"), 10.0)
        made.block(ONE, block("10.65.0.0/26", "a"), 11.0)
    made.published("n", (), 9, GRACE_S)
    if what == "newer publication":
        made.published("n", BOTH, 10, GRACE_S)

    assert [] == [one for one in made.work(GRACE_S, 100) if isinstance(one, Leak)]


def test_all_or_none_per_handle():
    """One valid address keeps all of its handle; when that goes, the others follow."""
    record = block("10.65.0.0/26", "a", "a")
    made = collector(record)
    for at, revision in ((0.0, 7), (GRACE_S, 8)):
        made.published("n", BOTH[:1], revision, at)
    assert quiet(made, GRACE_S)
    made.published("n", (), 9, GRACE_S + 1)
    assert quiet(made, GRACE_S + 1)
    made.published("n", (), 10, 2 * GRACE_S + 1)

    (leak,) = made.work(2 * GRACE_S + 1, 100)
    assert [A0, A1] == [address for address, _ in leak.addresses]


def test_the_rest_of_a_handle_goes_when_its_valid_address_is_released():
    """When the valid address of a handle is released, its unused ones are looked at at once."""
    made = collector(block("10.65.0.0/26", "a", "a"))
    for at, revision in ((0.0, 7), (GRACE_S, 8)):
        made.published("n", BOTH[:1], revision, at)
    assert quiet(made, GRACE_S)
    less = block("10.65.0.0/26", "a", "a")
    less = msgspec.structs.replace(
        less, allocations=(None, 1, *less.allocations[2:]), unallocated=(0, *less.unallocated)
    )
    made.block(ONE, less, GRACE_S)

    assert ["a"] == [one.handle for one in made.work(GRACE_S, 100)]


@pytest.mark.parametrize(
    "changes",
    [
        {"handle_id": None},
        {"secondary": {}},
        {"sequence": None},
        {"secondary": {"node": "n", "type": "ipipTunnelAddress"}},
    ],
)
def test_what_is_not_known_is_valid(changes):
    """An address without handle, node or sequence number stays, and so does a tunnel's while its node exists."""
    record = block("10.65.0.0/26", "a")
    if "sequence" in changes:
        record = msgspec.structs.replace(record, sequence_number_for_allocation={})
    else:
        record = msgspec.structs.replace(record, attributes=(msgspec.structs.replace(record.attributes[0], **changes),))
    made = collector(record)
    for at in (0.0, GRACE_S, 2 * GRACE_S):
        made.published("n", (), int(at) + 7, at)

    assert quiet(made, 1e9)


def test_a_tunnels_address_goes_with_its_node():
    """A tunnel's address is judged by its node's existence alone."""
    made = collector(block("10.65.0.0/26", "ipip-tunnel-addr-n", secondary={"type": "ipipTunnelAddress"}))
    made.node("n", exists=False, now=1.0)

    assert ["ipip-tunnel-addr-n"] == [one.handle for one in made.work(1.0, 100) if isinstance(one, Leak)]


def test_a_borrowed_address_stays_with_its_borrower():
    """A node's end gives back its block, and not the address that another node uses in it."""
    made = collector(block("10.65.0.0/26", "a", at="other"), nodes=("n", "other"))
    made.node("n", exists=False, now=1.0)
    assert [Surplus(ONE, "n", Why.NODE_GONE, None)] == made.work(1.0, 100)

    made = collector(block("10.65.0.0/26", "a", at="other"), nodes=("n", "other"))
    made.node("other", exists=False, now=1.0)
    assert ["a"] == [one.handle for one in made.work(1.0, 100)]


def test_empty_blocks_go_but_one_of_each_pool_stays():
    """Of a node's empty blocks all but one of each pool go, after the grace time without any change."""
    second = Pool(name="q", cidr=Prefix.parse("10.66.0.0/24"))
    made = collector(*(block(str(cidr)) for cidr in (ONE, TWO, THREE)), block("10.66.0.0/26"))
    made.pool("q", second)
    assert made.work(GRACE_S - 1, 100) == []

    first, other = made.work(GRACE_S, 100)
    assert (Why.EMPTY, Why.EMPTY) == (first.why, other.why)
    assert {first.cidr, other.cidr} < {ONE, TWO, THREE}
    made.block(first.cidr, None, GRACE_S + 1)
    assert quiet(made, 1e9)


def test_a_change_of_an_empty_block_begins_anew():
    """A block that was used in between, or touched, is observed for the grace time again."""
    made = collector(block("10.65.0.0/26"), block("10.65.0.64/26", "a"))
    made.block(ONE, block("10.65.0.0/26", "x"), 100.0)
    made.block(ONE, block("10.65.0.0/26"), 200.0)
    assert made.work(GRACE_S, 100) == []
    touched = msgspec.structs.replace(block("10.65.0.0/26"), sequence_number=999)
    made.block(ONE, touched, 300.0)
    made.block(ONE, touched, 400.0)  # read anew, not changed
    assert made.work(200.0 + GRACE_S, 100) == []

    assert [Surplus(ONE, "n", Why.EMPTY, 999)] == made.work(300.0 + GRACE_S, 100)


def test_a_block_that_becomes_spare_is_found():
    """A node's only block is no surplus; once it has another one, it is, at once if it was empty long enough."""
    made = collector(block("10.65.0.0/26"))
    assert quiet(made, 10 * GRACE_S)
    made.block(TWO, block("10.65.0.64/26", "a"), 10 * GRACE_S)

    assert [ONE] == [one.cidr for one in made.work(10 * GRACE_S, 100)]


def test_nobodys_empty_block_goes_and_a_virtual_owners_stays():
    """An empty block without affinity goes after the grace time; a virtual owner's is its own business."""
    empty = block("10.65.0.0/26")
    made = collector(msgspec.structs.replace(empty, affinity=None))
    assert [Surplus(ONE, None, Why.EMPTY, 100)] == made.work(GRACE_S, 100)

    made = collector(msgspec.structs.replace(empty, affinity="virtual:load-balancer"))
    assert quiet(made, 1e9)


def test_resting_addresses_are_nobodys():
    """A resting address is not judged, and whoever releases the block decides whether its rest is over."""
    made = collector(resting(block("10.65.0.0/26"), 3), block("10.65.0.64/26", "a"))

    assert [Surplus(ONE, "n", Why.EMPTY, 100)] == made.work(GRACE_S, 100)


def test_a_stray_affinity_of_a_gone_node_goes():
    """An affinity of a node that is gone goes, also without a block, or to a block of another."""
    made = collector(block("10.65.0.0/26", "a", node="m", at="m"), nodes=("m",))
    made.affinity(ONE, "n", exists=True, now=0.0)
    made.affinity(TWO, "n", exists=True, now=0.0)

    assert {(ONE, "n"), (TWO, "n")} == {(one.cidr, one.node) for one in made.work(UNSEEN_S, 100)}


def test_work_is_bounded_and_comes_back_when_it_failed():
    """No more than the limit is handed out at once; what could not be done comes back at the time asked for, and only then."""
    made = collector(block("10.65.0.0/26", "a", "b", "c"))
    made.node("n", exists=False, now=1.0)
    first = made.work(1.0, 2)
    rest = made.work(1.0, 100)
    assert (2, 2) == (len(first), len(rest))
    for one in (*first, *rest):
        made.retry(one, 50.0)

    assert made.work(49.0, 100) == []
    assert 50.0 == made.deadline()
    assert {"a", "b", "c"} == {one.handle for one in made.work(50.0, 100) if isinstance(one, Leak)}


def test_nothing_is_remembered_of_what_is_gone():
    """When blocks, affinities and nodes are gone, nothing of them is kept."""
    made = collector(block("10.65.0.0/26", "a"), block("10.65.0.64/26"))
    made.published("n", (), 7, 0.0)
    made.published("n", None, 8, 1.0)
    made.node("n", exists=False, now=1.0)
    for cidr in (ONE, TWO):
        made.block(cidr, None, 2.0)
        made.affinity(cidr, "n", exists=False, now=2.0)
    made.work(1e9, 100)

    kept = (made._nodes, made._blocks, made._held, made._handles, made._suspects, made._confirmed, made._earliest)
    assert [0] * 7 == [len(one) for one in kept]


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["block", "gone", "node", "dead", "alive", "publish", "silent", "affinity", "later"]),
        st.integers(0, 2),
        st.integers(0, 3),
    ),
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(EVENTS)
def test_nothing_valid_is_ever_handed_out(events):
    """Whatever is told in whatever order: no work touches an address whose node exists and has a trace, or a node's last block."""
    made = Collector()
    made.pool(POOL.name, POOL)
    made.ready(0.0)
    now, truth, exists = 0.0, {}, {"n0": set(), "n1": set(), "n2": set()}
    traces: dict[str, tuple[Prefix, ...] | None] = {}
    for step, (what, which, how) in enumerate(events):
        now += 1.0
        name, cidr = f"n{which}", (ONE, TWO, THREE)[which]
        if what == "block":
            truth[cidr] = block(str(cidr), *(f"h{one}" for one in range(how)), node=f"n{how % 3}", at=f"n{step % 3}")
            made.block(cidr, truth[cidr], now)
        elif what == "gone":
            truth.pop(cidr, None)
            made.block(cidr, None, now)
        elif what in {"node", "dead"}:
            (exists[name].add if what == "node" else exists[name].discard)("resource")
            made.node(name, exists=what == "node", now=now)
        elif what == "alive":
            (exists[name].add if how else exists[name].discard)("alive")
            made.alive(name, alive=bool(how), now=now)
        elif what in {"publish", "silent"}:
            places = [Prefix.of(one.address(at), 32) for one in (ONE, TWO, THREE) for at in range(how)]
            traces[name] = tuple(places) if what == "publish" else None
            made.published(name, traces[name], step + 1, now)
        elif what == "affinity":
            made.affinity(cidr, f"n{how % 3}", exists=bool(how), now=now)
        else:
            now += random.Random(step).choice([UNSEEN_S, GRACE_S / 2, GRACE_S])
        for one in made.work(now, 100):
            _judge(one, truth, exists, traces)


def _judge(work, truth, exists, traces):
    if isinstance(work, Leak):
        for address, _ in work.addresses:
            record = next(record for cidr, record in truth.items() if cidr.holds(address))
            node = record.attributes[record.allocations[address - record.cidr.network]].secondary["node"]
            assert not exists[node] or (
                traces.get(node) is not None and not any(one.holds(address) for one in traces[node])
            )
    elif work.why is Why.EMPTY:
        record = truth[work.cidr]
        assert record.in_use == 0
        assert [one for one in truth.values() if one.node == record.node and one.cidr != work.cidr]
    else:
        assert not exists[work.node]
