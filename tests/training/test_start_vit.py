"""A training starts from ViT's weights: of a file, a folder or the hub, and every tensor is accounted for."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from safetensors.torch import save_file
from transformers import ViTConfig, ViTModel

from kinema.cli import main
from kinema.errors import RecipeError, StartError
from kinema.inference.trained_model import load_model
from kinema.models.mfst import MFST, MFSTConfig
from kinema.models.rpe_stdt import RPESTDT, RPESTDTConfig
from kinema.models.vit_spatial import ViTSpatial, ViTSpatialConfig
from kinema.training.loop import train
from kinema.training.recipe import Recipe, RunSettings, recipe_from_json, recipe_to_json
from kinema.training.runs import Run
from kinema.training.start import start_from

CLASSES = {"label": ("kick", "run", "walk")}
WIDTH, BLOCKS = 24, 3
RPE_STDT = RPESTDTConfig(
    patch=8,
    width=WIDTH,
    spatial_layers=2,
    spatial_heads=3,
    spatial_mlp_channels=48,
    temporal_layers=2,
    temporal_heads=3,
    temporal_head_channels=8,
    temporal_mlp_channels=48,
    clusters=10,
    pool_layers=(1,),
)
HEADS = ("heads.classifiers.head_label.weight", "heads.classifiers.head_label.bias")


@pytest.fixture(scope="module")
def vit():
    """A small ViT of transformers."""
    torch.manual_seed(0)
    size = {"hidden_size": WIDTH, "num_hidden_layers": BLOCKS, "num_attention_heads": 3, "intermediate_size": 48}
    return ViTModel(ViTConfig(**size, image_size=32, patch_size=8)).eval()


@pytest.fixture(scope="module")
def timm():
    """A small ViT by timm's names."""
    torch.manual_seed(1)
    shapes = {"cls_token": (1, 1, WIDTH), "pos_embed": (1, 17, WIDTH)}
    layers = {"patch_embed.proj": (WIDTH, 3, 8, 8), "norm": (WIDTH,), "head": (10, WIDTH)}
    for block in range(BLOCKS):
        layers |= {f"blocks.{block}.norm1": (WIDTH,), f"blocks.{block}.norm2": (WIDTH,)}
        layers |= {f"blocks.{block}.attn.qkv": (3 * WIDTH, WIDTH), f"blocks.{block}.attn.proj": (WIDTH, WIDTH)}
        layers |= {f"blocks.{block}.mlp.fc1": (48, WIDTH), f"blocks.{block}.mlp.fc2": (WIDTH, 48)}
    for name, shape in layers.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return {name: 0.1 * torch.randn(shape) for name, shape in shapes.items()}


def rpe_stdt(*, size=32, **changes):
    torch.manual_seed(2)
    return RPESTDT(replace(RPE_STDT, **changes), heads={"label": 3}, frames=8, size=size)


def frame_by_frame(*, depth=BLOCKS):
    torch.manual_seed(2)
    config = ViTSpatialConfig(patch=8, width=WIDTH, depth=depth, attention_heads=3, mlp_ratio=2)
    return ViTSpatial(config, heads={"label": 3}, frames=1, size=32)


