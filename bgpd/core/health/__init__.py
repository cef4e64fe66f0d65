"""Whether a path works: BFD (RFC 5880)."""
