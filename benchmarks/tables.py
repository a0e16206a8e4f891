"""Generate the tables of README.md and docs/ from the stored results.

    python benchmarks/tables.py            # rewrite the documents
    python benchmarks/tables.py --check    # change nothing, exit with 1 if a document is out of date

A document marks a table with two comments, `<!-- table: trainings -->` and `<!-- end of table -->`. The lines between
them are generated from the JSON files under `results/`.
"""

import functools
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray

from kinema.errors import TableError, did_you_mean
from kinema.evaluation.bootstrap import mean_interval
from kinema.evaluation.compare import paired_difference
from kinema.models.complexity import WholeLastBlock, macs, parameter_count
from kinema.models.ctn import CTN
from kinema.models.registry import create_model
from kinema.models.rpe_stdt import RPESTDT
from kinema.models.vit_spatial import ViTSpatial
from kinema.models.vivit import ViViT

ROOT = Path(__file__).parents[1]
MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
SIGNED = "+.1f"
SEED = re.compile(r", seed \d+$")

Row = tuple[str, ...] | str
"""Cells of a row, or a line of text below the table. The first row of a table is its head."""

TABLES: dict[str, Callable[[Path], list[str]]] = {}
"""Functions from the results folder to the lines of a table, by the name a document uses."""


def table(rows: Callable[[Path], Iterator[Row]]) -> Callable[[Path], list[str]]:
    """Register a generator of rows as a Markdown table."""

    @functools.wraps(rows)
    def lines(results: Path) -> list[str]:
        head, *body = rows(results)
        return [_markdown(row) for row in (head, ("---",) * len(head), *body)]

    TABLES[rows.__name__] = lines
    return lines


@dataclass(frozen=True, kw_only=True)
class Result:
    """A stored result with predictions."""

    content: Mapping[str, Any]

    @property
    def title(self) -> str:
        return SEED.sub("", self.content["title"])

    @property
    def correct(self) -> Bool[ndarray, " samples"]:
        """Whether each clip is classified correctly, in the order of the manifest."""
        stored = self.content["predictions"]
        order = np.argsort(stored["index"])
        targets, answers = (np.array(stored[which]["label"])[order] for which in ("targets", "answers"))
        correct: Bool[ndarray, " samples"] = targets == answers
        return correct


def fill_tables(document: str, results: Path) -> str:
    """Return a document with its tables generated.

    Raises:
        TableError: the document names an unknown table, or a result cannot be read.
    """

    def generate(match: re.Match[str]) -> str:
        begin, name, end = match.groups()
        if name not in TABLES:
            raise TableError(f"unknown table {name!r}; {did_you_mean(name, TABLES)}", field=name)
        return begin + "\n".join(TABLES[name](results)) + "\n" + end

    return MARKED.sub(generate, document)


@table
def trainings(results: Path) -> Iterator[Row]:
    """A line for each training, its seeds together."""
    yield ("trained", "seeds", "clips", "top-1 %", "mean [95 % interval over clips]", "mean class %", "step")
    for title, seeds in _groups(_results(results, "training")).items():
        correct = np.stack([seed.correct for seed in seeds])
        mean_class = np.mean([seed.content["measures"]["mean_class"] for seed in seeds])
        yield (
            title,
            ", ".join([str(seed.content["provenance"]["seed"]) for seed in seeds]),
            str(correct.shape[1]),
            ", ".join([f"{100 * one.mean():.1f}" for one in correct]),
            _mean(100 * correct.mean(axis=0)),
            f"{mean_class:.1f}",
            ", ".join(sorted({f"{seed.content['provenance']['step']:,}" for seed in seeds})),
        )


@table
def floors(results: Path) -> Iterator[Row]:
    """Trainings against the floor of their data: the seeds' mean minus the floor, paired clip by clip."""
    known = {stored.content["provenance"]["manifest_digest"]: stored for stored in _results(results, "penalty")}
    yield ("trained", "mean of seeds %", "floor %", "difference, points [95 % interval over clips]")
    for title, seeds in _groups(_results(results, "training")).items():
        entry = seeds[0].content
        floor = known.get(entry["provenance"]["manifest_digest"])
        if floor is None or floor.content["split"] != entry["split"]:
            continue
        correct = np.stack([seed.correct for seed in seeds])
        difference, (low, high) = paired_difference(correct.mean(axis=0), floor.correct.astype(np.float64))
        yield (
            title,
            f"{100 * correct.mean():.1f}",
            f"{100 * floor.correct.mean():.1f}",
            f"{difference:+.1f} [{low:+.1f}, {high:+.1f}]",
        )


