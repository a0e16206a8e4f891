"""What a sensor gives: RGB or depth, and what the numbers of depth mean."""

from typing import Annotated, Literal

from pydantic import Field

from kinema.config import config

Modality = Literal["rgb", "depth"]
MODALITIES: tuple[Modality, ...] = ("rgb", "depth")


@config
class DepthFacts:
    """What the numbers of a depth file mean.

    Args:
        unit_mm: millimeters in one stored unit; None where the sensor's unit is not metric.
        near, far: the range of interest in stored units, mapped to 1..255 by preprocessing; 0 means no reading.
        coverage: `masked` where all but the person is 0, `full` where the background has depth.
    """

    # int stays int, so that a manifest is written to the bit as before
    unit_mm: Annotated[int | float, Field(gt=0)] | None
    near: Annotated[int | float, Field(ge=0)]
    far: int | float
    coverage: Literal["masked", "full"]

    def __post_init__(self) -> None:
        if not self.near < self.far:
            raise ValueError(f"near={self.near} must be below far={self.far}")
