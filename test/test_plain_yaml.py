"""YAML that may come from anywhere: plain values, or one kind of error."""

from __future__ import annotations

import pytest
import yaml

from dsca_ros.plain_yaml import load_plain


def test_plain_values_are_what_yaml_says() -> None:
    text = "a: [1, 2.5, .inf, yes, ~, 'b', 2020-01-02]\nc: {d: e}\nf: |\n  g\n"
    assert load_plain(text) == yaml.safe_load(text)
    assert load_plain("") is None


#: Each doubles tenfold on every line: 10**9 values, if a reader makes or shows them all.
LISTS = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join(10 * [f'*a{i - 1}'])}]\n" for i in range(1, 10))
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join(10 * [f'*a{i - 1}'])}]}}\n" for i in range(1, 10))
REFUSED = {
    "lists of lists": LISTS,
    "merges of merges": MERGES,
    "itself": "&a [*a]",
    "deep": "[" * 100_000,
    "deep mapping": "{a: " * 100_000,
    "a month 13": "2020-13-01",
    "a number of 5000 digits": "9" * 5000,
    "code": "!!python/object/apply:os.mkdir [called]",
    "two documents": "a\n---\nb",
    "a tab": "a:\n\tb: c",
    "a zero": "a: \0",
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_what_is_none_or_too_much_is_refused(text: str) -> None:
    with pytest.raises(yaml.YAMLError):
        load_plain(text)