@table
def kills(results: Path) -> Iterator[Row]:
    """The moments at which a training was killed, from `benchmarks/resume.py`."""
    entry = _read(results / "resume.json")
    yield ("kill", "after, s", "steps logged", "step of the checkpoint", "half-written then")
    for number, kill in enumerate(entry["kills"], start=1):
        half = kill["unfinished"] or ("in an evaluation" if kill["evaluating"] else "-")
        yield (str(number), f"{kill['seconds']:.1f}", str(kill["steps"]), str(kill["checkpoint"]), half)
    same = "equal" if entry["same_losses"] and entry["same_weights"] and entry["same_evaluations"] else "NOT EQUAL"
    yield ""
    yield f"Losses of all {entry['steps']} steps, evaluations and final weights: {same} to the undisturbed run's."


@table
def processes(results: Path) -> Iterator[Row]:
    """Clips per second of one process and of two, from `benchmarks/processes.py`."""
    entry = _read(results / "processes.json")
    yield ("processes", "clips/s, median [interval]", "against one process of one thread")
    for name, one in entry["measured"].items():
        low, high = one["interval"]
        ratio = one["ratio"]
        yield (
            name,
            f"{one['median']:.1f} [{low:.1f}, {high:.1f}]",
            f"{ratio['median']:.2f} [{ratio['interval'][0]:.2f}, {ratio['interval'][1]:.2f}]",
        )


@table
def streams(results: Path) -> Iterator[Row]:
    """Color, depth and both by protocol, from `benchmarks/two_streams.py`."""
    protocols = _read(results / "moves_two_streams.json")["protocols"]
    yield ("MFST-tiny sees", *(f"`{name}`, mean of seeds % [95 % interval over clips]" for name in protocols))
    for way in next(iter(protocols.values()))["answers"]:
        cells = []
        for entry in protocols.values():
            correct = np.array(entry["answers"][way]) == np.array(entry["targets"])
            cells.append(_mean(100 * correct.mean(axis=0)))
        yield (way, *cells)


@table
def operators(results: Path) -> Iterator[Row]:
    """What MFST's operators take beside plainer ones, and the network beside its arithmetic."""
    difference, knn, network = (
        _read(results / f"{name}.json") for name in ("central_difference_speed", "knn_attention_speed", "mfst_speed")
    )
    yield ("what", "beside", "ratio, median [95 % interval]")
    for operator in ("cdc-st", "cdc-t"):
        for place, measured in difference["measured"].items():
            ratio = measured["training"]["ratios"][operator]
            yield (f"3D-CDC ({operator}), a training step at {place}", "plain convolution", _ratio(ratio))
    for place, measured in knn["measured"].items():
        for name, label in {"knn": "k-NN attention", "public knn": "the public formulation of it"}.items():
            if place.startswith("attention, spatial, stage 1"):
                ratio = measured["ratio_to_sdpa"][name]
                yield (f"{label}, {place.removeprefix('attention, ')}", "dense attention (SDPA)", _ratio(ratio))
    size = network["arguments"]
    clip = f"{size['model']} at {size['frames']} x {size['size']}"
    for name, share in network["share_of_the_machines_rate"].items():
        rate = {"median": 1 / share["median"], "low": 1 / share["high"], "high": 1 / share["low"]}
        yield (f"{clip}, {name}", "its convolutions and products alone at the machine's rate", _ratio(rate))
    memory = network["peak_memory_mib"]["recompute_over_keep"]
    yield (f"{clip}, peak memory of a step, recomputing activations", "keeping them", _ratio(memory))


