"""Options of `kinema prepare` that several datasets share."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from kinema.config import config
from kinema.data.splits import KeepTogether
from kinema.modality import DepthEncoding, DepthFacts


@config
class DatasetOptions:
    """Options of every dataset.

    Attributes:
        root: Folder of the dataset, or the table.
        out: Manifest to write, a CSV; a JSON of the same name is written beside it.
        exclude: List of files to leave out, one path a line, such as bad_files.txt of `kinema check`.
    """

    root: Path
    out: Path
    exclude: Path | None = None


@config
class ThreeSplitOptions(DatasetOptions):
    """Options of a dataset with three official splits.

    Attributes:
        split: Official split.
    """

    split: Literal[1, 2, 3] = 1


@config
class Holdout:
    """Sizes of the random splits of data that has no split of its own.

    Attributes:
        val_share: Share of each class to hold out as split `val`, if the data has no split.
        test_share: Share of each class to hold out as split `test`, if the data has no split. By default that of val,
            if every class has at least five groups, else 0.
        keep_together: Column whose samples stay in one split; auto is the group, else the subject.
    """

    val_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    test_share: Annotated[float, Field(ge=0, lt=1)] | None = None
    keep_together: KeepTogether = "auto"

    def __post_init__(self) -> None:
        if self.test_share is not None and self.test_share >= 1 - self.val_share:
            raise ValueError(
                f"val_share={self.val_share} and test_share={self.test_share} leave no training samples; expected a "
                "sum below 1"
            )


@config
class OwnDataOptions(Holdout, DatasetOptions):
    """Options of a user's own data.

    Attributes:
        group: Template of file names whose field {group} names the recording, for example '{group}_{clip:d}' for
            walk_07_2.mp4. By default names of usual styles tell.
        mirrored: Classes that mirroring exchanges, for example "wave sx=wave dx,turn sx=turn dx", or `none`. By default
            their names tell.
        depth_unit: Millimeters per unit of 16-bit depth; omit it if the unit is not metric.
        depth_range: Near and far end of the useful depths, in stored units; required for 16-bit depth.
        depth_encoding: Encoding of depth in color videos and images: gray8 if brightness is the depth, jet if colors of
            the JET map are. Depth in color is refused without it.
        depth_coverage: Pixels with depth: masked if all but the person's are 0, else full; auto is full.
    """

    group: str = ""
    mirrored: str = ""
    depth_unit: float | None = None
    depth_range: tuple[float, float] | None = None
    depth_coverage: Literal["auto", "masked", "full"] = "auto"
    depth_encoding: DepthEncoding | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth_range is None and self.depth_unit is not None:
            raise ValueError("depth_unit has no effect without depth_range")
        if self.depth_range is None and self.depth_coverage != "auto":
            raise ValueError("depth_coverage has no effect without depth_range")
        _ = self.depth_facts  # refuses an impossible range

    @property
    def depth_facts(self) -> DepthFacts | None:
        """Meaning of 16-bit depth values; None if no range is given."""
        if self.depth_range is None:
            return None
        near, far = self.depth_range
        coverage = "full" if self.depth_coverage == "auto" else self.depth_coverage
        return DepthFacts(unit_mm=self.depth_unit, near=near, far=far, coverage=coverage)
