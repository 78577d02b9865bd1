"""What this machine's memory cannot hold is refused before the system ends the process for it."""

from __future__ import annotations

import os

from fastgan.errors import NotEnoughMemoryError


def check_memory(num_bytes: float, what: str) -> None:
    """Refuse what is larger than all of the memory.

    Parameters
    ----------
    num_bytes : int
        How much it takes.
    what : str
        What takes it: the beginning of the sentence, in the plural.

    Raises
    ------
    NotEnoughMemoryError
        It takes more bytes than there are; where the system does not tell how many, nothing is refused.
    """
    try:
        installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return
    if num_bytes > installed > 0:
        raise NotEnoughMemoryError(
            f"{what} take {num_bytes / 1e9:,.0f} GB and this machine has {installed / 1e9:,.0f}; ask for fewer"
        )
