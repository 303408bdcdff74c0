"""Token grids: reading their cache, and the order in which training reads its items."""

from pipeline.data.tokens.cache import SHARD, TokenCache
from pipeline.data.tokens.order import BatchOrder

__all__ = ["SHARD", "BatchOrder", "TokenCache"]
