"""The WireGuard key of this node: made once it is needed, told to the others once the device has it, and made anew on wish or by age.

Laws: a Node names a public key only while the device has its private half, so that what is encrypted for it can be read. When the key
changes the device comes first and the Node second: our device then still takes what others encrypt by their old sessions, and holds
back what it is to send (up to 128 packets a peer) until they know the new key and shake hands. So a change costs the packets beyond
those, for the time from the device to the others' devices, and none in the other direction.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from bgpd.adapters.reconciler import Reconciler
from bgpd.adapters.secrets import Unfit
from bgpd.adapters.store.base import Store, Transient
from bgpd.adapters.store.keys import Malformed
from bgpd.adapters.store.public_key import state_public_key
from bgpd.adapters.wireguard_keys import WireguardKeys
from bgpd.api.protocol import Refused
from bgpd.core.pipeline import Pipeline
from bgpd.model.event import Event, WireguardKeyMade
from bgpd.model.forwarding import WIREGUARD_DEVICE, DeviceKey, KernelKey, KernelValue, WireguardDevice
from bgpd.model.notice import Notice

RETRY_S = 1.0
"""Pause after the store was lost, or a key could not be made."""
AGE_CHECK_S = 60.0
"""Between looks at the age of the key: it is days or months."""
TOLD_S = 8.0
"""Longest wait of an order to change the key for the others to be told, less than our client waits; it goes on by itself afterwards."""
_DEVICE = DeviceKey(WIREGUARD_DEVICE)


class Wireguard:
    """Owns when this node's key is made, and whether it is told."""

    def __init__(
        self,
        keys: WireguardKeys,
        store: Store,
        pipeline: Pipeline,
        kernel: Reconciler[KernelKey, KernelValue],
        *,
        deliver: Callable[[Event], Awaitable[None]],
        notice: Callable[[Notice], None],
        rotate_after_s: float,
    ) -> None:
        """*rotate_after_s*: age at which the key is changed; 0: never by itself."""
        self._keys = keys
        self._store = store
        self._state = pipeline.state
        self._pipeline = pipeline
        self._kernel = kernel
        self._deliver = deliver
        self._notice = notice
        self._rotate_after_s = rotate_after_s
        self._changed = asyncio.Event()
        self._told = asyncio.Condition()
        self._unfit = ""

    def look(self) -> None:
        """Something was decided, or reached the kernel: look whether there is something to do."""
        self._changed.set()

    async def restore(self) -> None:
        """Tell the core of the key that there is, before anything else: a device that a restart finds is wanted from the first on."""
        if not self._keys.there():
            return
        try:
            await self._deliver(WireguardKeyMade(self._keys.public()))
        except Unfit as unfit:
            self._tell_unfit(str(unfit))

    async def run(self) -> None:
        """Make, tell and change the key, for ever."""
        while True:
            try:
                async with asyncio.timeout(AGE_CHECK_S):
                    await self._changed.wait()
            except TimeoutError:
                if self._has_aged():
                    await self._renew()
            self._changed.clear()
            try:
                await self._make()
                await self._tell()
            except (Transient, Malformed):
                await asyncio.sleep(RETRY_S)  # who watches the store tells of it
                self._changed.set()

    async def rotate(self) -> str:
        """Change the key, and return the new public one once the others were told; raises Refused with the reason."""
        facts = self._state.facts
        if not self._state.wireguard_wanted:
            raise Refused("no pool uses WireGuard, so this node has no key to change")
        if facts.store.lost_reason or not facts.store.synced_once:
            raise Refused("the store cannot be reached, so the other nodes would not hear of the new key")
        if self._present() is None:
            raise Refused(f"the kernel has no device {WIREGUARD_DEVICE}: {self._reason()}")
        public_key = await self._renew()
        if public_key is None:
            raise Refused(self._unfit)
        try:
            async with asyncio.timeout(TOLD_S), self._told:
                await self._told.wait_for(lambda: self._stated() == public_key)
        except TimeoutError:
            raise Refused(
                f"the key is made, but the others were not told within {TOLD_S:.0f} s: {self._reason()}"
            ) from None
        return public_key

    # -------------------------------------------------------------- inside

    async def _make(self) -> None:
        """Have a key, once some pool could use it."""
        if not self._state.wireguard_wanted or self._state.facts.wireguard_key is not None:
            return
        try:
            public_key = self._keys.public()
        except Unfit as unfit:
            self._tell_unfit(str(unfit))
            return
        await self._deliver(WireguardKeyMade(public_key))

    async def _renew(self) -> str | None:
        try:
            public_key = self._keys.rotate()
        except Unfit as unfit:
            self._tell_unfit(str(unfit))
            return None
        self._unfit = ""
        await self._deliver(WireguardKeyMade(public_key))
        self._notice(Notice("wireguard.key_changed", {"public_key": public_key}))
        return public_key

    async def _tell(self) -> None:
        """Let our Node name the key that the device has; none while it has none and will not have one."""
        state, name = self._state, self._state.facts.me.name
        if not state.facts.store.synced_once or name not in state.facts.nodes:
            return
        public_key = self._present()
        if public_key is None and state.wireguard_wanted and self._kernel.failure(_DEVICE) is None:
            return  # it is on its way
        if public_key is None and not self._pipeline.may_remove:
            return
        if self._stated() != public_key:
            await state_public_key(self._store, name, public_key)
        async with self._told:
            self._told.notify_all()

    def _present(self) -> str | None:
        """Return the public key of the device as it is in the kernel."""
        device = self._kernel.target.actual.get(_DEVICE)
        return device.public_key or None if isinstance(device, WireguardDevice) and device.mtu_bytes else None

    def _stated(self) -> str | None:
        """Return the key that our Node names, as the store's watch told us last."""
        node = self._state.facts.nodes.get(self._state.facts.me.name)
        return None if node is None else node.wireguard_key

    def _has_aged(self) -> bool:
        if not self._rotate_after_s or self._present() is None or self._state.facts.store.lost_reason:
            return False
        return self._keys.age_s(time.time()) >= self._rotate_after_s

    def _reason(self) -> str:
        failure = self._kernel.failure(_DEVICE)
        return failure.reason if failure is not None else "it is on its way"

    def _tell_unfit(self, reason: str) -> None:
        if reason != self._unfit:
            self._unfit = reason
            self._notice(Notice("wireguard.key_unfit", {"reason": reason}))
