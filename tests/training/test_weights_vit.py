"""Tests of initial weights from ViT files, folders and the Hugging Face Hub."""

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
    RevisionNotFoundError,
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
from kinema.training.messages import load_messages
from kinema.training.recipe import Checkpoint, Init, Recipe
from kinema.training.recipe_json import recipe_from_json, recipe_to_json
from kinema.training.runs import Run
from kinema.training.weights import load_weights

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
    """Return a small ViT of transformers."""
    torch.manual_seed(0)
    size = {"hidden_size": WIDTH, "num_hidden_layers": BLOCKS, "num_attention_heads": 3, "intermediate_size": 48}
    return ViTModel(ViTConfig(**size, image_size=32, patch_size=8)).eval()


@pytest.fixture(scope="module")
def timm():
    """Return tensors of a small ViT with the names of timm."""
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
def test_rpe_stdt_loads_a_vit_file_and_reports_all_tensors(tmp_path, timm, form):
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
    report = load_weights(model, path, classes=CLASSES)
    own = model.state_dict()
    assert torch.equal(own["spatial_blocks.1.attention.mapping.weight"], timm["blocks.1.attn.qkv.weight"])
    assert torch.equal(own["spatial_norm.weight"], timm["norm.weight"])
    assert {*report.loaded_keys, *report.reset_keys, *report.extra_keys} == set(own)
    assert len(report.loaded_keys) + len(report.reset_keys) + len(report.extra_keys) == len(own)
    for name in (*report.reset_keys, *report.extra_keys):
        assert torch.equal(own[name], fresh[name])
    assert report.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    module = "module." if form.startswith("wrapped") else ""
    assert load_messages(report) == [
        f"weights: {2 * 12 + 5} tensors loaded from {path}",
        "  spatial_blocks.0 to 1: blocks 0, 1 of the file",
        *(f"  reset: {name} (not in ViT weights)" for name in HEADS),
        f"  not part of ViT: {len(own) - 2 * 12 - 5 - 2} tensors (spatial_blocks.*.attention.position, "
        "temporal_class_token, temporal_blocks, norm)",
        f"  unexpected: {module}head.bias: task heads are reinitialized",
        f"  unexpected: {module}head.weight: task heads are reinitialized",
        "  unexpected: pos_embed: the network has relative position",
        "  unexpected: blocks.2: the network loads other blocks",
    ]


def test_chosen_blocks_and_interpolated_positions_are_reported(tmp_path, timm):
    save_file(timm | {"dist_token": torch.zeros(1, 1, WIDTH)}, tmp_path / "w.safetensors")
    model = rpe_stdt(position="absolute", size=48)
    report = load_weights(model, tmp_path / "w.safetensors", classes=CLASSES, blocks=(1, 0, 1), ignore=["dist_"])
    assert torch.equal(model.state_dict()["temporal_blocks.0.mlp.expand.bias"], timm["blocks.1.mlp.fc1.bias"])
    assert load_messages(report)[1:4] == [
        "  spatial_position.table: positions, interpolated from 4 x 4 to 6 x 6",
        "  spatial_blocks.0 to 1: blocks 1, 0 of the file",
        "  temporal_blocks.0: block 1 of the file",
    ]
    assert load_messages(report)[6].endswith(
        "tensors (temporal_class_token, temporal_position, temporal_blocks.*, norm)"
    )
    assert "  unexpected: dist_token: ignored by init.ignore" in load_messages(report)


def test_a_network_that_loads_all_tensors_resets_only_its_heads(tmp_path, timm):
    save_file(timm, tmp_path / "w.safetensors")
    report = load_weights(frame_by_frame(), tmp_path / "w.safetensors", classes=CLASSES)
    assert not report.extra_keys
    assert [line for line in load_messages(report) if "reset: " in line] == [
        f"  reset: {name} (not in ViT weights)" for name in HEADS
    ]


