"""A recipe: every number of a run. Typed, frozen and printable; no default hides in the training loop.

A shipped recipe is a module of `kinema.recipes` that holds one constant, `RECIPE`; one that holds the rows of a table
has `RECIPES` by their names. A recipe is Python and therefore code: load only those that you trust.
"""

import difflib
import importlib.util
import itertools
import pkgutil
import traceback
from pathlib import Path
from types import ModuleType
from typing import Annotated, Literal

from pydantic import Field, PositiveInt

import kinema.recipes
from kinema.config import config
from kinema.data.manifest import Manifest, load_manifest
from kinema.errors import ConfigError, RecipeError
from kinema.inference.engine import Device, Precision
from kinema.modality import MODALITIES, DepthFacts, Modality
from kinema.models.registry import ModelConfig
from kinema.transforms.augment import Augmentation as Augmentation
from kinema.transforms.mirroring import mirrored_pair
from kinema.transforms.preprocessing import DepthColors, Preprocessing, SubjectCrop
from kinema.transforms.sampling import Sampling, SamplingRule
from kinema.video.read_options import ReadOptions

LoggerName = Literal["csv", "tensorboard", "wandb"]
Finite = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveFinite = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@config
class Clip:
    """Frames, size and modalities of the clips that the model gets.

    Args:
        frames: Number of frames per clip.
        size: Side of the square clip [px].
        short_side: Shorter side of a frame after resizing, before the square is cropped [px].
        modalities: `rgb`, `depth`, or both.
        depth_channels: Channels of depth, 1 or 3.
        depth_colors: Content of three depth channels: `gray` repeats the one channel, `jet` maps it by the JET map.
        sampling: Rule that picks the frames of a clip from a video.
        interval: Frames from one sampled frame to the next, for the rules that have an interval.
        mean: Mean of RGB values between 0 and 1.
        std: Standard deviation of RGB values between 0 and 1.
        clips: Number of test views over time. Training draws one.
        crops: Number of test views in space: 1, the center, or 3, also both ends of the longer side. Training
            draws one.
        subject_margin: Crop all modalities to the person in masked depth, with this share of the box's height and width
            added on each side. None keeps the full frame.
    """

    frames: int
    size: int
    short_side: int
    modalities: tuple[Modality, ...] = ("rgb",)
    depth_channels: Literal[1, 3] = 1
    depth_colors: DepthColors = "gray"
    sampling: SamplingRule = "segments"
    interval: int | None = None
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    clips: int = 1
    crops: Literal[1, 3] = 1
    subject_margin: float | None = None

    def preprocessing(self, depth: DepthFacts | None) -> Preprocessing:
        """Return the preprocessing of all clips, for data whose depth is described by `depth`.

        Raises:
            RecipeError: the subject crop needs masked depth, and this depth is not masked.
        """
        subject = None if self.subject_margin is None else SubjectCrop(margin=self.subject_margin)
        if subject is not None and depth is not None and depth.coverage != "masked":
            raise RecipeError(
                f"clip.subject_margin={self.subject_margin} needs masked depth, but the depth of the manifest is "
                f"{depth.coverage}; remove clip.subject_margin",
                field="clip.subject_margin",
            )
        return Preprocessing(
            modalities=self.modalities,
            short_side=self.short_side,
            size=self.size,
            mean=self.mean,
            std=self.std,
            depth=depth if subject is not None or "depth" in self.modalities else None,
            depth_channels=self.depth_channels,
            depth_colors=self.depth_colors,
            crops=self.crops,
            subject=subject,
        )

    def frame_sampling(self) -> Sampling:
        """Return the rule that samples the frames."""
        return Sampling(rule=self.sampling, frames=self.frames, interval=self.interval, clips=self.clips)


@config
class Data:
    """Samples, batches and augmentation.

    Args:
        manifest: A manifest's CSV, or the name of a built-in one. Empty if the recipe is for the user's own data.
        train: Split to train on.
        evaluate: Split to evaluate on.
        batch_size: Clips per batch, in training and evaluation.
        workers: Number of reader processes. It changes the speed alone.
        augmentation: Augmentation of training clips.
        unreadable: Action when a training sample cannot be read: `stop`, or `skip` and log it. Evaluations always stop.
        balance: Correction for classes of unequal size: `sampler` draws the classes of the first task head equally
            often, `loss` weights rare classes more, in every task head.
        read_options: Backend and limits for reading files.
    """

    manifest: str = ""
    train: str = "train"
    evaluate: str = "val"
    batch_size: PositiveInt = 16
    workers: Annotated[int, Field(ge=0)] = 1
    augmentation: Augmentation = Augmentation()
    unreadable: Literal["stop", "skip"] = "stop"
    balance: Literal["none", "sampler", "loss"] = "none"
    read_options: ReadOptions = ReadOptions()

    def __post_init__(self) -> None:
        if self.train == self.evaluate:
            raise ConfigError(f"train and evaluate are the same split, {self.train!r}", field="evaluate")


