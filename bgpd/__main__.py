"""``python -m bgpd`` is the command ``bgpd``."""

from __future__ import annotations

from bgpd.cli.main import main

if __name__ == "__main__":
    main()
