"""A local page: samples beside the photos that they were prompted for."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path

import numpy as np
from PIL import Image

from memorization.experiment import prompted, read_reference

__all__ = ["write_page"]

_SHOWN = 96


def write_page(out: Path, side: int) -> Path:
    """Write ``page.html``: the photos with copies, and eight samples of each arm; extracted ones have a red frame.

    The page holds photos and what was extracted of them: it is for those who ran the experiment, not for publication.
    """
    reference = read_reference(out / "data", side)
    runs = {path.stem: dict(np.load(path)) for path in sorted((out / "arms" / "samples").glob("*.npz"))}
    rows = []
    for row in prompted(reference, 8):
        place = next(n for n, other in enumerate(reference.rows) if other.key == row.key)
        cells = [f"<td>{_picture(reference.pixels[place])}<br>k = {row.copies}, {html.escape(row.part)}</td>"]
        for run in runs.values():
            mine = np.flatnonzero(run["own"] == row.photo)
            cells.append(f"<td>{''.join(_picture(run['samples'][n], bool(run['hit'][n])) for n in mine)}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    heads = "".join(f"<th>{html.escape(name)}</th>" for name in ("photo", *runs))
    style = "img{margin:2px;image-rendering:pixelated}td{border-top:1px solid #ccc}.hit{outline:3px solid red}"
    path = out / "page.html"
    path.write_text(
        f"<!doctype html><meta charset=utf-8><title>Extracted samples</title><style>{style}</style>"
        f"<p>For local use only. A red frame: extracted.</p><table><tr>{heads}</tr>{''.join(rows)}</table>\n"
    )
    return path


def _picture(pixels: np.ndarray, hit: bool = False) -> str:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    data = base64.b64encode(stream.getvalue()).decode()
    return f'<img width={_SHOWN // 2} class="{"hit" if hit else ""}" alt="" src="data:image/png;base64,{data}">'