@config
class Optim:
    """Optimizer and learning-rate schedule settings.

    Args:
        optimizer: `sgd` (momentum without Nesterov) or `adamw`.
        lr: Peak learning rate, at the batch size of the recipe. It is never rescaled.
        lr_start: Learning rate at the start of the warm-up, as a share of `lr`.
        lr_end: Learning rate at the end of the cosine, as a share of `lr`.
        momentum: Momentum of SGD.
        weight_decay: Weight decay: added to the gradient by SGD, decoupled in AdamW.
        decay: Parameters to decay: `matrices` alone, or norms, biases and tables too (`all`).
        layer_decay: Factor on the learning rate per layer between a parameter and the task heads. 1 for none.
        grad_accum_steps: Number of micro-batches per step, run one after the other to save memory. The batch stays
            `data.batch_size`. BatchNorm sees micro-batches.
        ema_decay: Decay of the exponential moving average of the weights. None for no averaging. Averaged weights,
            if any, are evaluated and shipped.
        epochs: Passes over the training samples.
        warmup_epochs: Passes with a linearly growing learning rate.
        max_grad_norm: Maximum norm of the whole gradient. None for no clipping.
        label_smoothing: Share of each target that is spread over all classes.
    """

    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: PositiveFinite
    lr_start: Finite = 0.01
    lr_end: Finite = 0.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Finite = 0.0
    decay: Literal["matrices", "all"] = "matrices"
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    grad_accum_steps: PositiveInt = 1
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    epochs: PositiveFinite
    warmup_epochs: Finite = 0.0
    max_grad_norm: Annotated[float, Field(gt=0)] | None = None
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def __post_init__(self) -> None:
        if self.warmup_epochs > self.epochs:
            raise ConfigError(
                f"warmup_epochs={self.warmup_epochs}; expected at most epochs={self.epochs}", field="warmup_epochs"
            )


@config
class Init:
    """Initial weights and frozen parts.

    Args:
        weights: A run, a model folder, a file of weights, a folder written by transformers, or `hf:owner/name` on the
            Hugging Face hub. Task heads with other classes are initialized anew. Empty for random weights.
        unmatched: Action when the file lacks weights of the network or has others: `refuse` or `allow`.
        blocks: For ViT weights: numbers of the blocks to load, from 0, first for the network's blocks that see patches,
            then for those that see frames. Empty takes the first ones.
        ignore: For ViT weights: prefixes of names in the file that are not ViT's, such as `dist_token`.
        calibration_batches: Number of training batches that set BatchNorm of CTN's mapping before the first step, so
            that training starts with the function of the loaded weights. None for no calibration.
        freeze: Parts to freeze: `backbone` for everything but the task heads, or names such as `blocks.0`.
    """

    weights: str = ""
    unmatched: Literal["refuse", "allow"] = "refuse"
    blocks: tuple[Annotated[int, Field(ge=0)], ...] = ()
    ignore: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    calibration_batches: PositiveInt | None = None
    freeze: tuple[str, ...] = ()


@config
class Checkpoint:
    """Checkpoints: what is saved, how often, and which weights are shipped.

    Args:
        every: Steps between checkpoints, in addition to those at evaluations. None for those alone.
        keep_every_epochs: Passes between checkpoints that are kept for good. None keeps the last and the best alone.
        keep: Weights to ship: the `best` by `metric` on the evaluation split, or the `last`. Choosing the best on a
            test split would flatter it.
        metric: Metric that ranks evaluations, as named by `kinema evaluate`. With several task heads, `top1` is that of
            all of them together.
    """

    every: PositiveInt | None = None
    keep_every_epochs: PositiveFinite | None = None
    keep: Literal["best", "last"] = "best"
    metric: str = "top1"


