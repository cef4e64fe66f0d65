"""BGP resources as the store holds them: read by the rules for documents, told by the key."""

from __future__ import annotations

import msgspec
import pytest

from bgpd.adapters.store import keys, records
from bgpd.adapters.store.keys import Malformed
from tests.core.resource.examples import EVERY_FIELD

pytestmark = pytest.mark.adapter


def test_stored_resources_are_read_by_their_keys() -> None:
    """A BGPPeer, a BGPConfiguration and a BGPFilter are found under Calico's keys and keep their names."""
    found = {
        keys.BGP_PEERS + "tor": keys.BgpPeerKey("tor"),
        keys.BGP_CONFIGURATIONS + "node.a": keys.BgpConfigurationKey("node.a"),
        keys.BGP_FILTERS + "f": keys.BgpFilterKey("f"),
    }
    assert found == {key: keys.parse(key) for key in found}

    value = {kind: msgspec.json.encode(document) for kind, document in EVERY_FIELD.items()}
    assert records.bgp_peer_from("k", "tor", value["BGPPeer"]).name == "tor"
    assert records.bgp_configuration_from("k", "default", value["BGPConfiguration"]).listen_port == 1790
    assert len(records.bgp_filter_from("k", "f", value["BGPFilter"]).export_v4) == 2


def test_stored_resource_that_breaks_a_rule_is_malformed() -> None:
    """What ``bgpd apply`` would refuse is refused where another tool stored it, and the place is named."""
    bad = EVERY_FIELD["BGPPeer"] | {"spec": {"peerIP": "192.0.2.300", "asNumber": 0}}

    with pytest.raises(Malformed, match=r"spec.peerIP: .*spec.asNumber: 0"):
        records.bgp_peer_from("k", "tor", msgspec.json.encode(bad))
