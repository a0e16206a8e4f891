"""Projection of a model's features of videos to a plane by t-SNE (section 3.4.4, figures 3.6 and 3.7)."""

from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64
from numpy import ndarray
from sklearn.manifold import TSNE

from kinema.data.dataset import VideoDataset
from kinema.data.loaders import complete, make_loader
from kinema.data.manifest import Manifest
from kinema.data.samplers import evaluation_batches
from kinema.errors import ManifestError
from kinema.inference.engine import Device, choose_device
from kinema.inference.trained_model import TrainedModel

HMDB51_CLASSES = (
    *("sword_exercise", "flic_flac", "dribble", "ride_horse", "laugh"),
    *("shake_hands", "shoot_gun", "hit", "sit", "wave"),
)
"""Classes of HMDB-51 that figures 3.6 and 3.7 show."""

PERPLEXITY = 30.0
"""Default of t-SNE. Fewer than 92 videos get a third of their number."""


@dataclass(frozen=True, kw_only=True)
class Projection:
    """Places of videos in the plane.

    Attributes:
        points: Place of each video that is shown.
        targets: Class of each, a position in `classes`.
        classes: Names of the classes.
        index: Positions of the videos in the manifest.
        num_projected: Number of videos in the projection, those of other classes included.
        start_weights: Weights that the model's training started from. Empty if unknown.
    """

    points: Float[ndarray, "videos 2"]
    targets: Int64[ndarray, " videos"]
    classes: tuple[str, ...]
    index: Int64[ndarray, " videos"]
    num_projected: int
    start_weights: str


def project_features(
    trained: TrainedModel,
    manifest: Manifest,
    *,
    split: str = "test",
    classes: Collection[str] = HMDB51_CLASSES,
    num_videos: int = 1000,
    seed: int = 0,
    batch_size: int = 16,
    workers: int = 0,
    device: Device = "auto",
) -> Projection:
    """Project the features of randomly drawn videos of a split to the plane, and return those of some classes.

    Args:
        trained: Model with one task head or more; the first one names the classes.
        manifest: Videos.
        split: Split to draw from.
        classes: Classes to return.
        num_videos: Number of videos to draw, or all if the split has fewer.
        seed: Seed of the draw and of t-SNE.
        batch_size: Number of videos per batch.
        workers: Number of reader processes.
        device: Device to compute on.

    Raises:
        ManifestError: The manifest lacks a class, or no drawn video has one of them.
        UnreadableSample: A drawn video cannot be read.
        ModelError: The network has no features.
    """
    head = next(iter(manifest.classes))
    unknown = [name for name in classes if name not in manifest.classes[head]]
    if unknown:
        raise ManifestError(f"{manifest.path}: no class {unknown[0]!r}", path=manifest.path, field=head)
    positions = np.array(manifest.positions(split))
    drawn = np.sort(np.random.default_rng(seed).permutation(positions)[:num_videos])
    features = embed_videos(trained, manifest, drawn, batch_size=batch_size, workers=workers, device=device)
    names = tuple(classes)
    labels = [manifest.entries[position].labels[head] for position in drawn.tolist()]
    shown = np.array([label in names for label in labels])
    if not shown.any() or len(drawn) < 3:
        raise ManifestError(
            f"{manifest.path}: {shown.sum()} of {len(drawn)} drawn videos of split {split!r} have a class to show; "
            "expected at least 1 of 3. Draw more videos.",
            path=manifest.path,
            field="classes",
        )
    perplexity = min(PERPLEXITY, (len(drawn) - 1) / 3)
    points = TSNE(n_components=2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(features)
    return Projection(
        points=points[shown],
        targets=np.array([names.index(label) for label in labels if label in names], np.int64),
        classes=names,
        index=drawn[shown],
        num_projected=len(drawn),
        start_weights=trained.start_weights,
    )


def embed_videos(
    trained: TrainedModel,
    manifest: Manifest,
    positions: Int64[ndarray, " videos"],
    *,
    batch_size: int = 16,
    workers: int = 0,
    device: Device = "auto",
) -> Float[ndarray, "videos channels"]:
    """Return the features of videos, the class token that the task heads classify, in the order of the positions.

    Raises:
        UnreadableSample: A video cannot be read.
        ModelError: The network has no features.
    """
    dataset = VideoDataset(manifest, sampling=trained.sampling, preprocessing=trained.preprocessing)
    batches = evaluation_batches(positions.tolist(), batch_size)
    compute_on = choose_device(device)
    engine = trained.engine(compute_on)
    loader = make_loader(dataset, batches, workers=workers, pin_memory=compute_on.type == "cuda")
    with closing(loader):
        return np.concatenate([engine.features(complete(loaded)["inputs"]).numpy() for loaded in loader])
