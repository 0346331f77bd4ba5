"""Exact cosine join of two sets of rows by matrix products in tiles, and the kernels that score what they leave.

A tile is a product of two blocks of unit vectors, in whatever precision the machine multiplies fastest. It only
sieves: a pair whose product comes within the error bound of that precision below the floor is scored again, as the
float64 sum of the products of the float32 components, and kept if that score, as float32, reaches the floor. So the
pairs and scores are the same on every engine and for every tiling.

Error bounds: for vectors of length at most 1, whose components are rounded with relative error u, the product is off
by at most 2u + u^2 (Cauchy-Schwarz), storing it adds u, and the float32 sum of d terms about d * 2^-24. bfloat16 has
u = 2^-9, float16 u = 2^-11.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dedupkit.errors import import_optional
from dedupkit.neighbors.cosine.rows import Floats, Ints, Rows

TILE = 2048  # rows of a tile: two blocks of 512 float32 dimensions and their product fit a 2023 server's cache
CUDA_TILE = 8192
SMALL_JOB = 2e9  # pairs under which importing torch takes longer than it saves
LEAST_BFLOAT16_FLOOR = 0.05
STEP = 128  # rows to which blocks in bfloat16 are filled up: oneDNN compiles and keeps a kernel for every shape


@njit(cache=True, nogil=True, fastmath=True)
def dots(x: Floats, y: Floats, i: Ints, j: Ints, out: Floats) -> None:
    """Write the products of rows x[i[p]] and y[j[p]], float32 (m, d) and (k, d), to out, float32 (p,)."""
    for p in range(len(i)):
        total = 0.0
        for c in range(x.shape[1]):
            total += np.float64(x[i[p], c]) * np.float64(y[j[p], c])
        out[p] = min(1.0, max(-1.0, total))


@njit(cache=True, nogil=True)
def mark_reaching(products: Any, rows: Any, columns: Any, passing: Any) -> None:
    """Mark in passing, bool (m, n), which products (m, n) reach the bound of their row (m,) or column (n,)."""
    for i in range(len(rows)):
        row = rows[i]
        for j in range(len(columns)):
            least = row if row < columns[j] else columns[j]
            passing[i, j] = products[i, j] >= least


class Engine:
    """Multiplies blocks of unit vectors in one of four ways; all let the same pairs through.

    Attributes:
        kind: "numpy" or "torch" (float32), "bfloat16" (a CPU with matrix units for it) or "cuda" (float16).
        tile: Number of rows of a block.
    """

    def __init__(self, kind: str, dims: int, device: str = "cpu") -> None:
        self.kind, self.device = kind, device
        self.tile = CUDA_TILE if kind == "cuda" else TILE
        unit = {"numpy": 2.0**-24, "torch": 2.0**-24, "bfloat16": 2.0**-9, "cuda": 2.0**-11}[kind]
        self.slack = 4 * unit + dims * 2.0**-23
        self.torch: Any = None if kind == "numpy" else import_optional("torch", "clip")
        # Used again for every tile: fresh memory costs more than comparing, and small results kept between large
        # temporaries make the heap grow.
        self.products, self.passing = np.empty(0, np.float32), np.empty(0, np.bool_)

    @staticmethod
    def choose(device: str | None, pairs: float, dims: int, floor: float) -> Engine:
        """Take the fastest engine for so many pairs.

        Args:
            device: "cpu", or what torch calls a device; None: CUDA if there is one.
            pairs: Number of products to compute.
            dims: Number of components of a vector.
            floor: Least cosine of the join. The bfloat16 sieve compares bits, which needs a positive one.

        Raises:
            MissingExtraError: A device was named, and torch is not installed.
            ValueError: There is no such device.
        """
        installed = importlib.util.find_spec("torch") is not None
        if device in (None, "cpu") and (pairs < SMALL_JOB or not installed):
            return Engine("numpy", dims)
        torch = import_optional("torch", "clip")
        if device != "cpu" and torch.cuda.is_available() and (device is None or device.startswith("cuda")):
            return Engine("cuda", dims, device or "cuda")
        if device not in (None, "cpu"):
            raise ValueError(f"device {device!r} is not available; use 'cpu', or leave it out")
        return Engine("bfloat16" if has_matrix_units() and floor > LEAST_BFLOAT16_FLOOR else "torch", dims)

    def load(self, x: Floats) -> Any:
        """Bring a block, float32 (m, d), into the form that `product` takes."""
        if self.kind == "numpy":
            return x
        dtype = {"torch": "float32", "bfloat16": "bfloat16", "cuda": "float16"}[self.kind]
        return self.torch.from_numpy(x).to(self.device, getattr(self.torch, dtype))

    def product(self, x: Any, y: Any) -> Floats:
        """Approximate cosines of two loaded blocks, float32 (m, k); the next call overwrites them."""
        if self.kind in ("bfloat16", "cuda"):
            cosines: Floats = self._halves(x, y).float().cpu().numpy()
            return cosines
        if self.products.size < len(x) * len(y):
            self.products = np.empty(len(x) * len(y), np.float32)
        out = self.products[: len(x) * len(y)].reshape(len(x), len(y))
        if self.torch is None:
            np.matmul(x, y.T, out=out)
        else:
            self.torch.mm(x, y.T, out=self.torch.from_numpy(out))
        return out

    def _halves(self, x: Any, y: Any) -> Any:
        """The product of two loaded blocks in half precision, as a tensor; a view of one that is larger."""
        if self.kind == "cuda":
            return x @ y.T
        left, right = (
            block if len(block) % STEP == 0 else self.torch.nn.functional.pad(block, (0, 0, 0, -len(block) % STEP))
            for block in (x, y)
        )
        return (left @ right.T)[: len(x), : len(y)]

    def best(self, cosines: Floats) -> tuple[Floats, Ints]:
        """The largest value of each row of `product`'s result and its column, float32 and int64 (m,)."""
        if self.torch is None:
            column = cosines.argmax(axis=1)
            return np.take_along_axis(cosines, column[:, None], axis=1)[:, 0], column
        value, place = self.torch.from_numpy(cosines).max(dim=1)  # on all cores
        return value.numpy(), place.numpy()

    def at_least(self, cosines: Floats, bounds: Floats) -> Ints:
        """Flat positions in `product`'s result of what reaches its row's bound, float32 (m,)."""
        if self.torch is None:
            return np.flatnonzero(cosines >= bounds[:, None])
        passing = self.torch.from_numpy(cosines) >= self.torch.from_numpy(bounds)[:, None]
        return np.flatnonzero(passing.numpy())

    def sieve(self, x: Any, y: Any, floor: float) -> tuple[Ints, Ints]:
        """Positions (i, j) in two loaded blocks of all pairs that may reach the floor, in row order."""
        bound = np.float32(floor - self.slack)
        if self.kind == "cuda":
            i, j = (x @ y.T >= float(bound)).nonzero(as_tuple=True)
            return i.cpu().numpy(), j.cpu().numpy()
        if self.passing.size < len(x) * len(y):
            self.passing = np.empty(len(x) * len(y), np.bool_)
        passing = self.passing[: len(x) * len(y)].reshape(len(x), len(y))
        if self.kind == "bfloat16":
            np.greater_equal(self._halves(x, y).view(self.torch.int16).numpy(), _bits(bound), out=passing)
        else:
            np.greater_equal(self.product(x, y), bound, out=passing)
        i, j = np.divmod(np.flatnonzero(passing), passing.shape[1])
        return i, j

    def may_enter(self, x: Any, y: Any, rows: Floats, columns: Floats | None, k: int) -> tuple[Ints, Ints]:
        """Positions (i, j) in two loaded blocks of the pairs that may be among the k nearest of a row or a column.

        Args:
            x: One block, (m, d) as loaded.
            y: The other, (n, d) as loaded.
            rows: float32 (m,), the least cosine that each row of x still takes.
            columns: float32 (n,), those of the rows of y; None where only the rows of x look for neighbours.
            k: Number of neighbours of a row that this block can add at most, itself counted where it is in y.
        """
        if self.kind == "cuda":
            product = (x @ y.T).float()
            passing = product >= self._on_device(rows, product, k)[:, None]
            if columns is not None:
                passing |= product >= self._on_device(columns, product.T, k)
            i, j = passing.nonzero(as_tuple=True)
            return i.cpu().numpy(), j.cpu().numpy()
        compared = self._compared(x, y)
        found = self._reaching(compared, rows, columns)
        if len(found) > 4 * k * (compared.shape[0] + compared.shape[1]):
            # Early tiles: what is k-th here is exceeded by k others at least, less the error of the products.
            cosines = compared if compared.dtype == np.float32 else self._floats(compared)
            rows = np.maximum(rows, _kth(cosines, k) - np.float32(self.slack))
            if columns is not None:
                columns = np.maximum(columns, _kth(np.ascontiguousarray(cosines.T), k) - np.float32(self.slack))
            found = self._reaching(compared, rows, columns)
        i, j = np.divmod(found, compared.shape[1])
        return i, j

    def _compared(self, x: Any, y: Any) -> NDArray[Any]:
        """The product of two loaded blocks as numbers that compare as it does: float32, or int16, bits of bfloat16."""
        if self.kind != "bfloat16":
            return self.product(x, y)
        return np.ascontiguousarray(self._halves(x, y).view(self.torch.int16).numpy())

    def _floats(self, bits: NDArray[Any]) -> Floats:
        floats: Floats = self.torch.from_numpy(bits).view(self.torch.bfloat16).float().numpy()
        return floats

    def _reaching(self, compared: NDArray[Any], rows: Floats, columns: Floats | None) -> Ints:
        if self.passing.size < compared.size:
            self.passing = np.empty(compared.size, np.bool_)
        passing = self.passing[: compared.size].reshape(compared.shape)
        if columns is None:
            columns = np.full(compared.shape[1], np.inf, np.float32)
        left, right = (bounds - np.float32(self.slack) for bounds in (rows, columns))
        if compared.dtype != np.float32:
            left, right = _bits(left), _bits(right)
        mark_reaching(compared, left, right, passing)
        return np.flatnonzero(passing)

    def _on_device(self, bounds: Floats, product: Any, k: int) -> Any:
        reached = self.torch.from_numpy(bounds).to(product.device)
        if k < product.shape[1]:
            reached = self.torch.maximum(reached, product.topk(k, dim=1).values[:, -1] - self.slack)
        return reached - self.slack


