"""Assignments asked for by the API: IPAM's answers as the API gives them."""

from __future__ import annotations

import asyncio

from bgpd.adapters.store.base import Store, Transient
from bgpd.adapters.store.ipam.assign import AddressRequest, Granted, assign, assign_at
from bgpd.adapters.store.keys import Malformed
from bgpd.api.protocol import AssignRequest, AssignView, Refused
from bgpd.core.ipam.block import Refused as NoAddress
from bgpd.model.prefix import Address


class Assigner:
    """Assigns addresses to workloads of *node*, one request at a time; owns whose turn it is.

    All requests change the node's same few blocks: at once, each would void what the others read, and 16 of them get on
    twenty times slower than in turn. Those who wait are bounded by the API (REQUESTS_LIMIT, REQUEST_LIMIT_S).
    """

    def __init__(self, store: Store, node: str) -> None:
        self._store = store
        self._node = node
        self._turn = asyncio.Lock()

    async def assign(self, asked: AssignRequest) -> AssignView:
        """Give the handle what it asks for; raises the API's Refused, and ValueError for an address that is none."""
        if asked.address is None and not asked.ipv4 and not asked.ipv6:
            raise ValueError("a request is for at least one address")
        request = AddressRequest(
            node=self._node,
            handle_id=asked.handle,
            attributes=asked.attributes,
            ipv4=asked.ipv4,
            ipv6=asked.ipv6,
            pools=(asked.pool,) if asked.pool is not None else (),
        )
        wanted = Address.parse(asked.address) if asked.address is not None else None
        try:
            async with self._turn:
                answer = await (
                    assign(self._store, request) if wanted is None else assign_at(self._store, request, wanted)
                )
        except Transient as error:
            raise Refused(f"the store is lost: {error.reason}") from error
        except Malformed as error:
            raise Refused(f"the store holds a record that cannot be read: {error}") from error
        if isinstance(answer, NoAddress):
            raise Refused(answer.reason)
        granted = answer if isinstance(answer, Granted) else Granted((answer,))
        addresses = tuple(str(address) for address in granted.addresses)
        return AssignView(addresses[0], addresses, granted.short)
