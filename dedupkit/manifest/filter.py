"""Use the manifest while training, without rewriting anything: a predicate over samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dedupkit.errors import DedupkitError, UnknownSampleError
from dedupkit.manifest.calls import RowNumbers, batch_size, ends_in_number, is_batch, is_sequence
from dedupkit.manifest.identity import Example, Row
from dedupkit.runfolder import RunFolder, manifest_in
from dedupkit.store import is_remote

if TYPE_CHECKING:
    from dedupkit.manifest.verdicts import Rows, Verdicts

__all__ = ["KeepFilter", "keep_filter"]

# What tells samples apart, the cheapest first.
_COLUMNS = ("uid", "url", "sha256")
_NARROWING = ("uid", "url", "caption", "sha256")


def keep_filter(run: str | PathLike[str], *, input_columns: str | Sequence[str] | None = None) -> KeepFilter:
    """The samples that a run keeps, as a predicate over samples.

    For WebDataset: ``wds.WebDataset(shards).select(keep_filter(run))``, before anything is decoded. For Hugging Face
    datasets: ``ds.filter(keep_filter(run))``, batched or not, in memory or streaming.

    A sample is recognised by its key and shard; else by ``uid``, ``url``, or the bytes of its image; see
    docs/apply.md.

    Args:
        run: A finished run: its folder, its manifest, or the object that ``dedup`` returns.
        input_columns: Names of the columns that are passed to ``ds.filter(..., input_columns=...)``, in that order.
            Without them a bare value is recognised by where the manifest has it.

    Raises:
        DedupkitError: There is no manifest, or that of a run folder does not answer what the run asks for.

    ::

        keep = dk.keep_filter("runs/laion")
        wds.WebDataset("laion/{00000..00099}.tar").select(keep).decode("pil")
        load_dataset("parquet", data_files="urls.parquet", split="train").filter(keep, input_columns=["url"])
    """
    local = Path(run) if not is_remote(fspath(run)) else RunFolder(run).path
    if local.is_dir():
        RunFolder(local).verdicts()
    path = manifest_in(local.absolute())
    if not path.exists():
        raise DedupkitError(f"{path} does not exist; a finished run has a manifest.parquet")
    return KeepFilter(path, (input_columns,) if isinstance(input_columns, str) else input_columns, keeper=run)


class KeepFilter:
    """Says of a sample whether the manifest keeps it.

    It is small when pickled, and then carries a digest of the verdicts: Hugging Face ``datasets`` caches by it, and a
    data-loader worker refuses a manifest that was decided again since.

    Args:
        manifest: Path of ``manifest.parquet``.
        input_columns: Names of bare values.
        keeper: What keeps a temporary run folder alive.
    """

    def __init__(self, manifest: Path, input_columns: Sequence[str] | None = None, *, keeper: object = None) -> None:
        self._path, self._keeper = manifest, keeper
        self._input_columns = None if input_columns is None else tuple(input_columns)
        self._verdicts: Verdicts | None = self._open()
        self._digest = self._verdicts.digest
        self._numbers = RowNumbers()

    def __call__(self, *values: Any, index: Any = None) -> Any:
        """Whether a sample is kept; for a batch, a list that says it of each.

        Args:
            values: A WebDataset sample or a data set's example, or a batch of them (a mapping from names to
                sequences); or bare values of ``input_columns``. The row number, or a batch's, may follow.
            index: The row number, by name. It only decides between samples that nothing else tells apart, in one
                process, and as long as every row number fits what else is known of its sample.

        Raises:
            UnknownSampleError: Nothing tells which sample of the run this is, or the run has no such sample: then the
                filter is used on other data than the run.
        """
        columns, more = self._columns(values)
        index = more[0] if more else index
        if is_batch(columns, index):
            rows = (Row(columns, number) for number in range(batch_size(columns)))
            return [self._keeps(row, None if index is None else int(index[number])) for number, row in enumerate(rows)]
        return self._keeps(columns, None if index is None else int(index))

    def __repr__(self) -> str:
        return f"<keep filter of {self._path}>"

    def __getstate__(self) -> dict[str, Any]:
        return {"_path": self._path, "_input_columns": self._input_columns, "_digest": self._digest}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _verdicts=None, _keeper=None, _numbers=RowNumbers())

    def _open(self) -> Verdicts:
        from dedupkit.manifest.verdicts import Verdicts  # arrays are for where they are used

        return Verdicts(self._path)

    @property
    def _known(self) -> Verdicts:
        if self._verdicts is None:
            self._verdicts = self._open()
            if self._verdicts.digest != self._digest:
                self._verdicts = None
                raise DedupkitError(f"{self._path} was decided again since keep_filter was called; call it again")
        return self._verdicts

    def _keeps(self, values: Mapping[str, Any], index: int | None) -> bool:
        example = Example(values)
        if index is None and (verdict := self._surely(example)) is not None:
            return verdict
        rows = self._candidates(example)
        fits = index is None or bool((rows == index).any())
        self._numbers.see(index, fits=fits)
        verdict = self._unanimous(rows)
        if verdict is None:
            rows = self._narrowed(example, rows)
            verdict = self._unanimous(rows)
        if verdict is None:
            stated = example.row_number()
            number = stated if stated is not None else index if self._numbers.may_decide() else None
            if number is None or not (rows == number).any():
                raise _ambiguous(example, len(rows))
            return bool(self._known.kept(rows[rows == number])[0])
        return verdict

    def _surely(self, example: Example) -> bool | None:
        """The verdict where key and shard tell it at once, which is the common case."""
        key, source = example.key, example.source
        if key is None or not example.is_from_shard:
            return None
        sources = self._known.all_sources if source is None else self._known.sources(source)
        return self._known.in_source_surely(sources[0], key) if len(sources) == 1 else None

    def _candidates(self, example: Example) -> Rows:
        """The rows that the example may be: by key and source, else by the first column whose value is known."""
        key, source = example.key, example.source
        sources = self._known.all_sources if source is None else self._known.sources(source)
        if key is not None and (len(sources) == 1 or (source is not None and sources)):
            rows = _joined([self._known.in_source(name, key) for name in sources])
            rows = rows if example.is_from_shard else self._agreeing(example, rows)
            if len(rows):
                return rows
            if example.is_from_shard:
                raise UnknownSampleError(f"{' and '.join(sources[:3])} had no sample {key!r} when the run was made")
            key = None  # of another run, or of the table alone
        for column in _COLUMNS:
            value = example.get(column)
            if value is not None and len(rows := self._known.rows(column, value)):
                same_key = rows if key is None else self._known.having(rows, "key", key)
                return same_key if len(same_key) else rows
        if key is not None and source is None:
            rows = self._agreeing(example, self._known.rows("key", key))
            if len(rows):
                return rows
        raise self._unknown(example)

    def _agreeing(self, example: Example, rows: Rows) -> Rows:
        """Those of some rows that differ from the example in no column that both have."""
        for column in _COLUMNS:
            value = example.get(column) if len(rows) else None
            if value is not None:
                rows = self._known.having(rows, column, value, None)
        return rows

    def _narrowed(self, example: Example, rows: Rows) -> Rows:
        """Those of some rows that agree with the example in more columns; a column in which none does says nothing."""
        for column in _NARROWING:
            if self._unanimous(rows) is not None:
                break
            value = example.get(column)
            agreeing = rows if value is None else self._known.having(rows, column, value)
            rows = agreeing if len(agreeing) else rows
        return rows

    def _unanimous(self, rows: Rows) -> bool | None:
        kept = self._known.kept(rows)
        return bool(kept[0]) if kept.all() or not kept.any() else None

    def _unknown(self, example: Example) -> UnknownSampleError:
        known = [name for name in ("key", *_COLUMNS) if (example.key if name == "key" else example.get(name))]
        if not known:
            return UnknownSampleError(
                f"cannot tell which sample this is; it has {example.names()}, and the filter needs __key__ and "
                "__url__, uid, url, or the stored bytes of the image: "
                "ds.cast_column('image', datasets.Image(decode=False)); a row number alone cannot be checked"
            )
        where = "" if example.source is None else f" in {example.source}"
        return UnknownSampleError(f"{self._path} knows no sample with this {', '.join(known)}{where}")

    def _columns(self, values: Sequence[Any]) -> tuple[Mapping[str, Any], list[Any]]:
        """What the filter was called with, by column, and what came after it."""
        first, names = values[0], self._input_columns
        is_example = isinstance(first, Mapping) and set(first) != {"bytes", "path"}
        if is_example and (names is None or set(names) <= set(first)):
            return first, list(values[1:])
        if names is None:  # bare values, under the names under which the manifest has them
            names = tuple(self._name_of(value) for value in values[: len(values) - ends_in_number(values)])
        return dict(zip(names, values, strict=False)), list(values[len(names) :])

    def _name_of(self, value: Any) -> str:
        first = value[0] if is_sequence(value) and len(value) else value
        if not isinstance(first, str):
            return "image"
        if self._known.sources(first):
            return "__url__"
        return next((name for name in ("url", "uid") if len(self._known.rows(name, first))), "__key__")


def _joined(found: list[Rows]) -> Rows:
    import numpy as np

    return np.concatenate(found)


def _ambiguous(example: Example, count: int) -> UnknownSampleError:
    name = f"key {example.key!r}" if example.key is not None else "its values"
    return UnknownSampleError(
        f"{count} samples of the run cannot be told apart by {name} (the example has {example.names()}), and only some "
        "are kept; filter before images are decoded, add their row numbers in the run as a column 'sample', or write "
        "the kept samples with dedupkit apply"
    )