# -- folders -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("largest", ["50GB", "20KB"], ids=["one file", "several files"])
def test_a_folder_written_by_transformers_is_loaded(tmp_path, vit, largest):
    vit.save_pretrained(tmp_path, max_shard_size=largest)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert (len(files) > 1) == (largest == "20KB")
    model = frame_by_frame()
    report = load_weights(model, tmp_path, classes=CLASSES)
    assert report.source == str(tmp_path)
    assert report.digest == hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    own, theirs = model.state_dict(), vit.state_dict()
    assert torch.equal(own["position.table"], theirs["embeddings.position_embeddings"][0])
    for part, letter in enumerate("qkv"):
        rows = own["blocks.2.attention.mapping.weight"][part * WIDTH : (part + 1) * WIDTH]
        assert torch.equal(rows, theirs[f"layers.2.attention.{letter}_proj.weight"])


@pytest.mark.parametrize(
    ("listed", "reason"),
    [
        ("no list", "cannot be read"),
        ('{"weight_map": ["norm.weight"]}', "cannot be read as weights"),
        ('{"weight_map": {"norm.weight": "../elsewhere.safetensors"}}', "No such file"),
        ('{"weight_map": {}}', "not a run"),
    ],
)
def test_an_invalid_index_of_files_is_refused(tmp_path, timm, listed, reason, raises):
    """Only files inside the folder are read."""
    folder = tmp_path / "folder"
    folder.mkdir()
    save_file(timm, tmp_path / "elsewhere.safetensors")
    (folder / "model.safetensors.index.json").write_text(listed)
    with raises(StartError, reason, path="folder"):
        load_weights(rpe_stdt(), folder, classes=CLASSES)


def test_a_folder_without_weights_is_refused(tmp_path, raises):
    (tmp_path / "config.json").write_text("{}")
    with raises(StartError, "not a run", path=tmp_path):
        load_weights(rpe_stdt(), tmp_path, classes=CLASSES)


# -- the hub -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("at", "revision"), [("", None), ("@v1.0", "v1.0")])
def test_a_model_of_the_hub_is_downloaded_by_its_name(tmp_path, timm, monkeypatch, at, revision):
    # There is no hub in a test: its download is replaced by one that has a small file ready.
    save_file(timm, tmp_path / "cached")
    requests = []

    def download(model, file, revision):
        requests.append((model, file, revision))
        (tmp_path / "cached").rename(tmp_path / file)
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    model = rpe_stdt()
    report = load_weights(model, f"hf:google/vit-base-patch16-224{at}", classes=CLASSES)
    assert requests == [("google/vit-base-patch16-224", "model.safetensors", revision)]
    assert load_messages(report)[0] == f"weights: 29 tensors loaded from hf:google/vit-base-patch16-224{at}"
    assert report.digest == hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    assert torch.equal(model.state_dict()["spatial_norm.bias"], timm["norm.bias"])


def failure(kind):
    """Return an error of the client of the Hub, without a server response."""
    error = kind.__new__(kind)
    Exception.__init__(error, "the hub's own args,\nover several lines")
    return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (failure(RepositoryNotFoundError), "no such public model"),
        (failure(EntryNotFoundError), "model.safetensors"),
        (failure(RevisionNotFoundError), "no revision 'v1'"),
        (failure(LocalEntryNotFoundError), "https://huggingface.co/owner/name/resolve/v1/model.safetensors"),
        (failure(HfHubHTTPError), "(the hub's own args, over several lines)"),
        (ConnectionError("down"), "(down)"),
        (ValueError("what name"), "(what name)"),
    ],
)
def test_errors_of_the_hub_are_reported_in_one_line(monkeypatch, error, reason, raises):
    # There is no hub in a test: its download is replaced by one that fails as the real one does.
    def download(*_, revision):
        assert revision == "v1"
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with raises(StartError, reason, path="hf:owner/name@v1"):
        load_weights(rpe_stdt(), "hf:owner/name@v1", classes=CLASSES)


