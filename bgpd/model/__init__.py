"""Nouns: frozen values without behaviour beyond themselves, shared by every package. Nothing here imports another package."""
