"""What a sensor gives: RGB or depth, and what the numbers of depth mean."""

from dataclasses import dataclass
from typing import Literal

Modality = Literal["rgb", "depth"]
MODALITIES: tuple[Modality, ...] = ("rgb", "depth")


@dataclass(frozen=True, kw_only=True)
class DepthFacts:
    """What the numbers of a depth file mean.

    Args:
        unit_mm: millimetres in one stored unit; None where the sensor's unit is not metric.
        near, far: the range of interest in stored units, mapped to 1..255 by preprocessing; 0 means no reading.
        coverage: `masked` where all but the person is 0, `full` where the background has depth.
    """

    unit_mm: float | None
    near: float
    far: float
    coverage: Literal["masked", "full"]

    def __post_init__(self) -> None:
        if not 0 <= self.near < self.far:
            raise ValueError(f"depth_range: near={self.near} must be at least 0 and below far={self.far}")