@table
def rpe_stdt_sizes(results: Path) -> Iterator[Row]:
    """Parameters and multiply-adds of RPE-STDT's two readings, counted now, beside what the thesis prints."""
    del results  # nothing of it is measured
    yield ("network, 101 classes", "parameters, M", "printed", "GMAC at 16 x 224", "executed", "printed")
    base, base12 = "RPE-STDT of 8 + 4 layers (the text)", "RPE-STDT of 12 + 4 light layers (the tables)"
    asked: tuple[tuple[str, str, dict[str, Any], str, str], ...] = (
        (f"{base12}, shared", "rpe_stdt_base12", {}, "97.06", "273"),
        (f"{base12}, per head", "rpe_stdt_base12", {"position": "per-head"}, "97.26", ""),
        (f"{base12}, absolute", "rpe_stdt_base12", {"position": "absolute"}, "100.7", ""),
        (f"{base}, shared", "rpe_stdt_base", {}, "97.06", "273"),
        (f"{base}, per head", "rpe_stdt_base", {"position": "per-head"}, "97.26", ""),
        (f"{base}, absolute", "rpe_stdt_base", {"position": "absolute"}, "100.7", ""),
        (f"{base}, none", "rpe_stdt_base", {"position": "none"}, "88.9; with Top-K 82.7", ""),
        ("ViT, spatial attention alone, 12 layers", "vit_base_spatial", {}, "", "269"),
    )
    for label, name, changes, parameters, gmac in asked:
        count, whole, executed = _cost(name, classes=101, frames=16, changes=changes)
        yield (label, f"{count:.3f}", parameters, f"{whole:.1f}", f"{executed:.1f}", gmac)


@table
def rpe_stdt_speed(results: Path) -> Iterator[Row]:
    """RPE-STDT beside products, itself without position, and others, from `benchmarks/rpe_stdt.py`."""
    stored = _read(results / "rpe_stdt_speed.json")
    speed, size = stored["speed"], stored["arguments"]
    clip = f"{size['model']} at {size['frames']} x 224"
    yield ("what", "beside", "ratio, median [95 % interval]")
    for name, share in speed["share_of_the_machines_rate"].items():
        yield (f"{clip}, {name}: GMAC in a second", "the machine's matrix products", _ratio(share))
    for way, ratio in speed["relative_position_over_none"].items():
        yield (f"{clip}, {way}, time", "the same without position", _ratio(ratio))
    for name, ratio in speed["ms_per_gmac_over"].items():
        yield (f"{clip}, forward, time for a GMAC", f"{name} (transformers)", _ratio(ratio))


@table
def rpe_stdt_lengths(results: Path) -> Iterator[Row]:
    """Seconds and multiply-adds by the length of the clip, from `benchmarks/rpe_stdt.py`."""
    stored = _read(results / "rpe_stdt_speed.json")
    lengths, entry = stored["arguments"]["lengths"], stored["lengths"]
    yield ("network", *(f"{frames} frames: s (GMAC)" for frames in lengths), "longest over shortest, s")
    for network in ("RPE-STDT", "ViViT-B"):
        cells = [
            f"{entry['seconds'][f'{network}, {frames}']['median']:.2f} ({entry['gmac'][f'{network}, {frames}']:.0f})"
            for frames in lengths
        ]
        yield (network, *cells, _ratio(entry["seconds_over_the_shortest"][f"{network}, {lengths[-1]}"]))


@table
def ctn_sizes(results: Path) -> Iterator[Row]:
    """Parameters and multiply-adds of CTN and ViViT, counted now, beside what the thesis prints."""
    del results  # nothing of it is measured
    yield ("network, 48 classes, 8 x 224", "parameters, M", "printed", "GMAC", "executed", "printed, GFLOPs")
    tubelets: dict[str, Any] = {"embedding": "tubelets", "position": "learned"}
    asked: tuple[tuple[str, str, dict[str, Any], str, str], ...] = (
        ("CTN as printed: one token time", "ctn_base", {}, "88.6", "358"),
        ("CTN, dense: four token times", "ctn_base_dense", {}, "88.6", "358"),
        ("CTN, dense, with a position table", "ctn_base_dense", {"position": "learned"}, "", "370"),
        ("CTN of tubelets, with a position table", "ctn_base", tubelets, "", "353"),
        ("CTN, linear mapping (Table 4.5)", "ctn_base", {"mapping": "linear"}, "", ""),
        ("CTN, 5 x 5 mapping (Table 4.6)", "ctn_base", {"mapping_kernel": 5}, "", ""),
        ("ViViT-B", "vivit_base", {}, "88.9", "325"),
        ("ViViT-B without position", "vivit_base", {"position": "none"}, "", "318"),
    )
    for label, name, changes, parameters, gflops in asked:
        count, whole, executed = _cost(name, classes=48, frames=8, changes=changes)
        yield (label, f"{count:.3f}", parameters, f"{whole:.2f}", f"{executed:.2f}", gflops)


