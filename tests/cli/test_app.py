"""Tests of the command line: help, output, and one line on standard error for every kind of bad input."""

import json
import os
import subprocess
import sys
import wave
from pathlib import Path

import av
import numpy as np
import pytest

from kinema.cli.app import COMMANDS, load_command, main
from kinema.cli.help import HELP_FLAGS, options_of
from kinema.cli.train import COMMON
from kinema.data.manifest import load_manifest
from kinema.datasets.registry import list_datasets
from kinema.inference.trained_model import TrainedModel, save_model
from kinema.models.ctn import CTNConfig
from kinema.training.recipe import Clip, Data, Optim, Recipe, load_recipe


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model folder of an untrained network with three classes."""
    config = CTNConfig(stem_kernel=3, stem_channels=4, width=24, depth=1, attention_heads=3)
    recipe = Recipe(
        clip=Clip(frames=8, size=32, short_side=32), data=Data(), model=config, optim=Optim(lr=0.1, epochs=1)
    )
    folder = tmp_path_factory.mktemp("model")
    save_model(
        folder,
        TrainedModel(
            model=config.build(heads={"label": 3}, channels={"rgb": 3}, frames=8, size=32),
            config=config,
            classes={"label": ("kick", "run", "walk")},
            sampling=recipe.clip.frame_sampling(),
            preprocessing=recipe.clip.preprocessing(None),
            precision="float32",
        ),
    )
    return folder


def write_video(path: Path, frames: int) -> Path:
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "30"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(frames):
            picture = np.full((48, 64, 3), number * 20 % 256, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def refused(capsys: pytest.CaptureFixture[str], *args: str | Path) -> str:
    """Run a command, check that it exits with code 2 and prints one line on standard error, and return that line."""
    with pytest.raises(SystemExit) as stop:
        main([str(arg) for arg in args])
    assert stop.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("kinema: ")
    return lines[0]


def help_of(capsys: pytest.CaptureFixture[str], *args: str, flag: str = "--help") -> str:
    """Run a command with --help in a terminal of 100 columns, check that it exits with code 0, and return the page."""
    with pytest.raises(SystemExit) as stop:
        main([*args, flag])
    assert stop.value.code == 0
    page = capsys.readouterr().out
    assert max(len(line) for line in page.splitlines() if not line.startswith("    kinema ")) <= 100  # but commands
    return page


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    answer = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert f"  {name} " in answer
        assert command.summary in answer


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help_of_a_command_starts_with_its_summary_and_an_example(command: str, capsys) -> None:
    assert (load_command(command).__doc__ or "").splitlines()[0] == COMMANDS[command].summary
    page = help_of(capsys, command)
    assert page.splitlines()[0] == COMMANDS[command].summary
    assert f"\nUsage:   kinema {command} " in page
    assert f"\nExample: kinema {command} " in page
    for flag in HELP_FLAGS:
        assert help_of(capsys, command, flag=flag) == page


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - {"prepare"}))
def test_help_of_a_command_lists_and_describes_every_option(command: str, capsys) -> None:
    page = help_of(capsys, command)
    for option in options_of(load_command(command)):
        assert f"  {option.usage}" in page
        assert option.help


def test_help_shows_groups_choices_units_and_defaults(capsys) -> None:
    page = " ".join(help_of(capsys, "pack").split())
    assert "Encoding:" in page
    assert "--preset {ultrafast,veryfast,fast,medium,slow}" in page
    assert "[px]" in page
    assert "[default: veryfast]" in page
    assert "[required]" in page


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - {"prepare"}))
def test_the_example_of_a_command_can_be_parsed(command: str) -> None:
    kind = load_command(command)
    assert isinstance(kind.from_args(kind.EXAMPLE.split(), f"kinema {command}"), kind)


def test_help_of_a_dataset_lists_its_own_options_only(capsys) -> None:
    listed = help_of(capsys, "prepare")
    datasets = list_datasets()
    assert all(f"  {name} " in listed and dataset.summary in listed for name, dataset in datasets.items())
    shown = {name: help_of(capsys, "prepare", name) for name in datasets}
    for name, answer in shown.items():
        assert f"kinema prepare {name}" in answer
        assert "--root PATH" in answer
        assert "--out PATH" in answer
        assert ("--columns" in answer) == (name in ("csv", "json"))
        assert ("--rgb-crop" in answer) == (name in ("ntu60", "ntu120"))
        assert ("--depth-range" in answer) == ("--val-share" in answer) == (name in ("folder", "csv", "json"))
        assert ("--split" in answer) == (name in ("ucf101", "hmdb51", "ntu60", "ntu120"))
    assert "cross_view" in shown["ntu60"]
    assert "cross_view" not in shown["ntu120"]


@pytest.mark.parametrize("recipe", ["moves_ctn_tiny", "ntu60_mfst_large", "ucf101_rpe_stdt_base12"])
def test_the_options_of_a_recipe_fit_on_one_screen(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    page = help_of(capsys, "train", recipe)
    assert len(page.partition("Data:")[2].partition("Messages:")[0].splitlines()) <= 45
    for names in COMMON.values():
        assert all(f"  --{name} " in page for name in names)
    assert "--help-all" in page


def test_help_all_of_a_recipe_shows_every_field_with_the_value_of_the_recipe(capsys) -> None:
    recipe = load_recipe("moves_ctn_tiny")
    page = help_of(capsys, "train", "moves_ctn_tiny", flag="--help-all")
    for option in options_of(recipe):
        assert f"  {option.usage}" in page
    assert f"[default: {recipe.optim.lr}]" in page
    assert "--data.augmentation.flip" in page
    assert "--max-steps" in page


def test_models_prints_parameter_counts(capsys: pytest.CaptureFixture[str]) -> None:
    main(["models", "ctn_base", "--classes", "48"])
    assert "86,218,000" in capsys.readouterr().out


def test_sampling_prints_the_sampled_frames(capsys: pytest.CaptureFixture[str]) -> None:
    main(["sampling", "moves_cross_subject", "--index", "2", "--recipe", "moves_ctn_tiny", "--draws", "2"])
    head, evaluation, *draws = capsys.readouterr().out.splitlines()
    assert "line 4: rgb/backflip" in head
    assert "frames 0 to 31" in head
    assert evaluation == "evaluation: " + " ".join(str(2 * i) for i in range(16))
    for draw in draws:
        numbers = [int(arg) for arg in draw.split(":")[1].split()]
        assert all(2 * i <= number <= 2 * i + 1 for i, number in enumerate(numbers))
    assert len(draws) == 2


def test_sampling_refuses_an_index_out_of_range(capsys) -> None:
    assert "--index 360" in refused(capsys, "sampling", "moves_cross_subject", "--index", "360")


def test_predict_ranks_all_classes(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moves = load_manifest("moves_cross_subject")
    main(["predict", str(trained), moves.locate(moves.entries[0].rgb), "--format", "json"])
    (answer,) = json.loads(capsys.readouterr().out)
    ranked = answer["predictions"]["label"]
    assert {p["label"] for p in ranked} == {"kick", "run", "walk"}
    assert sum(p["score"] for p in ranked) == pytest.approx(1)


def test_own_videos_are_prepared_trained_evaluated_and_predicted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The three commands of the README, with a recipe small enough for a test."""
    moves = load_manifest("moves_cross_subject")
    for label in ("kick", "walk"):
        (tmp_path / "videos" / label).mkdir(parents=True)
        for entry in [e for e in moves.entries if e.labels["label"] == label][:5]:
            (tmp_path / "videos" / label / Path(entry.rgb).name).symlink_to(moves.locate(entry.rgb))
    monkeypatch.chdir(tmp_path)
    main(["prepare", "folder", "--root", "videos", "--out", "mine.csv"])
    assert "2 test, 6 train, 2 val; 2 classes" in capsys.readouterr().out

    (tmp_path / "small.py").write_text(
        "from kinema.models.ctn import CTNConfig\n"
        "from kinema.training.recipe import Clip, Data, Optim, Recipe\n"
        "RECIPE = Recipe(clip=Clip(frames=8, size=32, short_side=32), data=Data(workers=0, batch_size=4),\n"
        "    model=CTNConfig(stem_kernel=3, stem_channels=4, width=24, depth=1, attention_heads=3),\n"
        "    optim=Optim(lr=0.01, epochs=2.0))\n"
    )
    main(["train", "small.py", "--data.manifest", "mine.csv", "--optim.lr", "0.02", "--compute.device", "cpu"])
    assert json.loads(Path("runs/latest/recipe.json").read_text())["optim"]["lr"] == 0.02
    assert Path("runs/latest/steps.jsonl").read_text().count("\n") == 3
    caveat = "clips of one recording may be in both splits"
    answer = capsys.readouterr().err.splitlines()
    assert all(caveat in line for line in answer if "top1" in line)
    assert json.loads(Path("runs/latest/model/model.json").read_text())["provenance"]["caveat"].startswith(caveat)
    main(["runs", "runs"])
    assert caveat in capsys.readouterr().out

    main(["evaluate", "runs/latest", "--manifest", "mine.csv", "--workers", "0", "--json", "e.json"])
    answer = capsys.readouterr().out
    assert json.loads(Path("e.json").read_text())["caveat"].startswith(caveat)
    assert answer.count(caveat) == 2
    assert "2 samples of split 'test'" in answer
    assert "top1" in answer
    assert "coverage 100.00 %" in answer
    wrong = answer.split("most frequent confusions")
    assert ("top1 100.00" in answer) == (len(wrong) == 1)
    main(["predict", "runs/latest", str(tmp_path / "videos")])
    assert capsys.readouterr().out.count("videos/") == 10


