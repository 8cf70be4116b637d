"""The command line. No logic lives here: commands read options, call the library and print.

Commands import torch when it is needed, so `vpt --help` comes at once.
"""

import importlib
import io
import os
import sys
from collections.abc import Sequence

import click

from vpt._version import __version__
from vpt.errors import ExitCode, VptError

# Each is the attribute `command` of the module of that name.
COMMANDS = (
    "demo", "tune", "predict", "eval", "inspect", "summary", "ablate", "bench", "explain", "embed", "serve", "data",
    "list",
)  # fmt: skip
_RESUMABLE = ("demo", "tune", "ablate", "bench", "data")  # these go on where they were stopped


class _Group(click.Group):
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, one.get_short_help_str(limit=200)) for name, one in self.commands.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from vpt.core.text import did_you_mean

            raise click.UsageError(f"there is no command {args[0]!r}; {did_you_mean(args[0], COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Group,
    commands={name: importlib.import_module(f"vpt.cli.{name}").command for name in COMMANDS},
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="vpt")
def app() -> None:
    """Visual prompt tuning: adapt one frozen vision backbone to any number of image tasks.

    \b
    First steps:
      vpt demo                                  see it work, no download
      vpt tune photos/ --out photos.safetensors adapt the embedded backbone to your folder
      vpt predict photos.safetensors new.jpg    use the result
    """


def main(args: Sequence[str] | None = None) -> None:
    """Run a command and leave with its exit code (`vpt.errors.ExitCode`)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal cannot show must not end a run
            stream.reconfigure(errors="backslashreplace")
    try:
        app.main(args, prog_name="vpt", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except VptError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):  # before RuntimeError, which click's own is
        command_name = next((word for word in (sys.argv[1:] if args is None else args) if word in COMMANDS), None)
        click.echo("\nstopped" + "; the same command goes on from there" * (command_name in _RESUMABLE), err=True)
        sys.exit(ExitCode.INTERRUPTED)
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        click.echo(
            f"error: memory ran out ({str(error).partition(chr(10))[0]}); take less at once: a smaller --batch-size or "
            "--image-size, a larger --grad-accum-steps, or a smaller backbone",
            err=True,
        )
        sys.exit(ExitCode.MEMORY)
    except BrokenPipeError:  # `vpt ... | head`: the reader has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitCode.OK)


def _is_out_of_memory(error: Exception) -> bool:
    """Return True for errors of allocators. Only torch's error for GPUs has a class; others are found by their text."""
    message = str(error).lower()
    phrases = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError) or any(phrase in message for phrase in phrases)
