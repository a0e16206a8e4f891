"""Copies of training samples in another split: the same frames, the same file content, or nearly the same video."""

import hashlib
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from kinema.data.duplicates import SIDE, THRESHOLDS, Pair, SignatureBuilder, near_duplicates, signature_images
from kinema.data.manifest import Entry, Manifest
from kinema.data.splits import have_common_frames
from kinema.errors import UnreadableVideo
from kinema.files import Journal, state_of
from kinema.modality import Modality, ReadAs
from kinema.video.read_options import READ_OPTIONS, ReadOptions
from kinema.video.remote_cache import make_cache
from kinema.video.source import open_source
from kinema.video.streams import split_stream

MAX_FRAMES = 2_000_000
"""Largest number of frames that are decoded to find copies: about ten minutes on a core for 320 x 240 pixels."""
SLOW_FRAMES = 20_000
"""Number of frames from which the comparison is announced, and its results are stored in the cache."""
UNKNOWN_FRAMES = 300
"""Assumed number of frames of a file without a number in the manifest."""
GROUP_SLACK = 0.01
"""Difference of correlations by which pairs may miss the thresholds and still be grouped, so that no other decoder or
scaler finds copies in two splits."""
VERSION = 1
"""Version of stored signatures."""

logger = logging.getLogger(__name__)


class Copy(NamedTuple):
    """Two samples of different splits that are copies of each other."""

    first: Entry
    second: Entry


def find_copies(
    manifest: Manifest, first: Sequence[int], second: Sequence[int], read_options: ReadOptions
) -> tuple[list[Copy], int]:
    """Return the copies between two sets of samples, and the number of recordings that have segments in both.

    Files are compared by RGB if the manifest has any, else by depth. Unreadable and blank files are compared by their
    content. Signatures of files are stored in kinema's cache if decoding takes long.

    Args:
        manifest: Samples.
        first: Positions of the first set.
        second: Positions of the second set.
        read_options: Backend, isolation and limits.
    """
    if not first or not second:
        return [], 0
    kind: Modality = "rgb" if any(entry.rgb for entry in manifest.entries) else "depth"
    sides = [_entries_by_file(manifest, positions, kind) for positions in (first, second)]
    shared = sides[0].keys() & sides[1].keys()
    copies = []
    for file in sorted(shared):
        pairs = ((a, b) for a in sides[0][file] for b in sides[1][file])
        same = next((Copy(a, b) for a, b in pairs if have_common_frames(a, b)), None)
        copies += [same] if same else []
    others = [{file: entries[0] for file, entries in side.items() if file not in shared} for side in sides]
    frames = {file: entry.frames for side in others for file, entry in side.items()}
    signatures = read_signatures(manifest.path, frames, manifest.read_as(kind), read_options)
    found = compare_files(list(others[0]), list(others[1]), signatures, kind)
    copies += [Copy(others[0][first], others[1][second]) for first, second, _ in found]
    return copies, len(shared) - sum(copy.first.source(kind) == copy.second.source(kind) for copy in copies)


def compare_files(
    first: Sequence[str], second: Sequence[str], signatures: Mapping[str, str], kind: Modality
) -> list[tuple[str, str, Pair]]:
    """Return the pairs of files that are copies of one recording, most similar first.

    Files without a signature and still videos are compared by their content: a fixed camera before small people gives
    equal signatures.
    """
    names = [[file for file in side if signatures[file]] for side in (first, second)]
    copies, still = [], set[str]()
    if all(names):
        images = [np.stack([signature_images(signatures[file]) for file in side]) for side in names]
        for pair in near_duplicates(images[0], images[1], THRESHOLDS[kind]):
            files = names[0][pair.first], names[1][pair.second]
            if pair.is_still:
                still.update(files)
            else:
                copies.append((*files, pair))
    rest = [[file for file in side if not signatures[file] or file in still] for side in (first, second)]
    contents = read_contents(*rest)
    by_content: dict[tuple[int, bytes], list[str]] = defaultdict(list)
    for file in filter(contents.__contains__, rest[0]):
        by_content[contents[file]].append(file)
    same = Pair(first=0, second=0, motion=1.0, appearance=1.0, mirrored=False)
    copies += [(other, file, same) for file in rest[1] if file in contents for other in by_content[contents[file]]]
    return copies


