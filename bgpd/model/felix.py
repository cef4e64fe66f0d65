"""FelixConfiguration, as far as tunnels depend on it (Calico: api/pkg/apis/projectcalico/v3/felixconfig.go; calico-formats.md)."""

from __future__ import annotations

import msgspec

DEFAULT = "default"
NODE = "node."
"""What the name of the one begins with that overrides ``default`` for a node."""
WIREGUARD_PORT = 51820


class FelixConfiguration(msgspec.Struct, frozen=True, kw_only=True):
    """One resource; None of a field says that it is not set there. An MTU of 0 is worked out from the uplinks."""

    name: str
    wireguard_enabled: bool | None = None
    """All workload traffic of IPv4 goes through WireGuard to every node that has a key."""
    wireguard_enabled_v6: bool | None = None
    wireguard_port: int | None = None
    """UDP port that WireGuard listens on; this node's own may differ from another's."""
    wireguard_mtu_bytes: int | None = None
    wireguard_keepalive_s: int | None = None
    vxlan_mtu_bytes: int | None = None
    vxlan_mtu_v6_bytes: int | None = None
    ipip_mtu_bytes: int | None = None
    mtu_interface_pattern: str | None = None
    """Regular expression of the interfaces whose MTU counts."""

    def over(self, below: FelixConfiguration | None) -> FelixConfiguration:
        """Return what holds where *below* is set for all nodes, and this for one."""
        if below is None:
            return self
        said = {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not None}
        return msgspec.structs.replace(below, **said)


NOTHING_SAID = FelixConfiguration(name=DEFAULT)
