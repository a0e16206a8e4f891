"""Generate the tables of README.md and docs/ from the stored results: `make tables`.

    python benchmarks/tables.py            # rewrite the documents
    python benchmarks/tables.py --check    # change nothing, exit with 1 if a document is out of date

A document marks a table with two comments, `<!-- table: trainings -->` and `<!-- end of table -->`. The lines between
them are generated from the JSON files under `results/`.
"""

import ast
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
from kinema.models.complexity import FullLastBlock, macs, parameter_count
from kinema.models.ctn import CTN
from kinema.models.registry import create_model
from kinema.models.rpe_stdt import RPESTDT
from kinema.models.vit_spatial import ViTSpatial
from kinema.models.vivit import ViViT
from kinema.reports.thesis import comparison

ROOT = Path(__file__).parents[1]
DEVIATION = re.compile(r"DEVIATION: (.+?)(?=\s+DEVIATION:|\n\s*\n|\s*$)", re.DOTALL)
MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
SIGNED = "+.1f"
FAMILIES: Mapping[str, tuple[str, ...]] = {
    "mp4, mov, 3gp": ("mp4", "mov", "3gp", "3g2", "f4v", "ismv"),
    "mkv, webm": ("mkv", "webm"),
    "avi": ("avi",),
    "ts, mpg, vob": ("ts", "mpg", "vob"),
    "wmv, flv, ogv": ("wmv", "flv", "ogv"),
    "streams without a container": ("h261", "h263", "h264", "hevc", "ivf", "m1v", "m2v", "m4v", "mjpeg", "obu", "y4m"),
    "gif, apng, avif": ("gif", "apng", "avif"),
    "npz": ("npz", "npz, compressed"),
    "mat": ("mat v4", "mat v5", "mat v5, compressed", "mat v7.3"),
    "folders of png and jpg": ("folder of png", "folder of jpg"),
    "inside zip and tar": ("zip", "zip, compressed", "tar"),
}
"""Formats of mutated files that share a row."""
AIMS = {"artefact": "model", "any": "random time"}
"""Events that kills are aimed at, by their names in older and newer results."""
TOKEN_TIMES = {"literal": "as printed", "dense": "dense"}
MEASURED = ("measurement", "compared with", "ratio, median [95 % interval]")
SEED = re.compile(r", seed \d+$")
TITLE = re.compile(r"(?P<model>.+?)(?:,? from scratch)? on (?P<data>.+)")

Row = tuple[str, ...] | str
"""Cells of a row, or a line of text below the table. The first row of a table is its header."""

TABLES: dict[str, Callable[[Path], list[str]]] = {}
"""Functions that return the lines of a table from the results folder, by the table's name in the documents."""


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
    """Stored result with predictions.

    Attributes:
        content: Parsed JSON.
    """

    content: Mapping[str, Any]

    @property
    def title(self) -> str:
        """Title without the seed; older results call an epoch a pass."""
        return SEED.sub("", self.content["title"]).replace(" passes ", " epochs ")

    @property
    def correct(self) -> Bool[ndarray, " samples"]:
        """Correctness of each clip's prediction, in the order of the manifest."""
        stored = self.content["predictions"]
        order = np.argsort(stored["index"])
        targets, answers = (np.array(stored[which]["label"])[order] for which in ("targets", "answers"))
        correct: Bool[ndarray, " samples"] = targets == answers
        return correct


def fill_tables(document: str, results: Path) -> str:
    """Return a document with its tables generated.

    Raises:
        TableError: The document names an unknown table, or a result cannot be read.
    """

    def generate(match: re.Match[str]) -> str:
        begin, name, end = match.groups()
        if name not in TABLES:
            raise TableError(f"unknown table {name!r}; {did_you_mean(name, TABLES)}", field=name)
        return begin + "\n".join(TABLES[name](results)) + "\n" + end

    return MARKED.sub(generate, document)


