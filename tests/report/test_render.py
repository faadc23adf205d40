"""Templates escape values unless told otherwise, and a missing value is an error."""

import pytest
from jinja2 import UndefinedError

from mim_jax.report import render
from tests.invented import HOSTILE


def filled(markdown, source, **values):
    return render.environment(markdown).from_string(source).render(**values)


def test_html_escapes_values_also_where_macros_pass_them_on():
    macro = "{% macro twice(x) %}<i>{{ x }}</i>{% endmacro %}"
    shown = filled(False, macro + "{{ twice(value ~ '<') }}", value=HOSTILE)
    assert shown.startswith("<i>x$") and "<script" not in shown and "&lt;script&gt;" in shown
    assert "\n" not in shown and "\u202e" not in shown and "\\u202e" in shown


def test_markdown_escapes_values_but_not_numbers():
    shown = filled(True, "{{ value }} {{ -0.5 | number }} {{ value | code }}", value="a_b|<c>`")
    assert shown == "a\\_b\\|\\<c\\>\\` \u22120.5000 a_b/<c>'"


@pytest.mark.parametrize("markdown", [True, False])
def test_a_missing_value_is_an_error(markdown):
    with pytest.raises(UndefinedError, match="missing"):
        filled(markdown, "{{ missing }}")
