"""The tables of the documents, made from what is stored: python -m kinema.reports.tables

A document marks where a table goes with two comments, `<!-- table: trainings -->` and `<!-- end of table -->`; what
lies between them is made anew from the JSON files under `results/`. `--check` changes nothing and fails where it would.
"""

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray

from kinema.errors import TableError
from kinema.evaluation.bootstrap import mean_interval
from kinema.evaluation.compare import seeds_minus_floor
from kinema.models.complexity import WholeLastBlock, macs, parameter_count
from kinema.models.ctn import CTN
from kinema.models.registry import create_model
from kinema.models.rpe_stdt import RPESTDT
from kinema.models.vit_spatial import ViTSpatial
from kinema.models.vivit import ViViT

MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
SIGNED = "+.1f"
SEED = re.compile(r", seed \d+$")


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A stored result: its file's name, and what it holds."""

    name: str
    said: Mapping[str, Any]

    @property
    def title(self) -> str:
        return SEED.sub("", self.said["title"])

    @property
    def right(self) -> Bool[ndarray, " samples"]:
        """Whether each clip is answered rightly, in the order of the manifest."""
        stored = self.said["predictions"]
        order = np.argsort(stored["index"])
        targets, answers = (np.array(stored[which]["label"])[order] for which in ("targets", "answers"))
        right: Bool[ndarray, " samples"] = targets == answers
        return right


def filled(document: str, results: Path) -> str:
    """A document with its tables made anew.

    Raises:
        TableError: there is no such table, or a result that it needs cannot be read.
    """

    def table(found: re.Match[str]) -> str:
        begin, name, end = found.groups()
        if name not in TABLES:
            raise TableError(f"there is no table {name!r}; there are {', '.join(TABLES)}")
        return begin + "\n".join(TABLES[name](results)) + "\n" + end

    return MARKED.sub(table, document)


def trainings(results: Path) -> list[str]:
    """A line for each training, its seeds together."""
    lines = table_head(
        "trained", "seeds", "clips", "top-1 %", "mean [95 % interval over clips]", "mean class %", "step"
    )
    for title, seeds in _groups(_stored(results, "training")).items():
        right = np.stack([seed.right for seed in seeds])
        low, high = mean_interval(100 * right.mean(axis=0))
        mean_class = np.mean([seed.said["measures"]["mean_class"] for seed in seeds])
        lines.append(
            row(
                title,
                _listed([str(seed.said["provenance"]["seed"]) for seed in seeds]),
                str(right.shape[1]),
                _listed([f"{100 * one.mean():.1f}" for one in right]),
                f"{100 * right.mean():.1f} [{low:.1f}, {high:.1f}]",
                f"{mean_class:.1f}",
                _listed(sorted({f"{seed.said['provenance']['step']:,}" for seed in seeds})),
            )
        )
    return lines


def floors(results: Path) -> list[str]:
    """Trainings against the floor of their data: the seeds' mean minus the floor, paired clip by clip."""
    known = {stored.said["provenance"]["manifest_digest"]: stored for stored in _stored(results, "penalty")}
    lines = table_head("trained", "mean of seeds %", "floor %", "difference, points [95 % interval over clips]")
    for title, seeds in _groups(_stored(results, "training")).items():
        said = seeds[0].said
        floor = known.get(said["provenance"]["manifest_digest"])
        if floor is None or floor.said["split"] != said["split"]:
            continue
        right = np.stack([seed.right for seed in seeds])
        difference, (low, high) = seeds_minus_floor(right, floor.right)
        lines.append(
            row(
                title,
                f"{100 * right.mean():.1f}",
                f"{100 * floor.right.mean():.1f}",
                f"{difference:+.1f} [{low:+.1f}, {high:+.1f}]",
            )
        )
    return lines


def kills(results: Path) -> list[str]:
    """The moments at which a training was killed, from `benchmarks/resume.py`."""
    said = _read(results / "resume.json")
    lines = table_head("kill", "after, s", "steps logged", "step of the checkpoint", "half-written then")
    for number, kill in enumerate(said["kills"], start=1):
        half = kill["unfinished"] or ("in an evaluation" if kill["evaluating"] else "-")
        lines.append(row(str(number), f"{kill['seconds']:.1f}", str(kill["steps"]), str(kill["checkpoint"]), half))
    same = "equal" if said["same_losses"] and said["same_weights"] and said["same_evaluations"] else "NOT EQUAL"
    lines += [
        "",
        f"Losses of all {said['steps']} steps, evaluations and final weights: {same} to the undisturbed run's.",
    ]
    return lines


