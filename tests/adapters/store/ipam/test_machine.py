"""IPAM under any sequence of operations, with crashes after any write: no address has two owners, and none is lost."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from bgpd.adapters.store import keys
from bgpd.adapters.store.base import Comparison, Put, Transient, TxnResult, Write
from bgpd.adapters.store.ipam.assign import AddressRequest, Granted, assign, assign_at
from bgpd.adapters.store.ipam.claim import claim_block
from bgpd.adapters.store.ipam.release import release, release_block, release_handle, release_node, release_whole
from bgpd.adapters.store.memory import MemoryStore
from bgpd.adapters.store.records import pool_bytes
from bgpd.core.ipam.release import Release, Released
from bgpd.model.pool import Pool
from bgpd.model.prefix import Address, Prefix
from tests.adapters.store.ipam import audit

pytestmark = pytest.mark.adapter

V4 = Pool(name="v4", cidr=Prefix.parse("10.0.0.0/29"), block_size=30)
V6 = Pool(name="v6", cidr=Prefix.parse("fd00::/124"), block_size=125)
EXAMPLES = int(os.environ.get("IPAM_EXAMPLES", "40"))
"""Sequences of operations tried."""
NODES, HANDLES = st.sampled_from(("a", "b", "c")), st.sampled_from([f"h{number}" for number in range(4)])
NOW = datetime(2026, 8, 22, 10, 0, tzinfo=UTC)


Crash = tuple[int, bool]
"""After how many transactions the process is killed (negative: it is not), and whether the last one is made."""
CRASH = st.just((-1, True)) | st.tuples(st.integers(0, 3), st.booleans())


class Crashing(MemoryStore):
    """A store whose user may end at a transaction: before it was made, or after, without hearing of it."""

    def __init__(self) -> None:
        super().__init__()
        self.crash_in = -1
        """Transactions until the crash; negative: none."""
        self.made = True
        """Whether the transaction of the crash is made."""

    async def txn(self, compares: Sequence[Comparison], writes: Sequence[Write]) -> TxnResult:
        if self.crash_in != 0:
            self.crash_in -= 1
            return await super().txn(compares, writes)
        self.crash_in = -1
        if self.made:
            await super().txn(compares, writes)
        raise Transient("the process was killed")


class Machine(RuleBasedStateMachine):
    """Holds the store, and of each handle the addresses that it was told it has."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.store = Crashing()
        self._read_at, self._read = 0, dict[str, Any]()
        self.told: dict[str, set[Address]] = {}
        self.seen: list[Release] = []
        """Releases that a collector or a slow caller may come with, late."""
        self.rest = 0
        self.resting: set[Address] = set()
        """Released with a cool-down that is not over."""

    def teardown(self) -> None:
        self.loop.close()

    def do(self, crash: Crash, work: Coroutine[Any, Any, Any]) -> Any:
        """Run an operation; None where its process was killed in it."""
        self.store.crash_in, self.store.made = crash
        try:
            return self.loop.run_until_complete(work)
        except Transient:
            return None
        finally:
            self.store.crash_in = -1

    def put(self, key: str, value: bytes) -> None:
        """Write as somebody who is not killed."""
        self.loop.run_until_complete(MemoryStore.txn(self.store, (), (Put(key, value),)))

    def state(self) -> dict[str, Any]:
        """Return all of IPAM, read anew where something was written."""
        if (revision := self.loop.run_until_complete(self.store.range("/", limit=1)).revision) != self._read_at:
            self._read_at, self._read = revision, self.loop.run_until_complete(audit.dump(self.store))
        return self._read

    @initialize(strict=st.booleans(), rest=st.sampled_from((0, 60)), limit=st.sampled_from((0, 1, 2)))
    def settle(self, strict: bool, rest: int, limit: int) -> None:
        for pool in (V4, V6):
            self.put(keys.pool_key(pool.name), pool_bytes(pool, NOW))
        self.configure(strict, rest, limit)

    # -------------------------------------------------------------- what is done

    def configure(self, strict: bool, rest: int, limit: int) -> None:
        config = {
            "strict_affinity": strict,
            "auto_allocate_blocks": True,
            "ipCooldownSeconds": rest,
            "maxBlocksPerHost": limit if strict else 0,
        }
        self.put(keys.IPAM_CONFIG, json.dumps(config).encode())
        self.rest = rest
        if not rest:
            self.resting.clear()

    @rule(
        strict=st.booleans(),
        rest=st.sampled_from((0, 60)),
        limit=st.sampled_from((0, 1, 2)),
        reserved=st.lists(st.sampled_from(("10.0.0.0/31", "10.0.0.2/31", "10.0.0.5/32")), max_size=3),
        passes=st.booleans(),
    )
    def change_the_world(self, strict: bool, rest: int, limit: int, reserved: list[str], passes: bool) -> None:
        self.configure(strict, rest, limit)
        self.put(keys.RESERVATIONS + "r", json.dumps({"spec": {"reservedCIDRs": reserved}}).encode())
        if passes:
            self.let_time_pass()

    @rule(node=NODES, pool=st.sampled_from((V4, V6)), room=st.booleans(), reclaims=st.booleans(), crash=CRASH)
    def claim(self, node: str, pool: Pool, room: bool, reclaims: bool, crash: Crash) -> None:
        self.do(crash, claim_block(self.store, pool, node, room=room, reclaims=reclaims))

    @rule(node=NODES, handle=HANDLES, ipv4=st.integers(0, 6), ipv6=st.integers(0, 2), crash=CRASH)
    def assign(self, node: str, handle: str, ipv4: int, ipv6: int, crash: Crash) -> None:
        before = set(self.told.get(handle, ()))
        answer = self.do(crash, assign(self.store, AddressRequest(node=node, handle_id=handle, ipv4=ipv4, ipv6=ipv6)))
        if isinstance(answer, Granted):
            for family, wanted in ((4, ipv4), (6, ipv6)):
                given = [address for address in answer.addresses if address.family == family]
                had = {address for address in before if address.family == family}
                assert len(given) <= wanted
                assert set(given) >= had or len(given) == wanted, "what a handle has it is told again"
            assert not self.resting & set(answer.addresses)
            self.told.setdefault(handle, set()).update(answer.addresses)
        self.note()

    @rule(node=NODES, handle=HANDLES, ordinal=st.integers(0, 7), crash=CRASH)
    def assign_at(self, node: str, handle: str, ordinal: int, crash: Crash) -> None:
        address = V4.cidr.address(ordinal)
        answer = self.do(crash, assign_at(self.store, AddressRequest(node=node, handle_id=handle), address))
        if isinstance(answer, Address):
            assert address not in self.resting
            self.told.setdefault(handle, set()).add(address)
        self.note()

    def note(self) -> None:
        """Somebody looks at all allocations, and may release them by what it saw, much later."""
        for key, record in self.state().items():
            if not key.startswith(keys.BLOCKS):
                continue
            cidr = Prefix.parse(record["cidr"])
            for ordinal, slot in enumerate(record["allocations"]):
                if slot is not None and "handle_id" in record["attributes"][slot]:
                    number = record["sequenceNumberForAllocation"][str(ordinal)]
                    self.seen.append(Release(address=cidr.address(ordinal), sequence=number))
        self.seen = list(dict.fromkeys(self.seen))

    @rule(data=st.data(), crash=CRASH)
    def release_late(self, data: st.DataObject, crash: Crash) -> None:
        """A late release by sequence number frees the allocation that was seen, or nothing."""
        if self.seen:
            late = [wish for wish in self.seen if self._holder(wish.address)[0] not in (None, wish.sequence)]
            wish = data.draw(st.sampled_from(late or self.seen))
            before = self._holder(wish.address)
            answer = self.do(crash, release(self.store, [wish]))
            if isinstance(answer, Released) and wish.address in answer.released:
                assert before == (wish.sequence, before[1]), "a later tenant lost its address"
            self.gone(answer)

    @rule(data=st.data(), crash=CRASH)
    def collect(self, data: st.DataObject, crash: Crash) -> None:
        """All or nothing."""
        picked = data.draw(st.lists(st.sampled_from(self.seen), min_size=1, max_size=4)) if self.seen else []
        wishes = list({wish.address: wish for wish in picked}.values())
        before = {wish.address: self._holder(wish.address) for wish in wishes}
        answer = self.do(crash, release_whole(self.store, wishes))
        if isinstance(answer, Released):
            assert set(answer.released) == {address for address, (number, _) in before.items() if number is not None}
            assert () == answer.refused
        self.gone(answer)

    @rule(handle=HANDLES, crash=CRASH)
    def release_handle(self, handle: str, crash: Crash) -> None:
        answer = self.do(crash, release_handle(self.store, handle))
        if isinstance(answer, Released):
            assert handle not in audit.held(self.state()).values()
        self.told.pop(handle, None)
        self.gone(answer)

    @rule(handle=HANDLES, other=HANDLES, crash=CRASH)
    def release_addresses(self, handle: str, other: str, crash: Crash) -> None:
        """An address is given back only by the handle that has it."""
        addresses = sorted(self.told.get(handle, ()))
        answer = self.do(crash, release(self.store, [Release(address=one, handle_id=other) for one in addresses]))
        if handle == other:
            self.told.pop(handle, None)
        elif isinstance(answer, Released):
            assert () == answer.released
            assert set(addresses) == {address for address, _ in answer.refused}
        self.gone(answer)

    @rule(node=NODES, ordinal=st.integers(0, 1), require_empty=st.booleans(), crash=CRASH)
    def release_block(self, node: str, ordinal: int, require_empty: bool, crash: Crash) -> None:
        cidr = Prefix.of(V4.cidr.address(4 * ordinal), 30)
        self.do(crash, release_block(self.store, cidr, node, require_empty=require_empty))

    @rule(node=NODES, crash=CRASH)
    def lose_node(self, node: str, crash: Crash) -> None:
        """What the node held is given back, what others borrowed of its blocks stays theirs."""
        answer = self.do(crash, release_node(self.store, node))
        if isinstance(answer, Released):
            left = self.state().items()
            assert not [key for key, _ in left if key.startswith(f"{keys.HOSTS}{node}/")]
            blocks = [value for key, value in left if key.startswith(keys.BLOCKS)]
            assert not [one for one in blocks if one["affinity"] == f"host:{node}"]
            assert not [
                attribute
                for one in blocks
                for attribute in one["attributes"]
                if attribute.get("secondary", {}).get("node") == node
            ]
        self.gone(answer)

    def let_time_pass(self) -> None:
        """Claims and rests become two minutes older."""
        text = json.dumps(self.state())
        for key, value in json.loads(text).items():
            if not key.startswith(keys.BLOCKS):
                continue
            if value["affinity_claim_time"]:
                value["affinity_claim_time"] = _older(value["affinity_claim_time"])
            for attribute in value["attributes"]:
                if "releasedAt" in attribute:
                    attribute["releasedAt"] = _older(attribute["releasedAt"])
            self.put(key, json.dumps(value).encode())
        self.resting.clear()

    # -------------------------------------------------------------- what holds

    @invariant()
    def store_is_consistent(self) -> None:
        assert [] == audit.defects(self.state())

    @invariant()
    def who_was_told_has_it(self) -> None:
        """An address that a handle was told it has is that handle's."""
        held = audit.held(self.state())
        for handle, addresses in self.told.items():
            for address in addresses:
                pool = V4 if address.family == 4 else V6
                cidr = Prefix.of(address, pool.block_size)
                assert handle == held.get(f"{cidr}#{address - cidr.network}")

    @invariant()
    def what_rests_rests(self) -> None:
        """A released address is not free before its time, whatever becomes of its block."""
        state = self.state()
        for address in self.resting:
            cidr = Prefix.of(address, (V4 if address.family == 4 else V6).block_size)
            assert state[keys.block_key(cidr)]["allocations"][address - cidr.network] is not None

    def _holder(self, address: Address) -> tuple[int | None, str | None]:
        """Return the sequence number of the allocation of *address*, and its handle."""
        pool = V4 if address.family == 4 else V6
        cidr = Prefix.of(address, pool.block_size)
        record = self.state().get(keys.block_key(cidr))
        ordinal = address - cidr.network
        slot = record["allocations"][ordinal] if record else None
        if record is None or slot is None or "handle_id" not in record["attributes"][slot]:
            return None, None
        return record["sequenceNumberForAllocation"][str(ordinal)], record["attributes"][slot]["handle_id"]

    def gone(self, answer: object) -> None:
        """Forget what was taken back from handles by others than themselves; with a cool-down it rests."""
        if self.rest and isinstance(answer, Released):
            self.resting.update(answer.released)
        for handle, addresses in self.told.items():
            self.told[handle] = {address for address in addresses if self._holder(address)[1] == handle}


def _older(text: str) -> str:
    moment = datetime.fromisoformat(text) - timedelta(minutes=2)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=EXAMPLES, stateful_step_count=50, deadline=None)