@table
def headline(results: Path) -> Iterator[Row]:
    """Show one row per training of README.md: all seeds of the final recipes, best first on each dataset."""
    yield ("model", "data, split", "clips", "start", "seeds", "top-1 % of each seed", "baseline %")
    baselines = {_clips_of(result): result for result in _results(results, "penalty")}
    rows: dict[str, list[tuple[float, Row]]] = {}
    for title, seeds in _groups(_results(results, "training")).items():
        described = TITLE.fullmatch(title)
        if described is None:
            raise TableError(f"{title}: expected 'MODEL [from scratch] on DATA, SPLIT'", field="title")
        if "first attempt" in title:
            continue
        stored = seeds[0].content
        floor = baselines.get(_clips_of(seeds[0]))
        chance = f"{100 / len(set(stored['predictions']['targets']['label'])):.1f} (chance)"
        top1 = [100 * seed.correct.mean() for seed in seeds]
        row = (
            described["model"],
            described["data"],
            str(stored["declared"]),
            _start(stored["recipe"]),
            ", ".join(str(seed.content["provenance"]["seed"]) for seed in seeds),
            ", ".join(f"{share:.1f}" for share in top1),
            chance if floor is None else f"{100 * floor.correct.mean():.1f} (ridge)",
        )
        rows.setdefault(described["data"], []).append((float(np.mean(top1)), row))
    for data in sorted(rows, key=lambda name: ("synthetic" not in name, -max(rows[name])[0])):
        yield from [row for _, row in sorted(rows[data], key=lambda pair: -pair[0])]


@table
def trainings(results: Path) -> Iterator[Row]:
    """Show one row per training, with all its seeds."""
    yield ("model and data", "seeds", "clips", "top-1 %", "mean [95 % interval over clips]", "mean class %", "step")
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
    """Compare trainings with the baseline on their data: mean of the seeds minus the baseline, paired by clip."""
    baselines = {_clips_of(result): result for result in _results(results, "penalty")}
    yield ("model and data", "mean of seeds %", "baseline %", "difference, points [95 % interval over clips]")
    for title, seeds in _groups(_results(results, "training")).items():
        floor = baselines.get(_clips_of(seeds[0]))
        if floor is None:
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
def temporal_encoder(results: Path) -> Iterator[Row]:
    """Compare RPE-STDT-tiny with ViT-tiny, which has no temporal encoder, paired by clip."""
    groups = _groups(_results(results, "training"))
    data = "from scratch on J-HMDB, RGB, source-disjoint val"
    rpe_stdt, vit = (
        100 * np.stack([seed.correct for seed in groups[f"{model} {data}"]]).mean(axis=0)
        for model in ("RPE-STDT-tiny", "ViT-tiny, frame by frame,")
    )
    yield ("RPE-STDT-tiny, mean %", "ViT-tiny, mean %", "difference, points [95 % interval over clips]")
    yield (_mean(rpe_stdt), _mean(vit), _mean(rpe_stdt - vit, SIGNED))


@table
def killed(results: Path) -> Iterator[Row]:
    """Summarize the kills of a training by the event they were aimed at, from `benchmarks/resume.py`."""
    entry = _read(results / "resume.json")
    yield ("aimed at", "kills", "seconds after start", "interrupted writes", "during an evaluation")
    kinds: dict[str, list[dict[str, Any]]] = {}
    for kill in entry["kills"]:
        kinds.setdefault(AIMS.get(kill["aimed"], kill["aimed"]), []).append(kill)
    for aimed, kills in kinds.items():
        seconds = [kill["seconds"] for kill in kills]
        yield (
            aimed,
            str(len(kills)),
            f"{min(seconds):.1f} to {max(seconds):.1f}",
            str(sum(bool(kill["unfinished"]) for kill in kills)),
            str(sum(kill["evaluating"] for kill in kills)),
        )
    same = "equal" if entry["same_losses"] and entry["same_weights"] and entry["same_evaluations"] else "NOT EQUAL"
    yield ""
    yield f"Losses of all {entry['steps']} steps, evaluations, final weights: {same} to those of the undisturbed run."


