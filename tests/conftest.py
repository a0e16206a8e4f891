"""Fixtures of several rooms: real recordings, videos with known content, a small dataset, and tiny networks."""

import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from fractions import Fraction
from pathlib import Path

import av
import jaxtyping
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from kinema.data.manifest import Entry, write_manifest
from kinema.inference.trained_model import TrainedModel
from kinema.modality import DepthFacts
from kinema.models.registry import create_model
from kinema.transforms.preprocessing import Preprocessing
from kinema.transforms.sampling import Sampling

HEIGHT, WIDTH, BITS = 48, 64, 8
STATM = Path("/proc/self/statm")
LEVELS = {"dim": 40, "gray": 120, "bright": 200}


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Use one thread, for reproducible sums and undisturbed parallel workers."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def raises() -> Callable[..., AbstractContextManager[None]]:
    """Expect an error by type and attributes: `with raises(ManifestError, line=3, field="rgb_box"): ...`.

    The error must be of exactly this type, have these attributes, and contain all `words` in its message. `path` may be
    a file name alone.
    """

    @contextmanager
    def expect(kind: type[Exception], *words: object, **facts: object) -> Iterator[None]:
        with pytest.raises(kind) as caught:
            yield
        error = caught.value
        assert type(error) is kind
        for name, expected in facts.items():
            value = getattr(error, name)
            if name == "path" and value is not None and os.sep not in str(expected):
                value = Path(value).name
            assert value == (str(expected) if name == "path" else expected), f"{name} of {error!r}"
        for word in words:
            assert str(word) in str(error)

    return expect


