"""A recipe: every number of a run. Typed, frozen and printable; no default hides in the training loop.

A shipped recipe is a module of `kinema.recipes` that holds one constant, `RECIPE`; one that holds the rows of a table
has `RECIPES` by their names. A recipe is Python and therefore code: load only those that you trust.
"""

import difflib
import importlib.util
import itertools
import json
import math
import pkgutil
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import cattrs
from cattrs.v import format_exception

import kinema.recipes
from kinema.config import to_json
from kinema.data.manifest import Manifest, load_manifest
from kinema.errors import RecipeError
from kinema.inference.engine import Device, Precision
from kinema.modality import MODALITIES, DepthFacts, Modality
from kinema.models.fields import check_fields
from kinema.models.registry import ModelConfig, config_from_json
from kinema.transforms.augment import Augmentation as Augmentation
from kinema.transforms.mirroring import mirrored_pair
from kinema.transforms.preprocessing import DepthColors, Preprocessing
from kinema.transforms.sampling import Sampling, SamplingRule
from kinema.transforms.subject_crop import SubjectCrop
from kinema.video.read_options import ReadOptions

LoggerName = Literal["csv", "tensorboard", "wandb"]


def _check_types(section: Any) -> None:
    """What a recipe in Python says is of the declared types: a misspelt choice would pass for another one."""
    try:
        check_fields(section)
    except ValueError as error:
        raise RecipeError(str(error)) from error


@dataclass(frozen=True, kw_only=True)
class Clip:
    """What the model sees: here and nowhere else stand the frames and the size.

    Args:
        frames: in a clip.
        size: pixels of the square picture.
        short_side: pixels that a video's shorter side is resized to before the square is cut out.
        modalities: rgb, depth, or both.
        depth_channels: of depth, 1 or 3.
        depth_colours: what three channels of depth are: `grey`, the one repeated, or `jet`, its level's colour in the
            JET map.
        sampling: the rule that takes a clip's frames from a video.
        interval: of the rules that have one: frames from one to the next.
        mean, std: of RGB values between 0 and 1.
        clips: test views over time; training always draws one.
        crops: test views in space: 1, the middle, or 3, also both ends of the longer side; training always draws one.
        subject_margin: cut all modalities to the person that masked depth shows, with so much of the box's height and
            width left on each side; None for the whole picture.
    """

    frames: int
    size: int
    short_side: int
    modalities: tuple[Modality, ...] = ("rgb",)
    depth_channels: Literal[1, 3] = 1
    depth_colours: DepthColors = "grey"
    sampling: SamplingRule = "segments"
    interval: int | None = None
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    clips: int = 1
    crops: Literal[1, 3] = 1
    subject_margin: float | None = None

    def __post_init__(self) -> None:
        _check_types(self)

    def preprocessing(self, depth: DepthFacts | None) -> Preprocessing:
        """What is done to every clip of data whose depth means that.

        Raises:
            RecipeError: the person is to be found in depth that is not masked.
        """
        subject = None if self.subject_margin is None else SubjectCrop(margin=self.subject_margin)
        if subject is not None and depth is not None and depth.coverage != "masked":
            raise RecipeError(
                f"clip: subject_margin={self.subject_margin} finds the person in masked depth, but the manifest's is "
                f"{depth.coverage}; leave subject_margin out"
            )
        return Preprocessing(
            modalities=self.modalities,
            short_side=self.short_side,
            size=self.size,
            mean=self.mean,
            std=self.std,
            depth=depth if subject is not None or "depth" in self.modalities else None,
            depth_channels=self.depth_channels,
            depth_colours=self.depth_colours,
            crops=self.crops,
            subject=subject,
        )

    def frame_sampling(self) -> Sampling:
        return Sampling(rule=self.sampling, frames=self.frames, interval=self.interval, clips=self.clips)


@dataclass(frozen=True, kw_only=True)
class Data:
    """Which samples, and how they come.

    Args:
        manifest: a manifest's CSV, or the name of a built-in one; empty where the recipe is for the user's own data.
        train, evaluate: names of the splits to learn from and to evaluate on.
        batch_size: clips in a batch, of training and evaluation.
        workers: processes that read; changes nothing but the speed.
        augmentation: what training varies.
        unreadable: what a training does with a sample that cannot be read: `stop`, or `skip` it, say so and count it.
            An evaluation always stops.
        balance: for classes of unequal size: `sampler` draws those of the first task head equally often, `loss` weighs
            the rare ones more, in every head.
        reading: by what and within which limits files are read.
    """

    manifest: str = ""
    train: str = "train"
    evaluate: str = "val"
    batch_size: int = 16
    workers: int = 1
    augmentation: Augmentation = field(default_factory=Augmentation)
    unreadable: Literal["stop", "skip"] = "stop"
    balance: Literal["none", "sampler", "loss"] = "none"
    reading: ReadOptions = field(default_factory=ReadOptions)

    def __post_init__(self) -> None:
        _check_types(self)
        if self.batch_size < 1:
            raise RecipeError(f"data: batch_size={self.batch_size} must be at least 1")
        if self.workers < 0:
            raise RecipeError(f"data: workers={self.workers} must not be negative")
        if self.train == self.evaluate:
            raise RecipeError(f"data: train and evaluate are the same split, {self.train!r}")


