"""Configuration files and templates."""

from __future__ import annotations

import pytest

from appbox import configuration
from appbox.configuration import SIZE_LIMIT, ConfigSource
from appbox.document import Document
from appbox.errors import ManifestError

DOCUMENT = Document("web.toml", '[config."/c"]\ntemplate = "c.j2"\n')
KEY = ("config", "/c", "template")


def render(text: str, **variables: object) -> bytes:
    source = ConfigSource(text.encode(), True, "c.j2", DOCUMENT, KEY)
    return configuration.render(source, variables, {"hostname": "h", "cpus": 2})


def test_what_is_no_template_stays_as_it_is() -> None:
    data = b"{{ x }}\r\n\0\xff"
    assert configuration.render(ConfigSource(data, False, "", DOCUMENT, KEY), {}, {}) == data


def test_a_template_sees_variables_and_facts() -> None:
    text = "{{ port }} {{ vars.port }} {{ facts.hostname }} {% if x is defined %}x{% endif %}\n"
    assert render(text, port=1) == b"1 1 h \n"
    assert render("{% for n in names %}{{ n }},{% endfor %}", names=["é", "<"]) == "é,<,".encode()
    assert render("a\n\n") == b"a\n\n"


def test_the_ends_of_a_templates_lines_stay_what_they_are() -> None:
    assert render("a\r\n{{ x }}\r\n", x="1\r2\n3") == b"a\r\n1\r2\n3\r\n"
    assert render("a\u2028b\x0b{{ x }}\n", x="\r") == "a\u2028b\x0b\r\n".encode()


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a\r\nb\n", 1, "carriage returns that are not at the end of every line"),
        ("a\nb\rc", 2, "carriage returns"),
        ("\n{% include 'x' %}", 2, "include, import and extends are not possible"),
        ("\n{{ por }}", 2, "'por' is undefined; set por in [vars], or use por | default(…)"),
        ("{{ vars.por }}", 1, "has no attribute 'por'"),
        ("\n\n{% if %}", 3, "template syntax"),
        ("{{ x | nothing }}", 1, "template syntax"),
        ("a\n{{ 1 // 0 }}", 2, "division"),
        ("{{ port.x.y }}", 1, "has no attribute 'x'"),
        ("{{ ''.__class__.__mro__ }}", 1, "unsafe"),
        ("{% include 'other' %}", 1, ""),
        ("{{ 'a' * 2000000 }}", 1, "larger than 1048576 characters"),
        ("{{ 'a' * 900000 }}{{ 'a' * 900000 }}", 0, "larger than 1048576 bytes"),
        ("{{ 9 ** 99999999 }}", 1, "too large"),
        ("{{ '\\ud800' }}", 0, "surrogates"),
        ("{{ [1] + 1 }}", 1, ""),
    ],
)
def test_a_broken_template_names_its_file_and_line(text: str, line: int, words: str) -> None:
    with pytest.raises(ManifestError) as caught:
        render(text, port=1)
    (problem,) = caught.value.problems
    assert (problem.file, problem.line, problem.key) == ("c.j2", line, 'config."/c".template')
    assert words in str(problem)
    assert caught.value.exit_code == 3


def test_a_template_changes_nothing_of_the_manifest() -> None:
    names = ["a"]
    with pytest.raises(ManifestError, match="unsafe"):
        render("{{ names.append('b') }}", names=names)
    assert names == ["a"]


def test_the_limit_is_in_bytes() -> None:
    assert len(render("{{ 'é' * n }}", n=SIZE_LIMIT // 2)) == SIZE_LIMIT
    with pytest.raises(ManifestError, match="larger"):
        render("{{ 'é' * n }}", n=SIZE_LIMIT // 2 + 1)


def test_a_template_that_is_no_text_is_refused() -> None:
    source = ConfigSource(b"\xff", True, "c.j2", DOCUMENT, KEY)
    with pytest.raises(ManifestError, match="utf-8"):
        configuration.render(source, {}, {})
