"""The `gpt-oss` command: a name, then what `python -m` of the module of that name would take.

Only the module of the command that runs is imported, so that `gpt-oss --help` needs nothing but Python.
"""

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from gpt_oss import __version__
from gpt_oss.errors import MissingExtra


@dataclass(frozen=True, slots=True)
class Command:
    """`module` has `main(arguments) -> exit status`."""

    module: str
    summary: str


COMMANDS = {
    "generate": Command("gpt_oss.generate", "continue or answer one prompt"),
    "chat": Command("gpt_oss.chat", "talk to the model in the terminal, with tools"),
    "serve": Command("gpt_oss.responses_api.serve", "Responses API server"),
    "synthetic": Command("gpt_oss.synthetic", "write a checkpoint of any size with random weights"),
    "cache": Command("gpt_oss.cache", "show or clear what is kept in the cache folder"),
}


def usage() -> str:
    """The text of --help."""
    commands = "\n".join(f"  {name:<10} {command.summary}" for name, command in COMMANDS.items())
    return (
        f"gpt-oss {__version__}: inference for gpt-oss-20b and gpt-oss-120b\n\n"
        f"usage: gpt-oss COMMAND [OPTIONS]\n\n{commands}\n\n"
        "gpt-oss COMMAND --help lists the options; gpt-oss --version names the version.\n"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status; 2 for a name that is none."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("-h", "--help", "help"):
        sys.stdout.write(usage())
        return 0
    if name in ("-V", "--version"):
        sys.stdout.write(f"{__version__}\n")
        return 0
    if name not in COMMANDS:
        sys.stderr.write(f"gpt-oss: error: there is no command {name!r}; choose one of {', '.join(COMMANDS)}\n")
        return 2
    try:
        command = importlib.import_module(COMMANDS[name].module)
    except MissingExtra as error:
        sys.stderr.write(f"gpt-oss {name}: error: {error}\n")
        return 1
    return command.main(rest) or 0


if __name__ == "__main__":
    sys.exit(main())
