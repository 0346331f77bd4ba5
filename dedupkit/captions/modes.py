"""What a run does with captions beside images: ``--captions``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dedupkit.errors import RuleError

__all__ = ["CAPTION_FORMS", "PAIRED_SIGNALS", "CaptionMode"]

CAPTION_FORMS = "ignore, pair, pair>=0.8, merge, template, template>10, template>10:blank, template>10:drop"
PAIRED_SIGNALS = ("caption", "uncaptioned")
"""What :meth:`CaptionMode.paired` adds to a rule, and what a rule of that mode is without again."""

_FORM = re.compile(
    r"(ignore|merge)|pair(?:>=(?P<least>\d*\.?\d+))?|template(?:>(?P<uses>\d+))?(?::(?P<action>list|blank|drop))?"
)


@dataclass(frozen=True, slots=True)
class CaptionMode:
    """How captions take part.

    Attributes:
        kind: ``ignore``; ``pair`` (two samples are duplicates only if their captions agree too); ``merge`` (a kept
            sample carries the captions of those that it stands for); ``template`` (captions of many images are found).
        least: for ``pair``, the least similarity of captions that agree.
        uses: for ``template``, the number of kept samples up to which a caption is none.
        action: for ``template``: ``list``, ``blank`` (cleaned shards have an empty caption instead) or ``drop`` (the
            samples are blocked).

    Example:
        >>> CaptionMode.parse("pair").least, str(CaptionMode.parse("template:drop"))
        (0.8, 'template>10:drop')
    """

    kind: str = "ignore"
    least: float = 0.8
    uses: int = 10
    action: str = "list"

    @classmethod
    def parse(cls, text: str) -> CaptionMode:
        """Read what ``str`` writes, or a shorter form.

        Raises:
            RuleError: another text; the message lists the forms.
        """
        match = _FORM.fullmatch(text.strip())
        if match is None or not 0.05 <= float(match["least"] or 0.8) <= 1:
            raise RuleError(f"{text!r} is no way to treat captions; write one of: {CAPTION_FORMS}")
        kind = next(name for name in ("ignore", "merge", "pair", "template") if text.strip().startswith(name))
        return cls(kind, float(match["least"] or 0.8), int(match["uses"] or 10), match["action"] or "list")

    def __str__(self) -> str:
        if self.kind == "pair":
            return f"pair>={self.least!r}"
        return f"template>{self.uses}:{self.action}" if self.kind == "template" else self.kind

    def paired(self, rule: str) -> str:
        """The text of a rule under which captions must agree too."""
        return f"({rule}) and (caption>={self.least!r} or uncaptioned)" if self.kind == "pair" else rule
