"""The folder that ``apply`` writes into: which files in it are whose, and whether they are whole.

Everything that is known lies in ``.dedupkit`` in that folder. ``plan.json`` names the files that were ever begun and
are not yet removed, so that no other file is replaced or removed. A receipt for each cleaned shard, written after its
files, holds what it was made from and the size and SHA-256 of each file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dedupkit.errors import DedupkitError
from dedupkit.manifest.files import files_in
from dedupkit.store import (
    atomic_path,
    held_alone,
    is_temporary,
    local_home,
    read_sealed,
    sweep,
    write_json,
    write_sealed,
)

__all__ = ["Target"]

_STATE = ".dedupkit"
_BESIDE = "beside"  # the receipt of what belongs to no single shard


class Target:
    """Files written by ``apply`` and what is known of them.

    Args:
        path: The folder, or the URL of one in an object store.

    Attributes:
        path: The folder on this machine into which files are written; those of a remote folder are put into its store
            by :meth:`record`, and leave this one.
        state: The folder in it that holds what is known, and where the processes of ``--engine rank`` meet.
        shown: The folder as messages name it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = local_home(path).absolute()  # a later change of directory does not move it
        self.state = self.path / _STATE
        self._plan, self._work = self.state / "plan.json", self.state / "tasks"
        self._files = files_in(self.path, self.state)
        self.shown = self._files.shown

    @contextmanager
    def claimed(self, claim: Path, format: str) -> Iterator[None]:
        """Hold the folder alone while writing into it.

        Args:
            claim: The run's note that it writes into this folder.
            format: What is written.

        Raises:
            DedupkitError: The folder is a file, holds something else (then nothing in it was touched) or is in use.
        """
        self._files.look()
        self._refuse_foreign(claim, format)
        self.state.mkdir(parents=True, exist_ok=True)
        with held_alone(self.state / ".lock", self.shown), self._files.held():
            self._files.look()
            self._refuse_foreign(claim, format)  # another process may have come first
            sweep(self.path)
            sweep(self.state, recursive=True)
            write_json(claim, {"format": format})
            yield

    def begin(self, format: str, names: Sequence[str]) -> None:
        """Remember what is written, and remove what an earlier call wrote and this one does not.

        Args:
            format: What is written.
            names: All files that will stand in the folder.

        Raises:
            DedupkitError: A file with one of these names, or one that would be removed, is not as dedupkit wrote it.
        """
        ours = self._ours()
        there = self._files.names()
        foreign = [name for name in names if name not in ours and name in there]
        if foreign:
            raise DedupkitError(
                f"{self.shown}/{foreign[0]} was not written by dedupkit; move it away or choose another --to"
            )
        former = sorted(ours.difference(names))
        facts = self._facts() if former else {}
        for name in former:
            if name in facts and name in there and not self._files.holds(name, facts[name]):
                raise DedupkitError(f"{self.shown}/{name} was changed since dedupkit wrote it; move it away")
        self._write_plan({"format": format, "files": list(names), "former": former})
        for name in former:
            self._files.remove(name)
            self.forget(name)
        self._write_plan({"format": format, "files": list(names), "former": []})

    def is_whole(self, name: str, key: str) -> bool:
        """Whether a shard was written from the same input, and all its files are as they were written."""
        receipt = read_sealed(self._receipt(name))
        if receipt is None or receipt["key"] != key:
            return False
        return all(self._files.holds(file, facts) for file, facts in receipt["files"].items())

    def forget(self, name: str) -> None:
        """Drop a shard's receipt before its files are replaced."""
        receipt = self._receipt(name)
        if receipt.exists():
            receipt.unlink()
            self._files.keep_state(receipt)

    def record(self, name: str, key: str, files: Iterable[str]) -> None:
        """Write a shard's receipt after its files, which go into their store now if they are for one."""
        facts = {file: self._files.keep(file) for file in files}
        write_sealed(self._receipt(name), {"key": key, "files": facts})
        self._files.keep_state(self._receipt(name))

    def write_beside(self, files: dict[str, bytes]) -> None:
        """Write small files that belong to no single shard."""
        for name, data in files.items():
            with atomic_path(self.path / name) as temporary:
                temporary.write_bytes(data)
        self.record(_BESIDE, "", files)

    @contextmanager
    def work_folder(self) -> Iterator[Path]:
        """A folder for the markers of a call's tasks, empty at first and gone when the block ends."""
        self._files.clear(self._work)
        self._work.mkdir(parents=True)
        yield self._work
        self._files.clear(self._work)

    def check(self) -> None:
        """Refuse to go on where another command has taken the folder.

        Raises:
            DedupkitError: It has.
        """
        self._files.check()

    def receipts(self, names: Iterable[str]) -> list[str]:
        """The receipts that some shards have from an earlier call."""
        return [str(path) for path in map(self._receipt, names) if path.exists()]

    def _write_plan(self, plan: dict[str, Any]) -> None:
        write_sealed(self._plan, plan)
        self._files.keep_state(self._plan)

    def _ours(self) -> set[str]:
        """Names of the files that were ever begun and are not yet removed; a name that leaves the folder is none."""
        plan = read_sealed(self._plan) or {"files": [], "former": []}
        return {name for name in (*plan["files"], *plan["former"]) if Path(name).name == name}

    def _receipt(self, name: str) -> Path:
        return self.state / "receipts" / f"{name}.json"

    def _facts(self) -> dict[str, Any]:
        """Size and digest of every file with a receipt."""
        receipts = [read_sealed(path) for path in sorted((self.state / "receipts").glob("*.json"))]
        return {name: facts for receipt in receipts if receipt for name, facts in receipt["files"].items()}

    def _refuse_foreign(self, claim: Path, format: str) -> None:
        try:
            present = self._files.names()
        except NotADirectoryError:
            raise DedupkitError(f"{self.shown} is a file; --to takes a folder") from None
        if self.state.is_symlink():
            raise DedupkitError(f"{self.state} is a link, which dedupkit does not make; choose another --to")
        present = {name for name in present if name != _STATE and not is_temporary(name)}
        plan = read_sealed(self._plan)
        if present and (plan is None or not claim.exists()):
            raise DedupkitError(f"{self.shown} is not empty and was not written from this run; choose another --to")
        earlier = (plan or {}).get("format", format)
        if present and earlier != format:
            raise DedupkitError(f"{self.shown} holds this run as {earlier}; choose another --to for {format}")
