"""Real clips, damaged at random places, are read or refused by name; none hangs or crashes a process.

What is right is what a plain decoding of the damaged file gives, frame by frame: FFmpeg conceals damage, but no frame
may come under another's number, and none may be missing without a word.
"""

import contextlib
import functools
import random
import re
import signal
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import av
import numpy as np
import pytest

from kinema.errors import UnreadableVideo
from kinema.transforms.sampling import segment_indices
from kinema.video.container import TAG_OPTIONS
from kinema.video.read_options import READ_OPTIONS, ReadOptions
from kinema.video.source import count_frames, read_gray, read_rgb

KINDS = ("a bit flipped", "16 bytes overwritten", "1024 bytes zeroed", "cut off", "a part removed")
Fingerprint = tuple[tuple[int, ...], str, int]

LONGEST_S = 20
"""Seconds that one file may take on a busy machine; most take a tenth of one."""

MOST_MOVED = 0.01
"""Largest share of damaged files whose lost frames cannot be detected, so that later frames have wrong numbers.

Of 500, 68 lose frames in this way; the decoder's marks, the container's index and its count tell of all but three.
"""


def damage(content: bytes, kind: str, rng: random.Random) -> bytes:
    changed = bytearray(content)
    at = rng.randrange(len(changed))
    match kind:
        case "a bit flipped":
            changed[at] ^= 1 << rng.randrange(8)
        case "16 bytes overwritten":
            changed[at : at + 16] = rng.randbytes(len(changed[at : at + 16]))
        case "1024 bytes zeroed":
            changed[at : at + 1024] = bytes(len(changed[at : at + 1024]))
        case "cut off":
            del changed[at:]
        case "a part removed":
            del changed[at : at + rng.randrange(1, 4096)]
    return bytes(changed)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Result of reading one damaged file.

    Args:
        file: number, name, kind of damage: enough to make it again.
        outcome: `read`, perhaps with what a look at the intact file shows, or the reason given, without its numbers.
        faults: what should not have happened.
        seconds: for all that was asked of it.
    """

    file: str
    outcome: str
    faults: tuple[str, ...]
    seconds: float


def judge(path: str, file: str, intact: str, read_options: ReadOptions) -> Verdict:
    """Compare count and frames with a plain decoding of the damaged and of the intact file."""
    whole = plain_of_intact(intact)
    signal.setitimer(signal.ITIMER_REAL, LONGEST_S)  # ends the process that hangs
    began = time.perf_counter()
    faults: list[str] = []
    outcome = "read"
    try:
        count = count_frames(path, read_options)
        plain = decode_plainly(path)
        refused = []
        for wanted in (segment_indices(count, 16, None).tolist(), sorted({0, count - 1}), [count - 1], [*range(count)]):
            try:
                frames = read_rgb(path, wanted, read_options)
            except UnreadableVideo as error:
                refused.append(reason(error, path, faults))
                continue
            faults.extend(displaced(frames, plain, wanted))
            if any(displaced(frames, whole, wanted)):
                outcome = "read, but moved against the intact file"
            elif outcome == "read" and [fingerprint(frame) for frame in frames] != [whole[n] for n in wanted]:
                outcome = "read, with damage concealed"
        outcome = refused[0] if refused else outcome
        if count != len(plain) and not refused:
            faults.append(f"{count} frames are counted, {len(plain)} decode, and nobody says so")
        with contextlib.suppress(UnreadableVideo):
            read_rgb(path, [count], read_options)
            faults.append(f"{count} frames are counted, but there is one more")
    except UnreadableVideo as error:
        outcome = reason(error, path, faults)
    except Exception as error:
        outcome = "raised"
        faults.append(traceback.format_exc(limit=-3) + f"{type(error).__name__}: {error}")
    signal.setitimer(signal.ITIMER_REAL, 0)
    return Verdict(file=file, outcome=outcome, faults=tuple(faults), seconds=time.perf_counter() - began)


def displaced(frames: np.ndarray, truth: list[Fingerprint], wanted: list[int]) -> Iterator[str]:
    """Return the first frame with the number of another.

    One that is like none in the truth is no fault: where FFmpeg conceals damage, a picture holds what its memory held
    before, which differs from one decoding to the next.
    """
    for frame, number in zip(frames, wanted, strict=True):
        found = fingerprint(frame)
        if found in truth and truth[number : number + 1] != [found]:
            yield f"under number {number} of {wanted[:2]}... stands frame {truth.index(found)}"
            return


def fingerprint(frame: np.ndarray) -> Fingerprint:
    return frame.shape, frame.dtype.str, zlib.crc32(frame.tobytes())


def decode_plainly(path: str) -> list[Fingerprint]:
    """Decode all frames until decoding ends or fails, up to the last one not marked as damaged."""
    frames, whole = [], 0
    with av.open(path, **TAG_OPTIONS) as container:
        container.streams.video[0].codec_context.thread_count = 1
        try:
            for frame in container.decode(video=0):
                frames.append(fingerprint(frame.to_ndarray(format="rgb24")))
                whole = whole if frame.is_corrupt else len(frames)
        except av.FFmpegError:
            pass
    return frames[:whole]


plain_of_intact = functools.cache(decode_plainly)


def reason(error: UnreadableVideo, path: str, faults: list[str]) -> str:
    if not str(error).startswith(path):
        faults.append(f"does not begin with the file's name: {error}")
    return re.sub(r"\d+", "N", str(error).removeprefix(f"{path}: "))


@pytest.fixture(scope="module")
def clips(real_data):
    """Small real clips of several makers: AVI with and without reordered frames, MP4 with B-frames, gray depth."""
    samples = sorted((real_data / "format_samples").rglob("*.avi")) + sorted(
        (real_data / "format_samples").rglob("*.mp4")
    )
    small = [path for path in samples if path.stat().st_size < 700_000]
    jhmdb = sorted((real_data / "jhmdb").rglob("*.mp4"))[::80]
    isogd = sorted((real_data / "isogd_rgbd").rglob("*.avi"))[::30]
    assert len(small) > 12
    assert len(jhmdb) > 6
    assert len(isogd) > 6
    return [*small, *jhmdb, *isogd]


def damaged_files(clips: list[Path], folder: Path, number: int, seed: int) -> Iterator[tuple[str, str, str]]:
    """Yield the path of each damaged file, its kind of damage, and the path of the intact file."""
    rng = random.Random(seed)
    for i in range(number):
        clip, kind = rng.choice(clips), KINDS[i % len(KINDS)]
        path = folder / f"{i}{clip.suffix}"
        path.write_bytes(damage(clip.read_bytes(), kind, rng))
        yield str(path), f"{i}: {clip.name}, {kind}", str(clip)


def judge_all(clips: list[Path], folder: Path, number: int, seed: int, processes: int) -> list[Verdict]:
    """Read in separate processes, so that one that crashes or hangs fails the test."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        asked = [pool.submit(judge, *made, READ_OPTIONS) for made in damaged_files(clips, folder, number, seed)]
        return [answer.result() for answer in asked]


