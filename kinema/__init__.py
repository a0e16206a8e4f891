"""Human action recognition in video: color, depth, or both.

Public names are imported on first use, which keeps `import kinema` fast:
`create_model`, `list_models`, `load_manifest`, `load_model`, `load_recipe`, `Recipe`, `Recognizer`, `train` and
`evaluate`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kinema.data.manifest import load_manifest
    from kinema.evaluation.evaluate import evaluate
    from kinema.inference.recognizer import Recognizer
    from kinema.inference.trained_model import load_model
    from kinema.models.registry import create_model, list_models
    from kinema.training.loop import train
    from kinema.training.recipe import Recipe, load_recipe

__version__ = "0.1.0"
__all__ = [
    "Recipe",
    "Recognizer",
    "create_model",
    "evaluate",
    "list_models",
    "load_manifest",
    "load_model",
    "load_recipe",
    "train",
]

_HOME = {
    "Recipe": "kinema.training.recipe",
    "Recognizer": "kinema.inference.recognizer",
    "create_model": "kinema.models.registry",
    "evaluate": "kinema.evaluation.evaluate",
    "list_models": "kinema.models.registry",
    "load_manifest": "kinema.data.manifest",
    "load_model": "kinema.inference.trained_model",
    "load_recipe": "kinema.training.recipe",
    "train": "kinema.training.loop",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'kinema' has no attribute {name!r}; its public names are {', '.join(__all__)}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
