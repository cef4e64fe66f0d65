"""What an operator has ordered, written down before it holds, so that a restart finds it."""

from __future__ import annotations

import os
from pathlib import Path


class Unkept(Exception):  # noqa: N818 - what it is
    """The order cannot be written down, or there are too many; nothing has changed."""


def keep(path: Path, octets: bytes, loss: str) -> None:
    """Write a file as a whole: whoever reads it, also after a loss of power, finds the old or the new one.

    Raises Unkept with the reason, and with *loss*: what a restart would do.
    """
    beside = path.with_suffix(".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            file.write(octets)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise Unkept(f"{path} cannot be written: {error.strerror}; {loss}") from error