@pytest.fixture
def alarm():
    """Return a function that raises TimeoutError after this many seconds, unless it is called again."""

    def ring(*_):
        raise TimeoutError("took too long")

    before = signal.signal(signal.SIGALRM, ring)
    yield signal.alarm
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def memory_limit():
    """Return a function that lets this process take no more than so many bytes, beyond those that it has."""
    if not STATM.exists():
        pytest.skip(f"{STATM}, which Linux has, is not here")
    before = resource.getrlimit(resource.RLIMIT_AS)

    def limit(size):
        own = int(STATM.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (own + size, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture(scope="session")
def real_data():
    """Return the folder of real recordings, which cannot be distributed with the tests."""
    folder = Path(os.environ.get("KINEMA_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real recordings in {folder}; set KINEMA_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def write_video():
    """Return a function that writes images as a video; H.264 with B-frames and a keyframe interval of 12 by default."""

    def write(path, pictures, *, codec="libx264", pixel_format="yuv420p", times=None, options=None, rate=25):
        chosen = {"g": "12", "bf": "3", "crf": "12", "preset": "veryfast", "sc_threshold": "0", "b_strategy": "0"}
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=rate, options=chosen if options is None else options)
            stream.height, stream.width, stream.pix_fmt = *pictures[0].shape[:2], pixel_format
            if times is not None:
                stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
            for number, picture in enumerate(pictures):
                form = "rgb24" if picture.ndim == 3 else "gray16le" if picture.dtype == np.uint16 else "gray"
                frame = av.VideoFrame.from_ndarray(picture, format=form)
                if times is not None:
                    frame.pts, frame.time_base = round(1000 * times[number]), Fraction(1, 1000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return str(path)

    return write


@pytest.fixture(scope="session")
def write_sound():
    """Return a function that writes a second of silence without video."""

    def write(path, *, codec):
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=16000, layout="mono")
            for _ in range(16):
                samples = np.zeros((1, 1000), np.int16)
                frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
                frame.sample_rate = 16000
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return str(path)

    return write


@pytest.fixture(scope="session")
def stamp():
    """Return a function that draws a number below 256 as eight black or white bars."""

    def picture(number):
        bits = [(number >> bit) & 1 for bit in range(BITS)]
        row = np.repeat(np.array(bits, np.uint8) * 255, WIDTH // BITS)
        return np.broadcast_to(row[None, :, None], (HEIGHT, WIDTH, 3)).copy()

    return picture


@pytest.fixture(scope="session")
def read_stamps():
    """Return a function that reads the numbers in stamped images."""

    def numbers(pictures):
        bars = np.asarray(pictures, np.float64).reshape(len(pictures), HEIGHT, BITS, WIDTH // BITS, 3).mean((1, 3, 4))
        return ((bars > 127) @ (1 << np.arange(BITS))).tolist()

    return numbers


@pytest.fixture(scope="session")
def numbered(tmp_path_factory, write_video, stamp):
    """Return a video of 200 frames stamped with their numbers."""
    folder = tmp_path_factory.mktemp("numbered")
    return write_video(folder / "numbered.mp4", [stamp(number) for number in range(200)])


@pytest.fixture(scope="session")
def depth_facts():
    return DepthFacts(unit_mm=1.0, near=500.0, far=4500.0, coverage="full")


@pytest.fixture(scope="session")
def data_set(tmp_path_factory, write_video, depth_facts):
    """Return six training and six test samples of RGB and 16-bit depth, whose class is their brightness.

    Sample i has 10 + i frames.
    """
    folder = tmp_path_factory.mktemp("data set")
    entries = []
    for i in range(12):
        label = list(LEVELS)[i % 3]
        generator = np.random.default_rng(i)
        noise = generator.integers(-25, 26, size=(10 + i, HEIGHT // 8, WIDTH // 8, 1)).repeat(8, 1).repeat(8, 2)
        color = np.clip(LEVELS[label] + noise, 0, 255).astype(np.uint8).repeat(3, 3)
        depth = (500 + 15 * (LEVELS[label] + noise[..., 0])).astype(np.uint16)
        write_video(folder / f"color {i}.mp4", color)
        write_video(folder / f"depth {i}.mkv", depth, codec="ffv1", pixel_format="gray16le", options={})
        entries.append(
            Entry(
                rgb=f"color {i}.mp4",
                depth=f"depth {i}.mkv",
                frames=10 + i,
                split="train" if i < 6 else "test",
                labels={"label": label},
            )
        )
    return write_manifest(
        folder / "manifest.csv",
        entries=entries,
        classes={"label": tuple(LEVELS)},
        dataset="levels",
        version="1",
        depth=depth_facts,
    )


@pytest.fixture
def tiny_ctn():
    """Return a function that creates a tiny CTN with nontrivial BatchNorm statistics."""

    def create(num_classes=3, **fields):
        torch.manual_seed(0)
        small = {"frames": 8, "size": 32, "width": 24, "depth": 1, "attention_heads": 3, "stem_channels": 4}
        model = create_model("ctn_tiny", num_classes=num_classes, **small, **fields)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
                module.running_mean.normal_(std=0.3)
                module.running_var.uniform_(0.5, 2)
        for parameter in model.heads.parameters():
            nn.init.normal_(parameter)
        return model

    return create


class Brightness(nn.Module):
    """User-defined network that predicts the class of the nearest gray level."""

    def __init__(self):
        super().__init__()
        self.levels = nn.Parameter(torch.tensor(list(LEVELS.values())) / 127.5 - 1)

    def forward(self, video):
        return -((video.mean((1, 2, 3, 4))[:, None] - self.levels) ** 2)


class ColorAndDepth(nn.Module):
    """User-defined network of two streams and two task heads."""

    def __init__(self):
        super().__init__()
        self.verb = nn.Linear(2, 3)
        self.noun = nn.Linear(2, 4)

    def forward(self, rgb, depth):
        features = torch.stack([rgb.mean((1, 2, 3, 4)), depth.mean((1, 2, 3, 4))], 1)
        return {"verb": self.verb(features), "noun": self.noun(features)}


@pytest.fixture
def brightness():
    return Brightness


@pytest.fixture
def color_and_depth():
    torch.manual_seed(0)
    return ColorAndDepth


@pytest.fixture
def make_trained_model():
    """Return a function that makes a trained model of a network; one without a config is user-defined."""

    def make(model, *, modalities=("rgb",), classes=None, depth=None, precision="float32"):
        config = getattr(model, "config", None)
        return TrainedModel(
            model=model,
            config=config,
            classes=classes or {"label": tuple(LEVELS)},
            sampling=Sampling(frames=8),
            preprocessing=Preprocessing(modalities=modalities, short_side=36, size=32, depth=depth),
            precision=precision,
            provenance={"recipe": "by hand"},
        )

    return make


# -- folders of videos, images and arrays -----------------------------------------------------------------------------


@pytest.fixture(scope="session")
def short(tmp_path_factory, write_video, stamp):
    """Return a video of nine frames."""
    return write_video(tmp_path_factory.mktemp("short") / "short.mp4", [stamp(n) for n in range(9)])


@pytest.fixture(scope="session")
def shorter(tmp_path_factory, write_video, stamp):
    """Return a video of seven frames."""
    return write_video(tmp_path_factory.mktemp("shorter") / "shorter.mp4", [stamp(n) for n in range(7)])


@pytest.fixture(scope="session")
def with_sound():
    """Return a function that joins a video and a sound in one file."""

    def join(path, video, sound):
        with av.open(video) as seen_in, av.open(sound) as heard_in, av.open(str(path), "w") as target:
            heard = target.add_stream_from_template(heard_in.streams.audio[0])
            seen = target.add_stream_from_template(seen_in.streams.video[0])
            for packet in (*seen_in.demux(video=0), *heard_in.demux(audio=0)):
                if packet.size:
                    packet.stream = heard if packet.stream.type == "audio" else seen
                    target.mux(packet)
        return str(path)

    return join


@pytest.fixture
def fill(short):
    """Return a function that copies the short video to these names."""

    def fill(root, *names):
        for name in names:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(short, path)
        return root

    return fill


@pytest.fixture
def fill_pictures():
    """Return a function that writes folders of small images: 8-bit RGB or 16-bit depth."""

    def fill(root, *names, count=3, kind="rgb", suffix=".png"):
        for name in names:
            (root / name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                color = np.full((6, 8, 3), 20 * number, np.uint8)
                picture = color if kind == "rgb" else np.full((6, 8), 500 + 300 * number, np.uint16)
                Image.fromarray(picture).save(root / name / f"{number}{suffix}")
        return root

    return fill


@pytest.fixture
def fill_arrays():
    """Return a function that writes npz files of five frames: RGB or depth."""

    def fill(root, *names, kind="depth"):
        shape = (5, 6, 8) if kind == "depth" else (5, 6, 8, 3)
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            np.savez(root / name, **{kind: np.full(shape, 100, np.uint16 if kind == "depth" else np.uint8)})
        return root

    return fill


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disable jaxtyping's checks, which torch.compile and torch.export cannot trace."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
