"""Recipe: every setting of a run, as a typed and frozen config, and the recipes that kinema ships.

A module of `kinema.recipes` defines `RECIPE`, or `RECIPES` by name for the rows of a table. A recipe is code: load only
files that you trust.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from statistics import median_low
from typing import Annotated, Literal

from pydantic import Field

from kinema.config import Count, NonNegative, Pixels, Positive, config
from kinema.data.loaders import MAX_WORKERS
from kinema.data.manifest import Manifest, load_manifest
from kinema.data.mirrored import exchanged_pair
from kinema.errors import ConfigError, RecipeError
from kinema.inference.engine import Device, Precision
from kinema.modality import MODALITIES, DepthEncoding, DepthFacts, Modality
from kinema.models.registry import ModelConfig
from kinema.training.recipe_modules import execute, import_shipped, line_of, names_in, shipped_modules
from kinema.transforms.augment import Augmentation as Augmentation
from kinema.transforms.geometry import Rounding
from kinema.transforms.preprocessing import DepthColors, Preprocessing, SubjectCrop
from kinema.transforms.sampling import Frames, NumClips, Sampling, SamplingRule, Seconds, TestFrame, TrainFrames
from kinema.video.read_options import ReadOptions

LoggerName = Literal["csv", "tensorboard", "wandb"]


@config
class Clip:
    """Frames, size and modalities of the clips.

    Attributes:
        frames: Number of frames per clip.
        size: Side of the square clip [px].
        short_side: Shorter side of a frame after resizing and before cropping [px].
        modalities: `rgb`, `depth`, or both.
        depth_channels: Number of depth channels.
        depth_colors: Content of three depth channels: `gray` repeats one channel, `jet` applies the JET color map.
        sampling: Rule that samples the frames of a clip.
        interval: Distance between sampled frames, for rules that have one [frames].
        interval_s: The same distance in seconds, in place of `interval`.
        rate: Frame rate that `interval` counts in [1/s], so that it is the same time in every file. `auto` takes the
            median of the training files. `any` counts the frames of each file, whatever their rate.
        test_frame: Frame of a segment at test time: the `mean` of its frame numbers, or `tsn`, TSN's rule.
        train_frames: Frames of a training clip: `drawn` where the rule leaves a choice, or `as-tested`.
        mean: Mean of each RGB channel, with values from 0 to 1. None takes that of the initial weights, or 0.5.
        std: Standard deviation of each RGB channel. None takes that of the initial weights, or 0.5.
        depth_std: Standard deviation of depth, with values from 0 to 1.
        clips: Number of clips per video at test time. Training draws one.
        crops: Number of crops per clip at test time: 1 (center) or 3 (along the longer side). Training draws one.
        subject_margin: Crop all modalities to the person in masked depth, plus this share of the box on each side. None
            keeps the full frame.
        rounding: Rounding of the resized longer side and of the crop's edges: `half-up` or `torchvision`.
    """

    frames: Frames
    size: Pixels
    short_side: Pixels
    modalities: tuple[Modality, ...] = ("rgb",)
    depth_channels: Literal[1, 3] = 1
    depth_colors: DepthColors = "gray"
    sampling: SamplingRule = "segments"
    interval: Count | None = None
    interval_s: Seconds | None = None
    rate: Positive | Literal["auto", "any"] = "auto"
    test_frame: TestFrame = "mean"
    train_frames: TrainFrames = "drawn"
    mean: tuple[float, float, float] | None = None
    std: tuple[Positive, Positive, Positive] | None = None
    depth_std: Positive = 0.5
    clips: NumClips = 1
    crops: Literal[1, 3] = 1
    subject_margin: NonNegative | None = None
    rounding: Rounding = "half-up"

    def preprocessing(self, depth: DepthFacts | None, encoding: DepthEncoding | None = None) -> Preprocessing:
        """Return the preprocessing for data with this depth, in color formats by its encoding.

        Raises:
            RecipeError: The subject crop needs masked depth, and this depth is not masked.
        """
        subject = None if self.subject_margin is None else SubjectCrop(margin=self.subject_margin)
        if subject is not None and depth is not None and depth.coverage != "masked":
            raise RecipeError(
                f"clip.subject_margin={self.subject_margin}: needs masked depth; the manifest has {depth.coverage} "
                "depth. Remove clip.subject_margin.",
                field="clip.subject_margin",
            )
        reads_depth = subject is not None or "depth" in self.modalities
        return Preprocessing(
            modalities=self.modalities,
            short_side=self.short_side,
            size=self.size,
            mean=self.mean or (0.5, 0.5, 0.5),
            std=self.std or (0.5, 0.5, 0.5),
            depth_std=self.depth_std,
            depth=depth if reads_depth else None,
            depth_encoding=encoding if reads_depth else None,
            depth_channels=self.depth_channels,
            depth_colors=self.depth_colors,
            crops=self.crops,
            subject=subject,
            rounding=self.rounding,
        )

    def frame_sampling(self, rates: Sequence[float] = ()) -> Sampling:
        """Return the sampling of the frames, for training files of these known frame rates [1/s]."""
        median = median_low(rates) if rates else None
        rate = None if self.rate == "any" else median if self.rate == "auto" else self.rate
        return Sampling(
            rule=self.sampling,
            frames=self.frames,
            interval=self.interval,
            interval_s=self.interval_s,
            rate=None if self.interval is None else rate,
            clips=self.clips,
            test_frame=self.test_frame,
            train_frames=self.train_frames,
        )


@config
class Data:
    """Samples, batches and augmentation.

    Attributes:
        manifest: Path of a manifest CSV, or name of a built-in one.
        train: Split to train on.
        evaluate: Split to evaluate on.
        batch_size: Number of clips per batch, in training and evaluation.
        workers: Number of reader processes. Results do not depend on it.
        augmentation: Augmentation of training clips.
        unreadable: Action for a training sample that cannot be read: `stop`, or `skip` and log it. Evaluations stop.
        duplicates: Action for copies of training samples in the evaluation split or in `test`: `refuse` or `allow`.
        balance: Correction of class imbalance: `sampler` draws all classes of the first task head equally often, `loss`
            weights classes by inverse frequency in every task head.
        read_options: Backend and limits for reading files.
    """

    manifest: str = ""
    train: str = "train"
    evaluate: str = "val"
    batch_size: Annotated[int, Field(gt=0, le=2**20)] = 16
    workers: Annotated[int, Field(ge=0, le=MAX_WORKERS)] = 1
    augmentation: Augmentation = Augmentation()
    unreadable: Literal["stop", "skip"] = "stop"
    duplicates: Literal["refuse", "allow"] = "refuse"
    balance: Literal["none", "sampler", "loss"] = "none"
    read_options: ReadOptions = ReadOptions()

    def __post_init__(self) -> None:
        if self.train == self.evaluate:
            raise ConfigError(
                f"train and evaluate are both split {self.train!r}; expected two splits", field="evaluate"
            )


@config
class Optim:
    """Optimizer and learning-rate schedule settings.

    Attributes:
        optimizer: `sgd` (with momentum, no Nesterov) or `adamw`.
        lr: Peak learning rate. It is not rescaled with the batch size.
        lr_start: Learning rate at the start of the warm-up, as a share of `lr`.
        lr_end: Learning rate at the end of the cosine decay, as a share of `lr`.
        momentum: Momentum of SGD.
        weight_decay: Weight decay, decoupled for AdamW.
        decay: Parameters to decay: `matrices`, or `all` (norms, biases and tables too).
        layer_decay: Factor on the learning rate for each layer farther from the task heads.
        grad_accum_steps: Number of micro-batches that `data.batch_size` is split into to save memory. BatchNorm sees
            micro-batches.
        ema_decay: Decay of the moving average of the weights, which is then evaluated and shipped. After n updates it
            is at most (1 + n) / (10 + n), so that short runs average, too. None for no EMA.
        epochs: Number of epochs.
        warmup_epochs: Number of epochs of linear warm-up.
        max_grad_norm: Maximum norm of the gradient. None for no clipping.
        label_smoothing: Share of each target spread over all classes.
    """

    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: Positive
    lr_start: NonNegative = 0.01
    lr_end: NonNegative = 0.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: NonNegative = 0.0
    decay: Literal["matrices", "all"] = "matrices"
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    grad_accum_steps: Count = 1
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    epochs: Annotated[float, Field(gt=0, le=1e6)]
    warmup_epochs: NonNegative = 0.0
    max_grad_norm: Annotated[float, Field(gt=0, allow_inf_nan=True)] | None = None
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def __post_init__(self) -> None:
        if self.warmup_epochs > self.epochs:
            raise ConfigError(
                f"warmup_epochs={self.warmup_epochs}; expected at most epochs ({self.epochs})", field="warmup_epochs"
            )


@config
class Init:
    """Initial weights and frozen parts.

    Attributes:
        weights: Run, model folder, file of weights, folder written by transformers, or `hf:owner/name` on the Hugging
            Face Hub, of a revision with `@revision`. Task heads for other classes are reset. Empty for random weights.
        unmatched: Action for missing or unexpected weights: `refuse` or `allow`.
        blocks: For ViT weights: numbers of the blocks to load, from 0, first for the network's spatial blocks, then for
            its temporal ones. Empty takes the first ones.
        ignore: For ViT weights: prefixes of tensors to ignore, such as `dist_token`.
        calibration_batches: Number of training batches to calibrate BatchNorm of CTN's mappings on before the first
            step, so that training starts from the function of the loaded weights. None for no calibration.
        freeze: Parts to freeze: `backbone` (all but the task heads), or names such as `blocks.0`.
    """

    weights: str = ""
    unmatched: Literal["refuse", "allow"] = "refuse"
    blocks: tuple[Annotated[int, Field(ge=0)], ...] = ()
    ignore: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    calibration_batches: Count | None = None
    freeze: tuple[str, ...] = ()


@config
class Checkpoint:
    """Checkpoint intervals and the choice of the shipped weights.

    Attributes:
        every: Number of steps between checkpoints, in addition to one per evaluation.
        keep_every_epochs: Number of epochs between permanent checkpoints. None keeps only the last and the best.
        keep: Weights to ship: the `best` by `metric` on the evaluation split, or the `last`. On a test split, use
            `last`: choosing the best inflates its accuracy.
        metric: Metric that ranks evaluations. With several task heads, `top1` counts samples with every head correct.
    """

    every: Count | None = None
    keep_every_epochs: Positive | None = None
    keep: Literal["best", "last"] = "best"
    metric: str = "top1"


@config
class Compute:
    """Device, precision and parallelism.

    Attributes:
        device: Device to train on.
        precision: Precision of the network's arithmetic.
        cpu_threads: Number of CPU threads of a training step. None uses all cores. Small networks are as fast on one,
            which leaves the others to the workers. Evaluations use all cores.
        activation_checkpointing: Recompute the activations of each block in the backward pass to save memory.
        compile: Mode of torch.compile; `no` does not compile.
        strategy: Strategy for several processes started by torchrun or SLURM: `ddp` copies the network, `fsdp` shards
            its weights for networks too large for one device.
    """

    device: Device = "auto"
    precision: Precision = "float32"
    cpu_threads: Annotated[int, Field(gt=0, le=1024)] | None = None
    activation_checkpointing: bool = False
    compile: Literal["no", "default", "max-autotune"] = "no"
    strategy: Literal["ddp", "fsdp"] = "ddp"


@config
class RunSettings:
    """Output folder, seed, evaluations and loggers.

    Attributes:
        out: Run folder (`runs/<recipe>-<time>` if None).
        seed: Seed of the initial weights and of all random draws.
        evaluate_every_epochs: Number of epochs between evaluations. The last step is always evaluated.
        patience: Number of evaluations without improvement before training stops. None never stops early.
        loggers: Additional loggers.
    """

    out: Path | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    evaluate_every_epochs: Positive = 1.0
    patience: Count | None = None
    loggers: tuple[LoggerName, ...] = ()

    def __post_init__(self) -> None:
        if len(set(self.loggers)) < len(self.loggers):
            raise ConfigError(f"loggers={self.loggers}: duplicate logger", field="loggers")


@config
class Recipe:
    """Every setting of a run. Contradictory settings are refused.

    Attributes:
        clip: Frames, size and modalities of the clips.
        data: Samples, batches and augmentation.
        model: Config of the network. Classes come from the manifest, frames and size from `clip`.
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
                f"data.batch_size={self.data.batch_size}; expected a multiple of "
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
        """Load the manifest and check that it fits the recipe.

        Raises:
            RecipeError: No manifest is set, a modality has no sample, or mirroring would swap two classes.
            ManifestError: The manifest cannot be read.
        """
        if not self.data.manifest:
            raise RecipeError(
                "data.manifest is not set. Make a manifest with `kinema prepare` and pass --data.manifest mine.csv.",
                field="data.manifest",
            )
        manifest = load_manifest(self.data.manifest)
        path, flip = manifest.path, self.data.augmentation.flip
        available = [m for m in MODALITIES if any(entry.source(m) for entry in manifest.entries)]
        for modality in self.clip.preprocessing(manifest.depth).files:
            if modality not in available:
                field = "clip.modalities" if modality in self.clip.modalities else "clip.subject_margin"
                raise RecipeError(
                    f"{path}: no sample has {modality}, which {field} needs; the manifest has {', '.join(available)}",
                    path=path,
                    field=field,
                )
        pair = exchanged_pair(manifest)
        if flip and pair:
            raise RecipeError(
                f"data.augmentation.flip={flip}: mirroring turns class {pair[0]!r} into {pair[1]!r} of {path}. Set "
                "--data.augmentation.flip 0.",
                path=path,
                field="data.augmentation.flip",
            )
        return manifest