def processes(results: Path) -> list[str]:
    """Clips per second of one process and of two, from `benchmarks/processes.py`."""
    said = _read(results / "processes.json")
    lines = table_head("processes", "clips/s, median [interval]", "against one process of one thread")
    for name, one in said["measured"].items():
        low, high = one["interval"]
        ratio = one["ratio"]
        lines.append(
            row(
                name,
                f"{one['median']:.1f} [{low:.1f}, {high:.1f}]",
                f"{ratio['median']:.2f} [{ratio['interval'][0]:.2f}, {ratio['interval'][1]:.2f}]",
            )
        )
    return lines


def streams(results: Path) -> list[str]:
    """Colour, depth and both by protocol, from `benchmarks/two_streams.py`."""
    protocols = _read(results / "moves_two_streams.json")["protocols"]
    lines = table_head(
        "MFST-tiny sees", *(f"`{name}`, mean of seeds % [95 % interval over clips]" for name in protocols)
    )
    for way in next(iter(protocols.values()))["answers"]:
        cells = []
        for said in protocols.values():
            right = np.array(said["answers"][way]) == np.array(said["targets"])
            low, high = mean_interval(100 * right.mean(axis=0))
            cells.append(f"{100 * right.mean():.1f} [{low:.1f}, {high:.1f}]")
        lines.append(row(way, *cells))
    return lines


def operators(results: Path) -> list[str]:
    """What MFST's operators take beside plainer ones, and the network beside its arithmetic."""
    difference, nearest, network = (
        _read(results / f"{name}.json") for name in ("central_difference_speed", "knn_attention_speed", "mfst_speed")
    )
    lines = table_head("what", "beside", "ratio, median [95 % interval]")
    for operator in ("cdc-st", "cdc-t"):
        for place, measured in difference["measured"].items():
            ratio = measured["training"]["ratios"][operator]
            lines.append(row(f"3D-CDC ({operator}), a training step at {place}", "plain convolution", _ratio(ratio)))
    for place, measured in nearest["measured"].items():
        for name, said in {"knn": "k-NN attention", "public knn": "the public formulation of it"}.items():
            if place.startswith("attention, spatial, stage 1"):
                ratio = measured["ratio_to_sdpa"][name]
                lines.append(
                    row(f"{said}, {place.removeprefix('attention, ')}", "dense attention (SDPA)", _ratio(ratio))
                )
    size = network["arguments"]
    clip = f"{size['model']} at {size['frames']} x {size['size']}"
    for name, share in network["share_of_the_machines_rate"].items():
        rate = {"median": 1 / share["median"], "low": 1 / share["high"], "high": 1 / share["low"]}
        lines.append(row(f"{clip}, {name}", "its convolutions and products alone at the machine's rate", _ratio(rate)))
    memory = network["peak_memory_mib"]["recompute_over_keep"]
    lines.append(row(f"{clip}, peak memory of a step, recomputing activations", "keeping them", _ratio(memory)))
    return lines


def rpe_stdt_sizes(results: Path) -> list[str]:
    """Parameters and multiply-adds of RPE-STDT's two readings, counted now, beside what the thesis prints."""
    del results  # nothing of it is measured
    lines = table_head("network, 101 classes", "parameters, M", "printed", "GMAC at 16 x 224", "executed", "printed")
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
    for said, name, changes, parameters, gmac in asked:
        count, whole, executed = _cost(name, classes=101, frames=16, changes=changes)
        lines.append(row(said, f"{count:.3f}", parameters, f"{whole:.1f}", f"{executed:.1f}", gmac))
    return lines


def rpe_stdt_speed(results: Path) -> list[str]:
    """RPE-STDT beside products, itself without position, and others, from `benchmarks/rpe_stdt.py`."""
    stored = _read(results / "rpe_stdt_speed.json")
    speed, size = stored["speed"], stored["arguments"]
    clip = f"{size['model']} at {size['frames']} x 224"
    lines = table_head("what", "beside", "ratio, median [95 % interval]")
    for name, share in speed["share_of_the_machines_rate"].items():
        lines.append(row(f"{clip}, {name}: GMAC in a second", "the machine's matrix products", _ratio(share)))
    for way, ratio in speed["relative_position_over_none"].items():
        lines.append(row(f"{clip}, {way}, time", "the same without position", _ratio(ratio)))
    for name, ratio in speed["ms_per_gmac_over"].items():
        lines.append(row(f"{clip}, forward, time for a GMAC", f"{name} (transformers)", _ratio(ratio)))
    return lines


def rpe_stdt_lengths(results: Path) -> list[str]:
    """Seconds and multiply-adds by the length of the clip, from `benchmarks/rpe_stdt.py`."""
    stored = _read(results / "rpe_stdt_speed.json")
    lengths, said = stored["arguments"]["lengths"], stored["lengths"]
    lines = table_head("network", *(f"{frames} frames: s (GMAC)" for frames in lengths), "longest over shortest, s")
    for network in ("RPE-STDT", "ViViT-B"):
        cells = [
            f"{said['seconds'][f'{network}, {frames}']['median']:.2f} ({said['gmac'][f'{network}, {frames}']:.0f})"
            for frames in lengths
        ]
        lines.append(row(network, *cells, _ratio(said["seconds_over_the_shortest"][f"{network}, {lengths[-1]}"])))
    return lines


