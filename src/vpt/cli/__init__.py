"""The command line. No logic lives here: commands read options, call the library and print.

Commands import torch when it is needed, so `vpt --help` comes at once.
"""

import atexit
import gc
import importlib
import io
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

from vpt._version import __version__
from vpt.cli.options import print_json
from vpt.cli.signals import raise_on_signals
from vpt.cli.streams import ReaderGoneError, guard_streams
from vpt.core.terminal import fit_width
from vpt.errors import DataError, ExitCode, SpecError, VptError, is_out_of_memory, printable

# Each is the attribute `command` of the module of that name.
COMMANDS = (
    "demo", "tune", "predict", "eval", "inspect", "export", "merge", "convert", "push", "summary", "ablate", "bench",
    "explain", "embed", "serve", "data", "list", "schema",
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
      vpt tune photos/ --out photos.safetensors search for 10 minutes (--minutes)
      vpt predict photos.safetensors new.jpg    use the result
    """


def main(args: Sequence[str] | None = None) -> None:
    """Run a command and leave with its exit code (`vpt.errors.ExitCode`)."""
    guard_streams()
    if args is None:  # this process is the command; at its end Python would look for cycles in all of torch
        atexit.register(gc.freeze)
    words = [*(sys.argv[1:] if args is None else args)]  # `list` is a module here
    command_name = next((word for word in words if word in COMMANDS), "")
    with raise_on_signals(ignore_hangup=command_name in _RESUMABLE):
        try:
            with _json_errors(words), _options_named(words):
                app.main(words, prog_name="vpt", standalone_mode=False)
            sys.stdout.flush()
        except click.ClickException as error:
            text = io.StringIO()
            error.show(text)
            lines = map(printable, text.getvalue().rstrip("\n").split("\n"))
            click.echo(fit_width("\n".join(lines), sys.stderr), err=True)
            sys.exit(error.exit_code)
        except VptError as error:
            click.echo(fit_width(f"error: {error}", sys.stderr), err=True)
            sys.exit(error.exit_code)
        except (KeyboardInterrupt, click.Abort) as error:  # before RuntimeError, which click's own is
            number = _signal_number(error)
            cause = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
            click.echo(f"\nstopped{cause}{_describe_kept(command_name)}", err=True)
            sys.exit(128 + number)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            click.echo(
                f"error: memory ran out ({str(error).partition(chr(10))[0]}); take less at once: a smaller "
                "--batch-size or --image-size, a larger --grad-accum-steps, or a smaller backbone",
                err=True,
            )
            sys.exit(ExitCode.MEMORY)
        except ReaderGoneError:  # `vpt ... | head`
            sys.exit(ExitCode.OK)


@contextmanager
def _json_errors(words: Sequence[str]) -> Iterator[None]:
    """Print an error on stdout, too, as one line of JSON, if `--json` is among the words of a command."""
    try:
        yield
    except ReaderGoneError:
        raise
    except (Exception, KeyboardInterrupt) as error:
        if "--json" in words:
            code, message = _describe_error(error)
            print_json({"error": {"code": code, "name": ExitCode(code).name, "message": message}}, one_line=True)
        raise


@contextmanager
def _options_named(words: Sequence[str]) -> Iterator[None]:
    """Name options in an error of the library, in place of the parameters of its functions.

    A parameter is recognized as the subject of the message, "val_fraction is 2", and as advice, "set val_fraction=0".
    In such a message, other names with an underscore, which are no English words, are replaced, too.
    """
    try:
        yield
    except (SpecError, DataError) as error:
        command: click.Command = app
        for word in words:
            if isinstance(command, click.Group) and word in command.commands:
                command = command.commands[word]
        message = str(error)
        options = {str(param.name): param.opts[0] for param in command.params if isinstance(param, click.Option)}
        for name, flag in options.items():
            message = re.sub(rf"^{name}(?= is )", flag, message)
            message = re.sub(rf"(?<=set |and ){name}=(?=\d)", f"{flag} ", message)
        for name, flag in options.items() if message != str(error) else ():
            if "_" in name:
                message = re.sub(rf"(?<![\w'\"-]){name}(?![\w'\"=-])", flag, message)
        error.args = (message,)
        raise


def _describe_error(error: BaseException) -> tuple[int, str]:
    """Return the exit code of an error, and its message."""
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return 128 + _signal_number(error), "stopped"
    if isinstance(error, click.ClickException):
        return error.exit_code, error.format_message()
    if isinstance(error, MemoryError | RuntimeError) and is_out_of_memory(error):
        return ExitCode.MEMORY, f"memory ran out ({error})"
    return getattr(error, "exit_code", ExitCode.FAILED), str(error)


def _signal_number(error: BaseException) -> int:
    """Return the number of the signal that stopped a command."""
    return int(getattr(error.__cause__ or error, "number", signal.SIGINT))


def _describe_kept(command_name: str) -> str:
    """Return what a stopped command has kept, in words."""
    if command_name in _RESUMABLE:
        return "; what is done is kept, and the same command resumes from there"
    if command_name == "predict":
        return "; with --out, what is done is kept, and the same command resumes from there"
    return ""
