"""BFD sessions, in a process of their own (RFC 5880, 5881, 5883)."""
