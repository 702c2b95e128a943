"""What all commands do with bad usage and with readers that leave."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click


def run(entry: click.Command, name: str, arguments: Sequence[str] | None = None) -> int:
    """Run a command; bad usage is one line on stderr and exit code 2."""
    try:
        code = entry.main(args=arguments, prog_name=name, standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.exceptions.Abort:
        return 130
    except click.ClickException as error:
        click.echo(f"{name}: {' '.join(error.format_message().split())}", err=True)
        return 2
    except BrokenPipeError:
        # the reader left (`| head`): what it wanted was printed; keep Python quiet at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        click.echo(f"{name}: {error}", err=True)
        return 2