@table
def hostile_input(results: Path) -> Iterator[Row]:
    """Count mutated files and bad input, from `benchmarks/hostile_files.py` and `benchmarks/hand_made.py`."""
    files, cases = (_read(results / f"{name}.json") for name in ("hostile_files", "hand_made"))
    outcomes = ("tried", "read", "refused", "contained", "failed")
    yield ("input", "formats and codecs", "tried", "read", "refused", "refused in the sandbox", "failed")
    families = {**FAMILIES, "other containers": tuple(files["formats"].keys() - set(sum(FAMILIES.values(), ())))}
    for family, forms in families.items():
        present = [form for form in forms if form in files["formats"]]
        counts = (f"{sum(files['formats'][form][name] for form in present):,}" for name in outcomes)
        yield (family, str(sum(files["codecs"][form] for form in present)), *counts)
    total = files["total"]
    yield ("**all mutated files**", str(sum(files["codecs"].values())), *(f"{total[name]:,}" for name in outcomes))
    total = cases["total"]
    kinds = f"{len(cases['groups'])} kinds"
    yield (
        "**bad input by hand**",
        kinds,
        f"{total['tried']:,}",
        "-",
        f"{total['refused']:,}",
        "-",
        str(total["failed"]),
    )


@table
def processes(results: Path) -> Iterator[Row]:
    """Compare the throughput of one process and of two, from `benchmarks/processes.py`."""
    entry = _read(results / "processes.json")
    yield ("processes", "clips/s, median [95 % interval]", "relative to one process of one thread")
    for name, one in entry["measured"].items():
        low, high = one["interval"]
        ratio = one["ratio"]
        yield (
            name,
            f"{one['median']:.1f} [{low:.1f}, {high:.1f}]",
            f"{ratio['median']:.2f} [{ratio['interval'][0]:.2f}, {ratio['interval'][1]:.2f}]",
        )
    gain = entry["two_processes_against_two_threads"]
    (low, high), median = gain["interval"], gain["median"]
    yield ""
    yield f"Two processes of one thread are {median:.2f} [{low:.2f}, {high:.2f}] times as fast as one of two threads."


@table
def decoding(results: Path) -> Iterator[Row]:
    """Compare kinema's decoding with the fastest other library, from `benchmarks/decoding.py`."""
    yield ("file", "fastest of torchcodec, decord and OpenCV", "kinema's speed relative to it [95 % interval]")
    for name, entry in _read(results / "decoding_speed.json")["files"].items():
        ratio = entry["speed_of_kinema_against"]["best of torchcodec, decord and opencv"]
        yield (name, ratio["rival"], _ratio(ratio))


@table
def loading(results: Path) -> Iterator[Row]:
    """Show where the time from file to normalized batch goes, from `benchmarks/loader.py`."""
    yield ("file, clip side", "decoding %", "everything else %", "samples/s with 0, 1, 2 workers")
    for name, entry in sorted(_read(results / "loader_speed.json")["measured"].items()):
        decode, rest = (100 * entry["shares"][part]["median"] for part in ("decode", "all but decoding"))
        rates = ", ".join(f"{rate['median']:.1f}" for rate in entry["samples_per_second"].values())
        yield (f"{name} px", f"{decode:.0f}", f"{rest:.0f}", rates)


@table
def streams(results: Path) -> Iterator[Row]:
    """Compare color, depth and both by protocol, from `benchmarks/two_streams.py`."""
    protocols = _read(results / "moves_two_streams.json")["protocols"]
    yield ("input of MFST-tiny", *(f"`{name}`, mean of seeds % [95 % interval over clips]" for name in protocols))
    for way in next(iter(protocols.values()))["answers"]:
        cells = []
        for entry in protocols.values():
            correct = np.array(entry["answers"][way]) == np.array(entry["targets"])
            cells.append(_mean(100 * correct.mean(axis=0)))
        yield (way, *cells)


