"""The signals of lists of addresses: URLs and domains of samples against their lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dedupkit.metadata.keys import KeySettings, batch_keys
from dedupkit.signals.across import Across, equal_rows, restricted
from dedupkit.signals.columns import Scanned
from dedupkit.signals.equal import as_values, first_equal
from dedupkit.signals.matches import Origin, leading, relabelled
from dedupkit.signals.signal import JoinSettings, Kind, Signal, Stage

__all__ = ["ADDRESSES", "Domain", "Url", "ascii_domain", "host_of"]

_HOST = r"^[A-Za-z][A-Za-z0-9+.\-]*:/{2,}(?:[^/?#@]*@)?(?P<host>[^/?#:@]+)"


@dataclass(frozen=True)
class Url(Signal):
    """Holds between a sample and a line of a list whose URLs have the same normal form."""

    kind: ClassVar[Kind] = "identity"
    stage: ClassVar[Stage] = "none"
    origin: ClassVar[Origin] = "sample"

    def across(self, own: Scanned, other: Scanned, active: NDArray[np.bool_], settings: JoinSettings) -> Across:
        """Pairs of equal URLs; see :meth:`Signal.across`."""
        sides = [_keys(own, "url"), _keys(other, "url")]
        labels = [_first(keys, present) for keys, present in sides]
        labels[1] = restricted(labels[1], active)
        leaders = [leading(label) for label in labels]
        a, b = equal_rows(*(keys[mine] for (keys, _), mine in zip(sides, leaders, strict=True)))
        return Across(labels[0], labels[1], iter([(leaders[0][a], leaders[1][b], np.zeros(len(a), np.float32))]))


@dataclass(frozen=True)
class Domain(Signal):
    """Holds between a sample and a line of a list that names the domain of its URL or one above it."""

    kind: ClassVar[Kind] = "identity"
    stage: ClassVar[Stage] = "none"
    origin: ClassVar[Origin] = "sample"

    def across(self, own: Scanned, other: Scanned, active: NDArray[np.bool_], settings: JoinSettings) -> Across:
        """Pairs of hosts and the domains that they lie in; see :meth:`Signal.across`."""
        hosts = pc.dictionary_encode(host_of(_texts(own, "url")))
        label = _first_of(hosts)
        domains = pc.dictionary_encode(_texts(other, "domain"))
        listed = restricted(_first_of(domains), active)
        texts = other.read("domain")["domain"].to_pylist()
        row_of = {texts[row]: row for row in leading(listed).tolist()}
        pairs = []
        for sample in leading(label).tolist():
            names = ascii_domain(hosts[sample].as_py()).split(".")
            above = (".".join(names[start:]) for start in range(len(names)))
            pairs += [(sample, row_of[domain]) for domain in above if domain in row_of]
        a, b = np.array(pairs, np.int64).reshape(-1, 2).T
        return Across(label, listed, iter([(a, b, np.zeros(len(a), np.float32))]))


ADDRESSES: Mapping[str, Signal] = {"url": Url("url"), "domain": Domain("domain")}
"""By the name that stands in the reason."""


def host_of(urls: pa.Array) -> pa.Array:
    """The hosts of URLs in lower case, null where there is none.

    >>> host_of(pa.array(["https://user@A.Example.org:80/x.jpg", "no URL", None])).to_pylist()
    ['a.example.org', None, None]
    """
    hosts = pc.struct_field(pc.extract_regex(urls.cast(pa.large_string()), _HOST), "host")
    return pc.utf8_rtrim(pc.utf8_lower(hosts), ".")


def ascii_domain(domain: str) -> str:
    """A domain in lower case as it is looked up: Unicode as IDNA (RFC 3490) has it.

    >>> ascii_domain("Bücher.example")
    'xn--bcher-kva.example'
    """
    bare = domain.lower()
    try:
        return bare if bare.isascii() else bare.encode("idna").decode("ascii")
    except UnicodeError:
        return bare


def _keys(scanned: Scanned, column: str) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The normal forms of URLs as (n, 16) bytes, and which rows have one."""
    texts = _texts(scanned, column)
    (keys,) = batch_keys({"url": texts}, len(texts), [("url",)], KeySettings())
    return np.ascontiguousarray(keys.hashes).view(np.uint8).reshape(-1, 16), keys.state.astype(bool)


def _texts(scanned: Scanned, column: str) -> pa.Array:
    """A column of texts of all samples, which may be more than 2 GiB."""
    return scanned.read(column)[column].cast(pa.large_string()).combine_chunks()


def _first(keys: NDArray[np.uint8], present: NDArray[np.bool_]) -> NDArray[np.int32]:
    rows = np.flatnonzero(present)
    label = np.full(len(keys), -1, np.int32)
    label[rows] = rows[first_equal(as_values(keys[rows]))]
    return label


def _first_of(encoded: pa.DictionaryArray) -> NDArray[np.int32]:
    """For each row the first with the same value, -1 for null."""
    indices = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
    return relabelled(indices, True, len(encoded.dictionary))[0]
