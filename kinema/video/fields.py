"""Field-coded streams, in which each packet may hold one field: half of the rows of an interlaced frame.

H.264 and MPEG-2 choose picture by picture whether to code a frame or its two fields. Decoders join two fields to a
frame with the time stamp of the first. Headers alone tell which packets are second fields.
"""

import re
from collections.abc import Iterator

import av

from kinema.video.container import H264Sequence, IsSecondField, h264_sequence, may_have_fields

START_CODE = re.compile(b"\x00\x00\x01")
HEADER_BYTES = 64
"""Bytes of a slice that hold the fields of its header up to the parity."""


def second_field_test(stream: av.VideoStream) -> IsSecondField | None:
    """Return a test of the packets of a stream, in order; None if they cannot be fields."""
    if not may_have_fields(stream):
        return None
    context = stream.codec_context
    return _Mpeg2Fields().is_second if context.name == "mpeg2video" else _H264Fields(context.extradata).is_second


class _Pairing:
    """State of a stream: the first field that waits for its second."""

    def __init__(self) -> None:
        self._first: tuple[int, int] | None = None

    def pair(self, parities: set[int], number: int) -> bool:
        """Return whether a packet with these parities (0 top, 1 bottom; empty for a frame) is a second field."""
        if len(parities) != 1:
            self._first = None
            return False
        (parity,) = parities
        is_second = self._first == (1 - parity, number)
        self._first = None if is_second else (parity, number)
        return is_second


class _Mpeg2Fields(_Pairing):
    def is_second(self, packet: "av.Packet[av.VideoStream]") -> bool:
        """Return whether a packet holds only a second field: its picture coding extension has the structure."""
        payload = bytes(packet)
        places = (match.end() for match in START_CODE.finditer(payload))
        extensions = [payload[p + 1 : p + 4] for p in places if payload[p : p + 1] == b"\xb5"]
        structures = [e[2] & 3 for e in extensions if len(e) == 3 and e[0] >> 4 == 8]
        return self.pair({s - 1 for s in structures if s in (1, 2)}, 0)


class _H264Fields(_Pairing):
    def __init__(self, header: bytes | None) -> None:
        super().__init__()
        self._sequences: dict[int, H264Sequence] = {}
        self._pictures: dict[int, int] = {}
        extradata = bytes(header or b"")
        # Containers such as MP4 store lengths before units, which begin with this byte; others use start codes.
        self._length_bytes = (extradata[4] & 3) + 1 if len(extradata) > 6 and extradata[0] == 1 else 0
        units = _configuration_units(extradata) if self._length_bytes else _units(extradata, 0)
        self._add_parameters(units)

    def is_second(self, packet: "av.Packet[av.VideoStream]") -> bool:
        """Return whether a packet holds only the second field of a frame."""
        parities, number = set(), 0
        for unit in _units(bytes(packet), self._length_bytes):
            kind = unit[0] & 31
            if kind in (7, 8):
                self._add_parameters(iter([unit]))
            elif kind in (1, 5):
                try:
                    parity, number = self._slice(unit)
                except (KeyError, IndexError):  # damaged, which the decoder reports
                    continue
                if parity is None:
                    return self.pair(set(), number)
                parities.add(parity)
        return self.pair(parities, number)

    def _add_parameters(self, units: Iterator[bytes]) -> None:
        for unit in units:
            try:
                if unit[0] & 31 == 7:
                    sequence = h264_sequence(unit[1:])
                    self._sequences[sequence.number] = sequence
                elif unit[0] & 31 == 8:
                    bits = _Bits(unit[1:HEADER_BYTES])
                    picture = bits.golomb()
                    self._pictures[picture] = bits.golomb()
            except (IndexError, ValueError):  # damaged
                continue

    def _slice(self, unit: bytes) -> tuple[int | None, int]:
        """Return the parity of a slice, None for one of a frame, and the number of its frame."""
        bits = _Bits(unit[1:HEADER_BYTES])
        bits.golomb()  # first macroblock
        bits.golomb()  # slice type
        sequence = self._sequences[self._pictures[bits.golomb()]]
        if sequence.has_planes:
            bits.read(2)
        number = bits.read(sequence.frame_bits)
        if sequence.is_progressive or not bits.read(1):
            return None, number
        return bits.read(1), number


class _Bits:
    """Reader of the bits of a unit, without the bytes that prevent start codes."""

    def __init__(self, unit: bytes) -> None:
        self._bytes = unit.replace(b"\x00\x00\x03", b"\x00\x00")
        self._place = 0

    def read(self, count: int) -> int:
        """Return an unsigned number.

        Raises:
            IndexError: The unit ends before it.
        """
        number = 0
        for _ in range(count):
            number = number << 1 | self._bytes[self._place >> 3] >> (7 - (self._place & 7)) & 1
            self._place += 1
        return number

    def golomb(self) -> int:
        """Return an unsigned Exp-Golomb number."""
        zeros = 0
        while not self.read(1):
            zeros += 1
        return (1 << zeros) - 1 + self.read(zeros)


def _units(payload: bytes, length_bytes: int) -> Iterator[bytes]:
    """Yield the start of each unit of a packet, after its length or its start code."""
    if not length_bytes:
        places = [match.end() for match in START_CODE.finditer(payload)]
        yield from (
            payload[p : q - 3] for p, q in zip(places, [*places[1:], len(payload) + 3], strict=True) if q - 3 > p
        )
        return
    place = 0
    while place + length_bytes < len(payload):
        start = place + length_bytes
        place = start + int.from_bytes(payload[place:start], "big")
        if place > start:
            yield payload[start:place]


def _configuration_units(extradata: bytes) -> Iterator[bytes]:
    """Yield the parameter sets of an MP4 configuration record."""
    place = 5
    for mask in (31, 255):
        count = extradata[place] & mask if place < len(extradata) else 0
        place += 1
        for _ in range(count):
            size = int.from_bytes(extradata[place : place + 2], "big")
            if size:
                yield extradata[place + 2 : place + 2 + size]
            place += 2 + size