@table
def isogd_pairs(results: Path) -> Iterator[Row]:
    """Show the top-1 of two streams on their own training pairs, from `benchmarks/isogd_pairs.py`."""
    yield ("input of two streams of MFST-tiny", "top-1 % on the training pairs")
    for name, share in _read(results / "isogd_pairs.json")["top1_on_the_training_pairs"].items():
        yield (name, f"{share:.1f}")


@table
def operators(results: Path) -> Iterator[Row]:
    """Compare MFST's operators with plainer ones, and the network with its arithmetic alone."""
    difference, knn, network = (
        _read(results / f"{name}.json") for name in ("central_difference_speed", "knn_attention_speed", "mfst_speed")
    )
    yield MEASURED
    for operator in ("cdc-st", "cdc-t"):
        for place, measured in difference["measured"].items():
            ratio = measured["training"]["ratios"][operator]
            yield (f"3D-CDC ({operator}), a training step at {place}", "plain convolution", _ratio(ratio))
    for place, measured in knn["measured"].items():
        for name, label in {"knn": "k-NN attention", "public knn": "public k-NN formulation"}.items():
            if place.startswith("attention, spatial, stage 1"):
                ratio = measured["ratio_to_sdpa"][name]
                yield (f"{label}, {place.removeprefix('attention, ')}", "dense attention (SDPA)", _ratio(ratio))
    size = network["arguments"]
    clip = f"{size['model']} at {size['frames']} x {size['size']}"
    for name, share in network["share_of_the_machines_rate"].items():
        rate = {"median": 1 / share["median"], "low": 1 / share["high"], "high": 1 / share["low"]}
        yield (f"{clip}, {name}", "its convolutions and matrix products alone at the machine's rate", _ratio(rate))
    memory = network["peak_memory_mib"]["recompute_over_keep"]
    yield (f"{clip}, peak memory of a step, activation checkpointing", "all activations stored", _ratio(memory))


@table
def rpe_stdt_sizes(results: Path) -> Iterator[Row]:
    """Count parameters and multiply-adds of both forms of RPE-STDT, beside the thesis's numbers."""
    del results  # counted, not measured
    yield ("network, 101 classes", "parameters, M", "thesis", "GMAC at 16 x 224", "executed", "thesis")
    base, base12 = "RPE-STDT of 8 + 4 layers (the text)", "RPE-STDT of 12 + 4 light layers (the tables)"
    variants: tuple[tuple[str, str, dict[str, Any], str, str], ...] = (
        (f"{base12}, shared", "rpe_stdt_base12", {}, "97.06", "273"),
        (f"{base12}, per head", "rpe_stdt_base12", {"position": "per-head"}, "97.26", ""),
        (f"{base12}, absolute", "rpe_stdt_base12", {"position": "absolute"}, "100.7", ""),
        (f"{base}, shared", "rpe_stdt_base", {}, "97.06", "273"),
        (f"{base}, per head", "rpe_stdt_base", {"position": "per-head"}, "97.26", ""),
        (f"{base}, absolute", "rpe_stdt_base", {"position": "absolute"}, "100.7", ""),
        (f"{base}, none", "rpe_stdt_base", {"position": "none"}, "88.9; with Top-K 82.7", ""),
        ("ViT, spatial attention alone, 12 layers", "vit_base_spatial", {}, "", "269"),
    )
    for label, name, changes, parameters, gmac in variants:
        count, whole, executed = _cost(name, classes=101, frames=16, changes=changes)
        yield (label, f"{count:.3f}", parameters, f"{whole:.1f}", f"{executed:.1f}", gmac)