# -- what became of every tensor ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["safetensors", "pt", "wrapped pth of DataParallel"])
def test_rpe_stdt_starts_from_a_file_and_says_what_became_of_it(tmp_path, timm, form):
    match form:
        case "safetensors":
            path = tmp_path / "vit.safetensors"
            save_file(timm, path)
        case "pt":
            path = tmp_path / "vit.pt"
            torch.save(timm, path)
        case _:
            path = tmp_path / "vit.pth"
            torch.save({"model": {f"module.{name}": tensor for name, tensor in timm.items()}}, path)
    model = rpe_stdt()
    fresh = {name: weight.clone() for name, weight in model.state_dict().items()}
    started = start_from(model, path, classes=CLASSES)
    own = model.state_dict()
    assert torch.equal(own["spatial_blocks.1.attention.mapping.weight"], timm["blocks.1.attn.qkv.weight"])
    assert torch.equal(own["spatial_norm.weight"], timm["norm.weight"])
    assert {*started.loaded, *started.rebuilt, *started.beyond} == set(own)
    assert len(started.loaded) + len(started.rebuilt) + len(started.beyond) == len(own)
    for name in (*started.rebuilt, *started.beyond):
        assert torch.equal(own[name], fresh[name])
    assert started.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    module = "module." if form.startswith("wrapped") else ""
    assert started.lines() == [
        f"weights from {path}: {2 * 12 + 5} tensors loaded",
        "  spatial_blocks.0 to 1: blocks 0, 1 of the file",
        *(f"  starts anew: {name} (ViT's weights have none of these classes)" for name in HEADS),
        f"  not in ViT, start as they are: {len(own) - 2 * 12 - 5 - 2} tensors (spatial_blocks.*.attention.position, "
        "temporal_class_token, temporal_blocks, norm)",
        f"  left over in the file: {module}head.bias: the task heads start anew",
        f"  left over in the file: {module}head.weight: the task heads start anew",
        "  left over in the file: pos_embed: the network has relative position",
        "  left over in the file: blocks.2: the network takes other blocks",
    ]


def test_what_was_chosen_and_changed_is_said(tmp_path, timm):
    save_file(timm | {"dist_token": torch.zeros(1, 1, WIDTH)}, tmp_path / "w.safetensors")
    model = rpe_stdt(position="absolute", size=48)
    started = start_from(model, tmp_path / "w.safetensors", classes=CLASSES, blocks=(1, 0, 1), ignore=["dist_"])
    assert torch.equal(model.state_dict()["temporal_blocks.0.mlp.expand.bias"], timm["blocks.1.mlp.fc1.bias"])
    assert started.lines()[1:4] == [
        "  spatial_position.table: positions, interpolated from 4 x 4 to 6 x 6",
        "  spatial_blocks.0 to 1: blocks 1, 0 of the file",
        "  temporal_blocks.0: block 1 of the file",
    ]
    assert started.lines()[6].endswith("tensors (temporal_class_token, temporal_position, temporal_blocks.*, norm)")
    assert "  left over in the file: dist_token: run.init_ignore lets go of it" in started.lines()


def test_a_network_that_takes_all_says_that_only_its_heads_start_anew(tmp_path, timm):
    save_file(timm, tmp_path / "w.safetensors")
    started = start_from(frame_by_frame(), tmp_path / "w.safetensors", classes=CLASSES)
    assert not started.beyond
    assert [line for line in started.lines() if "anew" in line and "left over" not in line] == [
        f"  starts anew: {name} (ViT's weights have none of these classes)" for name in HEADS
    ]


# -- folders -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("largest", ["50GB", "20KB"], ids=["one file", "several files"])
def test_a_folder_that_transformers_wrote_is_a_source(tmp_path, vit, largest):
    vit.save_pretrained(tmp_path, max_shard_size=largest)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert (len(files) > 1) == (largest == "20KB")
    model = frame_by_frame()
    started = start_from(model, tmp_path, classes=CLASSES)
    assert started.source == str(tmp_path)
    assert started.digest == hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    own, theirs = model.state_dict(), vit.state_dict()
    assert torch.equal(own["position.table"], theirs["embeddings.position_embeddings"][0])
    for part, letter in enumerate("qkv"):
        rows = own["blocks.2.attention.mapping.weight"][part * WIDTH : (part + 1) * WIDTH]
        assert torch.equal(rows, theirs[f"layers.2.attention.{letter}_proj.weight"])


