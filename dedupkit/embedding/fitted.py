"""The embedders of a run as they can be loaded: a projection that the run has fitted is named by its file."""

from __future__ import annotations

from collections.abc import Mapping

from dedupkit.embedding.spec import parse_spec
from dedupkit.engine.marker import read_marker
from dedupkit.runfolder import Layout

__all__ = ["fitted_specs"]


def fitted_specs(folder: Layout, embedders: Mapping[str, str]) -> dict[str, str]:
    """Specifications by name, those with ``project=copies`` as what the run in a folder made of them.

    A fit that had too few images gave none, and then the embedder goes without a projection.

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
        found[name] = text
    return found
