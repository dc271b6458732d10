"""README.md as a script: its commands, and what it says that they print."""

import re
from dataclasses import dataclass

import pytest

MARK = "=== the next commands"


@dataclass(frozen=True, slots=True)
class Example:
    """A block of commands, and the block below it, empty where there is none."""

    commands: str
    printed: str


def examples(markdown: str, heading: str) -> list[Example]:
    """Return the examples of one section."""
    section = re.split(r"^## ", markdown.split(f"\n## {heading}\n")[1], flags=re.MULTILINE)[0]
    blocks = re.findall(r"```sh\n(.*?)```(?:\n```\w*\n(.*?)```)?", section, re.DOTALL)
    return [Example(commands, printed) for commands, printed in blocks]


def as_script(blocks: list[Example], *replacements: tuple[str, str]) -> str:
    """Return one script of all commands, so that a variable lives on in the next block."""
    script = f"\necho '{MARK}'\n".join(example.commands for example in blocks)
    for old, new in replacements:
        assert old in script
        script = script.replace(old, new)
    return script


def assert_printed(blocks: list[Example], output: str) -> None:
    """Hold each block of the output to what is printed in the file, where `…` stands for anything."""
    printed = output.split(f"{MARK}\n")
    assert len(printed) == len(blocks)
    for example, actual in zip(blocks, printed, strict=True):
        lines = example.printed.replace("\n ", "").strip().splitlines()  # a line that is broken to fit
        pattern = ".*".join(re.escape(line).replace("…", ".*") for line in lines)
        if not re.search(pattern, actual, re.DOTALL):
            pytest.fail(f"{example.commands}\nshould print\n\n{example.printed}\nand prints\n\n{actual}")
