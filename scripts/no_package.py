"""The build backend of this project, which refuses: the service runs from its checkout and is no package.

Without a backend, `pip install .` would succeed and put `src` into site-packages without its Lua files.
"""

from typing import NoReturn

REFUSAL = (
    "Resilient Analytics API is not an installable package. "
    "./start.sh installs what it needs and starts it; README.md says how to install its requirements by hand."
)


def refuse(*_arguments: object) -> NoReturn:
    """End the build with one line."""
    raise SystemExit(REFUSAL)


# The hooks of PEP 517 and PEP 660, which is all that pip and uv call.
get_requires_for_build_sdist = get_requires_for_build_wheel = get_requires_for_build_editable = refuse
build_sdist = build_wheel = build_editable = refuse
