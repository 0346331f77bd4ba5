"""One way to files, local or remote, for inputs and outputs."""

from dedupkit.store.files import (
    atomic_path,
    exists,
    expand_braces,
    is_dir,
    is_remote,
    join,
    leave_pandas_out,
    list_dir,
    list_glob,
    open_binary,
    read_columns,
    read_json,
    refuse_inside,
    stamp,
    walk_files,
    write_json,
)

__all__ = [
    "atomic_path",
    "exists",
    "expand_braces",
    "is_dir",
    "is_remote",
    "join",
    "leave_pandas_out",
    "list_dir",
    "list_glob",
    "open_binary",
    "read_columns",
    "read_json",
    "refuse_inside",
    "stamp",
    "walk_files",
    "write_json",
]
