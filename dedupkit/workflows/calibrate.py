"""Calibration of a finished run: synthetic duplicates, impostors, judged pairs, and the thresholds that follow."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from os import PathLike
from typing import Any

import numpy as np
import pyarrow.compute as pc

from dedupkit.calibration.curves import curves_of
from dedupkit.calibration.findings import Known, findings
from dedupkit.calibration.impostors import Impostors, measure_impostors, read_impostors, write_impostors
from dedupkit.calibration.judged import found_pairs
from dedupkit.calibration.result import Calibration, write_calibration
from dedupkit.calibration.synthetic import Synthetic, measure_synthetic, read_synthetic, write_synthetic
from dedupkit.clustering.grammar import parse_rule
from dedupkit.embedding.fitted import fitted_specs
from dedupkit.embedding.spec import parse_spec
from dedupkit.engine import cache_key
from dedupkit.engine.marker import read_marker
from dedupkit.errors import DedupkitError
from dedupkit.images.transformations import TRANSFORMATIONS
from dedupkit.runfolder.folder import RunFolder
from dedupkit.signals import find_signal, known_signals
from dedupkit.signals.columns import Scanned
from dedupkit.signals.matches import leading
from dedupkit.sources.again import Moved
from dedupkit.sources.reread import Originals
from dedupkit.stages.caption_keys import captions_of_samples
from dedupkit.startup.cores import worker_count
from dedupkit.store import read_columns, remove_tree

__all__ = ["calibrate"]

_MEASURES = 3  # raise it when what is measured changes its meaning


def calibrate(
    run: str | PathLike[str],
    *,
    sample: int = 300,
    precision: float = 0.99,
    judge: bool = False,
    per_band: int = 20,
    port: int = 0,
    seed: int = 0,
    workers: int | None = None,
    device: str | None = None,
    keep_copies: bool = False,
    source: Moved | None = None,
    tell: Callable[[str], None] | None = None,
) -> Calibration:
    """Measure a finished run's rule on its own data, and propose thresholds; see docs/calibrate.md.

    What was measured before is not measured again unless it depends on something that has changed.

    Args:
        run: Run folder.
        sample: Number of images to make synthetic duplicates of; all that the run keeps if there are fewer.
        precision: Precision that thresholds are proposed for, in (0, 1).
        judge: Whether to serve a page on which a person judges found pairs; returns when they are finished.
        per_band: Number of pairs to judge in each stratum of scores.
        port: Port of the judging page; 0 picks a free one.
        seed: Seed for all random choices.
        workers: Number of processes; by default one for each core that this process may use, with 0 this process alone.
        device: Device for torch.
        keep_copies: Whether to leave the synthetic duplicates in the run folder.
        source: Where the data lies now, if it moved since the run.
        tell: Called with the page's address; by default the browser opens it.

    Returns:
        The calibration, which is also in ``calibration.json`` of the run.

    Raises:
        DedupkitError: No finished run, a folder in use, a source that is gone or has changed, a number out of range.
        OSError: The run folder cannot be written, or the port is taken.
    """
    if sample < 1 or per_band < 1 or seed < 0 or not 0 < precision < 1:
        raise DedupkitError("sample and per-band are at least 1, the seed 0, and the precision lies between 0 and 1")
    known = _open(run, seed, worker_count(workers))
    originals = Originals(known.folder, source)
    with known.folder.locked():
        synthetic = _synthetic(known, originals, sample, device, keep_copies=keep_copies)
        impostors = _impostors(known, originals)
        found = found_pairs(known.folder, known.shards, known.rule, known.curves)
        done = write_calibration(known.folder.path, findings(known, synthetic, impostors, found, sample, precision))
    if judge:
        from dedupkit.calibration.judge import judge_pairs

        judge_pairs(known.folder, originals, found, known.folder.answers, per_band, seed, port, tell)
        with known.folder.locked():
            done = write_calibration(known.folder.path, findings(known, synthetic, impostors, found, sample, precision))
    return done


def _open(path: str | PathLike[str], seed: int, workers: int) -> Known:
    folder = RunFolder(path)
    config = folder.read_finished()
    embedders = fitted_specs(folder, config.embedders)
    signals = known_signals(embedders)
    rule = parse_rule(config.rule_expanded, signals)
    for name in rule.signals:
        signals[name].check_calibratable()
    joined = ((name, folder.joined(name)) for name in rule.signals)
    floors = {name: float(facts["bound"]) for name, facts in joined if facts and "bound" in facts}
    named = {name: spec for name, spec in embedders.items() if name in rule.signals}
    models = {name: spec for name, spec in named.items() if not parse_spec(spec).given}
    table = read_columns(folder.manifest, ["sample", "verdict"])
    kept = table.filter(pc.equal(table["verdict"], "keep"))
    if not kept.num_rows:
        raise DedupkitError(f"the run in {folder.shown} keeps no image, so there is nothing to calibrate on")
    return Known(
        folder=folder,
        shards=len(config.shards),
        rule=rule,
        models=models,
        curves=curves_of(rule, floors, signals),
        kept=kept["sample"].to_numpy(),
        readable=int(pc.sum(pc.not_equal(table["verdict"], "unreadable")).as_py()),
        seed=seed,
        workers=workers,
    )


def _scanned(known: Known) -> list[Any]:
    """Digests of the run's fingerprints; a shard that broke off is read again under the same key."""
    folder, shards = known.folder, range(known.shards)
    files = [folder.scan_marker(shard) for shard in shards]
    files += [folder.embed_marker(name, shard) for name in known.rule.signals for shard in shards]
    markers = [read_marker(file) for file in files]
    return [None if marker is None else [marker.key, sorted(map(list, marker.files.values()))] for marker in markers]


