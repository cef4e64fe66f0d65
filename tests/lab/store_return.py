"""Run in a namespace: wait for etcd to answer, then have nodes assign an address each, and say when.

Usage: ``python store_return.py HOST:PORT HANDLE NODE…``. Lines: ``waiting``, the time of the first answer, then for each node its
name, address and the time (seconds since the epoch).
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence

import grpc.aio

from bgpd.adapters.store.etcd import EtcdStore
from bgpd.adapters.store.etcd_link import EtcdOptions
from bgpd.adapters.store.ipam.assign import assign_address
from bgpd.adapters.store.proto import rpc_pb2 as rpc


async def answers(address: str) -> bool:
    """Whether the server answers a linearizable read; each time by a connection of its own, so that nothing waits."""
    async with grpc.aio.insecure_channel(address, options=(("grpc.use_local_subchannel_pool", 1),)) as channel:
        read = channel.unary_unary(
            "/etcdserverpb.KV/Range", rpc.RangeRequest.SerializeToString, rpc.RangeResponse.FromString
        )
        try:
            await read(rpc.RangeRequest(key=b"/"), timeout=0.5)
        except grpc.aio.AioRpcError:
            return False
    return True


async def main(address: str, handle: str, nodes: Sequence[str]) -> None:
    print("waiting", flush=True)
    while not await answers(address):
        await asyncio.sleep(0.01)
    print(time.time(), flush=True)
    store = EtcdStore(EtcdOptions((address,)))
    for node in nodes:
        print(node, await assign_address(store, node, f"{handle}.{node}", {}), time.time(), flush=True)
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
