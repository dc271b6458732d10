"""Install the pins of a requirements file into a virtual environment.

    python scripts/install.py requirements.txt               into the environment of this Python
    python scripts/install.py requirements.txt OPTION...     with options of `uv pip sync`, such as --python

pip installs uv, which requirements-installer.txt pins, and uv installs the pins. The result depends only on
these files, and neither on the version of pip nor on newer releases. uv does not read pip's configuration, so
this script passes pip's package index, certificates and proxy to uv.
"""

import ast
import os
import subprocess
import sys
from pathlib import Path

INSTALLER = Path(__file__).parents[1] / "requirements-installer.txt"

UV_VARIABLES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
    "proxy": "ALL_PROXY",
}
"""The options of pip, and the equivalent variables of uv. A variable that is already set keeps its value."""

UV_OPTIONS = [
    "--require-hashes",
    "--system-certs",
    # Take a package from any index that has the version, like pip. The hashes make that safe.
    "--index-strategy=unsafe-best-match",
]


def pip_configuration(listing: str) -> dict[str, str]:
    """Return the options that apply to `pip install`, from the lines of `pip config list`."""
    options: dict[str, str] = {}
    for section in ("global.", "install.", ":env:."):  # a later section overrides an earlier one
        for line in listing.splitlines():
            name, _, quoted = line.partition("=")
            value = str(ast.literal_eval(quoted)) if name.startswith(section) else ""
            if value:  # pip ignores empty values too
                options[name.removeprefix(section)] = value
    return options


def uv_environment(options: dict[str, str]) -> dict[str, str]:
    """Return the environment in which uv uses the package sources of pip."""
    variables = {}
    for option, variable in UV_VARIABLES.items():
        words = options.get(option, "").split()
        if words:
            variables[variable] = ("," if option == "find-links" else " ").join(words)
    return variables | dict(os.environ)


def has_cache() -> bool:
    """Return whether uv can write to its cache. The home folder may be missing or read-only."""
    command = [sys.executable, "-m", "uv", "cache", "dir"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    folder = Path(result.stdout.strip())
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return result.returncode == 0 and os.access(folder, os.W_OK)


def main(requirements: str, *options: str) -> int:
    """Install the pins, and return the exit code."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    print(f"Installing uv, which installs {requirements}", flush=True)
    result = subprocess.run([*pip, "install", "--require-hashes", "-r", INSTALLER], check=False)
    if result.returncode != 0:
        return result.returncode
    listing = subprocess.run([*pip, "config", "list"], capture_output=True, text=True, check=True)
    configuration = pip_configuration(listing.stdout)
    command = [sys.executable, "-m", "uv", "pip", "sync", *UV_OPTIONS]
    if configuration.get("no-index", "").lower() in {"1", "true", "yes", "on"}:
        command.append("--no-index")
    if not has_cache():
        command.append("--no-cache")
    command += [*(options or ("--python", sys.executable)), requirements]
    environment = uv_environment(configuration)
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, encoding="utf-8") as uv:
        assert uv.stderr is not None
        for line in uv.stderr:
            if not line.startswith((" + ", " - ", " ~ ")):  # leave out the line of each package
                sys.stderr.write(line)
    return uv.returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
