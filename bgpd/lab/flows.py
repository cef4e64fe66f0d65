"""Many small UDP flows from one host to several: what a layer-4 ECMP hash needs to show that it spreads.

Runs as a plain file inside a lab node: ``python flows.py FLOWS ADDRESS…``. Nothing needs to listen; what comes back is ignored.
"""

from __future__ import annotations

import socket
import sys

PORT = 33434
"""First port of traceroute: nothing listens there, and whoever captures the packets knows what they are."""

PACKETS_PER_FLOW = 2


def main() -> None:
    flows = int(sys.argv[1])
    for address in sys.argv[2:]:
        for number in range(flows):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                for _ in range(PACKETS_PER_FLOW):
                    sender.sendto(b"flow", (address, PORT + number))


if __name__ == "__main__":
    main()
