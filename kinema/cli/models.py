"""Commands about models: models, fuse."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from kinema.cli.command import Command
from kinema.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Models(Command):
    """List the models, or show the parameters and multiply-adds of one.

    Args:
        name: Name of a model; all are listed if omitted.
        classes: Number of classes.
    """

    name: Positional[str] = ""
    classes: int = 400

    def run(self) -> int:
        """Print a table of the models, or of the parts of one."""
        if self.classes < 1:
            raise UsageError(f"--classes {self.classes}; expected at least 1", field="--classes")
        from kinema.reports.models import print_model, print_models

        if self.name:
            print_model(self.name, num_classes=self.classes)
        else:
            print_models(num_classes=self.classes)
        return 0


@dataclass(frozen=True, kw_only=True)
class Fuse(Command):
    """Fuse a model of color and one of depth into one two-stream model.

    Args:
        first: Run or model folder, of RGB or of depth.
        second: Run or model folder of the other modality.
        out: New model folder.
        score: Scores that are averaged.
    """

    first: Positional[Path]
    second: Positional[Path]
    out: Path
    score: Literal["logits", "softmax"] = "logits"

    def run(self) -> int:
        """Write the fused model."""
        if self.out.exists():
            raise UsageError(f"--out {self.out}: already exists. Name a new folder.", field="--out")
        from kinema.inference.fusing import fuse_models
        from kinema.inference.trained_model import save_model

        save_model(self.out, fuse_models(self.first, self.second, score=self.score))
        print(f"{self.out}: predicts by the mean of {self.score}; `kinema predict {self.out} RGB --depth DEPTH`")
        return 0
