"""Whatever is given on a command line, it is taken or refused in a sentence: tried by machine."""

import importlib

import pytest
from experiment import command
from experiment.plan.setting import write_flag
from hypothesis import given
from hypothesis import strategies as st

from tests.bad_input.cases import cases
from tests.recipes.tiny import RECIPE_NAMES

CASES_OF_EACH = 15
values = st.one_of(
    st.sampled_from(
        ["0", "-1", "1", "3", "0.5", "nan", "inf", "-inf", "1e999", str(10**30), "fp", "digits"]
    ),
    st.sampled_from(["", " ", "é🙂", "../..", "/dev/null/out", "--", "-x", "%s", "{}", "True"]),
    st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=6),
    st.integers().map(str),
    st.floats().map(str),
)


@pytest.mark.matrix
@pytest.mark.parametrize("name", RECIPE_NAMES)
def test_any_command_line_is_taken_or_refused_in_a_sentence(name, tmp_path, capsys, monkeypatch):
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    recipe = importlib.import_module(name).RECIPE
    fields = {field for part in recipe.presets["demo"].values() for field in vars(part)}
    options = [
        *map(write_flag, sorted(fields)),
        "--preset",
        "--only",
        "--distribute",
        "--tuned",
        "--out",
    ]

    @cases(CASES_OF_EACH)
    @given(st.sampled_from(options), st.lists(values, min_size=1, max_size=3))
    def check(option, given):
        arguments = ["--out", str(tmp_path / "out"), option, *given]
        exit = said(capsys, recipe, arguments)
        assert exit is None or any(part in exit for part in ("error: ", "--help", option)), exit
        assert not list((tmp_path / "out").glob("*/*"))

    check()


def said(capsys, recipe, arguments):
    """What a command says as it ends; nothing where it would have trained."""

    class Trained(Exception):
        pass

    def train(*_):
        raise Trained

    try:
        command.main(recipe, arguments, train)
    except Trained:
        return None
    except SystemExit as exit:
        return f"{capsys.readouterr().err}{exit.code}"
    return "it ended as if it had trained"
