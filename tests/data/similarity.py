"""What near duplicates are compared by, set by set: the oracle for the index."""

from aligndistill.data.overlap import Units


def jaccard(a: frozenset[Units], b: frozenset[Units]) -> float:
    """Shared members by all members, in [0, 1]; 0 for two empty sets."""
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared) if a or b else 0.0
