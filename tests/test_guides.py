"""The guides have the form that keras.io asks for; the site's build executes them."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytest.importorskip("nbconvert", reason="needs the extra `docs`")
nbclient = pytest.importorskip("nbclient", reason="needs the extra `docs`")
sys.path.insert(0, str(ROOT / "tools"))
import guides  # noqa: E402

HEADER = "".join(f"{name}: {name} of it\n" for name in guides.HEADER)


def write(folder, body):
    path = folder / "small.py"
    path.write_text(f'"""\n{HEADER}"""\n{body}')
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(guides, "CACHE", tmp_path / "cache")


@pytest.mark.parametrize("path", guides.list_guides(), ids=lambda path: path.stem)
def test_a_guide_is_short_and_begins_with_text(path):
    source = path.read_text(encoding="utf-8")
    _, cells = guides.read_guide(source)
    assert cells[0][0] == "markdown"
    assert len(source.splitlines()) < 200
    compile(source, path.name, "exec")


def test_the_site_has_every_guide():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = [path.stem for path in guides.list_guides() if f"guides/{path.stem}.md" in text]
    assert listed == [path.stem for path in guides.list_guides()] != []


def test_text_and_code_alternate(tmp_path):
    source = write(tmp_path, 'x = """no cell"""\n"""Some *text*."""\nprint(x)\n').read_text()
    fields, cells = guides.read_guide(source)
    assert fields["Title"] == "Title of it"
    assert cells == [
        ("code", 'x = """no cell"""'),
        ("markdown", "Some *text*."),
        ("code", "print(x)"),
    ]


def test_a_guide_without_a_header_is_refused():
    with pytest.raises(ValueError, match="no \\['Author'"):
        guides.read_guide('"""\nTitle: One\n"""\n')


@pytest.mark.slow
def test_a_page_has_what_the_code_prints_and_not_what_it_logs(tmp_path):
    path = write(tmp_path, "import sys\nprint(6 * 7)\nprint('log', file=sys.stderr)\n")
    page = guides.make_page(path)
    assert "\n    42\n" in page.text
    assert "[Notebook](small.ipynb)" in page.text
    assert "log\n" not in page.text.replace("'log'", "")
    assert page == guides.make_page(path)  # of the cache


@pytest.mark.slow
def test_code_that_fails_fails_the_build_and_leaves_no_page(tmp_path):
    path = write(tmp_path, "raise RuntimeError('broken')\n")
    for _ in range(2):
        with pytest.raises(nbclient.exceptions.CellExecutionError, match="broken"):
            guides.make_page(path)
