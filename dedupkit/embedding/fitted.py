"""The embedders of a run as they can be loaded, and whether they are still those that made its vectors."""

from __future__ import annotations

from collections.abc import Mapping

from dedupkit.embedding.keys import embedder_key
from dedupkit.embedding.spec import parse_spec
from dedupkit.engine import cache_key
from dedupkit.engine.marker import read_marker
from dedupkit.errors import DedupkitError
from dedupkit.runfolder import Layout, RunConfig, RunFolder
from dedupkit.runfolder.scanned import scan_digest

__all__ = ["fitted_specs", "made_by_model", "refuse_other_model"]


def fitted_specs(folder: Layout, embedders: Mapping[str, str]) -> dict[str, str]:
    """Specifications by name, with the projections that the run in a folder fitted or keeps.

    A fit that had too few images gave none, and then the embedder goes without a projection. Where the file of one that
    was named is gone, the run's own copy stands for it.

    >>> fitted_specs(Layout("/runs/first"), {"lite": "lite?project=copies"})
    {'lite': 'lite?project=/runs/first/projections/lite.npz'}
    """
    found = {}
    for name, text in embedders.items():
        spec = parse_spec(text)
        if spec.fits:
            marker = read_marker(folder.projection_marker(name))
            fitted = marker is None or bool(marker.result["fitted"])
            text = spec.projected(folder.projection(name) if fitted else None)
        elif spec.projection is not None and not spec.projection.is_file() and folder.projection(name).is_file():
            text = spec.projected(folder.projection(name))
        found[name] = text
    return found


def made_by_model(folder: Layout, config: RunConfig, name: str) -> bool:
    """Whether the model that a run names, as it is now, made the vectors of the run.

    The marker of a task of the embed stage holds a key of the model and of what was scanned. One shard that agrees is
    enough: an interrupted call may have scanned others anew. Without any marker nothing speaks against it, and of
    vectors that were made elsewhere the model is not known.

    Args:
        folder: The run folder.
        config: What was asked of the run, its embedders from :func:`fitted_specs`.
        name: Name of the embedder.

    Raises:
        DedupkitError: A file of the model is missing.
    """
    spec = config.embedders[name]
    if parse_spec(spec).given:
        return True
    model, stated = embedder_key(spec), False
    for shard in range(len(config.shards)):
        scanned, embedded = read_marker(folder.scan_marker(shard)), read_marker(folder.embed_marker(name, shard))
        if scanned is not None and embedded is not None:
            if embedded.key == cache_key([model, scan_digest(scanned.key, scanned.result)]):
                return True
            stated = True
    return not stated


def refuse_other_model(folder: RunFolder, config: RunConfig, name: str) -> None:
    """Raise DedupkitError where :func:`made_by_model` says no: new vectors cannot be compared with those of the run."""
    if not made_by_model(folder, config, name):
        raise DedupkitError(
            f"the vectors of {name} in {folder.shown} were made by another model than {config.embedders[name]} is now "
            "(its file was replaced, or dedupkit has a newer one); give the command that made the run again, which "
            "computes them anew"
        )