@pytest.mark.parametrize("name", ["hf:", "hf:vit", "hf:owner/name/file", "hf:owner/na me"])
def test_invalid_names_of_the_hub_are_refused(name, raises):
    with raises(StartError, "hf:owner/name"):
        load_weights(rpe_stdt(), name, classes=CLASSES)


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "options", "reason"),
    [
        ({"blocks.1.mlp.fc1.weight": None}, {}, "blocks.1.mlp.fc1.weight"),
        ({"dist_token": torch.zeros(1)}, {}, "dist_token"),
        ({}, {"blocks": (0, 3)}, "block 3"),
        ({}, {"ignore": ("dist_token",)}, "dist_token"),
    ],
)
def test_refused_vit_weights_do_not_change_the_network(tmp_path, timm, change, options, reason, raises):
    """`unmatched="allow"` applies to files with the names of the network only."""
    tensors = {name: tensor for name, tensor in (timm | change).items() if tensor is not None}
    save_file(tensors, tmp_path / "w.safetensors")
    model = rpe_stdt()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    with raises(StartError, reason, path="w.safetensors"):
        load_weights(model, tmp_path / "w.safetensors", classes=CLASSES, unmatched="allow", **options)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_other_networks_cannot_load_vit_weights(tmp_path, timm, raises):
    save_file(timm, tmp_path / "w.safetensors")
    small = MFSTConfig(stages=1, layers=1, attention_heads=1, head_channels=8, mlp_channels=8)
    for model in (torch.nn.Linear(2, 3), MFST(small, heads={"label": 3}, frames=8, size=32)):
        with raises(StartError, "RPE-STDT", type(model).__name__, path="w.safetensors"):
            load_weights(model, tmp_path / "w.safetensors", classes=CLASSES, unmatched="allow")


def test_an_own_vit_network_loads_weights_by_name(tmp_path):
    model = torch.nn.ModuleDict({"patch_embed": torch.nn.ModuleDict({"proj": torch.nn.Conv2d(3, 2, 4)})})
    stored = {"patch_embed.proj.weight": torch.randn(2, 3, 4, 4), "patch_embed.proj.bias": torch.randn(2)}
    save_file(stored, tmp_path / "w.safetensors")
    assert set(load_weights(model, tmp_path / "w.safetensors", classes={}).loaded_keys) == set(stored)
    assert torch.equal(model.state_dict()["patch_embed.proj.weight"], stored["patch_embed.proj.weight"])


def test_rpe_stdt_still_loads_its_own_weights(tmp_path):
    save_file(rpe_stdt().state_dict(), tmp_path / "w.safetensors")
    model = rpe_stdt()
    report = load_weights(model, tmp_path / "w.safetensors", classes=CLASSES)
    assert report.loaded_keys == tuple(model.state_dict())
    assert len(load_messages(report)) == 1


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def test_code_in_vit_weights_is_not_executed(tmp_path, timm, monkeypatch, raises):
    monkeypatch.chdir(tmp_path)
    torch.save(timm | {"head.bias": Evil()}, "evil.pt")
    with raises(StartError, "cannot be read", path="evil.pt"):
        load_weights(rpe_stdt(), "evil.pt", classes=CLASSES)
    assert not Path("executed").exists()


# -- in a recipe -------------------------------------------------------------------------------------------------------


def test_blocks_and_ignored_tensors_survive_json(tiny_recipe: Recipe) -> None:
    recipe = replace(tiny_recipe, init=Init(weights="hf:owner/name", blocks=(0, 2, 2), ignore=("dist_token",)))
    back = recipe_from_json(recipe_to_json(recipe))
    assert back == recipe
    assert (back.init.blocks, back.init.ignore) == ((0, 2, 2), ("dist_token",))


@pytest.mark.parametrize("choice", [{"blocks": (0, 1)}, {"ignore": ("dist_token",)}])
def test_blocks_and_ignored_tensors_need_weights(tiny_recipe: Recipe, choice, raises) -> None:
    recipe = replace(tiny_recipe, init=Init(**choice))
    with raises(RecipeError, "init.weights", field=f"init.{next(iter(choice))}"):
        train(recipe, max_steps=1)
    assert not (tiny_recipe.run.out or Path()).exists()


