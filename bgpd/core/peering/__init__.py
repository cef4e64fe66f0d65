"""Who this node speaks BGP with (calico.md 2.2, 2.5): from nodes, BGPPeers, BGPConfigurations and the node's file to peers."""
