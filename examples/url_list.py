"""From a URL list to a de-duplicated data set: clean the list, download what is left, clean that by its images.

    python examples/url_list.py [--out FOLDER]

A server on this machine stands in for the web: it holds photos that ship with scikit-image and edited copies of them,
under addresses that differ in case, tracking parameters and fragments.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

os.environ |= {
    "NO_PROXY": "127.0.0.1",
    "no_proxy": "127.0.0.1",
    "NO_ALBUMENTATIONS_UPDATE": "1",
}  # stay on this machine

import pyarrow as pa
import pyarrow.parquet as pq
from img2dataset import download
from PIL import Image
from sample_shards import EDITS, PHOTOS
from skimage import data

import dedupkit as dk
from dedupkit.workflows.metadata import clean_lists
from dedupkit.workflows.prompts import most_duplicated


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder and says nothing."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def build(folder: Path, address: str) -> pa.Table:
    """Write the photos and their copies, and list each under several addresses."""
    urls, captions = [], []
    for name in PHOTOS:
        photo = Image.fromarray(getattr(data, name)()).convert("RGB")
        photo.thumbnail((320, 320))
        for edit, make in EDITS.items():
            image, quality = make(photo)
            path = f"{name}-{edit.replace(' ', '-')}.jpg"
            image.save(folder / path, "JPEG", quality=quality)
            urls += [f"{address}/{path}", f"{address}/{path}?utm_source=feed", f"{address}/./{path}#photo"]
            captions += [f"{name} on a page", f"{name} in a feed", f"{name} in a gallery"]
    return pa.table({"URL": urls, "TEXT": captions, "width": [320] * len(urls)})


def main(out: Path) -> None:
    """Clean the list, download it, clean the shards."""
    web = out / "web"
    web.mkdir(parents=True)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(web))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        pq.write_table(build(web, f"http://127.0.0.1:{server.server_port}"), out / "list.parquet")

        cleaned = clean_lists(out / "list.parquet", out / "lists", rule="url")
        print(f"list: {cleaned.rows} rows, {cleaned.keep} addresses left to download")

        download(
            url_list=str(out / "lists" / "list.parquet"),
            input_format="parquet",
            url_col="URL",
            caption_col="TEXT",
            output_folder=str(out / "shards"),
            output_format="webdataset",
            resize_mode="no",
            processes_count=1,
            thread_count=8,
            number_sample_per_shard=16,
            enable_wandb=False,
        )
        server.shutdown()
    run = dk.dedup(out / "shards", out / "run")
    print(f"images: {run.summary['samples']} downloaded, {run.summary['keep']} kept")
    for row in most_duplicated(run.path, 3).to_pylist():
        print(f"{row['images']} images of one group, prompted by: {row['prompt']}")
    run.apply(out / "clean")
    print(f"cleaned shards: {out / 'clean'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a new folder; a temporary one by default")
    arguments = parser.parse_args()
    if arguments.out is not None:
        main(arguments.out)
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(folder))
