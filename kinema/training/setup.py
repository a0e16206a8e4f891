"""Setup of a training run: recipe, data, processes, network and schedule, built before the first step."""

import logging
import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from importlib.util import find_spec
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from kinema.data.copies import find_copies
from kinema.data.dataset import check_uncounted
from kinema.data.manifest import Manifest
from kinema.data.mirrored import undecided_pairs
from kinema.data.splits import held_out_split
from kinema.datasets.registry import is_public
from kinema.errors import ConfigError, ManifestError, RecipeError, RunError, StreamError, TrainingStopped
from kinema.evaluation.evaluate import check_declared
from kinema.inference.engine import choose_device
from kinema.inference.trained_model import TrainedModel, has_own_network, name_weights, random_start
from kinema.models.binding import InputBinding, input_binding
from kinema.training.distributed import make_fabric, rank
from kinema.training.loggers import check_loggers
from kinema.training.optimizer import class_weights
from kinema.training.recipe import Clip, Recipe
from kinema.training.runs import Run, commit
from kinema.training.schedule import Schedule, check_metric
from kinema.training.weights import with_colors, with_initial_colors
from kinema.transforms.clip_memory import check_clips
from kinema.transforms.preprocessing import Preprocessing
from kinema.transforms.sampling import Sampling

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainingSetup:
    """Constants of a training run, made by `build`.

    `model` is on the CPU. With `is_own` it was passed by the caller. Initialization changes it in place. Positions are
    those of the samples in the manifest. `class_weights` are the weights of the classes in the loss, by task head.
    `commit` is the commit of kinema at the start.
    """

    recipe: Recipe
    manifest: Manifest
    train_positions: list[int]
    eval_positions: list[int]
    run: Run
    fabric: Fabric
    schedule: Schedule
    sampling: Sampling
    preprocessing: Preprocessing
    model: nn.Module
    is_own: bool
    binding: InputBinding
    class_weights: dict[str, Tensor] | None
    commit: str

    @classmethod
    def build(
        cls, recipe: Recipe, run: Run | None = None, *, model: nn.Module | None = None, max_steps: int | None = None
    ) -> "TrainingSetup":
        """Check the recipe against its manifest, join the processes and build the network; arguments as in `train`.

        Raises:
            RecipeError: The recipe does not fit the manifest, the network or the number of processes.
            ManifestError: The manifest cannot be read, or lacks a split or its labels, or its splits have copies.
            UnreadableSample: A sample whose frames `prepare` could not count is unreadable.
            RunError: The run to resume trains a network of the user's own, which is not given.
        """
        if max_steps is not None and max_steps < 1:
            raise RecipeError(f"max_steps={max_steps}; expected at least 1", field="max_steps")
        if model is None and run is not None and run.has_checkpoint and has_own_network(run.path):
            raise RunError(
                f"{run.path}: trains a network of the user's own, which is not stored. Pass --model module:Class, or "
                "model=... in Python.",
                path=run.path,
                field="model",
            )
        check_loggers(recipe.run.loggers)
        check_compiler(recipe)
        manifest = recipe.open_manifest()
        recipe = use_existing_split(recipe, manifest)
        check_metric(recipe, manifest)
        train_positions, eval_positions = select_samples(recipe, manifest)
        if run is None or not run.has_checkpoint:
            check_mirroring(recipe, manifest)
        if rank() == 0 and (run is None or not run.has_checkpoint):
            refuse_copies(recipe, manifest, train_positions)
        clip = run.recipe.clip if run is not None and run.has_checkpoint else None
        recipe = with_initial_colors(recipe) if clip is None else with_colors(recipe, clip.mean, clip.std)
        deinterlace = recipe.data.read_options.deinterlace or "none"
        preprocessing = recipe.clip.preprocessing(manifest.depth, manifest.depth_encoding)
        preprocessing = replace(preprocessing, deinterlace=deinterlace)
        sampling = recipe.clip.frame_sampling(manifest.rates(train_positions))
        with _name_fields():
            check_clips(sampling, preprocessing, batch_size=recipe.data.batch_size)
        run = run or Run.create(recipe, name=Path(recipe.data.manifest).stem)
        fabric = make_fabric(recipe)
        torch.manual_seed(recipe.run.seed)
        network = model or _build_network(recipe, manifest, preprocessing)
        binding = input_binding(network)
        if len(preprocessing.modalities) > len(binding.arguments):
            raise RecipeError(
                f"clip.modalities={preprocessing.modalities}; expected one, because {binding.network} has one stream",
                field="clip.modalities",
            )
        return cls(
            recipe=recipe,
            manifest=manifest,
            train_positions=train_positions,
            eval_positions=eval_positions,
            run=run,
            fabric=fabric,
            schedule=Schedule.from_recipe(recipe, samples=len(train_positions), max_steps=max_steps),
            sampling=sampling,
            preprocessing=preprocessing,
            model=network,
            is_own=model is not None,
            binding=binding,
            class_weights=balance_loss(recipe, manifest, train_positions),
            commit=commit(),
        )

    @property
    def is_first(self) -> bool:
        """True for the first process, which writes and logs for all."""
        return self.fabric.is_global_zero

    @property
    def start_weights(self) -> str:
        """Weights that a new run starts from: their name, or that of random ones."""
        weights = self.recipe.init.weights
        if not weights:
            return "own" if self.is_own else random_start(self.recipe.model)
        return name_weights(weights)

    @property
    def own_eval_positions(self) -> list[int]:
        """Positions of the evaluation samples of this process."""
        return self.eval_positions[self.fabric.global_rank :: self.fabric.world_size]

    def trained_model(self, network: nn.Module) -> TrainedModel:
        """Return a network as a trained model, to be evaluated and shipped."""
        return TrainedModel(
            model=network,
            config=None if self.is_own else self.recipe.model,
            classes=self.manifest.classes,
            sampling=self.sampling,
            preprocessing=self.preprocessing,
            precision=self.recipe.compute.precision,
        )

    @contextmanager
    def training_threads(self) -> Iterator[None]:
        """Use the recipe's number of CPU threads. Evaluations use the default, so that they always round the same."""
        default = torch.get_num_threads()
        torch.set_num_threads(self.recipe.compute.cpu_threads or default)
        try:
            yield
        finally:
            torch.set_num_threads(default)

    def stop_error(self, step: int, signal: int) -> TrainingStopped:
        """Return the error for a run that was stopped by a signal, after its checkpoint was saved."""
        command = f"kinema train --resume {shlex.quote(str(self.run.path))}"
        return TrainingStopped(f"stopped at step {step}. Resume with: {command}", signal)


