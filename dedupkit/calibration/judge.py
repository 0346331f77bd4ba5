"""Show the pairs of a run that are still to be judged, and record the answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from dedupkit.calibration.judged import Drawn, Found, append_answer, draw_pairs, images_of, read_answers
from dedupkit.calibration.judging import JudgingServer, Question
from dedupkit.errors import DedupkitError, RereadError
from dedupkit.images import open_image, thumbnail
from dedupkit.manifest.rows import FileRows
from dedupkit.manifest.shown import clip
from dedupkit.runfolder.folder import RunFolder
from dedupkit.sources.reread import Originals
from dedupkit.sources.sample import Place

__all__ = ["judge_pairs"]

_SIDE = 900
_PAIRS_AT_ONCE = 8


def judge_pairs(
    folder: RunFolder,
    originals: Originals,
    found: Sequence[Found],
    file: Path,
    per_band: int,
    seed: int,
    port: int,
    tell: Callable[[str], None] | None,
) -> int:
    """Show the pairs that were drawn and are not judged yet; returns their number.

    Args:
        folder: Folder of the run.
        originals: Images of the run.
        found: Pairs along each curve.
        file: File of the answers.
        per_band: Number of pairs of each stratum.
        seed: Seed for all random choices: the pairs, their order, and their sides.
        port: Port of the judging page; 0 picks a free one.
        tell: Function that is called with the page's address; by default the browser opens it.

    Raises:
        DedupkitError: There is nothing to judge, or the source is gone.
        OSError: The port is taken.
    """
    drawn = draw_pairs(found, per_band, seed)
    if not drawn:
        raise DedupkitError("there is nothing to judge: no two different images were matched by a score")
    answered = read_answers(file, folder)
    images = images_of(folder, {sample for pair in drawn for sample in (pair.a, pair.b)})
    waiting = []
    for pair in drawn:
        reasons, same = answered.get((pair.a, pair.b), (frozenset[str](), None))
        if same is None:
            waiting.append(pair)
        elif not set(pair.scores) <= reasons:  # judged for one alternative, and now drawn for another
            append_answer(file, pair, images, same)
    if not waiting:
        return 0
    samples = {sample for pair in waiting for sample in (pair.a, pair.b)}
    originals.places(samples)  # raises now if the source is gone
    rows = FileRows(folder.manifest).rows(samples)
    turned = np.random.default_rng([seed, 3]).random(len(waiting)) < 0.5
    questions = [_question(pair, rows, turn) for pair, turn in zip(waiting, turned.tolist(), strict=True)]

    def record(number: int, same: bool | None) -> None:
        append_answer(file, waiting[number], images, same)

    thumbnails = _Thumbnails(originals, [(question.a, question.b) for question in questions])
    server = JudgingServer(questions, thumbnails.get, record, port)
    (tell or _open_browser)(server.url)
    server.serve()
    return len(waiting)


class _Thumbnails:
    """Thumbnails of the pairs to judge, made for a few questions at a time: a compressed tar is read once for each."""

    def __init__(self, originals: Originals, pairs: Sequence[tuple[int, int]]) -> None:
        self._originals = originals
        self._batch: dict[int, list[int]] = {}
        for first in range(0, len(pairs), _PAIRS_AT_ONCE):
            batch = sorted({sample for pair in pairs[first : first + _PAIRS_AT_ONCE] for sample in pair})
            for sample in batch:
                self._batch.setdefault(sample, batch)
        self._made: dict[int, bytes | Exception] = {}
        self._lock = Lock()

    def get(self, sample: int) -> bytes:
        """The JPEG of one sample; raises what made it impossible."""
        with self._lock:
            if sample not in self._made:
                self._read(self._batch[sample])
            made = self._made[sample]
        if isinstance(made, Exception):
            raise made
        return made

    def _read(self, samples: list[int]) -> None:
        def failed(place: Place, error: RereadError) -> None:
            self._made[place.sample] = error

        for place, data in self._originals.read(samples, failed):
            try:
                self._made[place.sample] = thumbnail(open_image(data), _SIDE)
            except Exception as error:  # a decoder may raise anything; the page shows that the image is missing
                self._made[place.sample] = error


def _question(pair: Drawn, rows: Mapping[int, dict[str, Any]], turned: bool) -> Question:
    a, b = (pair.b, pair.a) if turned else (pair.a, pair.b)
    return Question(a, b, (_about(rows[a]), _about(rows[b])))


def _about(row: dict[str, Any]) -> list[str]:
    size = f"{row['width']} × {row['height']}, {row['nbytes'] / 1000:,.0f} kB {row['format']}"
    caption = clip(row["caption"])
    return [size, str(row["key"]), *([caption] if caption else [])]


def _open_browser(url: str) -> None:
    import webbrowser

    webbrowser.open(url)
