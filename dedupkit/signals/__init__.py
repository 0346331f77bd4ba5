"""Signals: what a rule can name, one object each, and the table that holds them.

>>> from dedupkit.signals import SIGNALS
>>> SIGNALS["pdq"].kind, SIGNALS["pdq"].bounds
('distance', (0.0, 256.0))
"""

from dedupkit.signals.signal import JoinSettings, Signal
from dedupkit.signals.table import SIGNALS, find_signal, known_signals, register, requested_signals

__all__ = ["SIGNALS", "JoinSettings", "Signal", "find_signal", "known_signals", "register", "requested_signals"]
