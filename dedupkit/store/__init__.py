"""One way to files, local or remote, for inputs and outputs."""

from dedupkit.store.bucket import Bucket
from dedupkit.store.guard import refuse_inside
from dedupkit.store.held import held_alone
from dedupkit.store.homes import here, local_home, mirror_of
from dedupkit.store.lease import HeldError, Lease
from dedupkit.store.listing import exists, forget_listings, is_dir, list_dir, list_glob, stamp, stamps, walk_files
from dedupkit.store.mapped import give_back_pages, in_blocks, on_disk
from dedupkit.store.mirror import HELD, MEETING, Mirror
from dedupkit.store.paths import is_http, is_remote, join, local_path
from dedupkit.store.patterns import expand_braces
from dedupkit.store.reading import open_binary, read_ranges
from dedupkit.store.records import (
    FileState,
    digest_of,
    file_state,
    is_intact,
    parsed_json,
    read_json,
    read_sealed,
    write_json,
    write_sealed,
)
from dedupkit.store.remote import at_once, is_refused, retried
from dedupkit.store.scatter import append_rows
from dedupkit.store.staged import staged
from dedupkit.store.tables import (
    count_rows,
    iter_columns,
    parquet_writer,
    read_columns,
    rows_by_file,
    write_table,
    write_tables,
)
from dedupkit.store.whole import atomic_path, is_temporary, remove_tree, sweep, temporary_path

__all__ = [
    "HELD",
    "MEETING",
    "Bucket",
    "FileState",
    "HeldError",
    "Lease",
    "Mirror",
    "append_rows",
    "at_once",
    "atomic_path",
    "count_rows",
    "digest_of",
    "exists",
    "expand_braces",
    "file_state",
    "forget_listings",
    "give_back_pages",
    "held_alone",
    "here",
    "in_blocks",
    "is_dir",
    "is_http",
    "is_intact",
    "is_refused",
    "is_remote",
    "is_temporary",
    "iter_columns",
    "join",
    "list_dir",
    "list_glob",
    "local_home",
    "local_path",
    "mirror_of",
    "on_disk",
    "open_binary",
    "parquet_writer",
    "parsed_json",
    "read_columns",
    "read_json",
    "read_ranges",
    "read_sealed",
    "refuse_inside",
    "remove_tree",
    "retried",
    "rows_by_file",
    "staged",
    "stamp",
    "stamps",
    "sweep",
    "temporary_path",
    "walk_files",
    "write_json",
    "write_sealed",
    "write_table",
    "write_tables",
]