@table
def rpe_stdt_speed(results: Path) -> Iterator[Row]:
    """Compare RPE-STDT with matrix products, itself without position, and others, from `benchmarks/rpe_stdt.py`."""
    stored = _read(results / "rpe_stdt_speed.json")
    speed, size = stored["speed"], stored["arguments"]
    clip = f"{size['model']} at {size['frames']} x 224"
    yield MEASURED
    for name, share in speed["share_of_the_machines_rate"].items():
        yield (f"{clip}, {name}: GMAC/s", "the machine's matrix products", _ratio(share))
    for way, ratio in speed["relative_position_over_none"].items():
        yield (f"{clip}, {way}, time", "the same network without position", _ratio(ratio))
    for name, ratio in speed["ms_per_gmac_over"].items():
        yield (f"{clip}, forward, time per GMAC", f"{name} (transformers)", _ratio(ratio))


@table
def rpe_stdt_lengths(results: Path) -> Iterator[Row]:
    """Show seconds and multiply-adds by clip length, from `benchmarks/rpe_stdt.py`."""
    stored = _read(results / "rpe_stdt_speed.json")
    lengths, entry = stored["arguments"]["lengths"], stored["lengths"]
    yield ("network", *(f"{frames} frames: s (GMAC)" for frames in lengths), "longest / shortest, s")
    for network in ("RPE-STDT", "ViViT-B"):
        cells = [
            f"{entry['seconds'][f'{network}, {frames}']['median']:.2f} ({entry['gmac'][f'{network}, {frames}']:.0f})"
            for frames in lengths
        ]
        yield (network, *cells, _ratio(entry["seconds_over_the_shortest"][f"{network}, {lengths[-1]}"]))


@table
def ctn_sizes(results: Path) -> Iterator[Row]:
    """Count parameters and multiply-adds of CTN and ViViT, beside the thesis's numbers."""
    del results  # counted, not measured
    yield ("network, 48 classes, 8 x 224", "parameters, M", "thesis", "GMAC", "executed", "thesis, GFLOPs")
    tubelets: dict[str, Any] = {"embedding": "tubelets", "position": "learned"}
    variants: tuple[tuple[str, str, dict[str, Any], str, str], ...] = (
        ("CTN as printed: one token time", "ctn_base", {}, "88.6", "358"),
        ("CTN, dense: four token times", "ctn_base_dense", {}, "88.6", "358"),
        ("CTN, dense, with a position table", "ctn_base_dense", {"position": "learned"}, "", "370"),
        ("CTN of tubelets, with a position table", "ctn_base", tubelets, "", "353"),
        ("CTN, linear mapping (Table 4.5)", "ctn_base", {"mapping": "linear"}, "", ""),
        ("CTN, 5 x 5 mapping (Table 4.6)", "ctn_base", {"mapping_kernel": 5}, "", ""),
        ("ViViT-B", "vivit_base", {}, "88.9", "325"),
        ("ViViT-B without position", "vivit_base", {"position": "none"}, "", "318"),
    )
    for label, name, changes, parameters, gflops in variants:
        count, whole, executed = _cost(name, classes=48, frames=8, changes=changes)
        yield (label, f"{count:.3f}", parameters, f"{whole:.2f}", f"{executed:.2f}", gflops)


@table
def ctn_speed(results: Path) -> Iterator[Row]:
    """Compare CTN with matrix products, other networks, and itself without each fast form: `benchmarks/ctn.py`."""
    stored = _read(results / "ctn_speed.json")
    speed, size = stored["speed"], stored["arguments"]
    clip = f"{size['model']} at {size['frames']} x 224"
    yield MEASURED
    for name, share in speed["share_of_the_machines_rate"].items():
        yield (f"{clip}, {name}: GMAC/s", "the machine's matrix products", _ratio(share))
    for name, ratio in speed["time_over"].items():
        yield (f"{clip}, forward, time", f"{name} (transformers)", _ratio(ratio, digits=3))
    for name, ratio in stored["forms"]["time_over_as_it_is"].items():
        yield (f"{name}: time", "the shipped form", _ratio(ratio))