def ctn_sizes(results: Path) -> list[str]:
    """Parameters and multiply-adds of CTN and ViViT, counted now, beside what the thesis prints."""
    del results  # nothing of it is measured
    lines = table_head(
        "network, 48 classes, 8 x 224", "parameters, M", "printed", "GMAC", "executed", "printed, GFLOPs"
    )
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
    for said, name, changes, parameters, gflops in asked:
        count, whole, executed = _cost(name, classes=48, frames=8, changes=changes)
        lines.append(row(said, f"{count:.3f}", parameters, f"{whole:.2f}", f"{executed:.2f}", gflops))
    return lines


def ctn_speed(results: Path) -> list[str]:
    """CTN beside products and other networks, and without each of its fast forms, from `benchmarks/ctn.py`."""
    stored = _read(results / "ctn_speed.json")
    speed, size = stored["speed"], stored["arguments"]
    clip = f"{size['model']} at {size['frames']} x 224"
    lines = table_head("what", "beside", "ratio, median [95 % interval]")
    for name, share in speed["share_of_the_machines_rate"].items():
        lines.append(row(f"{clip}, {name}: GMAC in a second", "the machine's matrix products", _ratio(share)))
    for name, ratio in speed["time_over"].items():
        lines.append(row(f"{clip}, forward, time", f"{name} (transformers)", _ratio(ratio, digits=3)))
    for name, ratio in stored["forms"]["time_over_as_it_is"].items():
        lines.append(row(f"{name}: time", "as it is", _ratio(ratio)))
    return lines


def resolutions(results: Path) -> list[str]:
    """Top-1 by position and size, from `benchmarks/resolution.py`; what each loses on the way, and to the first."""
    stored = _read(results / "moves_resolution.json")
    targets = np.array(stored["targets"])
    right = {
        position: {size: 100 * (np.array(answers) == targets).mean(axis=0) for size, answers in said["answers"].items()}
        for position, said in stored["positions"].items()
    }
    first = next(iter(right))
    smallest, *_, largest = right[first]
    lines = table_head("position", *(f"{size} pixels, mean %" for size in right[first]), f"{largest} less {smallest}")
    for position, by_size in right.items():
        cells = [_mean(share) for share in by_size.values()]
        lines.append(row(position, *cells, _mean(by_size[largest] - by_size[smallest], SIGNED)))
    for position, by_size in right.items():
        if position != first:
            cells = [_mean(right[first][size] - share, SIGNED) for size, share in by_size.items()]
            lines.append(row(f"{first} less {position}, points", *cells, ""))
    return lines


def learning_curves(results: Path) -> list[str]:
    """Top-1 by the share of the training clips, from `benchmarks/learning_curve.py`: CTN-tiny beside ViViT-tiny."""
    stored = _read(results / "learning_curve.json")
    right = _right_of(stored)
    first, *others = dict.fromkeys(said["network"] for said in stored["trainings"])
    beside = [title for other in others for title in (f"{other}, mean %", f"{first} less {other}, points")]
    lines = table_head("corpus", "training clips", f"{first}, mean %", *beside)
    for corpus, share in dict.fromkeys((said["corpus"], said["share"]) for said in stored["trainings"]):
        curve = right[corpus, first, share]
        cells = [_mean(curve)]
        for other in others:
            cells += [_mean(right[corpus, other, share]), _mean(curve - right[corpus, other, share], SIGNED)]
        lines.append(row(corpus, f"{100 * share:g} %", *cells))
    return lines


def ctn_parts(results: Path) -> list[str]:
    """Top-1 of CTN-tiny with less of what makes it one, and what each part brings (`benchmarks/learning_curve.py`)."""
    stored = _read(results / "ctn_parts.json")
    right = _right_of(stored)
    (corpus, whole), *_ = ((said["corpus"], said["network"]) for said in stored["trainings"])
    lines = table_head("network", "GMAC", "mean %", f"{whole} less it, points")
    for network, gmac in stored["gmac"][corpus].items():
        share = right[corpus, network, 1.0]
        difference = "" if network == whole else _mean(right[corpus, whole, 1.0] - share, SIGNED)
        lines.append(row(network, f"{gmac:.3f}", _mean(share), difference))
    return lines


