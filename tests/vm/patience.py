"""How much longer a test may wait in a guest."""

from __future__ import annotations

import os
from typing import Final

PATIENCE: Final = 8.0 if os.environ.get("BGPD_VM_GUEST") else 1.0
"""An emulated processor is some ten times slower, and its host may be busy; deadlines are for failures, and are generous already."""