@table
def resolutions(results: Path) -> Iterator[Row]:
    """Compare the top-1 of kinds of position across clip sizes, from `benchmarks/resolution.py`."""
    stored = _read(results / "moves_resolution.json")
    targets = np.array(stored["targets"])
    correct = {
        position: {size: 100 * (np.array(each) == targets).mean(axis=0) for size, each in entry["answers"].items()}
        for position, entry in stored["positions"].items()
    }
    first = next(iter(correct))
    smallest, *_, largest = correct[first]
    yield ("position", *(f"{size} pixels, mean %" for size in correct[first]), f"{largest} minus {smallest}")
    for position, by_size in correct.items():
        cells = [_mean(share) for share in by_size.values()]
        yield (position, *cells, _mean(by_size[largest] - by_size[smallest], SIGNED))
    for position, by_size in correct.items():
        if position != first:
            cells = [_mean(correct[first][size] - share, SIGNED) for size, share in by_size.items()]
            yield (f"{first} minus {position}, points", *cells, "")


@table
def agreement(results: Path) -> Iterator[Row]:
    """Count what batch size and precision change, from `benchmarks/agreement.py`."""
    stored = _read(results / "agreement.json")
    yield (
        "model",
        "precision, batch",
        "other answers",
        "other Top-K frames",
        "other key sets",
        "largest logit difference",
    )
    for recipe, model in stored["models"].items():
        for setting in model["settings"][1:]:
            clips = setting["clips"]
            keys = f"{100 * setting['other_keys'] / setting['queries']:.3f} %" if "queries" in setting else "-"
            yield (
                f"`{recipe}` ({model['top1']:.1f} % top-1)",
                f"{setting['precision']}, {setting['batch']}",
                f"{setting['flipped']} of {clips}",
                f"{setting['other_frames']} of {clips}" if "other_frames" in setting else "-",
                keys,
                f"{setting['max_difference']:.1g}",
            )


@table
def learning_curves(results: Path) -> Iterator[Row]:
    """Compare the top-1 of two networks by share of the training clips, from `benchmarks/learning_curve.py`."""
    stored = _read(results / "learning_curve.json")
    correct = _percent_correct(stored)
    first, *others = dict.fromkeys(entry["network"] for entry in stored["trainings"])
    columns = [title for other in others for title in (f"{other}, mean %", f"{first} minus {other}, points")]
    yield ("dataset", "training clips", f"{first}, mean %", *columns)
    for dataset, share in dict.fromkeys((_dataset(entry), entry["share"]) for entry in stored["trainings"]):
        curve = correct[dataset, first, share]
        cells = [_mean(curve)]
        for other in others:
            cells += [_mean(correct[dataset, other, share]), _mean(curve - correct[dataset, other, share], SIGNED)]
        yield (dataset, f"{100 * share:g} %", *cells)


@table
def ctn_parts(results: Path) -> Iterator[Row]:
    """Ablate the parts of CTN-tiny, from `benchmarks/learning_curve.py`."""
    stored = _read(results / "ctn_parts.json")
    correct = _percent_correct(stored)
    (dataset, complete), *_ = ((_dataset(entry), entry["network"]) for entry in stored["trainings"])
    yield ("network", "GMAC", "mean %", f"{complete} minus it, points")
    for network, gmac in stored["gmac"][dataset].items():
        share = correct[dataset, network, 1.0]
        difference = "" if network == complete else _mean(correct[dataset, complete, 1.0] - share, SIGNED)
        yield (network, f"{gmac:.3f}", _mean(share), difference)


@table
def ctn_positions(results: Path) -> Iterator[Row]:
    """Compare CTN-tiny without and with learned positions, from `benchmarks/learning_curve.py`."""
    correct = _percent_correct(_read(results / "ctn_position.json"))
    columns = ("no positions, mean %", "learned positions, mean %", "gain, points")
    yield ("dataset", "token times", "padding", *columns)
    for dataset, time, padding in dict.fromkeys((name, *case.split(", ")[:2]) for name, case, _ in correct):
        none, learned = (correct[dataset, f"{time}, {padding}, {position}", 1.0] for position in ("none", "learned"))
        yield (dataset, TOKEN_TIMES[time], padding, _mean(none), _mean(learned), _mean(learned - none, SIGNED))


