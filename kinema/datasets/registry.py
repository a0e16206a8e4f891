"""Discovery of the datasets of `kinema prepare`: every module of this package with `SPECS` adds its own."""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, TypeVar

import kinema.datasets
from kinema.data.manifest import Manifest
from kinema.datasets.options import DatasetOptions, OwnDataOptions
from kinema.datasets.prepared import PreparedDataset
from kinema.errors import UsageError, did_you_mean

Options = TypeVar("Options", bound=DatasetOptions)


@dataclass(frozen=True)
class DatasetSpec(Generic[Options]):
    """Subcommand of `kinema prepare`: its name, line of help and options, and the function that writes the manifest.

    The line of help begins with the dataset's name in its manifests and a colon.
    """

    name: str
    summary: str
    options: type[Options]
    prepare: Callable[[Options], PreparedDataset]

    @property
    def is_own(self) -> bool:
        """True for a user's own data."""
        return issubclass(self.options, OwnDataOptions)


@cache
def list_datasets() -> dict[str, DatasetSpec[Any]]:
    """Return all datasets by name, a user's own data first; imports every module of this package."""
    names = [f"{kinema.datasets.__name__}.{module.name}" for module in pkgutil.iter_modules(kinema.datasets.__path__)]
    specs = [spec for name in names for spec in getattr(importlib.import_module(name), "SPECS", ())]
    return {spec.name: spec for spec in sorted(specs, key=lambda spec: not spec.is_own)}


def is_public(manifest: Manifest) -> bool:
    """Return whether a manifest is of a public or built-in dataset, whose classes and splits are official."""
    if manifest.is_own:  # a folder may have the name of a dataset
        return False
    specs = list_datasets().values()
    names = {spec.summary.partition(":")[0] for spec in specs if not spec.is_own}
    return manifest.dataset in names | {"moves"}


def get_dataset(name: str) -> DatasetSpec[Any]:
    """Return the dataset of this name.

    Raises:
        UsageError: No dataset has this name.
    """
    datasets = list_datasets()
    if name not in datasets:
        raise UsageError(f"unknown dataset {name!r}; {did_you_mean(name, datasets)}", field="dataset")
    return datasets[name]
