"""The content of ``report.json``: these classes are its schema, a module for each part of the report."""

from dedupkit.report.facts.captions import CaptionRepeats, Captions, RepeatedCaption, Template
from dedupkit.report.facts.families import Families, Family, FamilyMember
from dedupkit.report.facts.groups import Groups, GroupSizes, LargeGroup
from dedupkit.report.facts.report import FORMAT, CalibrationState, ReportFacts
from dedupkit.report.facts.samples import Example, Sample
from dedupkit.report.facts.scores import Bin, BorderlinePair, Histogram
from dedupkit.report.facts.sources import Missing, PassedOver, ReferenceFacts, ShardProblem, Unreadable
from dedupkit.report.facts.verification import Looked, PlantedCopies, Verification

__all__ = [
    "FORMAT", "Bin", "BorderlinePair", "CalibrationState", "CaptionRepeats", "Captions", "Example", "Families",
    "Family", "FamilyMember", "GroupSizes", "Groups", "Histogram", "LargeGroup", "Looked", "Missing", "PassedOver",
    "PlantedCopies", "ReferenceFacts", "RepeatedCaption", "ReportFacts", "Sample", "ShardProblem", "Template",
    "Unreadable", "Verification",
]  # fmt: skip
