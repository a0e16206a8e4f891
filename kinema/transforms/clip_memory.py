"""Memory of the clips that a sampling and a preprocessing ask for, checked before a file is read."""

from kinema.memory import check_memory, machine_memory
from kinema.transforms.preprocessing import Preprocessing
from kinema.transforms.sampling import Sampling


def check_clips(sampling: Sampling, preprocessing: Preprocessing, *, batch_size: int = 1) -> None:
    """Check that the clips of a test batch, and one sample's resized frames, fit into memory.

    Raises:
        ConfigError: They take more than half of this machine's memory; `field` is the setting that is most unusual.
    """
    num_frames = sampling.clips * sampling.frames * sum(preprocessing.channels.values())
    size = num_frames * (batch_size * preprocessing.crops * preprocessing.size**2 + preprocessing.short_side**2)
    excess = {
        "frames": sampling.frames / 16,
        "clips": sampling.clips,
        "size": preprocessing.size**2 / 224**2,
        "short_side": preprocessing.short_side**2 / 256**2,
        "batch_size": batch_size / 16,
    }
    check_memory("a batch of clips", size, machine_memory() // 2, excess)
