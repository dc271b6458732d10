"""Pages of the documentation: the commands in their fenced blocks, and the output that they show.

A block `sh` holds commands, and a block that follows it directly holds their output. A block `console` holds
both: commands after `$ `, and output. In an output, `…` stands for any text, and a line `…` for any lines.
A line that begins with ` "` continues the line of JSON before it.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pytest

MARK = "=== example"

_HEADING_OR_BLOCK = re.compile(r"^## ([^\n]+)$|^```(\w*)\n(.*?)^```$\n?", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^\$ (.+)$\n?", re.MULTILINE)

_VOLATILE = (
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z", "<time>"),
    (r"\[\d+\]", "[<process>]"),
    (r"(\"|')(\w+_ms|\w+_per_second|retry_after)\1: ?[\d.]+", r"\1\2\1:<figure>"),
    (r"\b(delay|seconds|retry_after)=[\d.]+", r"\1=<figure>"),
    (r"\bwaited [\d.]+ \+ [\d.]+ of", "waited <figure> of"),
    (r"x-queue-wait-ms: \d+", "x-queue-wait-ms: <figure>"),
    (r"\d+m[\d.]+s", "<figure>"),
    (r"(?<![\w.]) *\d+(?:\.\d+)? (s|ms|milliseconds)\b", r" <figure> \1"),
)
"""Patterns of text that differs from run to run: times, processes and durations."""


@dataclass(frozen=True, slots=True)
class Example:
    """Commands of one block.

    Attributes:
        section: The heading above the block.
        commands: The commands, as a shell reads them.
        output: The output that the page shows; empty if it shows none.
    """

    section: str
    commands: str
    output: str


@dataclass(frozen=True, slots=True)
class Page:
    """The content of a page.

    Attributes:
        examples: Commands, in order.
        excerpts: Blocks without a language that are no output of the block before.
    """

    examples: tuple[Example, ...]
    excerpts: tuple[str, ...]


def read_page(markdown: str) -> Page:
    """Return the examples and the excerpts of a page."""
    examples: list[Example] = []
    excerpts: list[str] = []
    section, commands, end = "", "", 0
    for found in _HEADING_OR_BLOCK.finditer(markdown):
        heading, language, text = found.groups()
        follows, output_of = found.start() == end, commands
        commands, end = "", found.end()
        if heading:
            section = heading
        elif language == "sh":
            commands = text
            examples.append(Example(section, text, ""))
        elif language == "console":
            _, *parts = _COMMAND.split(text)
            examples += map(Example, [section] * len(parts), parts[::2], parts[1::2])
        elif output_of and follows:
            examples[-1] = Example(section, output_of, text)
        elif not language:
            excerpts.append(text)
    return Page(tuple(examples), tuple(excerpts))


def as_script(examples: Sequence[Example]) -> str:
    """Return one script of all commands, so that a variable is known to later examples.

    The address of the client differs from section to section, so each begins with unused quotas.
    """
    sections = list(dict.fromkeys(example.section for example in examples))
    lines = []
    for example in examples:
        client = f'header = "X-Forwarded-For: 192.0.2.{sections.index(example.section)}"'
        lines += [
            f"printf '%s\\n' no-progress-meter '{client}' >.curlrc",
            "echo",
            f"echo '{MARK}'",
            example.commands,
        ]
    return "\n".join(lines)


def assert_output(examples: Sequence[Example], output: str, volatile: Iterable[str] = ()) -> None:
    """Compare the output of the script of `examples` with the output that they show.

    Args:
        examples: The examples.
        output: What their script printed.
        volatile: Patterns of further text that differs from run to run.
    """
    _, *outputs = output.replace("\r", "").split(f"{MARK}\n")
    assert len(outputs) == len(examples), output
    for example, actual in zip(examples, outputs, strict=True):
        if example.output and not contains_output(example.output, actual, volatile, end=r"\s*\Z"):
            pytest.fail(f"{example.commands}\nshould print\n\n{example.output}\nand prints\n\n{actual}")
        if "request_id" in actual and "request_id" not in example.output:
            pytest.fail(f"{example.commands}\nis answered with a problem:\n\n{actual}")


def contains_output(shown: str, actual: str, volatile: Iterable[str] = (), end: str = "") -> bool:
    """Return whether `actual` has the lines of `shown`, one after another, followed by the pattern `end`."""
    lines = _masked(shown.strip("\n").replace('\n "', '"'), volatile).split("\n")
    pattern = "".join(
        r"(?:.*\n)*?" if line == "…" else re.escape(line).replace("…", ".*") + r"[ \t]*(?:\n|\Z)"
        for line in lines
    )
    return re.search(rf"^{pattern}{end}", _masked(actual, volatile), re.MULTILINE) is not None


def _masked(text: str, volatile: Iterable[str]) -> str:
    for pattern, replacement in (*_VOLATILE, *((pattern, "<volatile>") for pattern in volatile)):
        text = re.sub(pattern, replacement, text)
    return text