def check_compiler(recipe: Recipe) -> None:
    """Check that torch.compile finds what it compiles with, before hours of preparation.

    Raises:
        RecipeError: No C++ compiler is found, or no Triton on CUDA.
        DeviceError: The recipe's device is not available.
    """
    if recipe.compute.compile == "no":
        return
    if choose_device(recipe.compute.device).type == "cuda":
        missing = None if find_spec("triton") else "Triton"
    else:
        default = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
        compiler = os.environ.get("CXX", default)
        missing = None if shutil.which(compiler) else f"the C++ compiler {compiler!r}"
    if missing:
        raise RecipeError(
            f"compute.compile={recipe.compute.compile!r}: torch.compile needs {missing}, which is not installed. "
            "Install it, or set --compute.compile no.",
            field="compute.compile",
        )


def use_existing_split(recipe: Recipe, manifest: Manifest) -> Recipe:
    """Return the recipe with the evaluation split that the manifest has: `val` for `test` or the other way round."""
    data = recipe.data
    split = held_out_split(manifest, data.evaluate, train=data.train)
    if split == data.evaluate:
        return recipe
    text = "%s: no split %r; evaluating on %r (--data.evaluate)"
    logger.warning(text, manifest.path, data.evaluate, split)
    return replace(recipe, data=replace(data, evaluate=split))