def group_copies(
    manifest: Path, files: Iterable[str], read_as: ReadAs, read_options: ReadOptions = READ_OPTIONS
) -> list[list[str]]:
    """Return the sets of files that are copies of one recording, or nearly.

    Args:
        manifest: Path under which signatures are stored.
        files: Local files, folders of images, or URLs.
        read_as: Content of the files.
        read_options: Backend, isolation and limits.
    """
    signatures = read_signatures(manifest, dict.fromkeys(files), read_as, read_options)
    groups: dict[str, list[str]] = {}  # by signature
    for file, signature in signatures.items():
        if signature:
            groups.setdefault(signature, []).append(file)
    known = list(groups)
    images = np.stack([signature_images(signature) for signature in known]) if known else np.empty(0)
    limits = THRESHOLDS["rgb" if read_as == "rgb" else "depth"]
    thresholds = replace(limits, motion=limits.motion - GROUP_SLACK, appearance=limits.appearance - GROUP_SLACK)
    for pair in near_duplicates(images, images, thresholds) if len(known) > 1 else ():
        first, second = groups[known[pair.first]], groups[known[pair.second]]
        if first is not second and not pair.is_still:
            first += second
            groups = {signature: first if group is second else group for signature, group in groups.items()}
    return [group for group in {id(group): group for group in groups.values()}.values() if len(group) > 1]


def _entries_by_file(manifest: Manifest, positions: Iterable[int], kind: Modality) -> dict[str, list[Entry]]:
    by_file: dict[str, list[Entry]] = defaultdict(list)
    for entry in (manifest.entries[position] for position in positions):
        if entry.source(kind):
            by_file[manifest.locate(entry.source(kind))].append(entry)
    return dict(by_file)


def read_signatures(
    manifest: Path, files: Mapping[str, int | None], read_as: ReadAs, read_options: ReadOptions
) -> dict[str, str]:
    """Return the signature of each file; empty if it is unreadable or blank, or if all files take too long.

    Args:
        manifest: Path under which signatures are stored, if there are many.
        files: Number of frames of each file; None if unknown.
        read_as: Content of the files.
        read_options: Backend, isolation and limits.
    """
    frames = sum(number or UNKNOWN_FRAMES for number in files.values())
    with ExitStack() as stack:
        journal = _open_journal(manifest, stack) if frames > SLOW_FRAMES else None
        known = dict(_stored_signatures(journal, read_as)) if journal else {}
        states = {file: state_of(split_stream(file)[0]) for file in files} if journal else {}
        current = {file for file in known.keys() & files.keys() if known[file][0] == states[file]}
        missing = [file for file in files if file not in current]
        todo = sum(files[file] or UNKNOWN_FRAMES for file in missing)
        if todo > MAX_FRAMES:
            problem = f"{len(files)} files have too many frames ({todo:,}) to look for near-duplicates across splits"
            logger.warning("%s: %s. Run `kinema check`.", manifest, problem)
            return dict.fromkeys(files, "")
        if todo > SLOW_FRAMES:
            logger.info("%s: comparing %d files to find near-duplicates", manifest, len(missing))
        result = {file: known[file][1] for file in current}
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            computed = pool.map(lambda file: signature_of(file, read_as, read_options), missing)
            for file, signature in zip(missing, computed, strict=True):
                result[file] = signature
                if journal and states[file] is not None:  # nothing tells whether a URL has changed
                    record = {"version": VERSION, "path": file, "kind": read_as, "state": states[file]}
                    journal.append({**record, "signature": signature})
    return result


def _open_journal(manifest: Path, stack: ExitStack) -> Journal | None:
    name = hashlib.sha256(os.fsencode(manifest.resolve())).hexdigest()[:16]
    try:
        journal = Journal(make_cache(None, "signatures", "") / f"{name}.jsonl")
    except OSError as error:
        logger.warning("signatures of videos are not kept: %s", error)
        return None
    stack.callback(journal.close)
    return journal


def _stored_signatures(journal: Journal, read_as: ReadAs) -> Iterator[tuple[str, tuple[list[int], str]]]:
    for record in journal.read():
        if record.get("version") == VERSION and record.get("kind") == read_as:
            yield record["path"], (record["state"], record["signature"])


def signature_of(file: str, read_as: ReadAs, read_options: ReadOptions) -> str:
    """Return the signature of a file or URL; empty if it is unreadable or blank."""
    builder = SignatureBuilder()
    try:
        with open_source(file, read_options, read_as) as source:
            number = -1
            frames = source.iter_frames(range(source.num_frames), "rgb" if read_as == "rgb" else "gray")
            for number, frame in enumerate(frames):
                if builder.needs(number):
                    picture = Image.fromarray(frame if frame.ndim == 3 else frame.astype(np.float32))
                    gray = picture.convert("L") if frame.ndim == 3 else picture
                    builder.add(number, np.asarray(gray.resize((SIDE, SIDE), Image.Resampling.BOX), np.float64))
            return builder.signature(number + 1)
    except UnreadableVideo:
        return ""


def read_contents(*files: Iterable[str]) -> dict[str, tuple[int, bytes]]:
    """Return size and digest of each local file, which are equal for equal bytes; URLs and folders are left out."""
    sizes = {file: os.stat(file).st_size for file in chain(*files) if os.path.isfile(file)}
    counts = Counter(sizes.values())
    return {file: (size, _digest(file) if counts[size] > 1 else b"") for file, size in sizes.items()}


def _digest(file: str) -> bytes:
    with Path(file).open("rb") as content:
        return hashlib.file_digest(content, "sha256").digest()
