"""Zip archives as weight files use them, read without trusting a single size they declare.

Only what torch and numpy write is read: members stored as they are, or deflated, with 64-bit sizes where
needed. Every offset and length is checked against the file before anything is allocated, a member is inflated
at most to its declared size, and checksums are compared. Layout as in PKWARE's APPNOTE.TXT 6.3, sections 4.3
and 4.5.3.
"""

import io
import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .records import Budget, quote

LARGEST_MEMBER_COUNT = 200_000
_END = struct.Struct("<4s4H2IH")
_END64_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQ2H2I4Q")
_MEMBER = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")
_CHUNK = 1 << 22


class Member(NamedTuple):
    """One file of an archive: where it starts and how it is packed."""

    name: str
    header: int
    packed: int
    size: int
    method: int
    flags: int
    checksum: int


class Source:
    """An open file that gives bytes only where it has them; memory asked for is charged to `budget`."""

    def __init__(self, path: Path, stream: io.BufferedIOBase, size: int) -> None:
        self.path = path
        self.stream = stream
        self.size = size
        # Tensors are read once; strided ones and views of one storage are copied once more.
        self.budget = Budget(3 * size + (16 << 20))

    def read(self, offset: int, count: int, what: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Return `count` bytes from `offset` on, owned; raises ValueError where the file ends before."""
        self._reserve(offset, count, what)
        data = np.empty(count, np.uint8)
        self.stream.seek(offset)
        if self.stream.readinto(data.data) != count:
            raise ValueError(f"truncated: {what} changed while it was read")
        return data

    def read_bytes(self, offset: int, count: int, what: str) -> bytes:
        """Return `count` bytes from `offset` on, as `read` does, but immutable."""
        self._reserve(offset, count, what)
        self.stream.seek(offset)
        data = self.stream.read(count)
        if len(data) != count:
            raise ValueError(f"truncated: {what} changed while it was read")
        return data

    def _reserve(self, offset: int, count: int, what: str) -> None:
        if offset < 0 or count < 0 or offset + count > self.size:
            raise ValueError(f"truncated: {what} should end at byte {offset + count} of {self.size}")
        self.budget.take(count, what)


class Archive:
    """The members of a zip file by name; raises ValueError if its directory is damaged or ambiguous."""

    def __init__(self, source: Source) -> None:
        self.source = source
        # Weights hardly shrink, so a much larger content is a bomb; small members of zeros may.
        self.inflated = Budget(20 * source.size + (16 << 20))
        self.members = _directory(source)

    def read(self, name: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Return the bytes of a member; raises ValueError if it is missing, truncated or damaged."""
        if name not in self.members:
            raise ValueError(f"the archive lacks its member {quote(name)}")
        member = self.members[name]
        what = f"member {quote(name)}"
        if member.flags & 1:
            raise ValueError(f"{what} is encrypted: unpack the archive with its password and save it without")
        packed = self.source.read(self._begin(member, what), member.packed, what)
        if member.method == 0:
            if member.size != member.packed:
                raise ValueError(f"{what} is stored in {member.packed} bytes but declares {member.size}")
            content = packed
        elif member.method == zlib.DEFLATED:
            content = self._inflate(packed, member.size, what)
        else:
            raise ValueError(f"{what} is packed by method {member.method}, expected stored or deflated")
        # torch writes a checksum of 0 when told not to compute it.
        if member.checksum and zlib.crc32(content.data) != member.checksum:
            raise ValueError(f"{what} is damaged: its checksum differs")
        return content

    def _begin(self, member: Member, what: str) -> int:
        header = self.source.read_bytes(member.header, _LOCAL.size, f"the header of {what}")
        signature, *_, name_length, extra_length = _LOCAL.unpack(header)
        if signature != b"PK\x03\x04":
            raise ValueError(f"{what} has no local header: the archive is damaged")
        return member.header + _LOCAL.size + int(name_length) + int(extra_length)

    def _inflate(self, packed: np.ndarray[Any, Any], size: int, what: str) -> np.ndarray[Any, Any]:
        self.inflated.take(size, f"{what}, inflated,")
        content = np.empty(size, np.uint8)
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        rest: Any = packed.data
        filled = 0
        try:
            while not inflater.eof:
                piece = inflater.decompress(rest, min(_CHUNK, size - filled + 1))
                rest = inflater.unconsumed_tail
                if filled + len(piece) > size or (not piece and not inflater.eof):
                    raise ValueError(f"{what} does not inflate to its declared {size} bytes")
                content[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
                filled += len(piece)
        except zlib.error as error:
            raise ValueError(f"{what} is damaged: {error}") from error
        if filled != size:
            raise ValueError(f"{what} inflates to {filled} bytes but declares {size}")
        return content


def _directory(source: Source) -> dict[str, Member]:
    """The central directory: name -> member."""
    tail_begin = max(0, source.size - _END.size - 0xFFFF)
    tail = source.read_bytes(tail_begin, source.size - tail_begin, "the end of the archive")
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or end + _END.size > len(tail):
        raise ValueError("truncated: a zip archive without its directory at the end (an unfinished download or copy?)")
    *_, count, size, offset, _ = _END.unpack_from(tail, end)
    locator = end - _END64_LOCATOR.size
    if count == 0xFFFF or 0xFFFFFFFF in (size, offset):
        if locator < 0 or tail[locator : locator + 4] != b"PK\x06\x07":
            raise ValueError("the archive lacks the 64-bit form of its directory")
        position = _END64_LOCATOR.unpack_from(tail, locator)[2]
        record = source.read_bytes(position, _END64.size, "the end of the archive")
        if record[:4] != b"PK\x06\x06":
            raise ValueError("the archive lacks the 64-bit form of its directory")
        *_, count, size, offset = _END64.unpack(record)
    if count > LARGEST_MEMBER_COUNT:
        raise ValueError(f"the archive declares {count} members, more than any weight file has")
    directory = source.read_bytes(offset, size, "the directory of the archive")
    members: dict[str, Member] = {}
    position = 0
    for _ in range(count):
        member, position = _member(directory, position)
        if member.name in members:
            raise ValueError(f"the archive holds {quote(member.name)} twice")
        members[member.name] = member
    return members


def _member(directory: bytes, position: int) -> tuple[Member, int]:
    """One entry of the central directory and the position after it."""
    if position + _MEMBER.size > len(directory):
        raise ValueError("truncated: the directory of the archive")
    fields = _MEMBER.unpack_from(directory, position)
    (
        signature,
        _,
        _,
        flags,
        method,
        _,
        _,
        checksum,
        packed,
        size,
        name_length,
        extra_length,
        comment_length,
    ) = fields[:13]
    header = fields[16]
    name_begin = position + _MEMBER.size
    extra_begin = name_begin + name_length
    end = extra_begin + extra_length + comment_length
    if signature != b"PK\x01\x02" or end > len(directory):
        raise ValueError("the directory of the archive is damaged")
    name = directory[name_begin:extra_begin].decode("utf-8", "replace")
    extra = directory[extra_begin : extra_begin + extra_length]
    size, packed, header = _wide(extra, [size, packed, header])
    return Member(name, header, packed, size, method, flags, checksum), end


def _wide(extra: bytes, values: list[int]) -> list[int]:
    """Sizes and offset, replaced by their 64-bit form where the 32-bit one is all ones."""
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, position)
        if kind == 1:
            field, stop = position + 4, min(position + 4 + length, len(extra))
            for index, value in enumerate(values):
                if value == 0xFFFFFFFF:
                    if field + 8 > stop:
                        raise ValueError("the directory of the archive is damaged")
                    values[index] = struct.unpack_from("<Q", extra, field)[0]
                    field += 8
            break
        position += 4 + length
    return values