@dataclass(frozen=True, kw_only=True)
class Optim:
    """How the weights move.

    Args:
        optimizer: `sgd` (Nesterov-free momentum) or `adamw`.
        lr: at the batch size of the recipe; never rescaled.
        lr_start, lr_end: where warm-up begins and where the cosine ends, as shares of `lr`.
        momentum: of SGD.
        weight_decay: added to the gradient by SGD, applied apart from it by AdamW.
        decay: what is decayed: the `matrices` alone, or norms, biases and tables too (`all`).
        layer_decay: factor on the rate for each layer between a parameter and the task heads; 1 for none.
        accumulate: parts that a batch is taken in, one after the other, where it does not fit into memory at once. The
            batch stays `data.batch_size`; BatchNorm sees the parts.
        ema_decay: share of themselves that averaged weights keep at each step; None for no averaging. Where there are
            averaged weights, they are evaluated and shipped.
        epochs: passes over the training samples.
        warmup_epochs: passes with a linearly growing rate.
        clip_norm: largest norm of the whole gradient; None for no limit.
        label_smoothing: share of each target that is spread over all classes.
    """

    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float
    lr_start: float = 0.01
    lr_end: float = 0.0
    momentum: float = 0.9
    weight_decay: float = 0.0
    decay: Literal["matrices", "all"] = "matrices"
    layer_decay: float = 1.0
    accumulate: int = 1
    ema_decay: float | None = None
    epochs: float
    warmup_epochs: float = 0.0
    clip_norm: float | None = None
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        _check_types(self)
        for name in ("lr", "epochs", "warmup_epochs", "momentum", "weight_decay", "lr_start", "lr_end"):
            if not 0 <= getattr(self, name) < math.inf:
                raise RecipeError(f"optim: {name}={getattr(self, name)} must be finite and not negative")
        if self.lr == 0:
            raise RecipeError("optim: lr=0 would learn nothing")
        if self.momentum >= 1:
            raise RecipeError(f"optim: momentum={self.momentum} must be below 1")
        if not 0 <= self.warmup_epochs <= self.epochs or self.epochs <= 0:
            raise RecipeError(f"optim: warmup_epochs={self.warmup_epochs} must lie between 0 and epochs={self.epochs}")
        if not 0 <= self.label_smoothing < 1:
            raise RecipeError(f"optim: label_smoothing={self.label_smoothing} must be at least 0 and below 1")
        if not 0 < self.layer_decay <= 1:
            raise RecipeError(f"optim: layer_decay={self.layer_decay} must be above 0 and at most 1")
        if self.accumulate < 1:
            raise RecipeError(f"optim: accumulate={self.accumulate} must be at least 1")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise RecipeError(f"optim: ema_decay={self.ema_decay} must lie between 0 and 1; None means no averaging")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise RecipeError(f"optim: clip_norm={self.clip_norm} must be positive; None means no limit")


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Where and how often.

    Args:
        out: the run folder; `runs/<recipe>-<time>` where None.
        seed: of the weights and of all draws.
        device: where to compute.
        precision: of the network's arithmetic.
        cpu_threads: of a training step on a CPU; None leaves torch's choice, all cores. A small network is as fast on
            one, and leaves the others to the workers that read. Evaluations always use torch's choice.
        evaluate_every_epochs: passes between evaluations; the last step always evaluates.
        keep: which weights become the artefact: the `best` by `metric` on the evaluated split, or the `last`. Choosing
            the best on a test split would flatter it.
        metric: by which evaluations are ranked, as `kinema evaluate` names it; of several task heads `top1` is that of
            all of them together.
        patience: evaluations without a better one after which a training stops early; None for never.
        checkpoint_every_steps: beside those of the evaluations; None for those alone.
        keep_every_epochs: passes between checkpoints that are kept for good; None for the last and the best alone.
        init: a run, an artefact or a file of weights to start from, a folder that transformers wrote, or
            `hf:owner/name` of Hugging Face's hub; task heads of other classes start anew.
        init_unmatched: whether that file may lack weights, or have others: `refuse` or `allow`.
        init_blocks: of ViT's weights: numbers of the blocks, from 0, for the network's blocks that see patches, in
            order, and further ones for those that see frames; the first ones where none is named.
        init_ignore: of ViT's weights: how names begin that are not ViT's and may be in the file: `dist_token`.
        init_calibration_batches: training batches on which BatchNorm of CTN's mapping is set before the first step, so
            that training begins with the function of the loaded weights; None for not at all.
        freeze: parts that stay as they are: `backbone` for all but the task heads, or names such as `blocks.0`.
        activations: `keep` them for the backward pass, or `recompute` those of each block, for less memory.
        compiled: how torch.compile treats the network; `no` leaves it as it is.
        strategy: of several processes, which torchrun or SLURM starts: `ddp`, each has the whole network; `fsdp`, each
            has a part of its weights, for networks that are too large for one device.
        loggers: further records than the run's own: `csv`, `tensorboard`, `wandb`.
    """

    out: Path | None = None
    seed: int = 0
    device: Device = "auto"
    precision: Precision = "float32"
    cpu_threads: int | None = None
    evaluate_every_epochs: float = 1.0
    keep: Literal["best", "last"] = "best"
    metric: str = "top1"
    patience: int | None = None
    checkpoint_every_steps: int | None = None
    keep_every_epochs: float | None = None
    init: str = ""
    init_unmatched: Literal["refuse", "allow"] = "refuse"
    init_blocks: tuple[int, ...] = ()
    init_ignore: tuple[str, ...] = ()
    init_calibration_batches: int | None = None
    freeze: tuple[str, ...] = ()
    activations: Literal["keep", "recompute"] = "keep"
    compiled: Literal["no", "default", "max-autotune"] = "no"
    strategy: Literal["ddp", "fsdp"] = "ddp"
    loggers: tuple[LoggerName, ...] = ()

    def __post_init__(self) -> None:
        _check_types(self)
        if not 0 < self.evaluate_every_epochs < math.inf:
            raise RecipeError(f"run: evaluate_every_epochs={self.evaluate_every_epochs} must be positive and finite")
        if len(set(self.loggers)) < len(self.loggers):
            raise RecipeError(f"run: loggers={self.loggers} names one twice")
        for name in ("patience", "checkpoint_every_steps", "init_calibration_batches"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise RecipeError(f"run: {name}={getattr(self, name)} must be at least 1")
        if any(number < 0 for number in self.init_blocks):
            raise RecipeError(f"run: init_blocks={self.init_blocks} must not be negative")
        if not all(self.init_ignore):
            raise RecipeError(f"run: init_ignore={self.init_ignore} has an empty word, with which every name begins")
        if self.keep_every_epochs is not None and not 0 < self.keep_every_epochs < math.inf:
            raise RecipeError(f"run: keep_every_epochs={self.keep_every_epochs} must be positive and finite")
        if not 0 <= self.seed < 2**32:
            raise RecipeError(f"run: seed={self.seed} must lie between 0 and 2**32 - 1")
        if self.cpu_threads is not None and self.cpu_threads < 1:
            raise RecipeError(f"run: cpu_threads={self.cpu_threads} must be at least 1; None leaves torch's choice")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Every number of a run; what cannot be is refused here.

    Args:
        clip: what the model sees.
        data: which samples.
        model: the network's config; classes come from the manifest, frames and size from `clip`.
        optim: how the weights move.
        run: where and how often.
    """

    clip: Clip
    data: Data
    model: ModelConfig
    optim: Optim
    run: RunSettings = field(default_factory=RunSettings)

    def __post_init__(self) -> None:
        if self.data.batch_size % self.optim.accumulate:
            raise RecipeError(
                f"data: batch_size={self.data.batch_size} does not divide into "
                f"optim.accumulate={self.optim.accumulate} equal parts"
            )
        if self.run.strategy == "fsdp" and (self.optim.ema_decay is not None or self.run.compiled != "no"):
            raise RecipeError("run: strategy=fsdp goes without optim.ema_decay and run.compiled; neither was tried")
        try:
            preprocessing = self.clip.preprocessing(None)
            self.clip.frame_sampling()
            for channels in preprocessing.channels.values():
                self.model.check_clip(channels=channels, frames=self.clip.frames, size=self.clip.size)
        except ValueError as error:
            raise RecipeError(f"clip: {error}") from error

    def open_manifest(self) -> Manifest:
        """The manifest that the recipe names.

        Raises:
            RecipeError: it names none, or a modality is wanted that no sample has.
            ManifestError: it cannot be read.
        """
        if not self.data.manifest:
            raise RecipeError("data.manifest is not set; `kinema prepare` makes one: --data.manifest mine.csv")
        manifest = load_manifest(self.data.manifest)
        self._check_modalities(manifest)
        self._check_flip(manifest)
        return manifest

    def _check_flip(self, manifest: Manifest) -> None:
        if self.data.augmentation.flip == 0:
            return
        for names in manifest.classes.values():
            pair = mirrored_pair(names)
            if pair is not None:
                raise RecipeError(
                    f"data: augmentation.flip={self.data.augmentation.flip} would turn {pair[0]!r} into {pair[1]!r} of "
                    f"{manifest.path}; set --data.augmentation.flip 0"
                )

    def _check_modalities(self, manifest: Manifest) -> None:
        for modality in self.clip.preprocessing(manifest.depth).files:
            if not any(entry.source(modality) for entry in manifest.entries):
                there = [m for m in MODALITIES if any(entry.source(m) for entry in manifest.entries)]
                wants = "modalities" if modality in self.clip.modalities else "subject_margin"
                raise RecipeError(f"clip.{wants} wants {modality}, but {manifest.path} has only {', '.join(there)}")