def _synthetic(known: Known, originals: Originals, sample: int, device: str | None, *, keep_copies: bool) -> Synthetic:
    chosen = np.random.default_rng([known.seed, 0]).permutation(len(known.kept))[:sample]
    samples = np.sort(known.kept[chosen]).tolist()
    looked_at = any(not find_signal(name).finds_pairs for name in known.rule.signals)
    rule = str(known.rule) if looked_at else sorted(known.rule.signals)
    key = cache_key([_MEASURES, samples, _scanned(known), rule, [kind.name for kind in TRANSFORMATIONS]])
    file = known.folder.synthetic
    work = known.folder.work(file)
    synthetic = read_synthetic(file, key)
    if synthetic is None or (keep_copies and not work.exists()):
        options: dict[str, Any] = {"key": key, "workers": known.workers, "device": device}
        texts = captions_of_samples(Scanned(known.folder, known.shards), np.array(samples)).to_pylist()
        captions = dict(zip(samples, texts, strict=True))
        synthetic = measure_synthetic(originals, captions, known.rule, known.models, work, **options)
        write_synthetic(file, synthetic, key)
    if not keep_copies:
        remove_tree(work)  # also what a call left that was killed after it had written its result
    return synthetic


def _impostors(known: Known, originals: Originals) -> dict[str, Impostors]:
    signals = list(dict.fromkeys(curve.atom.signal for curve in known.curves))
    verified = importlib.util.find_spec("cv2") is not None
    key = cache_key([_MEASURES, _scanned(known), signals, known.seed, verified])
    file = known.folder.impostors
    work = known.folder.work(file)
    found = read_impostors(file, key)
    if found is None:
        options: dict[str, Any] = {"key": key, "seed": known.seed, "workers": known.workers}
        images = leading(find_signal("exact").labels(Scanned(known.folder, known.shards)))
        found = measure_impostors(originals, known.folder, signals, images, work, **options)
        write_impostors(file, found, key)
    remove_tree(work)  # also what a call left that was killed after it had written its result
    return found
