"""Tests of the list of recipes and of their descriptions."""

import pytest

from kinema.cli.app import main
from kinema.reports.recipes import printed_line, recipe_details, recipe_lines, recipe_summary
from kinema.reports.thesis import all_numbers
from kinema.training.recipe import load_recipe, recipe_names
from kinema.training.recipe_modules import describe, shipped_modules


def test_the_list_has_a_line_of_meaning_for_every_recipe() -> None:
    lines = {line.split()[0]: line.split(maxsplit=1)[1].strip() for line in recipe_lines() if line.startswith("  ")}
    assert set(lines) == {*recipe_names(), *shipped_modules()}
    assert all(len(text) > 10 for text in lines.values())


def test_the_option_prints_the_list_or_the_rows_of_a_table(capsys) -> None:
    main(["train", "--list"])
    assert capsys.readouterr().out.splitlines() == list(recipe_lines())
    main(["train", "table_2_3", "--list"])
    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows] == ["table_2_3/base", "table_2_3/large"]


@pytest.mark.parametrize(
    ("row", "number"),
    [
        ("table_2_4/rgb_vanilla", "90.4 %"),
        ("table_2_4/depth_cdc_t_0.6", "93.8 %"),
        ("table_2_5/large_without", "91.1 %"),
        ("table_3_1/hmdb51_sinusoidal", "78.08 %"),
        ("table_3_4/diving48_top_k_1_3", "81.8 %"),
        ("table_4_3/epic_kitchens_vivit_tubelets_none", "42.0 %"),
        ("table_4_6/diving48_5_none", "76.1 %"),
        ("figure_3_4/ucf101_50", "not printed"),
        ("table_3_1/ucf101_none", "not printed"),
    ],
)
def test_a_row_shows_the_number_that_the_thesis_prints(row: str, number: str) -> None:
    assert number in printed_line(row)
    assert number in recipe_details(row)


def test_the_numbers_of_a_row_are_in_the_description_of_its_table() -> None:
    """The description was written by hand, the table of numbers independently of it."""
    for name in recipe_names():
        for _, number in all_numbers():
            if name in number.recipes and name.startswith("table_"):
                assert number.value.rstrip("0") in describe(name).replace("| ", ""), (name, number)


def test_every_recipe_of_a_printed_number_exists() -> None:
    named = {part for _, number in all_numbers() for recipe in number.recipes for part in recipe.split("+")}
    assert named <= set(recipe_names())
    assert len(named) > 100


def test_the_help_of_a_recipe_shows_its_description(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    for name, words in (("ntu60_mfst_large", ("From the thesis", "Ours:")), ("table_2_4", ("Rows:", "90.4 %"))):
        with pytest.raises(SystemExit) as stop:
            main(["train", name, "--help"])
        assert not stop.value.code
        page = capsys.readouterr().out
        assert " ".join(page.split()).startswith(recipe_summary(name))
        assert all(word in page for word in words)
        assert f"    kinema train {name}" in page  # commands keep their lines


def test_the_help_of_a_file_shows_its_docstring(tmp_path, capsys) -> None:
    path = tmp_path / "mine.py"
    path.write_text('"""My runs.\\n\\nWith a second paragraph."""\n\nfrom kinema.recipes.ctn_tiny import RECIPE\n')
    with pytest.raises(SystemExit):
        main(["train", str(path), "--help"])
    page = capsys.readouterr().out
    assert page.startswith("My runs.\n")
    assert "With a second paragraph." in page
    path.write_text("from kinema.recipes.ctn_tiny import RECIPE\n")
    assert str(path) in recipe_summary(str(path))


@pytest.mark.parametrize(
    ("name", "modalities"), [("mfst_tiny_depth", ("depth",)), ("mfst_tiny_rgbd", ("rgb", "depth"))]
)
def test_there_are_recipes_for_own_depth_and_rgbd_data(name: str, modalities: tuple[str, ...]) -> None:
    recipe = load_recipe(name)
    assert recipe.clip.modalities == modalities
    assert (recipe.data.manifest, recipe.data.evaluate) == ("", "val")
    assert "your own" in recipe_summary(name)
