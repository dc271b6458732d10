"""Install the pins of a requirements file into a virtual environment.

    python scripts/install.py requirements.txt               into the environment of this Python
    python scripts/install.py requirements.txt OPTION...     with options of `uv pip sync`, such as --python

pip installs uv, which requirements-installer.txt pins, and uv installs the pins. What is installed depends on
these files alone, neither on the version of pip nor on newer releases. uv does not read pip's configuration,
so this script gives uv the package index, the certificates and the proxy that pip is configured to use.
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
"""The options of pip, and the variables that mean the same to uv. A variable that is set keeps its value."""

UV_OPTIONS = [
    "--require-hashes",
    "--system-certs",
    # pip takes a package from whichever index has the version, and so does this. Hashes make that safe.
    "--index-strategy=unsafe-best-match",
]


def pip_configuration(listing: str) -> dict[str, str]:
    """Return the options that `pip install` goes by, out of the lines of `pip config list`."""
    options: dict[str, str] = {}
    for section in ("global.", "install.", ":env:."):  # the later one wins
        for line in listing.splitlines():
            name, _, quoted = line.partition("=")
            value = str(ast.literal_eval(quoted)) if name.startswith(section) else ""
            if value:  # pip too ignores an empty one
                options[name.removeprefix(section)] = value
    return options


def uv_environment(options: dict[str, str]) -> dict[str, str]:
    """Return the environment variables that make uv look for packages where pip does."""
    variables = {}
    for option, variable in UV_VARIABLES.items():
        words = options.get(option, "").split()
        if words:
            variables[variable] = ("," if option == "find-links" else " ").join(words)
    return variables | dict(os.environ)


def has_a_cache() -> bool:
    """Return whether uv can keep downloads: a user may have no home folder, or one that is read-only."""
    question = [sys.executable, "-m", "uv", "cache", "dir"]
    answer = subprocess.run(question, capture_output=True, text=True, check=False)
    folder = Path(answer.stdout.strip())
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return answer.returncode == 0 and os.access(folder, os.W_OK)


def main(requirements: str, *options: str) -> int:
    """Install, and return the exit code."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    print(f"Installing uv, which installs {requirements}", flush=True)
    installed = subprocess.run([*pip, "install", "--require-hashes", "-r", INSTALLER], check=False)
    if installed.returncode != 0:
        return installed.returncode
    listing = subprocess.run([*pip, "config", "list"], capture_output=True, text=True, check=True)
    configuration = pip_configuration(listing.stdout)
    command = [sys.executable, "-m", "uv", "pip", "sync", *UV_OPTIONS]
    if configuration.get("no-index", "").lower() in {"1", "true", "yes", "on"}:
        command.append("--no-index")
    if not has_a_cache():
        command.append("--no-cache")
    command += [*(options or ("--python", sys.executable)), requirements]
    environment = uv_environment(configuration)
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, encoding="utf-8") as uv:
        assert uv.stderr is not None
        for line in uv.stderr:
            if not line.startswith((" + ", " - ", " ~ ")):  # one line for each package: the totals suffice
                sys.stderr.write(line)
    return uv.returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
