"""The tier ``vm``: tests inside a Debian kernel of its own. Theory of operation in ``machine.py``."""
