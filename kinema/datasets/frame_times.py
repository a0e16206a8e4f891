"""Frame rates in manifests, and notes on files whose times differ."""

from collections.abc import Mapping
from dataclasses import replace

from kinema.data.file_times import FileTimes, describe_rates, pair_findings
from kinema.data.manifest import Entry, Manifest
from kinema.errors import examples
from kinema.modality import MODALITIES, Modality
from kinema.transforms.sampling import group_rates

PAIR_NOTES = {
    "unequal lengths": "pairs of RGB and depth differ in their number of frames; `frames` is that of RGB, and reading "
    "after the end of the shorter file is an error",
    "pair offset": "depth files start more than half a frame from their RGB, and are paired with it by time",
    "pair rates": "depth files have another frame rate than their RGB",
}
"""Note on each kind of finding in a pair."""


def with_rate(entry: Entry, times: Mapping[tuple[str, Modality], FileTimes]) -> Entry:
    """Return the sample with the frame rate of its file, if it is even; 0 and rates of files without times are kept."""
    file = times[(entry.rgb, "rgb") if entry.rgb else (entry.depth, "depth")]
    return entry if entry.rate == 0 or file.rate is None else replace(entry, rate=file.even_rate)


def time_notes(manifest: Manifest, times: Mapping[tuple[str, Modality], FileTimes]) -> list[str]:
    """Return notes on frame rates, and on pairs of RGB and depth with other times."""
    notes: list[str] = []
    for modality in MODALITIES:
        rates = [file.even_rate for (_, kind), file in times.items() if kind == modality and file.rate is not None]
        if len(group_rates(filter(None, rates))) > 1 or None in rates:
            notes.append(
                f"{modality} files per frame rate: {describe_rates(rates)}; varying rates are sampled by time, and "
                "intervals of `dense` and `uniform` are taken in seconds"
            )
    found: dict[str, list[str]] = {kind: [] for kind in PAIR_NOTES}
    for rgb, depth in dict.fromkeys((e.rgb, e.depth) for e in manifest.entries if e.rgb and e.depth):
        pair = times[rgb, "rgb"], times[depth, "depth"]
        if all(file.frames for file in pair):
            for kind, sentence in pair_findings(*pair, rgb):
                counts = f"{rgb} has {pair[0].frames} and {depth} {pair[1].frames}"
                found[kind].append(counts if kind == "unequal lengths" else f"{depth} {sentence}")
    notes += [f"{len(lines)} {PAIR_NOTES[kind]}: {examples(lines, 10)}" for kind, lines in found.items() if lines]
    return notes
