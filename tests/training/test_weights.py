"""Tests of initial weights and frozen parts."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from kinema.cli import main
from kinema.data.manifest import class_lists, write_manifest
from kinema.errors import StartError
from kinema.inference.trained_model import load_model, save_model
from kinema.models.mfst import MFST, MFSTConfig
from kinema.models.pretrained.i3d import I3D_KERNELS
from kinema.training.loop import train
from kinema.training.messages import load_messages
from kinema.training.recipe import Checkpoint, Init, Recipe
from kinema.training.recipe_json import recipe_to_json
from kinema.training.runs import Run
from kinema.training.weights import freeze, frozen_modules, load_weights

CLASSES = {"label": ("dim", "gray", "bright")}


@pytest.fixture
def other(tiny_ctn):
    torch.manual_seed(5)
    model = tiny_ctn()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    return model


def test_a_model_of_the_same_classes_is_loaded_completely(tmp_path, tiny_ctn, other, make_trained_model):
    save_model(tmp_path, make_trained_model(other))
    model = tiny_ctn()
    report = load_weights(model, tmp_path, classes=CLASSES)
    assert set(report.loaded_keys) == set(model.state_dict())
    assert not report.reset_keys
    assert not report.missing_keys
    assert not report.unexpected_keys
    for name, weight in other.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight)


@pytest.mark.parametrize(
    "classes", [("a", "b", "c"), ("gray", "dim", "bright"), ("a", "b")], ids=["others", "another order", "fewer"]
)
def test_a_head_for_other_classes_is_reset_even_if_shapes_match(tmp_path, tiny_ctn, other, make_trained_model, classes):
    save_model(tmp_path, make_trained_model(other))
    model = tiny_ctn(num_classes=len(classes))
    fresh = {name: weight.clone() for name, weight in model.state_dict().items()}
    report = load_weights(model, tmp_path, classes={"label": classes})
    assert set(report.reset_keys) == {name for name in fresh if name.startswith("heads.")}
    for name in report.reset_keys:
        assert torch.equal(model.state_dict()[name], fresh[name])
    assert set(report.loaded_keys) == set(fresh) - set(report.reset_keys)
    assert any("reset: heads" in line for line in load_messages(report))


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_file_of_weights_is_loaded_by_names(tmp_path, tiny_ctn, other, suffix, wrapped):
    path = tmp_path / f"weights.{suffix}"
    if suffix == "safetensors":
        save_file(other.state_dict(), path)
    else:
        torch.save({"state_dict": other.state_dict()} if wrapped else other.state_dict(), path)
    model = tiny_ctn()
    assert len(load_weights(model, path, classes=CLASSES).loaded_keys) == len(model.state_dict())


def test_missing_and_unexpected_weights_are_refused_or_reported(tmp_path, tiny_ctn, other, raises):
    weights = other.state_dict()
    gone = "blocks.0.mlp.expand.weight"
    changed = {name: weight for name, weight in weights.items() if name != gone} | {"extra": torch.zeros(2)}
    save_file(changed, tmp_path / "w.safetensors")
    with raises(StartError, gone, "1 more", path="w.safetensors", field="init.unmatched"):
        load_weights(tiny_ctn(), tmp_path / "w.safetensors", classes=CLASSES)
    report = load_weights(tiny_ctn(), tmp_path / "w.safetensors", classes=CLASSES, unmatched="allow")
    assert report.missing_keys == (gone,)
    assert report.unexpected_keys == ("extra",)
    assert [line.strip() for line in load_messages(report)[-2:]] == [
        f"missing: {gone}",
        "unexpected: extra",
    ]


def test_weights_of_another_shape_are_missing_and_named_with_both_shapes(tmp_path, tiny_ctn, other):
    weights = other.state_dict() | {"norm.weight": torch.zeros(7)}
    save_file(weights, tmp_path / "w.safetensors")
    report = load_weights(tiny_ctn(), tmp_path / "w.safetensors", classes=CLASSES, unmatched="allow")
    assert report.missing_keys == ("norm.weight: [7] in the file, [24] in the network",)


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def test_code_in_weights_is_not_executed(tmp_path, tiny_ctn, monkeypatch, raises):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Evil()}, "evil.pt")
    with raises(StartError, "cannot be read", path="evil.pt"):
        load_weights(tiny_ctn(), "evil.pt", classes=CLASSES)
    assert not Path("executed").exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "not a run"), *((content, "cannot be read") for content in (b"no weights", b"text", b""))],
)
def test_files_without_weights_are_refused(tmp_path, tiny_ctn, content, reason, suffix, raises):
    path = tmp_path / f"w{suffix}"
    if content is not None:
        path.write_bytes(content)
    with raises(StartError, reason, path=path):
        load_weights(tiny_ctn(), path, classes=CLASSES)


@pytest.mark.parametrize("stored", [{"a": 1}, {1: torch.zeros(2)}, torch.zeros(2)])
def test_a_file_without_a_dict_of_tensors_is_refused(tmp_path, tiny_ctn, stored, raises):
    torch.save(stored, tmp_path / "w.pt")
    with raises(StartError, "dict of tensors", path="w.pt"):
        load_weights(tiny_ctn(), tmp_path / "w.pt", classes=CLASSES)


UNUSABLE = {
    "sparse": lambda weight: weight.to_sparse(),
    "sparse rows": lambda weight: weight.to_sparse_csr() if weight.ndim == 2 else weight,
    "meta": lambda weight: weight.to("meta"),
    "quantized": lambda weight: torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8),
    "complex": lambda weight: weight.to(torch.complex64),
    "not finite": lambda weight: weight * float("nan"),
    "memory": lambda weight: torch.zeros(1).expand(weight.shape) if weight.ndim else weight,
    "int64": lambda weight: weight.long(),
    "bool": lambda weight: weight.bool(),
}


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor|Sparse CSR|TypedStorage:UserWarning")
@pytest.mark.parametrize("kind", UNUSABLE)
def test_tensors_that_are_no_weights_are_refused(tmp_path, tiny_ctn, kind, raises):
    weights = tiny_ctn().state_dict()
    changed = {name: UNUSABLE[kind](w) if w.is_floating_point() else w for name, w in weights.items()}
    torch.save(changed, tmp_path / "weights.pt")
    with raises(StartError, kind.split()[0], path="weights.pt"):
        load_weights(tiny_ctn(), tmp_path / "weights.pt", classes=CLASSES)


def test_a_file_without_a_fitting_tensor_is_always_refused(tmp_path, tiny_ctn, raises):
    save_file({"other.weight": torch.zeros(3)}, tmp_path / "w.safetensors")
    with raises(StartError, "other.weight", path="w.safetensors"):
        load_weights(tiny_ctn(), tmp_path / "w.safetensors", classes=CLASSES, unmatched="allow")


# -- I3D's weights -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def i3d():
    """Return I3D tensors, each filled with its position in the file, with a random first kernel."""
    tensors = {}
    for unit, shape in I3D_KERNELS.items():
        for name, form in [("conv3d.weight", shape)] + [
            (f"bn.{number}", shape[:1]) for number in ("weight", "bias", "running_mean", "running_var")
        ]:
            tensors[f"{unit}.{name}"] = torch.full(form, 1.0 + len(tensors))
    torch.manual_seed(3)
    tensors["Conv3d_1a_7x7.conv3d.weight"] = torch.randn(64, 3, 7, 7, 7)
    return tensors | {"logits.conv3d.weight": torch.zeros(400, 1024, 1, 1, 1), "logits.conv3d.bias": torch.zeros(400)}


def mfst(stages=4, **changes):
    torch.manual_seed(4)
    small = {"layers": 1, "attention_heads": 1, "head_channels": 8, "mlp_channels": 8}
    return MFST(MFSTConfig(stages=stages, **(small | changes)), heads={"label": 3}, frames=8, size=32)


@pytest.mark.parametrize("form", ["pt", "pt of PyTorch 0.3", "wrapped pt of DataParallel", "safetensors"])
def test_mfst_loads_i3d_weights_and_reports_all_tensors(tmp_path, i3d, form):
    path = tmp_path / ("rgb_imagenet.safetensors" if form == "safetensors" else "rgb_imagenet.pt")
    match form:
        case "pt":
            torch.save(i3d, path)
        case "pt of PyTorch 0.3":
            torch.save(i3d, path, _use_new_zipfile_serialization=False)
        case "wrapped pt of DataParallel":
            torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in i3d.items()}}, path)
        case "safetensors":
            save_file(i3d, path)
    model = mfst(stem_kernel_frames=7)
    fresh = {name: weight.clone() for name, weight in model.state_dict().items()}
    report = load_weights(model, path, classes=CLASSES)
    own = model.state_dict()
    assert torch.equal(own["stem.first.convolution.weight"], i3d["Conv3d_1a_7x7.conv3d.weight"])
    variance = own["stages.0.space.inceptions.1.middle.norm.running_var"]
    assert torch.equal(variance, i3d["Mixed_3c.b1b.bn.running_var"])

    taken = [name for name in own if name.startswith("stem.") or ".inceptions." in name]
    anew = [name for name in taken if name.startswith(tuple(report.mismatched_keys))]
    assert report.loaded_keys == tuple(name for name in taken if name not in anew)
    assert report.extra_keys == tuple(name for name in own if name not in taken)
    for name in (*anew, *report.extra_keys):
        assert torch.equal(own[name], fresh[name])
    mismatched = [
        ("1", "single", "Mixed_4b.b0, Mixed_4b.b1a, Mixed_4b.b2a: [304, 480, 1, 1] in the file", "[304, 256, 1, 1]"),
        ("1", "pooled", "Mixed_4b.b3b: [64, 480, 1, 1] in the file", "[64, 256, 1, 1]"),
        ("2", "single", "Mixed_4d.b0, Mixed_4d.b1a, Mixed_4d.b2a: [280, 512, 1, 1] in the file", "[280, 256, 1, 1]"),
        ("2", "pooled", "Mixed_4d.b3b: [64, 512, 1, 1] in the file", "[64, 256, 1, 1]"),
        ("3", "single", "Mixed_5b.b0, Mixed_5b.b1a, Mixed_5b.b2a: [448, 832, 1, 1] in the file", "[448, 512, 1, 1]"),
        ("3", "pooled", "Mixed_5b.b3b: [128, 832, 1, 1] in the file", "[128, 512, 1, 1]"),
    ]
    assert load_messages(report) == [
        f"weights: {6 * (3 + 8 * 4 - 6)} tensors loaded from {path}",
        *(
            f"  shape mismatch: stages.{stage}.space.inceptions.0.{ours} ({theirs}, {shape} in the network)"
            for stage, ours, theirs, shape in mismatched
        ),
        f"  not part of I3D: {len(own) - 6 * (3 + 8 * 4)} tensors (stages.*.space.map_norm, "
        "stages.*.space.map, stages.*.space.layers, stages.*.time, stages.*.shortcut, norm, heads)",
        "  unexpected: Mixed_4f: no counterpart in MFST",
        "  unexpected: logits: task heads are reinitialized",
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"Mixed_3b.b2b.bn.running_var": None}, "Mixed_3b.b2b.bn.running_var"),
        ({"Mixed_3b.b9.bn.running_var": torch.zeros(3)}, "Mixed_3b.b9.bn.running_var"),
    ],
    ids=["missing", "unknown"],
)
def test_incomplete_i3d_weights_are_refused(tmp_path, i3d, change, reason, raises):
    tensors = {name: tensor for name, tensor in (i3d | change).items() if tensor is not None}
    save_file(tensors, tmp_path / "w.safetensors")
    model = mfst(1)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    with raises(StartError, reason, path="w.safetensors"):
        load_weights(model, tmp_path / "w.safetensors", classes=CLASSES, unmatched="allow")
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_only_mfst_loads_i3d_weights(tmp_path, tiny_ctn, i3d, raises):
    save_file(i3d, tmp_path / "w.safetensors")
    with raises(StartError, "I3D", "CTN", path="w.safetensors"):
        load_weights(tiny_ctn(), tmp_path / "w.safetensors", classes=CLASSES, unmatched="allow")


def test_mfst_of_other_widths_cannot_load_i3d_weights(tmp_path, i3d, raises):
    save_file(i3d, tmp_path / "w.safetensors")
    with raises(StartError, "stem.first", "Conv3d_1a_7x7", "[64, 3, 3, 7, 7]", "[32, 3", path="w.safetensors"):
        load_weights(mfst(1, channel_divisor=2, widths=(120, 1, 1, 1)), tmp_path / "w.safetensors", classes=CLASSES)


def test_an_own_i3d_network_loads_weights_by_name(tmp_path):
    model = torch.nn.ModuleDict(
        {"Conv3d_2b_1x1": torch.nn.ModuleDict({"conv3d": torch.nn.Conv3d(2, 2, 1, bias=False)})}
    )
    stored = {"Conv3d_2b_1x1.conv3d.weight": torch.randn(2, 2, 1, 1, 1)}
    save_file(stored, tmp_path / "w.safetensors")
    assert load_weights(model, tmp_path / "w.safetensors", classes={}).loaded_keys == tuple(stored)
    assert torch.equal(model.state_dict()["Conv3d_2b_1x1.conv3d.weight"], stored["Conv3d_2b_1x1.conv3d.weight"])


def test_an_mfst_still_loads_its_own_weights(tmp_path):
    save_file(mfst(1).state_dict(), tmp_path / "w.safetensors")
    model = mfst(1)
    report = load_weights(model, tmp_path / "w.safetensors", classes=CLASSES)
    assert report.loaded_keys == tuple(model.state_dict())
    assert len(load_messages(report)) == 1


def test_code_in_i3d_weights_is_not_executed(tmp_path, i3d, monkeypatch, raises):
    monkeypatch.chdir(tmp_path)
    torch.save(i3d | {"logits.conv3d.bias": Evil()}, "evil.pt")
    with raises(StartError, "cannot be read", path="evil.pt"):
        load_weights(mfst(1), "evil.pt", classes=CLASSES)
    assert not Path("executed").exists()


@pytest.mark.parametrize("options", [{"blocks": (0, 1)}, {"ignore": ("dist_token",)}])
def test_blocks_and_ignored_tensors_are_refused_with_other_weights(tmp_path, tiny_ctn, other, i3d, options, raises):
    name, value = next(iter(options.items()))
    for model, tensors in ((tiny_ctn(), other.state_dict()), (mfst(1), i3d)):
        save_file(tensors, tmp_path / "w.safetensors")
        with raises(StartError, str(value), path="w.safetensors", field=f"init.{name}"):
            load_weights(model, tmp_path / "w.safetensors", classes=CLASSES, unmatched="allow", **options)


# -- frozen parts -----------------------------------------------------------------------------------


def test_a_frozen_backbone_leaves_only_the_heads_trainable(tiny_ctn):
    model = tiny_ctn()
    freeze(model, ["backbone"])
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning == {name for name, _ in model.named_parameters() if name.startswith("heads.")}
    still = frozen_modules(model)
    assert model.blocks in still
    assert model.heads not in still
    assert model not in still


def test_norms_without_parameters_freeze_with_their_part():
    model = nn.ModuleDict({"norm": nn.BatchNorm1d(4, affine=False), "map": nn.Linear(4, 4), "heads": nn.Linear(4, 2)})
    freeze(model, ["backbone"])
    assert frozen_modules(model, ["backbone"]) == [model["norm"], model["map"]]
    assert frozen_modules(model, ["map"]) == [model["map"]]


def test_parts_are_frozen_by_whole_names(tiny_ctn):
    model = tiny_ctn()
    names = freeze(model, ["embedding", "blocks.0"])
    assert {name.split(".")[0] for name in names} == {"embedding", "blocks"}
    assert all(name.startswith(("embedding.", "blocks.0.")) for name in names)


@pytest.mark.parametrize(
    ("parts", "reason"),
    [(["blocs"], "backbone, embedding"), (["backbone", "heads"], "no trainable parameter")],
)
def test_unknown_parts_and_fully_frozen_networks_are_refused(tiny_ctn, parts, reason, raises):
    with raises(StartError, parts[0], reason, field="init.freeze"):
        freeze(tiny_ctn(), parts)


def test_a_linear_probe_changes_only_the_heads(tiny_recipe: Recipe, tmp_path: Path) -> None:
    first = train(tiny_recipe, max_steps=3)
    recipe = replace(
        tiny_recipe,
        init=Init(weights=str(first.path), freeze=("backbone",)),
        checkpoint=Checkpoint(keep="last"),
        run=replace(tiny_recipe.run, out=tmp_path / "probe"),
    )
    probe = train(recipe, max_steps=3)
    one, other = (load_model(run.path).model.state_dict() for run in (first, probe))
    moved = {name for name in one if not torch.equal(one[name], other[name])}
    assert moved
    assert all(name.startswith("heads.") for name in moved)


def test_the_digest_of_the_initial_weights_is_shipped(tiny_recipe: Recipe, tmp_path: Path, messages) -> None:
    first = train(tiny_recipe, max_steps=2)
    settings = replace(tiny_recipe.run, out=tmp_path / "second")
    second = train(replace(tiny_recipe, init=Init(weights=str(first.path)), run=settings), max_steps=1)
    provenance = json.loads((second.model / "model.json").read_text())["provenance"]
    assert provenance["init_digest"] == load_model(first.path).digest
    assert any("tensors loaded" in message for message in messages())


# -- on the command line -------------------------------------------------------------------------------------------


@pytest.fixture
def recipe_file(tiny_recipe: Recipe, tmp_path: Path):
    """Return a function that writes a recipe file with its own run folder."""

    def write(name: str, *, seed: int = 0, init: Init | None = None) -> str:
        run = replace(tiny_recipe.run, out=tmp_path / name, seed=seed)
        recipe = replace(tiny_recipe, init=init or Init(), run=run)
        (tmp_path / f"{name}.json").write_text(recipe_to_json(recipe))
        path = tmp_path / f"{name}.py"
        path.write_text(
            "from pathlib import Path\n"
            "from kinema.training.recipe_json import recipe_from_json\n"
            'RECIPE = recipe_from_json(Path(__file__).with_suffix(".json").read_text())\n'
        )
        return str(path)

    return write


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return load_model(run).model.state_dict()


def test_the_command_loads_a_run_with_other_classes_and_reports_it(
    tiny_recipe: Recipe, recipe_file, few_moves, tmp_path: Path, capsys
) -> None:
    first = train(tiny_recipe, max_steps=2)
    renamed = [
        replace(
            entry,
            rgb=few_moves.locate(entry.rgb),
            depth="",
            labels={"label": {"kick": "kick", "run": "go", "walk": "go"}[entry.labels["label"]]},
        )
        for entry in few_moves.entries
    ]
    write_manifest(
        tmp_path / "go.csv", entries=renamed, classes=class_lists(renamed), dataset="go", version="1", depth=None
    )
    args = ["--data.manifest", str(tmp_path / "go.csv"), "--init", str(first.path), "--max-steps", "1"]
    main(["train", recipe_file("second", seed=9), *args])
    answer = capsys.readouterr()
    stderr = answer.err.splitlines()
    names = list(weights_of(first.path))
    heads = [name for name in names if name.startswith("heads.")]
    assert f"weights: {len(names) - len(heads)} tensors loaded from {first.path}" in stderr
    for name in heads:
        assert f"  reset: {name} (other classes: 3 in the file, 2 in the network)" in stderr
    assert answer.out == f"model: {tmp_path / 'second' / 'model'}\n"
    assert Run.open(tmp_path / "second").recipe.init.weights == str(first.path)


def test_the_command_reports_missing_and_unexpected_weights(
    tiny_recipe: Recipe, recipe_file, tmp_path: Path, capsys
) -> None:
    first = train(tiny_recipe, max_steps=1)
    weights = weights_of(first.path)
    gone = "blocks.0.mlp.expand.weight"
    save_file(
        {name: w for name, w in weights.items() if name != gone} | {"extra": torch.zeros(2)}, tmp_path / "w.safetensors"
    )
    args = ["--init", str(tmp_path / "w.safetensors"), "--max-steps", "1"]
    with pytest.raises(SystemExit) as stop:
        main(["train", recipe_file("refused"), *args])
    assert stop.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("kinema: ")]
    assert f"w.safetensors: missing {gone} (and 1 more)" in line
    assert not (tmp_path / "refused").exists()

    main(["train", recipe_file("allowed"), *args, "--init.unmatched", "allow"])
    stderr = capsys.readouterr().err.splitlines()
    assert f"weights: {len(weights) - 1} tensors loaded from {tmp_path / 'w.safetensors'}" in stderr
    assert f"  missing: {gone}" in stderr
    assert "  unexpected: extra" in stderr


@pytest.mark.long
def test_training_starts_from_the_loaded_weights(tiny_recipe: Recipe, recipe_file, tmp_path: Path) -> None:
    """With a tiny learning rate, the first step does not change the weights."""
    first = train(tiny_recipe, max_steps=2)
    small = ["--optim.lr", "1e-12", "--run.seed", "5", "--max-steps", "1"]
    main(["train", recipe_file("second"), "--init", str(first.path), *small])
    main(["train", recipe_file("fresh"), *small])
    report, fresh = weights_of(tmp_path / "second"), weights_of(tmp_path / "fresh")
    for name, weight in weights_of(first.path).items():
        if weight.is_floating_point() and "running" not in name:
            torch.testing.assert_close(report[name], weight, rtol=0, atol=1e-6)
    assert any((fresh[name] - report[name]).abs().max() > 0.01 for name in fresh if name.endswith("weight"))


def test_frozen_parts_do_not_change_and_are_reported(tiny_recipe: Recipe, recipe_file, tmp_path: Path, capsys) -> None:
    first = train(tiny_recipe, max_steps=2)
    capsys.readouterr()
    main(
        [
            "train",
            recipe_file("second", init=Init(weights=str(first.path), freeze=("embedding", "blocks.0"))),
            "--max-steps",
            "2",
        ]
    )
    before, after = weights_of(first.path), weights_of(tmp_path / "second")
    still = {name for name, weight in before.items() if torch.equal(after[name], weight)}
    assert still == {name for name in before if name.startswith(("embedding.", "blocks.0."))}
    stderr = capsys.readouterr().err
    network = load_model(first.path).model
    frozen = [name for name, _ in network.named_parameters() if name.startswith(("embedding.", "blocks.0."))]
    assert f"frozen: {len(frozen)} of {len(list(network.parameters()))} parameter tensors" in stderr
    assert " trainable), " in stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--init", "nowhere.safetensors"], "nowhere.safetensors: not a run"),
        (["--init.freeze", "blocs"], "init.freeze: no part 'blocs'; expected backbone, embedding"),
        (["--init.freeze", "backbone", "heads"], "init.freeze: backbone, heads "),
    ],
)
def test_unusable_initial_weights_end_the_command_with_one_line(
    recipe_file, tmp_path: Path, capsys, args: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", recipe_file("refused"), *args])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"kinema: {message}")
    assert not (tmp_path / "refused").exists()


# -- resuming --------------------------------------------------------------------------------------------------


def test_a_run_resumes_without_its_initial_weights(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train(tiny_recipe, max_steps=2)
    digest = load_model(first.path).digest
    monkeypatch.chdir(tmp_path)
    recipe = replace(tiny_recipe, init=Init(weights="run"), checkpoint=Checkpoint(keep="last"))
    second = train(replace(recipe, run=replace(recipe.run, out=tmp_path / "second")), max_steps=1)
    assert second.recipe.init.weights == str(first.path)  # an absolute path
    shutil.rmtree(first.path)
    monkeypatch.chdir("/")
    train(second.recipe, Run.open(second.path), max_steps=2)
    provenance = json.loads((second.model / "model.json").read_text())["provenance"]
    assert (provenance["step"], provenance["init_digest"]) == (2, digest)


def test_a_run_of_the_first_version_resumes(tiny_recipe: Recipe, tmp_path: Path) -> None:
    """The checkpoint has one parameter group, all decayed, and lacks later fields."""
    optim = replace(tiny_recipe.optim, decay="all", weight_decay=0.1, optimizer="adamw")
    whole = train(replace(tiny_recipe, optim=optim))
    run = train(replace(tiny_recipe, optim=optim, run=replace(tiny_recipe.run, out=tmp_path / "old")), max_steps=5)
    path = run.path / "checkpoints" / "last.pt"
    state = torch.load(path, weights_only=True)
    state = {key: state[key] for key in ("step", "best", "manifest_digest", "model", "optimizer")}
    for group in state["optimizer"]["param_groups"]:
        del group["lr_scale"]
    torch.save(state, path)
    recipe = json.loads((run.path / "recipe.json").read_text())
    for name in ("layer_decay", "grad_accum_steps", "ema_decay"):
        del recipe["optim"][name]
    (run.path / "recipe.json").write_text(json.dumps(recipe))
    again = train(Run.open(run.path).recipe, Run.open(run.path))
    assert [line["loss"] for line in again.steps()] == [line["loss"] for line in whole.steps()]