@pytest.mark.parametrize(
    ("listed", "reason"),
    [
        ("no list", "cannot be read as weights"),
        ('{"weight_map": ["norm.weight"]}', "cannot be read as weights"),
        ('{"weight_map": {"norm.weight": "../elsewhere.safetensors"}}', r"cannot be read as weights .*No such file"),
        ('{"weight_map": {}}', "neither a run, an artefact, nor a file of weights"),
    ],
)
def test_a_list_of_files_that_cannot_be_followed_is_refused(tmp_path, timm, listed, reason):
    """What it names lies beside it: nothing outside of the folder is read."""
    folder = tmp_path / "folder"
    folder.mkdir()
    save_file(timm, tmp_path / "elsewhere.safetensors")
    (folder / "model.safetensors.index.json").write_text(listed)
    with pytest.raises(StartError, match=rf"folder: {reason}"):
        start_from(rpe_stdt(), folder, classes=CLASSES)


def test_a_folder_without_weights_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(StartError, match="neither a run, an artefact, nor a file of weights"):
        start_from(rpe_stdt(), tmp_path, classes=CLASSES)


# -- the hub -----------------------------------------------------------------------------------------------------------


def test_a_model_of_the_hub_is_downloaded_by_its_name(tmp_path, timm, monkeypatch):
    # There is no hub in a test: its download is replaced by one that has a small file ready.
    save_file(timm, tmp_path / "cached")
    asked = []

    def download(model, file):
        asked.append((model, file))
        (tmp_path / "cached").rename(tmp_path / file)
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    model = rpe_stdt()
    started = start_from(model, "hf:google/vit-base-patch16-224", classes=CLASSES)
    assert asked == [("google/vit-base-patch16-224", "model.safetensors")]
    assert started.lines()[0] == "weights from hf:google/vit-base-patch16-224: 29 tensors loaded"
    assert started.digest == hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    assert torch.equal(model.state_dict()["spatial_norm.bias"], timm["norm.bias"])


def failure(kind):
    """An error as the hub's client raises it, without an answer of a server."""
    error = kind.__new__(kind)
    Exception.__init__(error, "the hub's own words,\nover several lines")
    return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (failure(RepositoryNotFoundError), "the hub has no such model, or it is not public"),
        (failure(EntryNotFoundError), r"the hub's model has no model\.safetensors"),
        (
            failure(LocalEntryNotFoundError),
            r"the hub cannot be reached, and model\.safetensors is not here from before",
        ),
        (failure(HfHubHTTPError), r"cannot be fetched from the hub \(the hub's own words, over several lines\)"),
        (ConnectionError("down"), r"cannot be fetched from the hub \(down\)"),
        (ValueError("what name"), r"cannot be fetched from the hub \(what name\)"),
    ],
)
def test_what_the_hub_cannot_give_is_said_in_one_sentence(monkeypatch, error, reason):
    # There is no hub in a test: its download is replaced by one that fails as the real one does.
    def download(*_):
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(StartError, match=rf"^hf:owner/name: {reason}$"):
        start_from(rpe_stdt(), "hf:owner/name", classes=CLASSES)


@pytest.mark.parametrize("name", ["hf:", "hf:vit", "hf:owner/name/file", "hf:owner/na me"])
def test_a_name_that_no_model_of_the_hub_can_have_is_refused(name):
    with pytest.raises(StartError, match=rf"^{name}: a model of the hub is named hf:owner/name$"):
        start_from(rpe_stdt(), name, classes=CLASSES)


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "options", "reason"),
    [
        ({"blocks.1.mlp.fc1.weight": None}, {}, r"blocks\.1\.mlp\.fc1\.weight is missing; without it"),
        ({"dist_token": torch.zeros(1)}, {}, r"1 name is not ViT's in timm's naming: dist_token"),
        ({}, {"blocks": (0, 3)}, r"there is no block 3: the file has 3, 0 to 2"),
        ({}, {"ignore": ("dist_token",)}, r"run\.init_ignore: none of the names .* begins with dist_token"),
    ],
)
def test_what_is_not_vit_whole_or_does_not_fit_leaves_the_network_alone(tmp_path, timm, change, options, reason):
    """Though unmatched weights are allowed: that is for files with the network's own names."""
    tensors = {name: tensor for name, tensor in (timm | change).items() if tensor is not None}
    save_file(tensors, tmp_path / "w.safetensors")
    model = rpe_stdt()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    with pytest.raises(StartError, match=rf"w\.safetensors: {reason}"):
        start_from(model, tmp_path / "w.safetensors", classes=CLASSES, unmatched="allow", **options)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_other_networks_cannot_start_from_vit(tmp_path, timm):
    save_file(timm, tmp_path / "w.safetensors")
    small = MFSTConfig(stages=1, layers=1, attention_heads=1, head_channels=8, mlp_channels=8)
    for model in (torch.nn.Linear(2, 3), MFST(small, heads={"label": 3}, frames=8, size=32)):
        said = rf"holds ViT's weights, which only RPE-STDT, .* can start from; the network is {type(model).__name__}$"
        with pytest.raises(StartError, match=said):
            start_from(model, tmp_path / "w.safetensors", classes=CLASSES, unmatched="allow")


