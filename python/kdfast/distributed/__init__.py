"""Several processes that share one run."""

from kdfast.distributed.ranks import Ranks, join

__all__ = ["Ranks", "join"]