@pytest.mark.long
def test_a_stopped_training_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small = "--data.workers 0 --model.width 24 --model.depth 1 --clip.size 32 --clip.short-side 32 --clip.frames 8"
    args = ["train", "moves_ctn_tiny", "--run.out", "run", "--optim.epochs", "2", *small.split()]
    main([*args, "--data.batch-size", "16", "--max-steps", "1"])
    main(["train", "--resume", "run", "--max-steps", "2"])
    assert Path("run/steps.jsonl").read_text().count("\n") == 2


# -- bad input -----------------------------------------------------------------------------------------------------


def test_an_unknown_command(capsys) -> None:
    assert "unknown command 'trian'; did you mean 'train'?" in refused(capsys, "trian")
    assert "expected one of check, demo" in refused(capsys, "xxxxxxxx")


@pytest.mark.parametrize(
    ("args", "option", "hint"),
    [
        ("predict m a.mp4 --topk 3", "'--topk'", "did you mean '--top-k'?"),
        ("predict m a.mp4 --top_k=x", "--top-k", "'x'"),
        ("predict m --format xml", "--format 'xml'", "text, json, jsonl, csv"),
        ("predict m --device", "--device", "{auto,cpu,cuda,mps}"),
        ("predict", "missing model", "`kinema predict --help`"),
        ("pack m.csv --out p --short-sid 32", "'--short-sid'", "did you mean '--short-side'?"),
        ("pack m.csv", "missing --short-side, --out", "`kinema pack --help`"),
        (
            "evaluate m --read-options.isolatio none",
            "'--read-options.isolatio'",
            "did you mean '--read-options.isolation'?",
        ),
        ("evaluate m --read-options.timeout-s -1", "timeout_s=-1.0", "above 0"),
        ("render foo --out x", "'foo'", "one of moves"),
        ("runs --compare a", "--compare 'a'", "TEXT TEXT"),
        ("train moves_ctn_tiny --run.seed true", "--run.seed 'true'", "INT"),
        ("train moves_ctn_tiny --clip.mean 2", "--clip.mean '2'", "FLOAT FLOAT FLOAT"),
        ("train moves_ctn_tiny --clip.crops 2", "--clip.crops '2'", "1, 3"),
        ("models ctn_tiny more", "unknown argument 'more'", "`kinema models --help`"),
        ("sampling moves_cross_subject --index x", "--index", "'x'"),
        ("prepare", "no dataset", "folder, csv"),
        ("prepare ucf102 --root a", "'ucf102'", "did you mean 'ucf101'?"),
        ("prepare ucf101 --root a", "missing --out", "`kinema prepare ucf101 --help`"),
    ],
)
def test_an_invalid_option_is_named_with_the_nearest_one_or_its_values(
    args: str, option: str, hint: str, capsys
) -> None:
    line = refused(capsys, *args.split())
    assert option in line
    assert hint in line


