"""The table of signals: what a rule can name, beside the embedders of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dedupkit.signals.caption import Caption, Uncaptioned
from dedupkit.signals.embedded import Embedded
from dedupkit.signals.hamming import PerceptualHash
from dedupkit.signals.identity import Exact, PixelIdentity
from dedupkit.signals.pdq import Crops, Pdq
from dedupkit.signals.signal import Signal
from dedupkit.signals.verified import Template, Verified

__all__ = ["SIGNALS", "find_signal", "known_signals", "register", "requested_signals"]

SIGNALS: dict[str, Signal] = {
    signal.name: signal
    for signal in (
        Exact("exact"),
        PixelIdentity("pixels"),
        Verified("verified"),
        Template("template"),
        Pdq("pdq"),
        Crops("crops"),
        *(PerceptualHash(kind) for kind in ("phash", "dhash", "ahash", "whash")),
        Caption("caption"),
        Uncaptioned("uncaptioned"),
        *(PerceptualHash(f"{kind}_imagededup") for kind in ("phash", "dhash", "ahash", "whash")),
    )
}
"""The signals by name, in the order in which errors list them. A new signal is one file and one entry here."""


def register(signal: Signal) -> Signal:
    """Add a signal of another package to the table of this process; a script or plug-in calls it when it is imported.

    Worker processes need no call: signals reach them by pickle, which imports the module that defines them.

    Raises:
        ValueError: There is another signal of this name.
    """
    if SIGNALS.setdefault(signal.name, signal) != signal:
        raise ValueError(f"there is a signal called {signal.name!r} already; give this one another name")
    return signal


def known_signals(
    embedders: Mapping[str, str] | Iterable[str] = (), floors: Mapping[str, float] | None = None
) -> dict[str, Signal]:
    """All signals that a rule over these embedders can name.

    Args:
        embedders: Specifications by name, or names alone where nothing has to be computed.
        floors: By name where candidates for verification begin, for embedders of which a fit said so.
    """
    specs = embedders if isinstance(embedders, Mapping) else dict.fromkeys(embedders, "")
    return {**SIGNALS, **{name: Embedded(name, spec, (floors or {}).get(name)) for name, spec in specs.items()}}


def find_signal(name: str) -> Signal:
    """A signal by its name; a name that is not in the table is that of an embedder."""
    return SIGNALS.get(name) or Embedded(name)


def requested_signals() -> dict[str, Signal]:
    """The signals that a scan computes only on request; a rule that names one requests it."""
    return {name: signal for name, signal in SIGNALS.items() if signal.scan_columns}
