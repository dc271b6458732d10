"""The comparison of a page's examples with the output of their commands."""

import pytest

from tests.support.pages import MARK, Example, assert_output, contains_output, read_page

PAGE = """
## One

```sh
echo a
```
```
a
```

An excerpt:

```
log line
```

## Two

```console
$ echo b
b

$ true
```

```sh
echo c
```

```json
{"not": "the output of c"}
```
"""


def test_a_page_has_examples_with_their_output_and_excerpts():
    page = read_page(PAGE)

    assert page.examples == (
        Example("One", "echo a\n", "a\n"),
        Example("Two", "echo b", "b\n\n"),
        Example("Two", "true", ""),
        Example("Two", "echo c\n", ""),
    )
    assert page.excerpts == ("log line\n",)


@pytest.mark.parametrize(
    ("shown", "actual"),
    [
        ("a\nb", "before\na\nb\n"),
        ("a\n…\nd", "a\nb\nc\nd\n"),
        ("a … d", "a b c d"),
        ('{"a":1,\n "b":2}', '{"a":1,"b":2}'),
        ("took 1.5 ms, 3 s", "took 12 ms, 4.25 s"),
        ('{"duration_ms":1.5}', '{"duration_ms":2}'),
        ("2026-01-31T12:00:00Z [1] Waited seconds=0.1", "2027-02-01T00:00:00.5Z [22] Waited seconds=3"),
    ],
)
def test_an_output_matches_except_for_the_parts_that_vary(shown, actual):
    assert_output([Example("", "", shown)], f"{MARK}\n{actual}")


@pytest.mark.parametrize(
    ("shown", "actual"),
    [
        ("a\nb", "a\n"),
        ("a\nb", "a\nx\nb\n"),
        ("a\nb", "a\nb\nmore\n"),
        ("a", "aa\n"),
        ('{"count":1}', '{"count":2}'),
        ("201 429", "201 201"),
        ("", '{"code":"NOT_FOUND","request_id":"1"}'),
    ],
)
def test_any_other_difference_fails(shown, actual):
    with pytest.raises(pytest.fail.Exception):
        assert_output([Example("", "", shown)], f"{MARK}\n{actual}")


def test_an_excerpt_consists_of_complete_lines_of_a_log():
    assert contains_output("b\nc", "a\nb\nc\nd\n")
    assert not contains_output("b\nd", "a\nb\nc\nd\n")
    assert not contains_output("b", "a\nbb\n")