def recipe_names() -> list[str]:
    """Return the names of the shipped recipes, as `table/row` for the rows of a table."""
    return sorted(name for module in shipped_modules() for name in names_in(module))


def summarize_recipe_names() -> str:
    """Return the recipes that exist for a message, with the number of rows of each table."""
    modules = {module: names_in(module) for module in shipped_modules()}
    tables = {module: len(names) for module, names in modules.items() if names != [module]}
    single = [module for module in modules if module not in tables]
    counts = ", ".join(f"{table} ({rows})" for table, rows in tables.items())
    return f"{', '.join(single)}; rows of {counts}; or a .py file. `kinema train --list` describes them"


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Load a shipped recipe (`name` or `table/row`), or `RECIPE` of a Python file, which is executed.

    Raises:
        RecipeError: The recipe does not exist, or the file does not define one.
    """
    name = str(name_or_path)
    module, _, row = name.partition("/")
    if name.endswith(".py"):
        path = Path(name)
        recipe = getattr(execute(path), "RECIPE", None)
        if not isinstance(recipe, Recipe):
            line = line_of(path, "RECIPE")
            got = f"line {line}: RECIPE is {type(recipe).__name__}" if line else "no constant RECIPE"
            raise RecipeError(f"{path}, {got}; expected RECIPE = kinema.Recipe(...)", path=path, line=line)
        return recipe
    names = names_in(module) if module in shipped_modules() else []
    if name in names:
        content = import_shipped(module)
        shipped: Recipe = content.RECIPES[row] if row else content.RECIPE
        return shipped
    if names not in ([], [module]) and not row:
        raise RecipeError(f"{name}: a table of several recipes. Choose one of {', '.join(names)}.", field="recipe")
    near = difflib.get_close_matches(name, recipe_names(), n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"Available: {summarize_recipe_names()}."
    raise RecipeError(f"unknown recipe {name!r}. {hint}", field="recipe")