def test_a_users_own_vit_takes_its_weights_by_their_names(tmp_path):
    model = torch.nn.ModuleDict({"patch_embed": torch.nn.ModuleDict({"proj": torch.nn.Conv2d(3, 2, 4)})})
    stored = {"patch_embed.proj.weight": torch.randn(2, 3, 4, 4), "patch_embed.proj.bias": torch.randn(2)}
    save_file(stored, tmp_path / "w.safetensors")
    assert set(start_from(model, tmp_path / "w.safetensors", classes={}).loaded) == set(stored)
    assert torch.equal(model.state_dict()["patch_embed.proj.weight"], stored["patch_embed.proj.weight"])


def test_rpe_stdt_starts_from_its_own_weights_as_before(tmp_path):
    save_file(rpe_stdt().state_dict(), tmp_path / "w.safetensors")
    model = rpe_stdt()
    started = start_from(model, tmp_path / "w.safetensors", classes=CLASSES)
    assert started.loaded == tuple(model.state_dict())
    assert len(started.lines()) == 1


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def test_nothing_of_what_says_that_it_is_vit_is_executed(tmp_path, timm, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(timm | {"head.bias": Evil()}, "evil.pt")
    with pytest.raises(StartError, match=r"evil\.pt: cannot be read as weights"):
        start_from(rpe_stdt(), "evil.pt", classes=CLASSES)
    assert not Path("executed").exists()


# -- in a recipe -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [("init_blocks", (0, -1), "must not be negative"), ("init_ignore", ("a", ""), "has an empty word")],
)
def test_choices_that_cannot_be_are_refused_when_the_recipe_is_built(name, value, reason):
    with pytest.raises(RecipeError) as refusal:
        RunSettings(**{name: value})
    assert str(refusal.value).startswith(f"run: {name}={value} {reason}")


def test_choices_come_back_from_json(tiny_recipe: Recipe) -> None:
    run = replace(tiny_recipe.run, init="hf:owner/name", init_blocks=(0, 2, 2), init_ignore=("dist_token",))
    recipe = replace(tiny_recipe, run=run)
    back = recipe_from_json(recipe_to_json(recipe))
    assert back == recipe
    assert (back.run.init_blocks, back.run.init_ignore) == ((0, 2, 2), ("dist_token",))
    old = json.loads(recipe_to_json(tiny_recipe))
    del old["run"]["init_blocks"], old["run"]["init_ignore"]
    assert recipe_from_json(json.dumps(old)) == tiny_recipe


@pytest.mark.parametrize("choice", [{"init_blocks": (0, 1)}, {"init_ignore": ("dist_token",)}])
def test_choices_without_weights_are_refused_before_a_folder_is_made(tiny_recipe: Recipe, choice) -> None:
    recipe = replace(tiny_recipe, run=replace(tiny_recipe.run, **choice))
    with pytest.raises(
        RecipeError, match=r"^run: init_blocks and init_ignore are for ViT's weights, but init names none$"
    ):
        train(recipe, max_steps=1)
    assert not (tiny_recipe.run.out or Path()).exists()


