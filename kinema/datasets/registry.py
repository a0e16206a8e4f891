"""Names of the data sets that `kinema prepare` knows, one line each."""

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from kinema.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from kinema.datasets.options import DatasetOptions
    from kinema.datasets.prepared import Prepared


class Dataset(NamedTuple):
    """One subcommand of `kinema prepare`.

    Args:
        summary: one line of help.
        options: `module:Class` of its options, a config; `prepare(options) -> Prepared` is in the same module.
    """

    summary: str
    options: str


DATASETS = {
    "folder": Dataset("Your own folder of class folders, or of files named by a pattern.", "folder:FolderOptions"),
    "csv": Dataset("Your own CSV table.", "table:CsvOptions"),
    "json": Dataset("Your own JSON table.", "table:JsonOptions"),
    "ntu60": Dataset("NTU RGB+D 60: RGB and depth, 56,880 samples of 60 actions.", "ntu:Ntu60Options"),
    "ntu120": Dataset("NTU RGB+D 120: RGB and depth, 114,480 samples of 120 actions.", "ntu:Ntu120Options"),
    "isogd": Dataset("ChaLearn IsoGD: RGB and depth, 47,933 samples of 249 gestures.", "isogd:IsogdOptions"),
    "ucf101": Dataset("UCF-101: 13,320 videos of 101 actions.", "ucf101:Ucf101Options"),
    "hmdb51": Dataset("HMDB-51: 6,766 videos of 51 actions.", "hmdb51:Hmdb51Options"),
    "diving48": Dataset("Diving48: about 17,000 videos of 48 kinds of dives.", "diving48:Diving48Options"),
    "epic_kitchens": Dataset(
        "EPIC-KITCHENS-100: 89,977 segments, each of a verb and a noun.", "epic_kitchens:EpicKitchensOptions"
    ),
    "jhmdb": Dataset("J-HMDB: 928 videos of 21 actions.", "jhmdb:JhmdbOptions"),
    "msr_action3d": Dataset("MSR-Action3D: 567 depth sequences of 20 actions.", "msr_action3d:MsrAction3dOptions"),
}
"""A data set is added by its own module and a line here."""


def load_dataset(name: str) -> tuple["type[DatasetOptions]", "Callable[[Any], Prepared]"]:
    """Import a data set's module and return its options class and its function `prepare(options)`.

    Raises:
        UsageError: no data set has this name.
    """
    if name not in DATASETS:
        raise UsageError(f"unknown data set {name!r}; {did_you_mean(name, DATASETS)}", field="dataset")
    module_name, _, class_name = DATASETS[name].options.partition(":")
    module = importlib.import_module(f"kinema.datasets.{module_name}")
    return getattr(module, class_name), module.prepare
