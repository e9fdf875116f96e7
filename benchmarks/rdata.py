"""Character vectors out of an R package's lazy-load database, without R.

The Debian packages of R ship their data sets as `Rdata.rdx` (an index) and `Rdata.rdb` (compressed serialised objects).
Only what such a data set needs is read: strings, integers, lists, attributes. Format: "R Internals", section 1.8
(Serialization Formats), https://cran.r-project.org/doc/manuals/r-release/R-ints.html
"""

import bz2
import lzma
import struct
import zlib
from pathlib import Path
from typing import Any

NIL, REFERENCE = 254, 255
SYMBOL, PAIRLIST, STRING, LOGICAL, INTEGER, STRINGS, LIST, ALTREP = (
    1,
    2,
    9,
    10,
    13,
    16,
    19,
    238,
)
WITH_ATTRIBUTES, WITH_TAG = 0x200, 0x400


class _Reader:
    """A cursor over one object in R's XDR serialisation."""

    def __init__(self, data: bytes):
        if data[:2] != b"X\n":
            raise ValueError(f"not R's XDR serialisation: {data[:8]!r}")
        self.data, self.at, self.references = data, 2, []
        version, _, _ = self.integer(), self.integer(), self.integer()
        if version == 3:
            self.take(self.integer())

    def take(self, count: int) -> bytes:
        self.at += count
        return self.data[self.at - count : self.at]

    def integer(self) -> int:
        return struct.unpack(">i", self.take(4))[0]

    def item(self) -> Any:
        flags = self.integer()
        kind = flags & 0xFF
        if kind == NIL or 241 <= kind <= 253:
            return None
        if kind == REFERENCE:
            return self.references[(flags >> 8 or self.integer()) - 1]
        if kind == SYMBOL:
            self.references.append(self.item())
            return self.references[-1]
        if kind == STRING:
            length = self.integer()
            return None if length == -1 else self.take(length).decode()
        if kind == PAIRLIST:
            if flags & WITH_ATTRIBUTES:
                self.item()
            tag = self.item() if flags & WITH_TAG else None
            return [(tag, self.item()), *(self.item() or [])]
        if kind == ALTREP:
            _, state, _ = self.item(), self.item(), self.item()
            return state
        return self._vector(kind, bool(flags & WITH_ATTRIBUTES))

    def _vector(self, kind: int, with_attributes: bool) -> Any:
        length = self.integer()
        if kind in (STRINGS, LIST):
            values = [self.item() for _ in range(length)]
        elif kind in (INTEGER, LOGICAL):
            values = list(struct.unpack(f">{length}i", self.take(4 * length)))
        else:
            raise ValueError(f"R object of type {kind} at byte {self.at} is not a data set of strings")
        attributes = dict(self.item()) if with_attributes else {}
        return dict(zip(attributes["names"], values, strict=True)) if kind == LIST and "names" in attributes else values


def _decompress(record: bytes) -> bytes:
    """A record is its length (4 bytes), then zlib data, or a letter (2 bzip2, Z xz) and that."""
    match record[4:5]:
        case b"2":
            return bz2.decompress(record[5:])
        case b"Z":
            return lzma.decompress(record[5:])
        case _:
            return zlib.decompress(record[4:])


def read_lazy_load(base: Path) -> dict[str, Any]:
    """Every object of `base`.rdx and `base`.rdb by its name."""
    index = _Reader(zlib.decompress(base.with_suffix(".rdx").read_bytes(), wbits=47)).item()
    database = base.with_suffix(".rdb").read_bytes()
    return {
        name: _Reader(_decompress(database[offset : offset + length])).item()
        for name, (offset, length) in index["variables"].items()
    }
