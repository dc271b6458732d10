"""A script consists of the files that it includes, then its own file."""

import re
from pathlib import Path

import pytest

from src.resilience.redis.scripts import SERVER_TIME, load_script

LUA = sorted(Path("src").rglob("*.lua"))


def write(folder: Path, **texts: str) -> None:
    for name, text in texts.items():
        (folder / f"{name}.lua").write_text(text, encoding="utf-8")


def test_included_files_come_once_before_the_file_that_includes_them(tmp_path):
    write(
        tmp_path,
        base="-- base",
        left="-- @include base\n-- left",
        right="-- @include base\n-- right",
        script="-- @include left\n-- @include right\n-- script",
    )
    source = load_script(tmp_path / "script.lua").source
    assert re.findall(r"^-- (\w+)$", source, re.MULTILINE) == ["base", "left", "right", "script"]
    assert source.startswith(SERVER_TIME)


def test_an_include_path_is_relative_to_its_folder(tmp_path):
    (tmp_path / "inner").mkdir()
    write(tmp_path, shared="-- shared")
    write(tmp_path / "inner", script="-- @include ../shared\n-- script")
    source = load_script(tmp_path / "inner" / "script.lua").source
    assert source.endswith("-- shared\n-- @include ../shared\n-- script")


def test_the_chosen_file_comes_first_and_common_includes_come_once(tmp_path):
    write(
        tmp_path,
        base="-- base",
        chosen="-- @include base\n-- chosen",
        script="-- @include base\n-- script",
    )
    source = load_script(tmp_path / "script.lua", after=tmp_path / "chosen.lua").source
    assert re.findall(r"^-- (\w+)$", source, re.MULTILINE) == ["base", "chosen", "script"]


def test_a_file_that_is_missing_is_an_error(tmp_path):
    write(tmp_path, script="-- @include nothing")
    with pytest.raises(FileNotFoundError, match="nothing"):
        load_script(tmp_path / "script.lua")


@pytest.mark.parametrize("path", LUA, ids=str)
def test_every_included_file_exists(path):
    assert path.read_text(encoding="utf-8") in load_script(path).source


@pytest.mark.parametrize("path", [path for path in LUA if "resilience" in path.parts], ids=str)
def test_a_script_of_the_library_includes_only_files_of_the_library(path):
    library = Path("src/resilience").resolve()
    names = re.findall(r"^-- @include (\S+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert all((path.parent / name).resolve().is_relative_to(library) for name in names)