@table
def ctn_padding(results: Path) -> Iterator[Row]:
    """Compare zero and circular padding of CTN-tiny's mapping, from `benchmarks/learning_curve.py`."""
    correct = _percent_correct(_read(results / "ctn_position.json"))
    yield ("dataset", "token times", "positions", "zeros minus circular, points")
    cases = dict.fromkeys((name, *case.split(", ")[::2]) for name, case, _ in correct)
    for dataset, time, position in cases:
        zeros, circular = (correct[dataset, f"{time}, {padding}, {position}", 1.0] for padding in ("zeros", "circular"))
        yield (dataset, TOKEN_TIMES[time], position, _mean(zeros - circular, SIGNED))


@table
def vivit_rates(results: Path) -> Iterator[Row]:
    """Show ViViT-tiny at other learning rates, from `benchmarks/learning_curve.py`."""
    yield ("dataset", "learning rate", "seed", "vivit_tiny, top-1 %")
    for path in sorted(results.glob("vivit_rate_*.json")):
        stored = _read(path)
        for (dataset, _, _), share in _percent_correct(stored).items():
            seeds = ", ".join(str(entry["seed"]) for entry in stored["trainings"])
            yield (dataset, f"{stored['rate']:g} times", seeds, f"{share.mean():.1f}")


@table
def recipe_steps(results: Path) -> Iterator[Row]:
    """Show time and memory of a step of the thesis's recipes, from `benchmarks/recipes.py`."""
    stored = _read(results / "recipe_steps.json")["recipes"]
    measured = ("1 clip per step: GiB", "s")
    extrapolated = ("extrapolated: GiB per GPU", "s per batch on this CPU")
    yield ("recipe", "parameters, M", "clip", *measured, "batch", *extrapolated)
    for name, entry in stored.items():
        batch, gpus, extrapolation = entry["batch"], entry["gpus"], entry["extrapolated"]
        yield (
            f"`{name}`",
            f"{entry['parameters'] / 1e6:.1f}",
            f"{entry['frames']} x {entry['size']}",
            f"{entry['measured']['mib']['1'] / 1024:.1f}",
            f"{entry['measured']['seconds']['1']:.1f}",
            f"{batch} ({batch // gpus} per GPU on {gpus} GPUs)",
            f"{extrapolation['mib_of_a_gpus_share'] / 1024:.0f}",
            f"{extrapolation['seconds_of_a_batch_here']:.0f}",
        )


@table
def packed(results: Path) -> Iterator[Row]:
    """Compare packed files with the original ones, from `benchmarks/pack.py`."""
    yield ("files", "packed as", "bytes", "clips/s relative to the original [95 % interval]")
    for name, entry in _read(results / "pack_speed.json").items():
        for form, measured in entry.get("16 frames", {}).items() if isinstance(entry, dict) else ():
            if form != "original":
                size = entry["files"][form]["bytes"] / entry["files"]["original"]["bytes"]
                yield (name, form, f"{size:.2f} times", _ratio(measured["times_the_original"]))


@table
def thesis_2_1(results: Path) -> Iterator[Row]:
    """Show Table 2.1, with its quoted rows, beside our results."""
    yield from comparison("2.1", results)


@table
def thesis_2_2(results: Path) -> Iterator[Row]:
    """Show Table 2.2, with its quoted rows, beside our results."""
    yield from comparison("2.2", results)


@table
def thesis_3_6(results: Path) -> Iterator[Row]:
    """Show Table 3.6, with its quoted rows, beside our results."""
    yield from comparison("3.6", results)


@table
def thesis_4_7(results: Path) -> Iterator[Row]:
    """Show Table 4.7, with its quoted rows, beside our results."""
    yield from comparison("4.7", results)


