"""URL lists, before anything is downloaded: normal forms of addresses, keys, and groups of equal rows."""

from dedupkit.metadata.urls import UrlSteps, normalize_url, url_family

__all__ = ["UrlSteps", "normalize_url", "url_family"]
