"""Route reflection (RFC 4456): what is passed on between iBGP peers, and how.

A route from a client goes to every other iBGP peer, one from a non-client to clients only. What is passed on keeps its next
hop and its other attributes (section 10), but for ORIGINATOR_ID, set once, and our cluster id in front of CLUSTER_LIST
(section 8), by which routes that come back are known.
"""

from __future__ import annotations

import msgspec

from bgpd.model.peer import Peer
from bgpd.model.prefix import Address
from bgpd.model.route import Attributes


def refused(source: Peer, target: Peer) -> str:
    """Say why a route from one iBGP peer does not go to another (section 6); empty where it is reflected."""
    if source.policy.reflector_cluster is None and target.policy.reflector_cluster is None:
        return "learned by iBGP, and neither end is a client of ours (RFC 4271 section 9.2)"
    return ""


def reflected(attributes: Attributes, router_id: Address, cluster: Address) -> Attributes:
    """Return the attributes as they are passed on; *router_id* is that of the peer that the route came from."""
    return msgspec.structs.replace(
        attributes,
        originator_id=attributes.originator_id or router_id,
        cluster_list=(cluster, *attributes.cluster_list),
    )