@table
def ctn_speed(results: Path) -> Iterator[Row]:
    """CTN beside products and other networks, and without each of its fast forms, from `benchmarks/ctn.py`."""
    stored = _read(results / "ctn_speed.json")
    speed, size = stored["speed"], stored["arguments"]
    clip = f"{size['model']} at {size['frames']} x 224"
    yield ("what", "beside", "ratio, median [95 % interval]")
    for name, share in speed["share_of_the_machines_rate"].items():
        yield (f"{clip}, {name}: GMAC in a second", "the machine's matrix products", _ratio(share))
    for name, ratio in speed["time_over"].items():
        yield (f"{clip}, forward, time", f"{name} (transformers)", _ratio(ratio, digits=3))
    for name, ratio in stored["forms"]["time_over_as_it_is"].items():
        yield (f"{name}: time", "as it is", _ratio(ratio))


@table
def resolutions(results: Path) -> Iterator[Row]:
    """Top-1 by position and size, from `benchmarks/resolution.py`; what each loses on the way, and to the first."""
    stored = _read(results / "moves_resolution.json")
    targets = np.array(stored["targets"])
    correct = {
        position: {size: 100 * (np.array(each) == targets).mean(axis=0) for size, each in entry["answers"].items()}
        for position, entry in stored["positions"].items()
    }
    first = next(iter(correct))
    smallest, *_, largest = correct[first]
    yield ("position", *(f"{size} pixels, mean %" for size in correct[first]), f"{largest} less {smallest}")
    for position, by_size in correct.items():
        cells = [_mean(share) for share in by_size.values()]
        yield (position, *cells, _mean(by_size[largest] - by_size[smallest], SIGNED))
    for position, by_size in correct.items():
        if position != first:
            cells = [_mean(correct[first][size] - share, SIGNED) for size, share in by_size.items()]
            yield (f"{first} less {position}, points", *cells, "")


@table
def learning_curves(results: Path) -> Iterator[Row]:
    """Top-1 by the share of the training clips, from `benchmarks/learning_curve.py`: CTN-tiny beside ViViT-tiny."""
    stored = _read(results / "learning_curve.json")
    correct = _percent_correct(stored)
    first, *others = dict.fromkeys(entry["network"] for entry in stored["trainings"])
    beside = [title for other in others for title in (f"{other}, mean %", f"{first} less {other}, points")]
    yield ("dataset", "training clips", f"{first}, mean %", *beside)
    for corpus, share in dict.fromkeys((entry["corpus"], entry["share"]) for entry in stored["trainings"]):
        curve = correct[corpus, first, share]
        cells = [_mean(curve)]
        for other in others:
            cells += [_mean(correct[corpus, other, share]), _mean(curve - correct[corpus, other, share], SIGNED)]
        yield (corpus, f"{100 * share:g} %", *cells)


@table
def ctn_parts(results: Path) -> Iterator[Row]:
    """Top-1 of CTN-tiny with less of what makes it one, and what each part brings (`benchmarks/learning_curve.py`)."""
    stored = _read(results / "ctn_parts.json")
    correct = _percent_correct(stored)
    (corpus, whole), *_ = ((entry["corpus"], entry["network"]) for entry in stored["trainings"])
    yield ("network", "GMAC", "mean %", f"{whole} less it, points")
    for network, gmac in stored["gmac"][corpus].items():
        share = correct[corpus, network, 1.0]
        difference = "" if network == whole else _mean(correct[corpus, whole, 1.0] - share, SIGNED)
        yield (network, f"{gmac:.3f}", _mean(share), difference)


@table
def ctn_positions(results: Path) -> Iterator[Row]:
    """Top-1 with and without a table of positions, from `benchmarks/learning_curve.py`; and what the table brings."""
    stored = _read(results / "ctn_position.json")
    correct = _percent_correct(stored)
    yield ("dataset", "time", "padding", "no positions, mean %", "a table of them, mean %", "less none, points")
    cases = dict.fromkeys((entry["corpus"], *entry["network"].split(", ")[:2]) for entry in stored["trainings"])
    for corpus, time, padding in cases:
        none, learned = (correct[corpus, f"{time}, {padding}, {position}", 1.0] for position in ("none", "learned"))
        yield (corpus, time, padding, _mean(none), _mean(learned), _mean(learned - none, SIGNED))


