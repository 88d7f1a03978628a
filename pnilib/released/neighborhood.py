"""The release's window of the MLP (B1), and how it chooses an epoch (B16)."""

from pnilib.neighborhood import neighbor_offsets

__all__ = ["HELD_OUT", "leaked_offsets"]

HELD_OUT = 0.1
"""Share of the patches whose loss chooses the epoch; drawn at random, so that overlapping windows fall on both sides
(B16)."""


def leaked_offsets(patch: int) -> list[tuple[int, int]]:
    """The indexing drops element 41 of 81, which is the right-hand neighbor (0, 1), and keeps the centre: the network
    can read the answer (B1)."""
    return sorted({*neighbor_offsets(patch), (0, 0)} - {(0, 1)})
