"""How a destination is reached: natively, directly, or through a tunnel (architecture section 5)."""
