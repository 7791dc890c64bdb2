"""What pickles of earlier versions look for in `paramdesc.report`."""

from paramdesc.caching.report import CacheReport, CacheRow

__all__ = ["CacheReport", "CacheRow"]
