"""Run in a workload's namespace: send a numbered packet each millisecond to another workload, and take note of those that come.

Usage: ``python pump.py LOCAL REMOTE FILE``. Until SIGTERM; then FILE holds two lines: when each of our packets was sent (seconds of
the monotonic clock, which all namespaces share), and the numbers of the packets received, both as JSON lists.
"""

from __future__ import annotations

import json
import signal
import socket
import struct
import sys
import threading
import time
from pathlib import Path

PORT = 40000
INTERVAL_S = 0.001
GRACE_S = 0.5
"""What was sent is given so long to arrive."""
BUFFER_BYTES = 8 << 20
NUMBER = struct.Struct("!Q")
SO_RCVBUFFORCE = 33


def main() -> None:
    local, remote, file = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    wire = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    wire.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
    wire.bind((local, PORT))
    received: list[int] = []

    def receive() -> None:
        while True:
            received.append(NUMBER.unpack(wire.recv(64))[0])

    threading.Thread(target=receive, daemon=True).start()
    sent: list[float] = []
    due = time.monotonic()
    while not stop.is_set():
        due += INTERVAL_S
        time.sleep(max(0.0, due - time.monotonic()))
        sent.append(time.monotonic())
        try:
            wire.sendto(NUMBER.pack(len(sent) - 1), (remote, PORT))
        except OSError:  # no neighbour for the moment: a packet lost like any other
            continue
    time.sleep(GRACE_S)
    file.write_text(f"{json.dumps(sent)}\n{json.dumps(received)}\n")


if __name__ == "__main__":
    main()
