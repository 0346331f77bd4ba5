"""Disks that are full after any number of bytes or files: one line says so, and with room the same command ends."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from random import Random

import hostile_jpeg
from helpers import environment, write_tar

from hostile.section import Section, Tally

_SCRIPT = """
mount -t tmpfs -o {limit} tmpfs {disk} || exit 99
{run}; echo "status $?"
find {disk} -name '.dedupkit-*.tmp' | sed 's/^/left /'
mount -o remount,size=64m,nr_inodes=100000 {disk} || exit 99
{run} >/dev/null; echo "again $?"
cd {disk}/out && find . -type f ! -name '.lock' ! -path './.done/*' | sort | xargs sha256sum
"""


class DisksSection(Section):
    """Disks of 4 KiB to 1.5 MiB, or with room for 2 to 60 files."""

    name = "disks"
    oracle = "status 1 with one line, no unfinished file left; with more room the bytes of a run that had it at once"
    volume = 100
    limit = 180.0
    whole = True

    def open(self, folder: Path) -> None:
        """Write three shards, one of whose rows take half a megabyte, and do the run once with room."""
        self._data, self._disk = folder / "data", folder / "disk"
        self._disk.mkdir()
        images = hostile_jpeg.originals()
        for shard in range(3):
            write_tar(self._data / f"{shard}.tar", [(f"s{shard}.jpg", images[shard + 1])])
        noise = random.Random(3).randbytes(250_000).hex().encode()
        write_tar(self._data / "3.tar", [("s3.jpg", images[4]), ("s3.txt", noise)])
        self._start = ["unshare", "--mount"] + ([] if os.geteuid() == 0 else ["--map-root-user"])
        self.works = shutil.which("unshare") is not None
        self.works = self.works and not subprocess.run([*self._start, "mount", "-t", "tmpfs", "x", str(self._disk)],
                                                       capture_output=True, check=False).returncode  # fmt: skip
        self._whole = self._try("size=64m")[0] if self.works else {}

    def attempt(self, draw: Random, number: int) -> Tally | None:
        """One size; where this account may mount nothing, none."""
        if not self.works:
            return None
        limit = f"nr_inodes={draw.randrange(2, 60)}" if draw.random() < 0.25 else f"size={draw.randrange(1, 380) * 4}k"
        files, status, errors, left = self._try(limit)
        tally = Tally()
        tally.check(status in (0, 1), f"{limit}: exit status {status}: {errors}")
        lines = [line for line in errors.splitlines() if line.strip()]
        tally.check(status == 0 or (len(lines) == 1 and "Traceback" not in errors), f"{limit}: {errors}")
        tally.check(not left, f"{limit}: {left} was left")
        tally.check(files == self._whole, f"{limit}: other files: {sorted(files.items() ^ self._whole.items())[:4]}")
        return tally

    def _try(self, limit: str) -> tuple[dict[str, str], int, str, list[str]]:
        """Run on a small disk, then again with room: digests, the first exit status and errors, unfinished files."""
        run = f"{sys.executable} -m dedupkit.cli run {self._data} --out {self._disk}/out --workers 1"
        script = _SCRIPT.format(limit=limit, disk=self._disk, run=run)
        done = subprocess.run(
            [*self._start, "sh", "-c", script],
            capture_output=True,
            text=True,
            env=environment(),
            timeout=150,
            check=False,
        )
        lines = done.stdout.splitlines()
        said = {
            name: value for name, _, value in (line.partition(" ") for line in lines) if name in ("status", "again")
        }
        if said.get("again") != "0":
            return {}, int(said.get("status", 99)), done.stderr + json.dumps(said), []
        digests = dict(reversed(line.split("  ", 1)) for line in lines if "  ./" in line)
        digests.pop("./progress.json", None)  # it holds times
        left = [line for line in lines if line.startswith("left ")]
        return digests, int(said["status"]), done.stderr, left
