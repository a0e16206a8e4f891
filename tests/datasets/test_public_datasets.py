"""Public datasets, told apart from a user's own data."""

import pytest

from kinema.data.manifest import BUILT_IN, Entry, load_manifest, write_manifest
from kinema.datasets import diving48, epic_kitchens, hmdb51, isogd, jhmdb, msr_action3d, ntu_names, ucf101
from kinema.datasets.registry import is_public

NAMES = [module.DATASET for module in (diving48, epic_kitchens, hmdb51, isogd, jhmdb, msr_action3d, ucf101)]


@pytest.fixture
def written(tmp_path):
    """Return a function that writes a manifest of this dataset and version."""

    def write(dataset, version):
        entries = [Entry(rgb=f"{label}.mp4", labels={"label": label}) for label in "ab"]
        facts = {"classes": {"label": ("a", "b")}, "dataset": dataset, "version": version, "depth": None}
        return write_manifest(tmp_path / "m.csv", entries=entries, **facts)

    return write


@pytest.mark.parametrize("name", [*NAMES, ntu_names.NTU60.name, ntu_names.NTU120.name])
def test_public_datasets_are_known_by_their_names(written, name):
    assert is_public(written(name, "split 1"))
    assert not is_public(written(name, "own"))
    assert not is_public(written(name, "own, packed 256"))


def test_other_manifests_are_a_users_own(written):
    assert not is_public(written("my videos", "1"))
    assert all(is_public(load_manifest(name)) for name in BUILT_IN)
