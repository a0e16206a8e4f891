"""Mutations of files: bits, blocks and fields, some below the checksums and the compression of a format."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping

import numpy as np

HEADER = 512
"""Bytes at the start of a file that half of the mutations aim at."""

NUMBERS = (
    0,
    1,
    2,
    7,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    2**63 - 1,
    2**64 - 1,
)
"""Values at the limits of integer fields."""

PNG = b"\x89PNG\r\n\x1a\n"
MAT_HEADER = 128
MAT_COMPRESSED = 15

Mutation = Callable[[bytes, np.random.Generator], bytes]


def mutate(files: Mapping[str, bytes], rng: np.random.Generator) -> tuple[str, dict[str, bytes]]:
    """Return the names of the mutations and the contents of a file or folder with one of its files mutated."""
    mutated = dict(files)
    name = list(files)[rng.integers(len(files))]
    content = files[name]
    applied = []
    for _ in range(1 + int(rng.integers(4) == 0)):
        kind = list(MUTATIONS)[rng.integers(len(MUTATIONS))]
        inside = next((inner for start, inner in INSIDE.items() if content.startswith(start)), None)
        if inside is not None and rng.integers(2):
            content = inside(content, MUTATIONS[kind], rng)
            kind += " inside"
        else:
            content = MUTATIONS[kind](content, rng)
        applied.append(kind)
    mutated[name] = content
    return ", ".join(applied), mutated


def flip_bits(content: bytes, rng: np.random.Generator) -> bytes:
    """Flip 1 to 64 bits."""
    changed = bytearray(content)
    for _ in range(int(2 ** rng.integers(7)) if content else 0):
        changed[_place(content, rng)] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def truncate(content: bytes, rng: np.random.Generator) -> bytes:
    """Cut the end off."""
    return content[: _place(content, rng)]


def zero_block(content: bytes, rng: np.random.Generator) -> bytes:
    """Set a block to 0 or to 255."""
    start, stop = _block(content, rng)
    return content[:start] + (b"\0", b"\xff")[rng.integers(2)] * (stop - start) + content[stop:]


def swap_blocks(content: bytes, rng: np.random.Generator) -> bytes:
    """Exchange a block with the one after it."""
    start, middle = _block(content, rng)
    stop = min(middle + (middle - start), len(content))
    return content[:start] + content[middle:stop] + content[start:middle] + content[stop:]


def repeat_block(content: bytes, rng: np.random.Generator) -> bytes:
    """Repeat a block 2 to 4 times."""
    start, stop = _block(content, rng)
    return content[:start] + content[start:stop] * int(rng.integers(2, 5)) + content[stop:]


def remove_block(content: bytes, rng: np.random.Generator) -> bytes:
    """Remove a block."""
    start, stop = _block(content, rng)
    return content[:start] + content[stop:]


def randomize_block(content: bytes, rng: np.random.Generator) -> bytes:
    """Replace a block by random bytes."""
    start, stop = _block(content, rng)
    return content[:start] + rng.bytes(stop - start) + content[stop:]


def edit_field(content: bytes, rng: np.random.Generator) -> bytes:
    """Set a field of 1 to 8 bytes, of either byte order, to a number at the limits of integers."""
    size = int(2 ** rng.integers(4))
    start = _place(content, rng)
    number = NUMBERS[rng.integers(len(NUMBERS))] % 256**size
    edited: bytes = number.to_bytes(size, ("little", "big")[rng.integers(2)])
    return content[:start] + edited + content[start + size :]


def edit_digits(content: bytes, rng: np.random.Generator) -> bytes:
    """Replace a digit in text, as in the shape of an array, by a longer number or a sign."""
    places = [place for place in range(min(len(content), 4096)) if content[place : place + 1].isdigit()]
    if not places:
        return edit_field(content, rng)
    place = places[rng.integers(len(places))]
    texts = (b"0", b"-1", b"99999", b"4294967296", b"9" * 40, b"", b"x")
    return content[:place] + texts[rng.integers(len(texts))] + content[place + 1 :]


def scale_field(content: bytes, rng: np.random.Generator) -> bytes:
    """Multiply or shift a number of 4 bytes, which stays plausible."""
    start = _place(content, rng)
    if start + 4 > len(content):
        return edit_field(content, rng)
    order = (">I", "<I")[rng.integers(2)]
    (number,) = struct.unpack_from(order, content, start)
    choices = (number + 1, number - 1, number * 2, number // 2, number * 256, number ^ 0x80000000)
    changed = int(choices[rng.integers(len(choices))]) % 2**32
    return content[:start] + struct.pack(order, changed) + content[start + 4 :]


MUTATIONS: Mapping[str, Mutation] = {
    "flip bits": flip_bits,
    "truncate": truncate,
    "zero block": zero_block,
    "swap blocks": swap_blocks,
    "repeat block": repeat_block,
    "remove block": remove_block,
    "randomize block": randomize_block,
    "edit field": edit_field,
    "edit digits": edit_digits,
    "scale field": scale_field,
}


def inside_zip(content: bytes, mutation: Mutation, rng: np.random.Generator) -> bytes:
    """Mutate a member of an archive, with the right checksum."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {info: archive.read(info) for info in archive.infolist()}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError):
        return mutation(content, rng)  # an earlier mutation has broken the archive itself
    if not members:
        return content
    chosen = list(members)[rng.integers(len(members))]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for info, member in members.items():
            plain = zipfile.ZipInfo(info.filename)
            archive.writestr(plain, mutation(member, rng) if info is chosen else member, info.compress_type)
    return packed.getvalue()


