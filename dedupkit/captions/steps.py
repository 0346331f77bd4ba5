"""Steps that can be switched off, as one text: ``entities,nfkc,casefold,spaces``."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

__all__ = ["Steps"]


@dataclass(frozen=True)
class Steps:
    """Base of settings whose fields are steps, each applied or not."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what ``str`` writes: the steps to apply, separated by commas.

        Raises:
            ValueError: an unknown step; the message lists the known ones.
        """
        known = [field.name for field in fields(cls)]
        steps = [step.strip() for step in text.split(",") if step.strip()]
        unknown = [step for step in steps if step not in known]
        if unknown:
            raise ValueError(f"unknown step {unknown[0]!r}; known: {', '.join(known)}")
        return cls(**{name: name in steps for name in known})

    def __str__(self) -> str:
        return ",".join(field.name for field in fields(self) if getattr(self, field.name))
