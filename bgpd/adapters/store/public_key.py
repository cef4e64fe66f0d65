"""The public key of a node's WireGuard device in its Node resource, where Calico has it: ``status.wireguardPublicKey``."""

from __future__ import annotations

from typing import Any

import msgspec

from bgpd.adapters.store import keys
from bgpd.adapters.store.base import Compare, Put, Store
from bgpd.adapters.store.keys import Malformed
from bgpd.adapters.store.transact import Plan, transact

FIELD = "wireguardPublicKey"


async def state_public_key(store: Store, node: str, public_key: str | None) -> bool:
    """Let the Node name *public_key*, or none; returns whether it does: not where there is no such Node yet.

    What others keep in the Node stays. Raises Transient, and Malformed for a Node that cannot be written to.
    """
    key = keys.node_key(node)

    async def decide() -> Plan[bool]:
        item = await store.get(key)
        if item is None:
            return Plan(False)
        resource = _object(key, item.value)
        status = resource.get("status") or {}
        if not isinstance(status, dict):
            raise Malformed(key, "status is not an object")
        if status.get(FIELD) == public_key:
            return Plan(True)
        resource["status"] = {name: value for name, value in status.items() if name != FIELD}
        if public_key is not None:
            resource["status"][FIELD] = public_key
        if not resource["status"]:
            del resource["status"]
        return Plan(True, (Compare(key, item.mod_revision),), (Put(key, msgspec.json.encode(resource)),))

    return await transact(store, decide)


def _object(key: str, value: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(key, str(error)) from error
    if not isinstance(found, dict):
        raise Malformed(key, "not an object")
    return found