def _bits(bounds: Any) -> Any:
    """Positive float32 numbers as the bits of the next bfloat16 below, int16.

    Read as integers, bfloat16 numbers keep their order as long as one of the two is positive.
    """
    return (bounds.view(np.int32) >> 16).astype(np.int16)


def _kth(cosines: Floats, k: int) -> Floats:
    """The k-th largest value of each row; minus infinity where it has fewer."""
    columns = cosines.shape[1]
    if k > columns:
        return np.full(len(cosines), -np.inf, np.float32)
    kth: Floats = np.partition(cosines, columns - k, axis=1)[:, columns - k]
    return kth


class Sets(NamedTuple):
    """What is joined, and by what.

    Attributes:
        engine: Multiplies rows.
        left: The first set.
        right: The second set; None where the first is joined with itself.
        keep_rows: Number of rows that may be held at a time.
    """

    engine: Engine
    left: Rows
    right: Rows | None
    keep_rows: int

    @property
    def same(self) -> bool:
        """Whether a set is joined with itself."""
        return self.right is None

    @property
    def other(self) -> Rows:
        """The set that the first is joined with."""
        return self.left if self.right is None else self.right

    @property
    def sides(self) -> list[Rows]:
        """The one or two sets."""
        return [self.left] if self.right is None else [self.left, self.right]


