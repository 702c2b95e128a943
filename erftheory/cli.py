"""The `erftheory` command."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click


@click.group(name="erftheory")
@click.version_option(package_name="erftheory")
def group() -> None:
    """Receptive fields of convolutional networks, theoretical and effective."""


@group.command()
@click.argument("network")
@click.option("--until", default=None, metavar="ENDPOINT", help="Stop at this part.")
@click.option("--signal", type=click.Choice(["variance", "gradient"]), default="variance")
@click.option("--init", type=click.Choice(["he", "lecun", "xavier"]), default="he")
def summary(network: str, until: str | None, signal: str, init: str) -> None:
    """One row a layer of a published NETWORK, such as resnet34."""
    from erftheory import Network, zoo

    try:
        if network not in zoo.names():
            raise ValueError(f"network: got {network!r}; takes one of {', '.join(zoo.names())}")
        described: Network = zoo.get(network)
        if until is not None:
            described = described.until(until)
        click.echo(str(described.summary(signal=signal, init=init)))
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    from erftheory.verify import command, run

    group.add_command(command)
    return run(group, "erftheory", arguments)


if __name__ == "__main__":
    sys.exit(main())
