"""The one description of a run folder: its paths, its configuration, its lock, and what its verdicts belong to."""

from dedupkit.runfolder.config import LAYOUT, RunConfig
from dedupkit.runfolder.decision import DecisionRecord
from dedupkit.runfolder.folder import RunFolder
from dedupkit.runfolder.layout import Layout, manifest_in
from dedupkit.runfolder.references import Reference

__all__ = ["LAYOUT", "DecisionRecord", "Layout", "Reference", "RunConfig", "RunFolder", "manifest_in"]
