"""Local Parquet files of dedupkit's own: written whole and with a checksum for each page, which reading verifies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dedupkit.errors import DamagedError
from dedupkit.store.whole import atomic_path

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "count_rows",
    "iter_columns",
    "parquet_writer",
    "read_columns",
    "rows_by_file",
    "write_table",
    "write_tables",
]

_FEW = 10_000  # rows; one thread reads so few before others would have begun


def read_columns(path: Path, columns: Sequence[str] | None = None, where: Any = None) -> Any:
    """Read a local Parquet file, or some of its columns or rows, as a pyarrow table.

    Args:
        path: The file.
        columns: Names of the columns; all of them by default.
        where: Rows to keep, as pyarrow's ``filters``.

    Raises:
        DamagedError: The file is missing, is no Parquet, lacks a column, or a page does not have its checksum.
    """
    import pyarrow.parquet as pq

    names = None if columns is None else list(columns)
    with _damage_named(path):
        if where is not None:
            # A folder that is called a=b is no partition here.
            options: dict[str, Any] = {"partitioning": None, "page_checksum_verification": True}
            return pq.read_table(path, columns=names, filters=where, **options)
        # read_table first loads the dataset module, a tenth of a short job
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read(columns=names, use_threads=file.metadata.num_rows > _FEW)
            _refuse_missing(table, names or ())
            return table


def iter_columns(path: Path, columns: Sequence[str]) -> Iterator[Any]:
    """Some columns of a local Parquet file, one row group in memory at a time, as pyarrow tables.

    Raises:
        DamagedError: As :func:`read_columns`.
    """
    import pyarrow.parquet as pq

    with _damage_named(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=list(columns))
            _refuse_missing(table, columns)
            yield table


def count_rows(path: Path) -> int:
    """The number of rows of a local Parquet file, which this process reads once as long as the file does not change.

    Raises:
        DamagedError: The file is missing or is no Parquet.
    """
    with _damage_named(path):
        state = path.stat()
        return _counted(str(path), (state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns))


def rows_by_file(files: Iterable[Path], rows: NDArray[Any]) -> Iterator[tuple[Path, int, int, NDArray[Any]]]:
    """Where some rows lie that are numbered through all files, one file after the other.

    Args:
        files: Local Parquet files.
        rows: (k,) whole numbers, ascending.

    Yields:
        For each file with any of them: the file, the first of its ``rows`` and the one after the last, and these rows
        as they are numbered in the file.
    """
    import numpy as np

    start = 0
    for file in files:
        if not len(rows) or start > rows[-1]:
            return
        stop = start + count_rows(file)
        low, high = np.searchsorted(rows, [start, stop]).tolist()
        if high > low:
            yield file, low, high, rows[low:high] - start
        start = stop


@lru_cache(maxsize=1 << 15)
def _counted(path: str, _: tuple[int, ...]) -> int:
    import pyarrow.parquet as pq

    return int(pq.read_metadata(path).num_rows)


def write_table(path: Path, table: Any) -> None:
    """Write a pyarrow table as a Parquet file, whole or not at all."""
    with parquet_writer(path, table.schema) as writer:
        writer.write_table(table)


@contextmanager
def parquet_writer(path: Path, schema: Any) -> Iterator[Any]:
    """A ``pyarrow.parquet.ParquetWriter`` of a file that appears when the block ends, and not at all when it fails.

    Args:
        path: The file.
        schema: Its schema; metadata in it is written too.
    """
    import pyarrow.parquet as pq

    with (
        atomic_path(path) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd", write_page_checksum=True) as writer,
    ):
        yield writer


def write_tables(path: Path, schema: Any, tables: Iterable[Any]) -> Iterator[Any]:
    """Write tables one after the other into a Parquet file, each while the next one is made; gives them on.

    The file appears when the last one was taken, and not at all when anything failed before.

    Args:
        path: The file.
        schema: Its schema; metadata in it is written too.
        tables: Tables of these columns, two of which are in memory at a time.
    """
    from concurrent.futures import ThreadPoolExecutor

    with parquet_writer(path, schema) as writer, ThreadPoolExecutor(1) as behind:
        writing = None
        for table in tables:
            if writing is not None:
                writing.result()
            writing = behind.submit(writer.write_table, table.replace_schema_metadata(schema.metadata))
            yield table
        if writing is not None:
            writing.result()


def _refuse_missing(table: Any, columns: Sequence[str]) -> None:
    missing = set(columns) - set(table.column_names)
    if missing:
        raise KeyError(f"it has no column {min(missing)}")


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """What pyarrow raises for a file that is not as it was written, as one error."""
    import pyarrow as pa

    try:
        yield
    except (PermissionError, MemoryError):
        raise
    except FileNotFoundError:
        raise DamagedError(path, "is missing") from None
    except (OSError, EOFError, ValueError, KeyError, pa.ArrowException) as error:
        raise DamagedError(path, f"is damaged ({' '.join(str(error).split())[:200]})") from error
