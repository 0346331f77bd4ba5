"""De-duplicating URL lists: rows per second, memory, growth; and URL normalisation against other parsers.

    python benchmarks/metadata.py [--rows 1000000,10000000] [--rule RULE] [--folder DIR]

The lists are made of random addresses, captions and hashes: 25 % of the rows repeat the URL of another row (12 % have
tracking parameters), 30 % the caption, 22 % the hash, after COYO-700M's counts. yarl and w3lib are measured where they
are installed.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

PART = 1_000_000
WORDS = [
    f"{a}{b}{c}"
    for a in ("ka", "mo", "ti", "re", "su")
    for b in ("lan", "ver", "pon", "dil", "gar")
    for c in ("", "s", "er", "ing")
]


def write_part(path: Path, number: int, rows: int) -> None:
    """One list of ``rows`` rows."""
    draw = np.random.default_rng([7, number])
    ids = np.arange(number * PART, number * PART + rows)

    def repeated(share: float) -> np.ndarray:
        back = draw.random(rows) < share
        return np.where(back, (draw.random(rows) * (ids + 1)).astype(np.int64), ids)

    url, caption, image = repeated(0.25), repeated(0.30), repeated(0.22)
    noise = draw.random(rows) < 0.12
    urls = [
        f"https://images{n % 977}.shop-{n % 6151}.com/media/{n * 2654435761 % 2**32:08x}/{n:09d}_large.jpg"
        + ("?utm_source=feed&utm_medium=rss" if odd else "")
        for n, odd in zip(url.tolist(), noise.tolist(), strict=True)
    ]
    texts = [
        " ".join(WORDS[(n >> shift) * 2654435761 % 2**32 % len(WORDS)] for shift in range(9)) + f" {n}"
        for n in caption.tolist()
    ]
    hashes = pa.array(((image.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(1)).astype(np.int64))
    table = pa.table({"URL": urls, "TEXT": texts, "hash": hashes, "similarity": draw.random(rows)})
    pq.write_table(table, path, row_group_size=100_000, compression="snappy")


def measure_lists(sizes: list[int], rule: str, folder: Path) -> None:
    """Whole calls of the command, each in a process of its own; growth of time and of processor time."""
    before: tuple[int, float, float] | None = None
    for rows in sizes:
        lists = folder / f"lists-{rows}"
        lists.mkdir()
        for number in range(-(-rows // PART)):
            write_part(lists / f"{number:05d}.parquet", number, min(PART, rows - number * PART))
        command = [sys.executable, "-m", "dedupkit.cli", "metadata", f"{lists}/*.parquet", "--to", str(folder / "out")]
        command += ["--rule", rule]
        begin, spent = time.perf_counter(), _processor_time()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds, work = time.perf_counter() - begin, _processor_time() - spent
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        growth = ""
        if before is not None:
            growths = (np.log([seconds, work]) - np.log(before[1:])) / np.log(rows / before[0])
            growth = ", growth {:.2f} and {:.2f}".format(*growths)
        print(
            f"{rows:>12,} rows: {seconds:8.1f} s, {rows / seconds:10,.0f} rows/s, {work:.1f} s of processor time, "
            f"peak {peak / 2**30:.2f} GiB{growth}"
        )
        print("   " + "\n   ".join(done.stdout.splitlines()[:8]), flush=True)
        before = rows, seconds, work
        shutil.rmtree(folder / "out")
        shutil.rmtree(lists)


def _processor_time() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure_urls(count: int = 300_000) -> None:
    """URL normalisation alone, one thread."""
    from dedupkit.metadata.keys import KeySettings, batch_keys

    urls = [
        f"https://cdn{n % 97}.example-{n % 613}.com/p/{n:08x}/photo_{n}.jpg?id={n}&utm_source=x" for n in range(count)
    ]
    column = pa.array(urls, pa.large_string())
    batch_keys({"url": column.slice(0, 10)}, 10, [("url",)], KeySettings())
    begin = time.process_time()
    batch_keys({"url": column}, count, [("url",)], KeySettings())
    ours = time.process_time() - begin
    print(f"URL keys: {count / ours:,.0f} a second and core")
    import can_ada

    peers = {"can_ada": lambda url: str(can_ada.parse(url))}
    try:
        from yarl import URL

        peers["yarl"] = lambda url: str(URL(url))
    except ImportError:
        pass
    try:
        from w3lib.url import canonicalize_url

        peers["w3lib"] = canonicalize_url
    except ImportError:
        pass
    for name, normal in peers.items():
        begin = time.process_time()
        for url in urls[: count // 10]:
            normal(url)
        print(f"  {name:<8} {(time.process_time() - begin) * 10 / ours:6.1f} times our time")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="1000000,10000000", help="numbers of rows, one after the other")
    parser.add_argument("--rule", default="url or hash", help="rule of the calls")
    parser.add_argument("--folder", type=Path, help="where lists and output go; a temporary folder by default")
    arguments = parser.parse_args()
    measure_urls()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        measure_lists([int(rows) for rows in arguments.rows.split(",")], arguments.rule, Path(folder))


if __name__ == "__main__":
    main()
