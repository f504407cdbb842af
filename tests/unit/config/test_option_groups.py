"""Options that several commands share are declared once, and are the same in each."""

from __future__ import annotations

from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from gateway.cli.option_groups import OptionGroup, spread

pytestmark = pytest.mark.req("GW-02")


class Shape(OptionGroup, frozen=True, kw_only=True):
    """What is drawn."""

    sides: Annotated[int, typer.Option(min=3, help="How many sides.")] = 3
    colours: Annotated[list[str] | None, typer.Option("--colour")] = None


def run(app: typer.Typer, *words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(words))
    return done.exit_code, done.output


def test_a_group_becomes_its_options() -> None:
    app = typer.Typer()

    @app.command()
    @spread(Shape)
    def draw(name: str, *, shape: Shape, twice: bool = False) -> None:
        """Draw it."""
        typer.echo(f"{name} {shape.sides} {shape.colours} {twice}")

    assert run(app, "it") == (0, "it 3 None False\n")
    words = ("it", "--sides", "4", "--colour", "red", "--colour", "blue", "--twice")
    assert run(app, *words) == (0, "it 4 ['red', 'blue'] True\n")
    assert run(app, "it", "--sides", "2")[0] == 2
    assert "Draw it." in run(app, "--help")[1]


def test_a_command_takes_only_the_options_that_it_names() -> None:
    app = typer.Typer()

    @app.command()
    @spread(Shape, "sides")
    def draw(*, shape: Shape) -> None:
        typer.echo(f"{shape.sides} {shape.colours}")

    assert run(app, "--sides", "5") == (0, "5 None\n")
    assert run(app, "--colour", "red")[0] == 2