def told(verdicts: list[Verdict]) -> str:
    outcomes = Counter(verdict.outcome for verdict in verdicts)
    lines = [f"{count:5} {outcome}" for outcome, count in outcomes.most_common()]
    slowest = max(verdicts, key=lambda verdict: verdict.seconds)
    return "\n".join([*lines, f"slowest: {slowest.seconds:.2f} s, {slowest.file}"])


def assert_nothing_is_lost(verdicts: list[Verdict]) -> None:
    print(told(verdicts))
    faulty = [f"{verdict.file}: {'; '.join(verdict.faults)}" for verdict in verdicts if verdict.faults]
    assert not faulty, "\n".join([f"{len(faulty)} of {len(verdicts)}:", *faulty])
    # A container without checksums cannot tell all; nine tenths of what it cannot is told by its index and decoder.
    moved = [verdict.file for verdict in verdicts if "moved" in verdict.outcome]
    assert len(moved) <= MOST_MOVED * len(verdicts), "\n".join([f"{len(moved)} of {len(verdicts)} moved:", *moved])
    read = sum(verdict.outcome.startswith("read") for verdict in verdicts)
    assert 0.1 < read / len(verdicts) < 0.9  # both happen, or the damage is none


@pytest.mark.long
def test_damaged_clips_are_read_or_refused(clips, tmp_path):
    short = [clip for clip in clips if clip.stat().st_size < 100_000]
    assert_nothing_is_lost(judge_all(short, tmp_path, number=60, seed=0, processes=1))


@pytest.mark.long
def test_five_hundred_damaged_clips_are_read_or_refused(clips, tmp_path):
    assert_nothing_is_lost(judge_all(clips, tmp_path, number=500, seed=1, processes=2))


@pytest.mark.long
def test_a_reader_in_a_process_of_its_own_says_the_same(clips, tmp_path):
    apart = ReadOptions(isolation="process", timeout_s=LONGEST_S)
    for path, _, _ in damaged_files(clips, tmp_path, number=60, seed=2):
        answers = []
        for read_options in (READ_OPTIONS, apart):
            try:
                count = count_frames(path, read_options)
                answers.append(read_rgb(path, segment_indices(count, 16, None).tolist(), read_options))
            except UnreadableVideo as error:
                answers.append(str(error))
        assert type(answers[0]) is type(answers[1])
        assert np.array_equal(answers[0], answers[1])


def test_damaged_arrays_are_read_or_refused(real_data, tmp_path):
    """Both formats have checksums: frames equal the stored ones unless the damage lies outside of them."""
    arrays = [
        min((real_data / "msr_action3d" / "depth160").glob("*.npz"), key=lambda path: path.stat().st_size),
        min((real_data / "msr_action3d" / "original_mat").glob("*.mat"), key=lambda path: path.stat().st_size),
    ]
    outcomes = Counter()
    for seed, source in enumerate(arrays):
        intact, whole = source.read_bytes(), read_gray(str(source), [0, 3])
        # The first and the last bytes, where the structure is, get as many faults as the long middle.
        rng = random.Random(seed)
        for i in range(60):
            kind, path = KINDS[i % len(KINDS)], str(tmp_path / f"damaged{source.suffix}")
            head = rng.choice([len(intact), 300])
            Path(path).write_bytes(damage(intact[:head], kind, rng) + intact[head:])
            try:
                assert count_frames(path) > 3
                assert np.array_equal(read_gray(path, [0, 3]), whole)
                outcomes["read"] += 1
            except UnreadableVideo:
                outcomes["refused"] += 1
    assert min(outcomes["read"], outcomes["refused"]) > 5
