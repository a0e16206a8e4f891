"""Modalities (RGB and depth) and the meaning of depth values."""

from typing import Annotated, Literal

from pydantic import Field

from kinema.config import config
from kinema.errors import ConfigError

Modality = Literal["rgb", "depth"]
MODALITIES: tuple[Modality, ...] = ("rgb", "depth")

DepthEncoding = Literal["gray8", "jet"]
"""Encoding of depth in a color format: its brightness is the depth, or the depth is shown in the colors of JET."""

ReadAs = Literal["rgb", "depth", "gray8", "jet"]
"""Content of a file: RGB, depth in one channel, or depth in a color format by its encoding."""


@config
class DepthFacts:
    """Meaning of the values in a depth file.

    Attributes:
        unit_mm: Millimeters per stored unit; None for a unit that is not metric.
        near: Near end of the useful range, in stored units. Preprocessing maps the range to 1..255; 0 is no reading.
        far: Far end of the useful range, in stored units.
        coverage: `masked` if all pixels but the person's are 0, `full` if the background has depth.
    """

    # an int stays an int, since the digest of a manifest depends on it
    unit_mm: Annotated[int | float, Field(gt=0)] | None
    near: Annotated[int | float, Field(ge=0, le=1e9)]
    far: Annotated[int | float, Field(le=1e9)]
    coverage: Literal["masked", "full"]

    def __post_init__(self) -> None:
        if not self.near < self.far:
            raise ConfigError(f"near={self.near}; expected below far={self.far}", field="near")