@table
def recipe_steps(results: Path) -> Iterator[Row]:
    """What a step of the thesis's recipes takes, measured and extrapolated, from `benchmarks/recipes.py`."""
    stored = _read(results / "recipe_steps.json")["recipes"]
    measured = ("one clip a step: GiB", "s")
    extrapolated = ("extrapolated: GiB of a GPU's share", "s on this CPU")
    yield ("recipe", "parameters, M", "clip", *measured, "its batch", *extrapolated)
    for name, entry in stored.items():
        batch, gpus, beyond = entry["batch"], entry["gpus"], entry["extrapolated"]
        yield (
            f"`{name}`",
            f"{entry['parameters'] / 1e6:.1f}",
            f"{entry['frames']} x {entry['size']}",
            f"{entry['measured']['mib']['1'] / 1024:.1f}",
            f"{entry['measured']['seconds']['1']:.1f}",
            f"{batch} ({batch // gpus} on each of {gpus} GPUs)",
            f"{beyond['mib_of_a_gpus_share'] / 1024:.0f}",
            f"{beyond['seconds_of_a_batch_here']:.0f}",
        )


@table
def packed(results: Path) -> Iterator[Row]:
    """Clips in a second from packed files against the original ones, from `benchmarks/pack.py`."""
    yield ("files", "packed as", "bytes", "clips in a second, against the original [95 % interval]")
    for name, entry in _read(results / "pack_speed.json").items():
        for form, found in entry.get("16 frames", {}).items() if isinstance(entry, dict) else ():
            if form != "original":
                size = entry["files"][form]["bytes"] / entry["files"]["original"]["bytes"]
                yield (name, form, f"{size:.2f} times", _ratio(found["times_the_original"]))


def main(words: Sequence[str], root: Path = ROOT) -> int:
    """Generate the tables of README.md and docs/, or check them; return the exit code."""
    changed = []
    for path in (root / "README.md", *sorted((root / "docs").glob("*.md"))):
        before = path.read_text(encoding="utf-8")
        try:
            after = fill_tables(before, root / "results")
        except TableError as error:
            raise TableError(f"{path}: {error}", path=error.path or path, field=error.field) from error
        if after != before:
            changed.append(path)
            if "--check" not in words:
                path.write_text(after, encoding="utf-8")
    for path in changed:
        print(f"{path}: {'differs from results/' if '--check' in words else 'updated'}")
    return 1 if changed and "--check" in words else 0


def _markdown(row: Row) -> str:
    return row if isinstance(row, str) else "| " + " | ".join(row) + " |"


def _results(results: Path, key: str) -> list[Result]:
    """Results with predictions that hold such a key: `training`, or a floor's `penalty`."""
    found = [Result(content=_read(path)) for path in sorted(results.glob("*.json"))]
    return [stored for stored in found if "predictions" in stored.content and key in stored.content]


def _groups(stored: Sequence[Result]) -> dict[str, list[Result]]:
    groups: dict[str, list[Result]] = {}
    for one in stored:
        groups.setdefault(one.title, []).append(one)
    return groups


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]  # JSON
    except (OSError, ValueError) as error:
        raise TableError(f"{path}: cannot be read ({error})", path=path) from error


def _percent_correct(stored: Mapping[str, Any]) -> dict[tuple[str, str, float], Float[ndarray, " samples"]]:
    """How many percent of the seeds are right on each clip, by corpus, network and share of the training clips."""
    seeds: dict[tuple[str, str, float], list[Bool[ndarray, " samples"]]] = {}
    for entry in stored["trainings"]:
        correct = np.array(entry["answers"]) == np.array(stored["targets"][entry["corpus"]])
        seeds.setdefault((entry["corpus"], entry["network"], entry["share"]), []).append(correct)
    return {case: 100 * np.mean(correct, axis=0) for case, correct in seeds.items()}


def _ratio(of: Mapping[str, float], digits: int = 2) -> str:
    return f"{of['median']:.{digits}f} [{of['low']:.{digits}f}, {of['high']:.{digits}f}]"


def _cost(name: str, *, classes: int, frames: int, changes: Mapping[str, Any]) -> tuple[float, float, float]:
    """Millions of parameters, and GMAC of a clip of 224 pixels: of the whole last block, and as executed."""
    with torch.device("meta"):
        network = create_model(name, num_classes=classes, frames=frames, **changes)
    assert isinstance(network, RPESTDT | ViTSpatial | CTN | ViViT)
    whole, executed = (
        macs(part, channels=3, frames=frames, size=224) / 1e9 for part in (WholeLastBlock(network), network)
    )
    return parameter_count(network) / 1e6, whole, executed


def _mean(values: Float[ndarray, " samples"], form: str = ".1f") -> str:
    """Mean over samples with its interval."""
    low, high = mean_interval(values)
    return f"{values.mean():{form}} [{low:{form}}, {high:{form}}]"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
