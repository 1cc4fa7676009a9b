"""Protocol Buffers' wire format, read by a table of fields. What comes is hostile.

Source: protobuf.dev/programming-guides/encoding. What the wire leaves out is 0, empty or, of a message, None; fields
that the table lacks are passed over. Each length is checked against what is there, and nothing is nested deeper than
the table is.
"""

from __future__ import annotations

from enum import Enum
from functools import partial
from struct import unpack_from
from typing import TypeAlias

from msgspec import Struct

#: What a field may hold. Text that is no UTF-8 has lone surrogates in it (PEP 383).
Value: TypeAlias = "int | bool | str | bytes | list[Value] | dict[str, Value] | None"


class Malformed(ValueError):
    """These bytes are no such message."""


class Kind(Enum):
    """What a field is, and what it is where the wire leaves it out."""

    I32 = "int32"
    I64 = "int64"
    U32 = "uint32"
    U64 = "uint64"
    FIXED32 = "fixed32"
    FIXED64 = "fixed64"
    BOOL = "bool"
    TEXT = "string"
    BYTES = "bytes"
    MESSAGE = "message"


class Field(Struct, frozen=True):
    """One field of a message."""

    number: int
    name: str
    kind: Kind
    of: Message | None = None
    repeated: bool = False


class Message:
    """A message: its name and its fields."""

    __slots__ = ("absent", "fields", "name", "repeated")

    def __init__(self, name: str, *fields: Field) -> None:
        self.name = name
        self.fields = {one.number: one for one in fields}
        self.absent: dict[str, Value] = {one.name: _ABSENT[one.kind] for one in fields}
        self.repeated = tuple(one.name for one in fields if one.repeated)


_ABSENT: dict[Kind, Value] = {
    Kind.BOOL: False,
    Kind.TEXT: "",
    Kind.BYTES: b"",
    Kind.MESSAGE: None,
    **dict.fromkeys((Kind.I32, Kind.I64, Kind.U32, Kind.U64, Kind.FIXED32, Kind.FIXED64), 0),
}

i32 = partial(Field, kind=Kind.I32)
i64 = partial(Field, kind=Kind.I64)
u32 = partial(Field, kind=Kind.U32)
u64 = partial(Field, kind=Kind.U64)
boolean = partial(Field, kind=Kind.BOOL)
text = partial(Field, kind=Kind.TEXT)
texts = partial(Field, kind=Kind.TEXT, repeated=True)
data = partial(Field, kind=Kind.BYTES)
nested = partial(Field, kind=Kind.MESSAGE)

_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5
_WIRE = {
    Kind.TEXT: _LENGTH,
    Kind.BYTES: _LENGTH,
    Kind.MESSAGE: _LENGTH,
    Kind.FIXED32: _FOUR_BYTES,
    Kind.FIXED64: _EIGHT_BYTES,
    **dict.fromkeys((Kind.I32, Kind.I64, Kind.U32, Kind.U64, Kind.BOOL), _VARINT),
}
_VARINT_BYTES = 10


def decode(message: Message, payload: bytes) -> dict[str, Value]:
    """Every field of a message, by name. Raises Malformed."""
    return _decode(message, payload, 0, len(payload))


def _decode(message: Message, payload: bytes, at: int, end: int) -> dict[str, Value]:
    found = message.absent.copy()
    lists: dict[str, list[Value]] = {name: [] for name in message.repeated}
    found.update(lists)
    while at < end:
        key, at = _varint(payload, at, end)
        wire = key & 7
        if not 0 < key >> 3 < 1 << 29:
            raise Malformed(f"{message.name}: a field of number {key >> 3}")
        field = message.fields.get(key >> 3)
        if wire == _VARINT:
            raw, at = _varint(payload, at, end)
            begin = at
        elif wire == _LENGTH:
            length, begin = _varint(payload, at, end)
            at = begin + length
            raw = length
        elif wire in (_EIGHT_BYTES, _FOUR_BYTES):
            begin, at = at, at + (8 if wire == _EIGHT_BYTES else 4)
            raw = 0
        else:
            # Groups: nobody has sent any since proto3.
            raise Malformed(f"{message.name}: wire type {wire}")
        if at > end:
            raise Malformed(f"{message.name}: cut")
        if field is None:
            continue
        if wire == _WIRE[field.kind]:
            value = _value(field, payload, begin, at, raw)
            if field.repeated:
                lists[field.name].append(value)
            else:
                found[field.name] = value
        elif wire == _LENGTH and field.repeated:
            lists[field.name] += _packed(field, payload, begin, at)
        # Any other wire type makes it a field that we don't know.
    return found


def _packed(field: Field, payload: bytes, at: int, end: int) -> list[Value]:
    """Numbers one after the other."""
    values: list[Value] = []
    wire = _WIRE[field.kind]
    while at < end:
        begin, raw = at, 0
        if wire == _VARINT:
            raw, at = _varint(payload, at, end)
        else:
            at += 8 if wire == _EIGHT_BYTES else 4
        if at > end:
            raise Malformed(f"{field.name}: cut")
        values.append(_value(field, payload, begin, at, raw))
    return values


def _varint(payload: bytes, at: int, end: int) -> tuple[int, int]:
    """An unsigned number of at most 64 bits, and where it ends."""
    number = shift = 0
    for place in range(at, min(end, at + _VARINT_BYTES)):
        byte = payload[place]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & 0xFFFF_FFFF_FFFF_FFFF, place + 1
        shift += 7
    raise Malformed("a number that does not end")


def _value(field: Field, payload: bytes, begin: int, end: int, raw: int) -> Value:
    kind = field.kind
    if kind is Kind.TEXT:
        return payload[begin:end].decode("utf-8", "surrogateescape")
    if kind is Kind.I64:
        return raw - (1 << 64) if raw >> 63 else raw
    if kind is Kind.U64:
        return raw
    if kind is Kind.I32:
        # More bits than there are are cut off, as every reader does it.
        raw &= 0xFFFF_FFFF
        return raw - (1 << 32) if raw >> 31 else raw
    if kind is Kind.U32:
        return raw & 0xFFFF_FFFF
    if kind is Kind.BOOL:
        return raw != 0
    if kind is Kind.BYTES:
        return payload[begin:end]
    if kind is Kind.FIXED32:
        return unpack_from("<I", payload, begin)[0]
    if kind is Kind.FIXED64:
        return unpack_from("<Q", payload, begin)[0]
    assert field.of is not None
    return _decode(field.of, payload, begin, end)
