"""Routes learned by BGP: adj-rib-in, next-hop resolution and decision (RFC 4271 section 9)."""
