"""Names of samples and classes of NTU RGB+D, the set of its samples, and the official splits.

A sample is named SsssCcccPpppRrrrAaaa: setup (place, height and distance of the cameras), camera, performer,
replication (facing one or the other camera), action. github.com/shahroudy/NTURGB-D; A. Shahroudy et al., CVPR 2016
(60 classes); J. Liu et al., TPAMI 42, 2020, arXiv:1905.04757 (120 classes).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product, starmap
from types import MappingProxyType
from typing import Literal, NamedTuple

Protocol = Literal["cross_subject", "cross_view", "cross_setup"]

NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})", re.ASCII)
LOOSE_NAME = re.compile(r"S\d+_?C\d+_?P\d+_?R\d+_?A\d+", re.ASCII | re.IGNORECASE)
"""Start of a possibly malformed name."""

# fmt: off
CLASSES = (
    "drink water", "eat meal/snack", "brushing teeth", "brushing hair", "drop", "pickup", "throw", "sitting down",
    "standing up (from sitting position)", "clapping", "reading", "writing", "tear up paper", "wear jacket",
    "take off jacket", "wear a shoe", "take off a shoe", "wear on glasses", "take off glasses", "put on a hat/cap",
    "take off a hat/cap", "cheer up", "hand waving", "kicking something", "reach into pocket",
    "hopping (one foot jumping)", "jump up", "make a phone call/answer phone", "playing with phone/tablet",
    "typing on a keyboard", "pointing to something with finger", "taking a selfie", "check time (from watch)",
    "rub two hands together", "nod head/bow", "shake head", "wipe face", "salute", "put the palms together",
    "cross hands in front (say stop)", "sneeze/cough", "staggering", "falling", "touch head (headache)",
    "touch chest (stomachache/heart pain)", "touch back (backache)", "touch neck (neckache)",
    "nausea or vomiting condition", "use a fan (with hand or paper)/feeling warm", "punching/slapping other person",
    "kicking other person", "pushing other person", "pat on back of other person", "point finger at the other person",
    "hugging other person", "giving something to other person", "touch other person's pocket", "handshaking",
    "walking towards each other", "walking apart from each other", "put on headphone", "take off headphone",
    "shoot at the basket", "bounce ball", "tennis bat swing", "juggling table tennis balls", "hush (quite)",
    "flick hair", "thumb up", "thumb down", "make ok sign", "make victory sign", "staple book", "counting money",
    "cutting nails", "cutting paper (using scissors)", "snapping fingers", "open bottle", "sniff (smell)",
    "squat down", "toss a coin", "fold paper", "ball up paper", "play magic cube", "apply cream on face",
    "apply cream on hand back", "put on bag", "take off bag", "put something into a bag",
    "take something out of a bag", "open a box", "move heavy objects", "shake fist", "throw up cap/hat",
    "hands up (both hands)", "cross arms", "arm circles", "arm swings", "running on the spot",
    "butt kicks (kick backward)", "cross toe touch", "side kick", "yawn", "stretch oneself", "blow nose",
    "hit other person with something", "wield knife towards other person", "knock over other person (hit with body)",
    "grab other person's stuff", "shoot at other person with a gun", "step on foot", "high-five", "cheers and drink",
    "carry something with other person", "take a photo of other person", "follow other person",
    "whisper in other person's ear", "exchange things with other person", "support somebody with hand",
    "finger-guessing game (playing rock-paper-scissors)",
)
# fmt: on
"""Class names in the order of their numbers, as on the official page; the first 60 are those of NTU RGB+D 60."""

# fmt: off
TRAIN_SUBJECTS = frozenset({
    1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38,
    45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80, 81, 82, 83, 84, 85, 86, 89, 91, 92, 93, 94, 95,
    97, 98, 100, 103,
})
# fmt: on
"""Training subjects of cross-subject: 20 of the 40 of NTU RGB+D 60, included in 53 of the 106 of NTU RGB+D 120."""
TEST_CAMERA = 1
"""Test camera of cross-view: it views a subject at 45 degrees, cameras 2 and 3 from the front and the sides."""

PERFORMERS: dict[int, tuple[int, ...]] = {
    1: (1, 2, 3, 4, 5, 6, 7, 8),
    2: (3, 7, 8, 9, 10, 11, 12, 13, 14),
    3: (1, 2, 7, 8, 15, 16, 17, 18, 19),
    4: (3, 7, 8, 20),
    5: (4, 10, 13, 15, 16, 17, 18, 21),
    6: (1, 7, 8, 15, 16, 17, 19, 22, 23, 24),
    7: (1, 7, 8, 15, 16, 17, 18, 19, 25, 26, 27, 28),
    8: (1, 7, 8, 15, 19, 25, 29, 30, 31, 32, 33, 34, 35, 36),
    9: (7, 8, 15, 16, 17, 19, 25),
    10: (7, 8, 13, 15, 16, 17, 18, 19, 21, 25),
    11: (1, 2, 7, 8, 15, 16, 17, 18, 19, 25, 27, 28, 38),
    12: (7, 8, 15, 16, 17, 18, 19, 25, 27, 28, 37),
    13: (7, 8, 15, 16, 17, 18, 19, 25, 27, 28, 37),
    14: (7, 8, 15, 17, 19, 25, 27, 37, 39),
    15: (7, 8, 15, 16, 17, 19, 25, 37),
    16: (7, 8, 19, 21, 25, 39, 40),
    17: (3, 7, 8, 9, 15, 16, 17, 20),
    18: (8, 41, 42, 43, 44, 45),
    19: (8, 41, 42, 46, 47, 48, 49, 50, 51),
    20: (8, 41, 43, 44, 52, 53, 54),
    21: (55, 56, 57, 58, 59, 60),
    22: (61, 62, 63, 64, 65, 66, 67),
    23: (55, 56, 57, 58, 59, 60, 61, 62, 63, 64, 65, 66, 67, 68),
    24: (57, 60, 61, 62, 63, 64, 67),
    25: (55, 56, 58, 59, 65, 66, 68),
    26: (8, 41, 44, 49, 50, 51, 69, 70, 71, 72, 74, 75, 76, 77),
    27: (6, 8, 11, 41, 43, 44, 78, 79, 80, 81, 82, 83, 84, 85, 86),
    28: (8, 41, 42, 43, 46, 48, 70, 73, 87),
    29: (6, 8, 41, 43, 44, 48, 49, 51, 67, 74, 75, 80, 88, 89, 90),
    30: (8, 11, 41, 43, 44, 48, 67, 75, 76, 81, 85, 88, 91, 92, 93, 94, 95, 96),
    31: (6, 8, 41, 42, 43, 44, 51, 67, 82, 85, 96, 97, 98, 99, 100, 101),
    32: (8, 41, 43, 44, 67, 102, 103, 104, 105, 106),
}
"""Subjects of each setup. Each performed 60 actions twice before three cameras: actions 1 to 60 in setups 1 to 17,
actions 61 to 120 in setups 18 to 32. There is no official list of this. It follows, without gap or remainder, from the
56,880 names in the lists of zhoubenjia/MotionRGBD-PAMI, and from the 113,945 of Uason-Chen/CTR-GCN together with
the official list of the 535 samples that have no skeleton."""
NTU60_SETUPS, NTU120_SETUPS = 17, 32
CAMERAS, REPLICATIONS, ACTIONS = (1, 2, 3), (1, 2), 60


class Sample(NamedTuple):
    """Parts of the name of a sample."""

    setup: int
    camera: int
    performer: int
    replication: int
    action: int

    @property
    def name(self) -> str:
        """Name of the form S001C001P001R001A001."""
        return f"S{self[0]:03}C{self[1]:03}P{self[2]:03}R{self[3]:03}A{self[4]:03}"

    @property
    def performance(self) -> str:
        """Name without the camera: the performance that three cameras recorded at once."""
        return self.name[:4] + self.name[8:]


def parse_name(text: str) -> Sample | None:
    """Return the sample of a name, or None if the text is not such a name."""
    parts = NAME.fullmatch(text)
    return None if parts is None else Sample(*map(int, parts.groups()))


@dataclass(frozen=True, kw_only=True)
class Collection:
    """NTU RGB+D 60 or 120; `command` is the name in `kinema prepare`."""

    name: str
    command: str
    num_setups: int

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of their numbers."""
        return CLASSES[: 60 if self.num_setups == NTU60_SETUPS else 120]

    def samples(self) -> Iterator[Sample]:
        """Yield all samples in the order of the names."""
        for setup in range(1, self.num_setups + 1):
            first = 1 if setup <= NTU60_SETUPS else ACTIONS + 1
            actions = range(first, first + ACTIONS)
            yield from starmap(Sample, product([setup], CAMERAS, PERFORMERS[setup], REPLICATIONS, actions))


NTU60 = Collection(name="NTU RGB+D 60", command="ntu60", num_setups=NTU60_SETUPS)
NTU120 = Collection(name="NTU RGB+D 120", command="ntu120", num_setups=NTU120_SETUPS)


@cache
def official_samples(collection: Collection) -> Mapping[str, Sample]:
    """Return all samples of a collection by name, in the order of the names."""
    return MappingProxyType({sample.name: sample for sample in collection.samples()})


def split_of(sample: Sample, protocol: Protocol) -> str:
    """Return `train` or `test`. Cross-view trains on cameras 2 and 3, cross-setup on even setups."""
    match protocol:
        case "cross_subject":
            train = sample.performer in TRAIN_SUBJECTS
        case "cross_view":
            train = sample.camera != TEST_CAMERA
        case "cross_setup":
            train = sample.setup % 2 == 0
    return "train" if train else "test"