@table
def deviations(results: Path) -> Iterator[Row]:
    """List every `DEVIATION:` in the docstrings of the package."""
    del results  # read from the code
    yield ("file", "departure from the thesis")
    for path in sorted((ROOT / "kinema").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                for departure in DEVIATION.findall(ast.get_docstring(node) or ""):
                    yield (f"`{path.relative_to(ROOT)}`", " ".join(departure.split()).replace("|", "\\|"))


def main(args: Sequence[str], root: Path = ROOT) -> int:
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
            if "--check" not in args:
                path.write_text(after, encoding="utf-8")
    for path in changed:
        print(f"{path}: {'differs from results/' if '--check' in args else 'updated'}")
    return 1 if changed and "--check" in args else 0


def _markdown(row: Row) -> str:
    return row if isinstance(row, str) else "| " + " | ".join(row) + " |"


def _results(results: Path, key: str) -> list[Result]:
    """Return the results with predictions that hold this key: `training`, or `penalty` of a baseline."""
    stored = [Result(content=_read(path)) for path in sorted(results.glob("*.json"))]
    return [result for result in stored if "predictions" in result.content and key in result.content]


def _groups(stored: Sequence[Result]) -> dict[str, list[Result]]:
    groups: dict[str, list[Result]] = {}
    for result in stored:
        groups.setdefault(result.title, []).append(result)
    return groups


def _clips_of(result: Result) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Return the split, and the position and class of every clip; equal for manifests of other versions."""
    predictions = result.content["predictions"]
    clips = zip(predictions["index"], predictions["targets"]["label"], strict=True)
    return result.content["split"], tuple(sorted(clips))


def _start(recipe: Mapping[str, Any]) -> str:
    """Return the initial weights of a stored recipe, of this format or the one before."""
    return recipe.get("init", {}).get("weights", "") or recipe["run"].get("init", "") or "from scratch"


def _dataset(entry: Mapping[str, Any]) -> str:
    """Return the dataset of a stored training; older results call it `corpus`."""
    name: str = entry["dataset"] if "dataset" in entry else entry["corpus"]
    return name


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]  # JSON
    except (OSError, ValueError) as error:
        raise TableError(f"{path}: cannot be read ({error})", path=path) from error


def _percent_correct(stored: Mapping[str, Any]) -> dict[tuple[str, str, float], Float[ndarray, " samples"]]:
    """Return the percentage of correct seeds per clip, by dataset, network and share of the training clips."""
    seeds: dict[tuple[str, str, float], list[Bool[ndarray, " samples"]]] = {}
    for entry in stored["trainings"]:
        correct = np.array(entry["answers"]) == np.array(stored["targets"][_dataset(entry)])
        seeds.setdefault((_dataset(entry), entry["network"], entry["share"]), []).append(correct)
    return {case: 100 * np.mean(correct, axis=0) for case, correct in seeds.items()}


def _ratio(ratio: Mapping[str, float], digits: int = 2) -> str:
    return f"{ratio['median']:.{digits}f} [{ratio['low']:.{digits}f}, {ratio['high']:.{digits}f}]"


def _cost(name: str, *, classes: int, frames: int, changes: Mapping[str, Any]) -> tuple[float, float, float]:
    """Return millions of parameters, and GMAC per clip of 224 pixels: with a complete last block, and as executed."""
    with torch.device("meta"):
        network = create_model(name, num_classes=classes, frames=frames, **changes)
    assert isinstance(network, RPESTDT | ViTSpatial | CTN | ViViT)
    whole, executed = (
        macs(part, channels=3, frames=frames, size=224) / 1e9 for part in (FullLastBlock(network), network)
    )
    return parameter_count(network) / 1e6, whole, executed


def _mean(values: Float[ndarray, " samples"], form: str = ".1f") -> str:
    """Return the mean over samples with its interval."""
    low, high = mean_interval(values)
    return f"{values.mean():{form}} [{low:{form}}, {high:{form}}]"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
