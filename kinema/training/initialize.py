"""Initialization before the first step: loading weights, freezing parts, calibrating BatchNorm."""

from dataclasses import dataclass

from kinema.errors import RecipeError
from kinema.training.calibration import calibrate, calibration_inputs
from kinema.training.setup import TrainingSetup
from kinema.training.weights import LoadReport, freeze, frozen_modules, load_weights


@dataclass(frozen=True, kw_only=True)
class InitReport:
    """Result of an initialization: loaded weights, frozen parameters, and the number of calibrated BatchNorm layers."""

    load: LoadReport | None = None
    frozen: tuple[str, ...] = ()
    calibrated_norms: int = 0


def initialize_model(setup: TrainingSetup) -> InitReport:
    """Load weights into the network, freeze parts and calibrate BatchNorm, as the recipe says.

    A run that resumes loads its own weights later. Its initial weights are not read and may have been deleted.

    Raises:
        RecipeError: A setting needs initial weights and the recipe has none, or the network cannot be calibrated.
        StartError: The weights or the parts to freeze do not fit the network.
    """
    init, model, is_new = setup.recipe.init, setup.model, not setup.run.has_checkpoint
    for name in ("blocks", "ignore", "calibration_batches"):
        if getattr(init, name) and not init.weights:
            raise RecipeError(f"init.{name}: needs initial weights. Set init.weights.", field=f"init.{name}")
    load, frozen, calibrated_norms = None, tuple[str, ...](), 0
    if init.weights and is_new:
        load = load_weights(
            model,
            init.weights,
            classes=setup.manifest.classes,
            unmatched=init.unmatched,
            blocks=init.blocks,
            ignore=init.ignore,
        )
    if init.freeze:
        frozen = freeze(model, init.freeze)
        for module in frozen_modules(model, init.freeze):
            module.eval()
    if init.calibration_batches is not None and is_new:
        inputs = calibration_inputs(setup, init.calibration_batches)
        with setup.training_threads():
            calibrated_norms = calibrate(model.to(setup.fabric.device), inputs, setup.fabric)
    return InitReport(load=load, frozen=frozen, calibrated_norms=calibrated_norms)
