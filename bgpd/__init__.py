"""bgpd: a per-node BGP route distribution daemon for Linux. The architecture is in DESIGN.md beside this file."""

__version__ = "0.1.0"