def select_samples(recipe: Recipe, manifest: Manifest) -> tuple[list[int], list[int]]:
    """Return the positions of the training and the evaluation samples.

    Raises:
        ManifestError: A split is missing, has no labels, or lists fewer or more samples than declared.
        UnreadableSample: A sample whose frames `prepare` could not count is unreadable. If the recipe skips unreadable
            samples, only evaluation samples are checked.
    """
    train, evaluate = recipe.data.train, recipe.data.evaluate
    train_positions = manifest.positions(train, option="--data.train")
    eval_positions = manifest.positions(evaluate, option="--data.evaluate")
    for split in (train, evaluate):
        if split in manifest.unlabeled:
            raise ManifestError(
                f"{manifest.path}: split {split!r} has no labels; training and evaluation need labels",
                path=manifest.path,
                field="label",
            )
    check_declared(manifest, evaluate)
    must_be_readable = eval_positions if recipe.data.unreadable == "skip" else [*eval_positions, *train_positions]
    check_uncounted(manifest, must_be_readable, recipe.clip.modalities[0], recipe.data.read_options)
    return train_positions, eval_positions


def check_mirroring(recipe: Recipe, manifest: Manifest) -> None:
    """Check that nobody has to decide whether the recipe's mirroring swaps two classes; those of public data are known.

    Raises:
        RecipeError: The names of two classes may be mirror images of each other.
    """
    path, flip = manifest.path, recipe.data.augmentation.flip
    undecided = [] if not flip or is_public(manifest) else undecided_pairs(manifest)
    if undecided:
        first, second = undecided[0]
        raise RecipeError(
            f"data.augmentation.flip={flip}: does mirroring turn class {first!r} into {second!r} of {path} "
            f"({len(undecided)} such pairs)? If so, set --data.augmentation.flip 0. If not, prepare with "
            f'--mirrored none, or add "mirrored": [] to {path.with_suffix(".json").name}.',
            path=path,
            field="data.augmentation.flip",
        )


def refuse_copies(recipe: Recipe, manifest: Manifest, train_positions: list[int]) -> None:
    """Check that no training sample is a copy of one in the evaluation split or in `test`; public splits are official.

    Raises:
        ManifestError: A file, or nearly the same video, is in both, and the recipe does not allow it.
    """
    if recipe.data.duplicates == "allow" or is_public(manifest):
        return
    for split in dict.fromkeys((recipe.data.evaluate, "test")):
        positions = [i for i, entry in enumerate(manifest.entries) if entry.split == split != recipe.data.train]
        copies, num_shared = find_copies(manifest, train_positions, positions, recipe.data.read_options)
        if copies:
            own, other = copies[0]
            problem = f"{own.rgb or own.depth} is a copy of {other.rgb or other.depth} in {split} (line {other.line})"
            raise ManifestError(
                f"{manifest.path}, line {own.line}: {problem}, or nearly; {len(copies)} such pairs are in {own.split} "
                f"and {split}. Remove them (`kinema check` lists them), or pass --data.duplicates allow.",
                path=manifest.path,
                line=own.line,
                field="split",
            )
        if num_shared:
            logger.warning(
                "%s: %d recordings have segments in both %s and %s; results are optimistic",
                *(manifest.path, num_shared, recipe.data.train, split),
            )


def balance_loss(recipe: Recipe, manifest: Manifest, positions: list[int]) -> dict[str, Tensor] | None:
    """Return the weight of each class in the loss by task head, or None if the recipe does not balance the loss."""
    if recipe.data.balance != "loss":
        return None
    targets = [manifest.targets(position) for position in positions]
    return {head: class_weights([target[head] for target in targets], n) for head, n in manifest.heads.items()}


def _build_network(recipe: Recipe, manifest: Manifest, preprocessing: Preprocessing) -> nn.Module:
    with _name_fields():
        return recipe.model.build(
            heads=manifest.heads,
            channels=preprocessing.channels,
            frames=recipe.clip.frames,
            size=recipe.clip.size,
        )


@contextmanager
def _name_fields() -> Iterator[None]:
    """Name the fields in errors of networks and clips as those of a recipe: `size` is `clip.size`."""
    try:
        yield
    except (ConfigError, StreamError) as error:
        name = error.field or ""
        is_clip = name in {field.name for field in fields(Clip)}
        section = "clip" if is_clip else "data" if name == "batch_size" else "model"
        raise RecipeError(f"{section}.{error}", field=f"{section}.{name}") from error
