"""Pages that are served to this machine alone."""

from dedupkit.serving.local import Body, LocalPage, Reply, page_policy

__all__ = ["Body", "LocalPage", "Reply", "page_policy"]