@config
class Compute:
    """Device, precision and parallelism.

    Args:
        device: Device to train on.
        precision: Precision of the network's arithmetic.
        cpu_threads: Threads of a training step on a CPU. None uses all cores. A small network is as fast on one, and
            leaves the others to the workers. Evaluations always use all cores.
        activation_checkpointing: Recompute the activations of each block in the backward pass, to save memory.
        compile: Mode of torch.compile. `no` leaves the network as it is.
        strategy: Strategy over several processes, started by torchrun or SLURM: `ddp` gives each the whole network,
            `fsdp` a shard of the weights, for networks that are too large for one device.
    """

    device: Device = "auto"
    precision: Precision = "float32"
    cpu_threads: PositiveInt | None = None
    activation_checkpointing: bool = False
    compile: Literal["no", "default", "max-autotune"] = "no"
    strategy: Literal["ddp", "fsdp"] = "ddp"


@config
class RunSettings:
    """Output folder, seed, evaluations and loggers.

    Args:
        out: Run folder. None for `runs/<recipe>-<time>`.
        seed: Seed of the weights and of all random draws.
        evaluate_every_epochs: Passes between evaluations. The last step is always followed by one.
        patience: Number of evaluations without a better one after which training stops early. None for never.
        loggers: Loggers in addition to the run's own files: `csv`, `tensorboard`, `wandb`.
    """

    out: Path | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    evaluate_every_epochs: PositiveFinite = 1.0
    patience: PositiveInt | None = None
    loggers: tuple[LoggerName, ...] = ()

    def __post_init__(self) -> None:
        if len(set(self.loggers)) < len(self.loggers):
            raise ConfigError(f"loggers={self.loggers} names a logger twice", field="loggers")


@config
class Recipe:
    """Every setting of a run. Settings that contradict each other are refused when it is built.

    Args:
        clip: Clips that the model gets.
        data: Samples, batches and augmentation.
        model: Config of the network. Its classes come from the manifest, frames and size from `clip`.
        optim: Optimizer and learning-rate schedule.
        init: Initial weights and frozen parts.
        checkpoint: Checkpoints and shipped weights.
        compute: Device, precision and parallelism.
        run: Output folder, seed, evaluations and loggers.
    """

    clip: Clip
    data: Data
    model: ModelConfig
    optim: Optim
    init: Init = Init()
    checkpoint: Checkpoint = Checkpoint()
    compute: Compute = Compute()
    run: RunSettings = RunSettings()

    def __post_init__(self) -> None:
        if self.data.batch_size % self.optim.grad_accum_steps:
            raise ConfigError(
                f"data.batch_size={self.data.batch_size} is not divisible by "
                f"optim.grad_accum_steps={self.optim.grad_accum_steps}",
                field="data.batch_size",
            )
        if self.compute.strategy == "fsdp" and (self.optim.ema_decay is not None or self.compute.compile != "no"):
            raise ConfigError(
                "compute.strategy='fsdp' cannot be combined with optim.ema_decay or compute.compile",
                field="compute.strategy",
            )
        preprocessing = self.clip.preprocessing(None)
        self.clip.frame_sampling()
        for channels in preprocessing.channels.values():
            self.model.check_clip(channels=channels, frames=self.clip.frames, size=self.clip.size)

    def open_manifest(self) -> Manifest:
        """Load the manifest.

        Raises:
            RecipeError: the recipe has none, or needs a modality that no sample has.
            ManifestError: it cannot be read.
        """
        if not self.data.manifest:
            raise RecipeError(
                "data.manifest is not set; make one with `kinema prepare` and pass --data.manifest mine.csv",
                field="data.manifest",
            )
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
                    f"data.augmentation.flip={self.data.augmentation.flip} turns class {pair[0]!r} into {pair[1]!r} of "
                    f"{manifest.path}; set --data.augmentation.flip 0",
                    path=manifest.path,
                    field="data.augmentation.flip",
                )

    def _check_modalities(self, manifest: Manifest) -> None:
        for modality in self.clip.preprocessing(manifest.depth).files:
            if not any(entry.source(modality) for entry in manifest.entries):
                found = [m for m in MODALITIES if any(entry.source(m) for entry in manifest.entries)]
                field = "clip.modalities" if modality in self.clip.modalities else "clip.subject_margin"
                raise RecipeError(
                    f"{field} needs {modality}, but {manifest.path} has only {', '.join(found)}",
                    path=manifest.path,
                    field=field,
                )


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
        raise RecipeError(f"{name}: no constant RECIPE of type kinema.Recipe", path=name)
    return recipe


def _shipped() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(kinema.recipes.__path__)]


def _module_from_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise RecipeError(f"{path}: no such recipe file", path=path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever is wrong in the user's file is to be said of that file
        trace = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = error.lineno if isinstance(error, SyntaxError) else trace[-1] if trace else None
        raise RecipeError(
            f"{path}, line {line or '?'}: {type(error).__name__}: {error}", path=path, line=line
        ) from error
    return module
