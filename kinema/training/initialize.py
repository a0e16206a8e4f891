"""Before the first step: load weights, freeze parts, calibrate BatchNorm."""

from dataclasses import dataclass

from kinema.errors import RecipeError
from kinema.training.calibration import CalibrationReport, calibrate, calibration_inputs
from kinema.training.setup import TrainingSetup
from kinema.training.weights import FreezeReport, LoadReport, freeze, frozen_modules, load_weights


@dataclass(frozen=True, kw_only=True)
class InitReport:
    """What was done to a network before the first step. None for what the recipe does not ask for.

    Args:
        load: Loaded weights.
        freeze: Frozen parameters.
        calibration: Calibrated BatchNorm.
    """

    load: LoadReport | None = None
    freeze: FreezeReport | None = None
    calibration: CalibrationReport | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of the loaded weights, empty if there are none."""
        return "" if self.load is None else self.load.digest


def initialize_model(setup: TrainingSetup) -> InitReport:
    """Load the recipe's weights into the network, freeze its parts and calibrate it, in place.

    A resumed run has its own weights. Those that it started from are not read, and may be gone.

    Raises:
        RecipeError: settings need initial weights and the recipe has none, or the network cannot be calibrated.
        StartError: the weights or the parts to freeze do not fit the network.
    """
    init, model, is_new = setup.recipe.init, setup.model, not setup.run.resumes
    for name in ("blocks", "ignore", "calibration_batches"):
        if getattr(init, name) and not init.weights:
            raise RecipeError(f"init.{name} needs initial weights; set init.weights", field=f"init.{name}")
    load, frozen, calibration = None, None, None
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
        for module in frozen_modules(model):
            module.eval()
    if init.calibration_batches is not None and is_new:
        inputs = calibration_inputs(setup, init.calibration_batches)
        with setup.training_threads():
            num_norms = calibrate(model.to(setup.fabric.device), inputs, setup.fabric)
        calibration = CalibrationReport(num_norms=num_norms, num_batches=init.calibration_batches)
    return InitReport(load=load, freeze=frozen, calibration=calibration)