def test_a_run_from_vit_weights_resumes_without_the_file_and_keeps_its_digest(
    tiny_recipe: Recipe, tmp_path: Path, timm, monkeypatch: pytest.MonkeyPatch, messages
) -> None:
    monkeypatch.chdir(tmp_path)
    save_file(timm | {"dist_token": torch.zeros(1)}, tmp_path / "vit.safetensors")
    digest = hashlib.sha256((tmp_path / "vit.safetensors").read_bytes()).hexdigest()
    recipe = replace(
        tiny_recipe,
        model=RPE_STDT,
        optim=replace(tiny_recipe.optim, lr=1e-12),  # the weights of the start are those of the end
        init=Init(weights="vit.safetensors", blocks=(2, 1), ignore=("dist_token",)),
        checkpoint=Checkpoint(keep="last"),
    )
    first = train(recipe, max_steps=1)
    assert "  spatial_blocks.0 to 1: blocks 2, 1 of the file" in messages()
    trained = load_model(first.path).model.state_dict()
    expected = timm["blocks.2.attn.qkv.weight"]
    torch.testing.assert_close(trained["spatial_blocks.0.attention.mapping.weight"], expected, rtol=0, atol=1e-6)
    assert first.recipe.init.weights == str(tmp_path / "vit.safetensors")

    (tmp_path / "vit.safetensors").unlink()
    monkeypatch.chdir("/")
    train(first.recipe, Run.open(first.path), max_steps=2)
    stderr = json.loads((first.model / "model.json").read_text())["provenance"]
    assert (stderr["step"], stderr["init_digest"]) == (2, digest)


def test_a_run_from_the_hub_resumes_without_it(
    tiny_recipe: Recipe, tmp_path: Path, timm, monkeypatch: pytest.MonkeyPatch
) -> None:
    # There is no hub in a test: its download is replaced, first by a small file, then by nothing.
    save_file(timm, tmp_path / "model.safetensors")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda _, file, **__: str(tmp_path / file))
    recipe = replace(tiny_recipe, model=RPE_STDT, init=replace(tiny_recipe.init, weights="hf:owner/name"))
    run = train(recipe, max_steps=1)
    assert run.recipe.init.weights == "hf:owner/name"
    monkeypatch.delattr(huggingface_hub, "hf_hub_download")
    train(run.recipe, Run.open(run.path), max_steps=2)
    assert [line["step"] for line in run.steps()] == [1, 2]


def test_the_command_line_chooses_blocks_and_ignored_tensors(tiny_recipe: Recipe, tmp_path: Path, timm, capsys) -> None:
    save_file(timm | {"dist_token": torch.zeros(1)}, tmp_path / "vit.safetensors")
    (tmp_path / "mine.json").write_text(recipe_to_json(replace(tiny_recipe, model=RPE_STDT)))
    (tmp_path / "mine.py").write_text(
        "from pathlib import Path\n"
        "from kinema.training.recipe_json import recipe_from_json\n"
        'RECIPE = recipe_from_json(Path(__file__).with_suffix(".json").read_text())\n'
    )
    args = ["--init", str(tmp_path / "vit.safetensors"), "--init.blocks", "2", "0", "2", "--max-steps", "1"]
    with pytest.raises(SystemExit) as stop:
        main(["train", str(tmp_path / "mine.py"), *args])
    assert stop.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("kinema: ")]
    assert "vit.safetensors: " in line
    assert "dist_token" in line
    main(["train", str(tmp_path / "mine.py"), *args, "--init.ignore", "dist_token"])
    stderr = capsys.readouterr().err.splitlines()
    assert "  spatial_blocks.0 to 1: blocks 2, 0 of the file" in stderr
    assert "  temporal_blocks.0: block 2 of the file" in stderr
    assert "  unexpected: dist_token: ignored by init.ignore" in stderr