def recipe_names() -> list[str]:
    """The shipped recipes; those of a table are called table/row."""
    names: list[str] = []
    for shipped in _shipped():
        rows = getattr(importlib.import_module(f"kinema.recipes.{shipped}"), "RECIPES", None)
        names += [shipped] if rows is None else [f"{shipped}/{row}" for row in rows]
    return sorted(names)


def recipes_in_short() -> str:
    """What a message lists: the shipped recipes, of tables and figures only how many rows they have."""
    names, rows = [], []
    for shipped, of_table in itertools.groupby(recipe_names(), key=lambda name: name.partition("/")[0]):
        count = len(list(of_table))
        if shipped in recipe_names():
            names.append(shipped)
        else:
            rows.append(f"{shipped} ({count})")
    return f"{', '.join(names)}; rows of {', '.join(rows)}, which `kinema train {rows[0].split()[0]}` lists"


def load_recipe(name_or_path: str | Path) -> Recipe:
    """A shipped recipe by name, the row of a table by `table/row`, or `RECIPE` of a Python file, which is executed.

    Raises:
        RecipeError: there is none, or it holds no recipe.
    """
    name = str(name_or_path)
    shipped, _, row = name.partition("/")
    if name.endswith(".py"):
        recipe = getattr(_module_from_file(Path(name)), "RECIPE", None)
    elif shipped in _shipped():
        module = importlib.import_module(f"kinema.recipes.{shipped}")
        recipe = module.RECIPES.get(row) if hasattr(module, "RECIPES") else None if row else module.RECIPE
    else:
        recipe = None
    if recipe is None and not row and any(known.startswith(f"{name}/") for known in recipe_names()):
        rows = ", ".join(known for known in recipe_names() if known.startswith(f"{name}/"))
        raise RecipeError(f"{name} has several rows; name one of {rows}")
    if recipe is None and not name.endswith(".py"):
        near = difflib.get_close_matches(name, recipe_names(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {recipes_in_short()}, or a .py file"
        raise RecipeError(f"unknown recipe {name!r}; {hint}")
    if not isinstance(recipe, Recipe):
        raise RecipeError(f"{name}: holds no constant RECIPE of type kinema.Recipe")
    return recipe


def _shipped() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(kinema.recipes.__path__)]


def recipe_to_json(recipe: Recipe) -> str:
    said = asdict(recipe)
    said["model"] = to_json(recipe.model)
    return json.dumps(said, indent=2, default=str) + "\n"


def recipe_from_json(text: str) -> Recipe:
    """What `recipe_to_json` wrote.

    Raises:
        RecipeError: it is something else.
    """
    converter = cattrs.Converter(forbid_extra_keys=True)

    def model(said: Mapping[str, Any], _: object) -> ModelConfig:
        return config_from_json(said)

    converter.register_structure_hook_func(lambda kind: kind == ModelConfig, model)
    try:
        said = json.loads(text)
        said["optim"].setdefault("decay", "all")  # as it was before there was a choice
        return converter.structure(said, Recipe)
    except cattrs.BaseValidationError as error:
        reasons = "; ".join(cattrs.transform_error(error, path="recipe", format_exception=_reason))
        raise RecipeError(f"is no recipe of this kinema ({reasons})") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecipeError(f"is no recipe of this kinema ({error})") from error


def _reason(error: BaseException, kind: Any) -> str:
    return str(error) if isinstance(error, RecipeError) else format_exception(error, kind)


def _module_from_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise RecipeError(f"{path}: no such recipe file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever is wrong in the user's file is to be said of that file
        trace = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = error.lineno if isinstance(error, SyntaxError) else trace[-1] if trace else "?"
        raise RecipeError(f"{path}, line {line}: {type(error).__name__}: {error}") from error
    return module