def has_matrix_units() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware (AMX); known on Linux only."""
    flags = Path("/proc/cpuinfo")
    return flags.exists() and "amx_bf16" in flags.read_text()


def join_tiles(
    engine: Engine,
    left: Rows,
    at: Ints | None,
    right: Rows | None,
    to: Ints | None,
    floor: float,
    keep_rows: int,
) -> Iterator[tuple[Ints, Ints, Floats]]:
    """Yield all pairs of two lists of positions whose cosine reaches the floor, tile by tile.

    Work: len(at) * len(to) * d multiply-adds, half of it where a set meets itself.

    Args:
        engine: Engine that multiplies.
        left: First set of vectors.
        at: int64 (m,), the positions in it to use, ascending; None: all.
        right: Second set; None joins the first with itself, each pair once, with i < j.
        to: int64 (k,), the positions in the second set; None: all.
        floor: Least cosine.
        keep_rows: Rows that are held in memory while all others pass by.

    Yields:
        Positions i and j, int64, and scores, float32, all (p,) with p > 0. They fill no more than a tile.
    """
    same = right is None
    other, to = (left, at) if right is None else (right, to)
    rows, columns = len(left if at is None else at), len(other if to is None else to)
    tile = engine.tile

    def block(source: Rows, positions: Ints | None, begin: int, end: int) -> Floats:
        return source.take(slice(begin, end) if positions is None else positions[begin:end])

    for outer in range(0, rows, max(tile, keep_rows)):
        stop = min(rows, outer + max(tile, keep_rows))
        kept = [(begin, block(left, at, begin, min(stop, begin + tile))) for begin in range(outer, stop, tile)]
        loaded = [engine.load(x) for _, x in kept]
        for column in range(outer if same else 0, columns, tile):
            y = block(other, to, column, min(columns, column + tile))
            y_loaded = engine.load(y)
            for (begin, x), x_loaded in zip(kept, loaded, strict=True):
                if same and begin > column:
                    continue
                diagonal = same and begin == column
                # On the diagonal in strips, each against what is right of its start: little more than half the work.
                strip = engine.tile // 8 if diagonal else len(x)
                for down in range(0, len(x), strip):
                    right_of = down if diagonal else 0
                    i, j = engine.sieve(x_loaded[down : down + strip], y_loaded[right_of:], floor)
                    i, j = i + down, j + right_of
                    if diagonal:
                        upper = i < j
                        i, j = i[upper], j[upper]
                    score = np.empty(len(i), np.float32)
                    dots(x, y, i, j, score)
                    reached = score >= np.float32(floor)
                    if reached.any():
                        i, j = i[reached] + begin, j[reached] + column
                        yield (i if at is None else at[i]), (j if to is None else to[j]), score[reached]
