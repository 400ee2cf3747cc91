"""The page of results has what the committed runs give, and nothing else."""

import pytest

from tools import results_page

ARCHIVES = results_page.list_archives()
PAGE = results_page.PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: path.stem)
def test_a_section_is_what_its_archive_gives(archive):
    recipe = results_page.load_recipe(archive.stem)
    section = results_page.write_section(recipe, results_page.read([archive]))
    assert results_page.find_section(PAGE, recipe.name) == section.strip()
    assert (results_page.FOLDER / f"{recipe.name}.png").exists()


def test_every_section_has_an_archive():
    named = {line.split()[2] for line in PAGE.splitlines() if line.startswith("<!-- begin")}
    assert named == {results_page.COSTS, *(path.stem for path in ARCHIVES)}


def test_the_page_says_what_every_paper_preset_costs():
    section = results_page.find_section(PAGE, results_page.COSTS)
    assert section == results_page.write_costs().strip()


def test_a_section_is_replaced_and_the_rest_left():
    page = "before\n<!-- begin a -->\nold\n<!-- end a -->\nafter"
    replaced = results_page.replace_section(page, "a", "new")
    assert replaced == "before\n<!-- begin a -->\nnew\n<!-- end a -->\nafter"
    with pytest.raises(ValueError, match="must have a section between <!-- begin b -->"):
        results_page.replace_section(page, "b", "new")
