"""The ways to cache, by their names in the tables."""

from __future__ import annotations

PLAIN = "plain, not orthogonal"
UNCACHED, CACHED, DEFERRED, AUTO = (
    f"paramdesc, {how}" for how in ("uncached", "cached", "cached, deferred", "auto_cache")
)
ONCE, PER_REQUEST = (
    f"paramdesc, persistent, entered {when}" for when in ("once", "for each request")
)
TORCH, TORCH_CACHED, GEOTORCH = "torch, uncached", "torch, cached", "geotorch, uncached"
AGAIN = "paramdesc, persistent, entered again"