def test_an_invalid_option_gives_one_line_without_tyros_hook(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hook is not in tyro's public interface and may disappear."""
    monkeypatch.setitem(sys.modules, "tyro._errors", None)
    monkeypatch.delattr("tyro._errors")
    assert "`kinema predict --help`" in refused(capsys, "predict")
    assert "did you mean '--top-k'?" in refused(capsys, "predict", "m", "--topk", "3")


def test_a_missing_video(capsys, trained: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["predict", str(trained), "nowhere.mp4"])
    assert stop.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("kinema: nowhere.mp4: ")
    assert "1 of 1" in lines[1]


def test_a_text_file_named_mp4(capsys, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("this is not a video\n" * 100)
    with pytest.raises(SystemExit) as stop:
        main(["predict", str(trained), str(tmp_path / "text.mp4")])
    assert stop.value.code == 2
    assert "text.mp4: " in capsys.readouterr().err.splitlines()[0]


def test_an_audio_only_file(capsys, trained: Path, tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", "not compressed"))
        sound.writeframes(bytes(16000))
    with pytest.raises(SystemExit) as stop:
        main(["predict", str(trained), str(tmp_path / "sound.wav")])
    assert stop.value.code == 2
    assert "sound.wav: " in (line := capsys.readouterr().err.splitlines()[0])
    assert "video stream" in line


def test_a_clip_of_one_frame(capsys, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["predict", str(trained), str(write_video(tmp_path / "one.mp4", 1))])
    assert stop.value.code == 2
    assert "one.mp4: " in capsys.readouterr().err.splitlines()[0]


def test_a_clip_of_one_frame_in_a_manifest_is_named_with_its_line(capsys, trained: Path, tmp_path: Path) -> None:
    facts = {"corpus": "x", "version": "1", "classes": {"label": ["kick", "run", "walk"]}, "declared": {"test": 2}}
    (tmp_path / "m.json").write_text(json.dumps(facts))
    (tmp_path / "m.csv").write_text("rgb,frames,split,label\na.mp4,12,test,kick\nb.mp4,1,test,walk\n")
    write_video(tmp_path / "a.mp4", 12)
    write_video(tmp_path / "b.mp4", 1)
    args = ["evaluate", trained, "--manifest", tmp_path / "m.csv", "--out", tmp_path / "p", "--workers", "0"]
    assert "m.csv, line 3" in (line := refused(capsys, *args))
    assert "b.mp4" in line


def test_a_video_shorter_than_the_clip_is_predicted(capsys, trained: Path, tmp_path: Path) -> None:
    """The sampling rule repeats frames, which is no error."""
    main(["predict", str(trained), str(write_video(tmp_path / "two.mp4", 2)), "--top-k", "1"])
    assert "%" in capsys.readouterr().out


def test_a_manifest_is_written_to_a_csv_only(capsys, tmp_path: Path) -> None:
    """The JSON has the same stem: with `--out mine.json`, both files would overwrite each other."""
    (tmp_path / "mine.json").write_text("{}")
    for out in ("mine.json", "mine"):
        line = refused(capsys, "prepare", "folder", "--root", tmp_path, "--out", tmp_path / out)
        assert ".csv" in line
    assert (tmp_path / "mine.json").read_text() == "{}"


def test_own_depth_is_prepared_with_its_unit_and_range(capsys, tmp_path: Path) -> None:
    moves = load_manifest("moves_cross_subject")
    rows = [(moves.locate(e.depth), e.labels["label"]) for e in moves.entries if e.labels["label"] in ("kick", "walk")]
    (tmp_path / "t.csv").write_text("depth,label\n" + "".join(f"{path},{label}\n" for path, label in rows[::8]))
    args = ["prepare", "csv", "--root", tmp_path / "t.csv", "--out", tmp_path / "m.csv"]
    main(["--quiet", *(str(arg) for arg in args), "--depth-unit", "1", "--depth-range", "1300", "8300"])
    depth = load_manifest(tmp_path / "m.csv").depth
    assert depth is not None
    assert (depth.unit_mm, depth.near, depth.far, depth.coverage) == (1.0, 1300.0, 8300.0, "full")
    assert "near=5.0" in refused(capsys, *args, "--depth-range", "5", "2")
    assert "depth_unit" in refused(capsys, *args, "--depth-unit", "1")
    assert "depth_coverage" in refused(capsys, *args, "--depth-coverage", "masked")


def test_options_of_other_datasets_are_refused(capsys, tmp_path: Path) -> None:
    out = ("--root", tmp_path, "--out", tmp_path / "f.csv")
    for args, option in (
        (("folder", "--columns", "rgb=path"), "prepare folder: unknown option '--columns'"),
        (("csv", "--rgb", "{label}/{name}.mp4"), "prepare csv: unknown option '--rgb'"),
        (("json", "--depth", "{label}/{name}.mp4"), "prepare json: unknown option '--depth'"),
        (("jhmdb", "--val-share", "0.3"), "prepare jhmdb: unknown option '--val-share'"),
        (("isogd", "--depth-range", "1", "2"), "prepare isogd: unknown option '--depth-range'"),
        (("folder", "--ir", "{label}/{name}.mp4"), "unknown option '--ir'"),
        (("folder", "--test-share", "0.9"), "test_share=0.9"),
        (("folder", "--rgb", "{name}.mp4"), "{label}"),
        (("isogd", "--split", "1"), "prepare isogd: unknown option '--split'"),
        (("diving48", "--split", "1"), "prepare diving48: unknown option '--split'"),
        (("hmdb51", "--split", "cross_view"), "--split 'cross_view'; expected one of 1, 2, 3"),
        (("kinetics",), "kinetics"),
    ):
        assert option in refused(capsys, "prepare", *args[:1], *out, *args[1:])


def test_rgb_and_depth_are_paired_by_file_name(capsys, tmp_path: Path) -> None:
    """`rgb/kick_s1_c1_t0.mp4` with `depth/kick_s1_c1_t0.mkv`, as in the built-in dataset."""
    moves = load_manifest("moves_cross_subject")
    chosen = [e for e in moves.entries if e.labels["label"] in ("kick", "walk") and e.camera == "c1"]
    for entry in chosen:
        for source in (entry.rgb, entry.depth):
            (tmp_path / source).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / source).symlink_to(moves.locate(source))
    names = "{label}_s{subject}_c{camera}_t{take}"
    args = ["--rgb", f"rgb/{names}.mp4", "--depth", f"depth/{names}.mkv", "--keep-together", "subject"]
    out = tmp_path / "m.csv"
    facts = ["--depth-range", "1300", "8300", "--depth-unit", "1"]
    main(["prepare", "folder", "--root", str(tmp_path), "--out", str(out), *args, *facts])
    assert "; 2 classes" in capsys.readouterr().out
    found = {
        (Path(e.rgb).stem, Path(e.depth).stem, e.labels["label"], f"s{e.subject}") for e in load_manifest(out).entries
    }
    assert found == {(Path(e.rgb).stem, Path(e.depth).stem, e.labels["label"], e.subject) for e in chosen}


def test_a_json_table_with_several_labels_is_prepared(capsys, tmp_path: Path) -> None:
    moves = load_manifest("moves_cross_subject")
    rows = [
        {"path": moves.locate(e.rgb), "verb": e.labels["label"], "noun": e.camera}
        for e in moves.entries
        if e.labels["label"] in ("kick", "walk") and e.subject == "s1"
    ]
    (tmp_path / "t.json").write_text(json.dumps(rows))
    columns = "rgb=path,label.verb=verb,label.noun=noun"
    args = ["--root", tmp_path / "t.json", "--out", tmp_path / "m.csv", "--columns", columns, "--test-share", "0.3"]
    main([str(arg) for arg in ["prepare", "json", *args]])
    assert "2 of verb, 3 of noun" in capsys.readouterr().out
    assert set(load_manifest(tmp_path / "m.csv").declared) == {"train", "val", "test"}


def test_a_public_dataset_without_its_files_names_the_missing_one(capsys, tmp_path: Path) -> None:
    for name, message in (
        ("msr_action3d", "a01_s01_e01.npz"),
        ("jhmdb", "brush_hair"),
        ("isogd", "train_list.txt"),
        ("epic_kitchens", "EPIC_100_verb_classes.csv"),
        ("ntu60", "NTU RGB+D 60"),
        ("ntu120", "NTU RGB+D 120"),
        ("ucf101", "classInd.txt"),
        ("hmdb51", "brush_hair_test_split1.txt"),
        ("diving48", "Diving48_vocab.json"),
    ):
        assert message in refused(capsys, "prepare", name, "--root", tmp_path, "--out", tmp_path / "m.csv")


def test_a_submission_needs_a_predictions_file(capsys, tmp_path: Path) -> None:
    args = ["submit", "epic_kitchens", tmp_path / "gone", "--manifest", "m.csv", "--out", tmp_path / "s.json"]
    assert "missing --sls-pt" in refused(capsys, *args)
    assert "gone: " in refused(capsys, *args, "--sls-pt", "1")
    assert "--sls-pt" in refused(capsys, *args, "--sls-pt", "6")
    assert not (tmp_path / "s.json").exists()


def test_a_manifest_is_missing_empty_or_without_json(capsys, trained: Path, tmp_path: Path) -> None:
    assert "nowhere.csv: " in refused(capsys, "train", "moves_ctn_tiny", "--data.manifest", "nowhere.csv")
    (tmp_path / "empty.csv").write_text("")
    assert "empty.json" in refused(capsys, "evaluate", trained, "--manifest", tmp_path / "empty.csv")
    facts = {"corpus": "x", "version": "1", "classes": {"label": ["kick", "run", "walk"]}, "declared": {}}
    (tmp_path / "empty.json").write_text(json.dumps(facts))
    for content in ("", "rgb,label\n"):
        (tmp_path / "empty.csv").write_text(content)
        line = refused(capsys, "evaluate", trained, "--manifest", tmp_path / "empty.csv")
        assert "empty.csv: " in line


def test_a_label_outside_the_class_list(capsys, trained: Path, tmp_path: Path) -> None:
    facts = {"corpus": "x", "version": "1", "classes": {"label": ["kick", "run", "walk"]}, "declared": {}}
    (tmp_path / "m.json").write_text(json.dumps(facts))
    (tmp_path / "m.csv").write_text("rgb,split,label\na.mp4,test,kick\nb.mp4,test,wallk\n")
    line = refused(capsys, "evaluate", trained, "--manifest", tmp_path / "m.csv")
    assert "m.csv, line 3: " in line
    assert "'wallk'" in line
    assert "did you mean 'walk'?" in line


def test_an_unreadable_sample_stops_an_evaluation_unless_allowed(capsys, trained: Path, tmp_path: Path) -> None:
    facts = {"corpus": "x", "version": "1", "classes": {"label": ["kick", "run", "walk"]}, "declared": {"test": 2}}
    (tmp_path / "m.json").write_text(json.dumps(facts))
    (tmp_path / "m.csv").write_text("rgb,split,label\na.mp4,test,kick\nb.mp4,test,walk\n")
    write_video(tmp_path / "a.mp4", 12)
    args = ["evaluate", trained, "--manifest", tmp_path / "m.csv", "--out", tmp_path / "p.safetensors"]
    line = refused(capsys, *args, "--workers", "0")
    assert f"{tmp_path / 'm.csv'}, line 3: {tmp_path / 'b.mp4'}: " in line
    main([str(arg) for arg in [*args, "--workers", "0", "--allow-missing"]])
    answer = capsys.readouterr().out
    numbers = [row for row in answer.splitlines() if row.split()[0] in ("top1", "top5", "mean_class")]
    assert len(numbers) == 3
    assert all("(coverage 50.00 %)" in row for row in numbers)
    assert "missing:" in answer


def test_an_unknown_recipe_and_recipe_field(capsys) -> None:
    line = refused(capsys, "train", "moves_ctn_tinny")
    assert "'moves_ctn_tinny'" in line
    assert "'moves_ctn_tiny'" in line
    line = refused(capsys, "train", "moves_ctn_tiny", "--optim.learning_rate", "0.1")
    assert "unknown option '--optim.learning_rate'" in line
    assert "did you mean '--optim." in line
    assert "did you mean '--data.batch-size'?" in refused(capsys, "train", "moves_ctn_tiny", "--batchsize", "4")


def test_overrides_that_contradict_each_other(capsys) -> None:
    line = refused(capsys, "train", "moves_ctn_tiny", "--clip.frames", "12")
    assert "multiple of 8" in line


def test_a_misspelled_option_before_its_value_is_named(capsys) -> None:
    line = refused(capsys, "evaluate", "--fus", "x")
    assert "unknown option '--fus'" in line
    assert "'--fuse'" in line


def test_an_unknown_model(capsys) -> None:
    assert "'ctn_tinny'; did you mean 'ctn_tiny'?" in refused(capsys, "models", "ctn_tinny")


def test_a_folder_that_is_not_a_model(capsys, tmp_path: Path) -> None:
    assert "model.json" in refused(capsys, "predict", tmp_path, "a.mp4")


def test_an_unknown_split(capsys, trained: Path, tmp_path: Path) -> None:
    facts = {"corpus": "x", "version": "1", "classes": {"label": ["kick", "run", "walk"]}, "declared": {}}
    (tmp_path / "m.json").write_text(json.dumps(facts))
    (tmp_path / "m.csv").write_text("rgb,split,label\na.mp4,val,kick\n")
    line = refused(capsys, "evaluate", trained, "--manifest", tmp_path / "m.csv", "--split", "test")
    assert "'test'" in line
    assert "val" in line


def test_unknown_columns(capsys, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,class\na.mp4,x\nb.mp4,y\n")
    args = ["prepare", "csv", "--root", tmp_path / "t.csv", "--out", tmp_path / "m.csv"]
    line = refused(capsys, *args, "--columns", "rgb=file,label=class")
    assert "'file'" in line
    assert "path, class" in line
    assert "'rgb' or 'depth'" in refused(capsys, *args)
    line = refused(capsys, *args, "--columns", "rgb:path")
    assert "--columns" in line
    assert "'rgb:path'" in line
    line = refused(capsys, *args, "--columns", "rgb=path,labels=class")
    assert "'labels'" in line
    assert "'label'" in line


@pytest.mark.parametrize("module", ["kinema", "kinema.cli"])
def test_debug_prints_the_traceback(module: str) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for flag, expected in (([], False), (["--debug"], True)):
        answer = subprocess.run(
            [sys.executable, "-m", module, "trian", *flag], capture_output=True, text=True, env=environment, check=False
        )
        assert ("Traceback" in answer.stderr) is expected
        assert "unknown command 'trian'" in answer.stderr
        assert answer.returncode == (1 if expected else 2)