def ctn_positions(results: Path) -> list[str]:
    """Top-1 with and without a table of positions, from `benchmarks/learning_curve.py`; and what the table brings."""
    stored = _read(results / "ctn_position.json")
    right = _right_of(stored)
    lines = table_head(
        "corpus", "time", "padding", "no positions, mean %", "a table of them, mean %", "less none, points"
    )
    cases = dict.fromkeys((said["corpus"], *said["network"].split(", ")[:2]) for said in stored["trainings"])
    for corpus, time, padding in cases:
        none, learned = (right[corpus, f"{time}, {padding}, {position}", 1.0] for position in ("none", "learned"))
        lines.append(row(corpus, time, padding, _mean(none), _mean(learned), _mean(learned - none, SIGNED)))
    return lines


def recipe_steps(results: Path) -> list[str]:
    """What a step of the thesis's recipes takes, measured and extrapolated, from `benchmarks/recipes.py`."""
    stored = _read(results / "recipe_steps.json")["recipes"]
    lines = table_head(
        "recipe",
        "parameters, M",
        "clip",
        "one clip a step: GiB",
        "s",
        "its batch",
        "extrapolated: GiB of a GPU's share",
        "s on this CPU",
    )
    for name, said in stored.items():
        batch, gpus, beyond = said["batch"], said["gpus"], said["extrapolated"]
        lines.append(
            row(
                f"`{name}`",
                f"{said['parameters'] / 1e6:.1f}",
                f"{said['frames']} x {said['size']}",
                f"{said['measured']['mib']['1'] / 1024:.1f}",
                f"{said['measured']['seconds']['1']:.1f}",
                f"{batch} ({batch // gpus} on each of {gpus} GPUs)",
                f"{beyond['mib_of_a_gpus_share'] / 1024:.0f}",
                f"{beyond['seconds_of_a_batch_here']:.0f}",
            )
        )
    return lines


def packed(results: Path) -> list[str]:
    """Clips in a second from packed files against the original ones, from `benchmarks/pack.py`."""
    lines = table_head("files", "packed as", "bytes", "clips in a second, against the original [95 % interval]")
    for name, said in _read(results / "pack_speed.json").items():
        for form, found in said.get("16 frames", {}).items() if isinstance(said, dict) else ():
            if form != "original":
                size = said["files"][form]["bytes"] / said["files"]["original"]["bytes"]
                lines.append(row(name, form, f"{size:.2f} times", _ratio(found["times_the_original"])))
    return lines


TABLES: Mapping[str, Callable[[Path], list[str]]] = {
    made.__name__: made
    for made in (
        trainings,
        floors,
        kills,
        processes,
        streams,
        operators,
        rpe_stdt_sizes,
        rpe_stdt_speed,
        rpe_stdt_lengths,
        resolutions,
        ctn_sizes,
        ctn_speed,
        learning_curves,
        ctn_parts,
        ctn_positions,
        recipe_steps,
        packed,
    )
}
"""The tables by the name that a document calls them."""


def table_head(*columns: str) -> list[str]:
    return [row(*columns), row(*("---" for _ in columns))]


def row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def main(words: Sequence[str]) -> int:
    """Make the tables of README.md and docs/ anew, or check them; returns the exit code."""
    root = Path(__file__).parents[2]
    changed = []
    for path in (root / "README.md", *sorted((root / "docs").glob("*.md"))):
        before = path.read_text(encoding="utf-8")
        try:
            after = filled(before, root / "results")
        except TableError as error:
            raise TableError(f"{path}: {error}") from error
        if after != before:
            changed.append(path)
            if "--check" not in words:
                path.write_text(after, encoding="utf-8")
    for path in changed:
        print(f"{path}: {'is not what results/ says' if '--check' in words else 'made anew'}")
    return 1 if changed and "--check" in words else 0


def _stored(results: Path, key: str) -> list[Stored]:
    """Results with predictions that hold such a key: `training`, or a floor's `penalty`."""
    found = [Stored(name=path.stem, said=_read(path)) for path in sorted(results.glob("*.json"))]
    return [stored for stored in found if "predictions" in stored.said and key in stored.said]


def _groups(stored: Sequence[Stored]) -> dict[str, list[Stored]]:
    groups: dict[str, list[Stored]] = {}
    for one in stored:
        groups.setdefault(one.title, []).append(one)
    return groups


def _read(path: Path) -> dict[str, Any]:
    try:
        said: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TableError(f"{path}: cannot be read ({error})") from error
    return said


def _right_of(stored: Mapping[str, Any]) -> dict[tuple[str, str, float], Float[ndarray, " samples"]]:
    """How many percent of the seeds are right on each clip, by corpus, network and share of the training clips."""
    seeds: dict[tuple[str, str, float], list[Bool[ndarray, " samples"]]] = {}
    for said in stored["trainings"]:
        right = np.array(said["answers"]) == np.array(stored["targets"][said["corpus"]])
        seeds.setdefault((said["corpus"], said["network"], said["share"]), []).append(right)
    return {case: 100 * np.mean(right, axis=0) for case, right in seeds.items()}


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


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