def test_a_run_from_vit_goes_on_without_the_file_and_says_whose_weights_they_were(
    tiny_recipe: Recipe, tmp_path: Path, timm, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    save_file(timm | {"dist_token": torch.zeros(1)}, tmp_path / "vit.safetensors")
    digest = hashlib.sha256((tmp_path / "vit.safetensors").read_bytes()).hexdigest()
    settings = replace(
        tiny_recipe.run, init="vit.safetensors", init_blocks=(2, 1), init_ignore=("dist_token",), keep="last"
    )
    small = replace(tiny_recipe.optim, lr=1e-12)  # the weights of the start are those of the end
    first = train(replace(tiny_recipe, model=RPE_STDT, run=settings, optim=small), max_steps=1)
    assert "  spatial_blocks.0 to 1: blocks 2, 1 of the file" in capsys.readouterr().err.splitlines()
    trained = load_model(first.path).model.state_dict()
    expected = timm["blocks.2.attn.qkv.weight"]
    torch.testing.assert_close(trained["spatial_blocks.0.attention.mapping.weight"], expected, rtol=0, atol=1e-6)
    assert first.recipe.run.init == str(tmp_path / "vit.safetensors")

    (tmp_path / "vit.safetensors").unlink()
    monkeypatch.chdir("/")
    train(first.recipe, Run.open(first.path), max_steps=2)
    said = json.loads((first.artefact / "artefact.json").read_text())["provenance"]
    assert (said["step"], said["init_digest"]) == (2, digest)


def test_a_run_from_the_hub_keeps_its_name_and_goes_on_without_it(
    tiny_recipe: Recipe, tmp_path: Path, timm, monkeypatch: pytest.MonkeyPatch
) -> None:
    # There is no hub in a test: its download is replaced, first by a small file, then by nothing.
    save_file(timm, tmp_path / "model.safetensors")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *asked: str(tmp_path / asked[1]))
    recipe = replace(tiny_recipe, model=RPE_STDT, run=replace(tiny_recipe.run, init="hf:owner/name"))
    run = train(recipe, max_steps=1)
    assert run.recipe.run.init == "hf:owner/name"
    monkeypatch.delattr(huggingface_hub, "hf_hub_download")
    train(run.recipe, Run.open(run.path), max_steps=2)
    assert [line["step"] for line in run.steps()] == [1, 2]


def test_the_command_line_chooses_blocks_and_lets_names_go(tiny_recipe: Recipe, tmp_path: Path, timm, capsys) -> None:
    save_file(timm | {"dist_token": torch.zeros(1)}, tmp_path / "vit.safetensors")
    (tmp_path / "mine.json").write_text(recipe_to_json(replace(tiny_recipe, model=RPE_STDT)))
    (tmp_path / "mine.py").write_text(
        "from pathlib import Path\n"
        "from kinema.training.recipe import recipe_from_json\n"
        'RECIPE = recipe_from_json(Path(__file__).with_suffix(".json").read_text())\n'
    )
    words = ["--init", str(tmp_path / "vit.safetensors"), "--run.init-blocks", "2", "0", "2", "--max-steps", "1"]
    with pytest.raises(SystemExit) as stop:
        main(["train", str(tmp_path / "mine.py"), *words])
    assert stop.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("kinema: ")]
    assert "vit.safetensors: 1 name is not ViT's in timm's naming: dist_token; " in line
    main(["train", str(tmp_path / "mine.py"), *words, "--run.init-ignore", "dist_token"])
    said = capsys.readouterr().err.splitlines()
    assert "  spatial_blocks.0 to 1: blocks 2, 0 of the file" in said
    assert "  temporal_blocks.0: block 2 of the file" in said
    assert "  left over in the file: dist_token: run.init_ignore lets go of it" in said
