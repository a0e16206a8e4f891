"""Commands for models: models, fuse."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from tyro.conf import Positional

from kinema.cli.command import Command, at_least_one
from kinema.errors import UsageError
from kinema.terminal import echo


@dataclass(frozen=True, kw_only=True)
class Models(Command):
    """List the models, or show the parameters and multiply-adds of one.

    Attributes:
        name: Name of a model. All models are listed if omitted.
        classes: Number of classes.
    """

    EXAMPLE: ClassVar = "ctn_base --classes 60"

    name: Positional[str] = ""
    classes: int = 400

    def run(self) -> int:
        """Print a table of the models, or of the parts of one."""
        at_least_one("--classes", self.classes)
        from kinema.reports.models import print_model, print_models

        if self.name:
            print_model(self.name, num_classes=self.classes)
        else:
            print_models(num_classes=self.classes)
        return 0


@dataclass(frozen=True, kw_only=True)
class Fuse(Command):
    """Fuse an RGB model and a depth model into one two-stream model.

    Attributes:
        first: Run or model folder of one modality.
        second: Run or model folder of the other modality.
        out: Model folder to create.
        score: Scores to average.
    """

    EXAMPLE: ClassVar = "runs/rgb runs/depth --out fused"

    first: Positional[Path]
    second: Positional[Path]
    out: Path
    score: Literal["logits", "softmax"] = "logits"

    def run(self) -> int:
        """Write the fused model."""
        if self.out.exists():
            raise UsageError(f"--out {self.out}: already exists. Choose a new folder.", field="--out")
        from kinema.inference.fusing import fuse_models
        from kinema.inference.trained_model import save_model

        save_model(self.out, fuse_models(self.first, self.second, score=self.score))
        echo(f"{self.out}: averages {self.score}. Try `kinema predict {self.out} RGB --depth DEPTH`.")
        return 0
