"""What users of hubble have set once and for all: HUBBLE_* in the environment, and its config file.

The command line goes before the environment, and that before the file. Of the file only what names a server is taken:
it may hold more, for other commands of hubble.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import click

PREFIX: Final = "HUBBLE"
NAMES: Final = (
    *("server", "timeout", "request-timeout", "basic-auth-username", "basic-auth-password"),
    *("tls", "tls-allow-insecure", "tls-ca-cert-files", "tls-client-cert-file", "tls-client-key-file"),
    *("tls-server-name", "port-forward"),
)


def variable(name: str) -> str:
    """The variable for an option: HUBBLE_TLS_SERVER_NAME."""
    return f"{PREFIX}_{name.replace('-', '_').upper()}"


def read_config(ctx: click.Context, _: click.Parameter, given: Path | None) -> None:
    """Let the file's settings be the defaults of the options. A file that was named has to be there."""
    path = given or next((one for one in _usual_places() if one.is_file()), None)
    if path is None:
        return
    try:
        import yaml

        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise click.UsageError(f"{path}: {error.strerror}; --config names hubble's config file", ctx) from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise click.UsageError(f"{path}: not YAML: {' '.join(str(error).split())}", ctx) from None
    if found is None:
        return
    if not isinstance(found, dict):
        raise click.UsageError(f"{path}: not a mapping of options to values", ctx)
    settings = {name.replace("-", "_"): _value(found[name]) for name in NAMES if found.get(name) is not None}
    ctx.default_map = {**(ctx.default_map or {}), **settings}


def _value(value: Any) -> Any:
    """As it would be typed."""
    return [str(one) for one in value] if isinstance(value, list) else str(value)


def _usual_places() -> list[Path]:
    """Where hubble looks, but for the working directory: what lies there is anybody's."""
    home = os.environ.get("HOME", "")
    folder = os.environ.get("XDG_CONFIG_HOME", "") or (home and f"{home}/.config")
    return [Path(base) / "config.yaml" for base in (folder and f"{folder}/hubble", home and f"{home}/.hubble") if base]