def inside_png(content: bytes, mutation: Mutation, rng: np.random.Generator) -> bytes:
    """Mutate a chunk, with the right length and checksum, some below the compression."""
    chunks: list[tuple[bytes, bytes]] = []
    place = len(PNG)
    while place + 8 <= len(content):
        (size,) = struct.unpack_from(">I", content, place)
        chunks.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + size]))
        place += 12 + size
    if not chunks:
        return content
    chosen = int(rng.integers(len(chunks)))
    kind, body = chunks[chosen]
    changed = mutation(body, rng)
    if kind == b"IDAT" and rng.integers(2):
        changed = _inside_deflated(body, mutation, rng)
    chunks[chosen] = kind, changed
    return PNG + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def inside_mat(content: bytes, mutation: Mutation, rng: np.random.Generator) -> bytes:
    """Mutate the elements after the header; those of a compressed array below the compression."""
    head, body = content[:MAT_HEADER], content[MAT_HEADER:]
    if len(body) >= 8 and struct.unpack_from("<I", body)[0] == MAT_COMPRESSED:
        size = struct.unpack_from("<I", body, 4)[0]
        changed = _inside_deflated(body[8 : 8 + size], mutation, rng)
        return head + struct.pack("<II", MAT_COMPRESSED, len(changed)) + changed + body[8 + size :]
    return head + mutation(body, rng)


INSIDE = {b"PK\x03\x04": inside_zip, PNG: inside_png, b"MATLAB 5.0": inside_mat}
"""Mutations inside a format, by the first bytes of a file."""


def _inside_deflated(content: bytes, mutation: Mutation, rng: np.random.Generator) -> bytes:
    try:
        return zlib.compress(mutation(zlib.decompress(content), rng))
    except zlib.error:
        return mutation(content, rng)


def _place(content: bytes, rng: np.random.Generator) -> int:
    """Return a position, in half of the cases near the start or, for indices at the end, near the end."""
    size = max(len(content), 1)
    aim = int(rng.integers(8))
    near = min(HEADER, size)
    if aim < 3:
        return int(rng.integers(near))
    return size - 1 - int(rng.integers(near)) if aim == 3 else int(rng.integers(size))


def _block(content: bytes, rng: np.random.Generator) -> tuple[int, int]:
    start = _place(content, rng)
    length = int(2 ** rng.uniform(0, np.log2(max(len(content), 2))))
    return start, min(start + length, len(content))
