"""Options under headings: a command with forty of them is read by its paragraphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click


class HeadedOption(click.Option):
    """Stands under a heading in the help."""

    def __init__(self, *words: Any, heading: str, **settings: Any) -> None:
        super().__init__(*words, **settings)
        self.heading = heading


class HeadedCommand(click.Command):
    """Lists its options by heading, those without one first."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        for parameter in self.get_params(ctx):
            if (line := parameter.get_help_record(ctx)) is not None:
                sections.setdefault(getattr(parameter, "heading", "Options"), []).append(line)
        for heading, lines in sections.items():
            with formatter.section(heading):
                formatter.write_dl(lines)


def under(heading: str) -> Callable[..., Callable[[Any], Any]]:
    """`click.option` for one heading."""

    def option(*words: str, **settings: Any) -> Callable[[Any], Any]:
        return click.option(*words, cls=HeadedOption, heading=heading, **settings)

    return option
