"""The server's command: `python -m gpt_oss.responses_api.serve` and `gpt-oss serve`.

Without a checkpoint it serves the embedded demo model. It listens on this machine only, unless told otherwise. Ctrl-C
or SIGTERM lets open responses finish for some seconds and then ends them in order.
"""

import argparse
import asyncio
import logging
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt_oss.backends import LoadOptions, add_backend_arguments, default_backend, load_from_arguments
from gpt_oss.command_line import non_negative, port, positive, run_command
from gpt_oss.errors import MissingExtra, RequestError, ToolError
from gpt_oss.responses_api.capacity import SLOTS, choose_capacity
from gpt_oss.torchrun import is_follower, world_size

if TYPE_CHECKING:
    from gpt_oss.responses_api.settings import Settings
    from gpt_oss.token_generator import TokenGenerator
    from gpt_oss.tools.tool import Tool

logger = logging.getLogger(__name__)

PORT = 8000
API_KEY_VARIABLE = "GPT_OSS_API_KEY"
# How long a thread may keep the interpreter while others want it. Every write to a socket gives it up and has to get it
# back, which at Python's 5 ms adds up when prompts are being read in other threads.
SWITCH_SECONDS = 0.0005
LOOPBACK = ("127.0.0.1", "::1", "localhost")
Load = Callable[[argparse.Namespace], "TokenGenerator | None"]


def build_parser(prog: str = "gpt-oss serve") -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(prog=prog, description="Serve the Responses API and Chat Completions.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=port, default=PORT, help="port, 0 for any free one (default: %(default)s)")
    parser.add_argument(
        "--model-name", metavar="NAME", help="what clients call the model (default: from the checkpoint)"
    )
    parser.add_argument(
        "--slots",
        type=positive,
        metavar="N",
        help=f"requests computed together (default: {SLOTS}, or what memory allows)",
    )
    parser.add_argument(
        "--max-waiting", type=non_negative, default=256, help="requests that may wait for a slot (default: %(default)s)"
    )
    parser.add_argument("--api-key", metavar="KEY", help=f"key that clients must send (default: ${API_KEY_VARIABLE})")
    parser.add_argument(
        "--cors-origin", metavar="URL", action="append", default=[], help="web page that may call; may be repeated"
    )
    parser.add_argument("--max-body-mb", type=positive, default=32, help="largest request (default: %(default)s)")
    parser.add_argument(
        "--max-seconds", type=positive, metavar="N", help="longest time for one response, tools included"
    )
    parser.add_argument(
        "--reasoning-event-names",
        choices=("openai", "open-responses"),
        default="openai",
        help="reasoning_text.delta or, as Open Responses has it, reasoning.delta (default: %(default)s)",
    )
    store = parser.add_argument_group("stored responses")
    store.add_argument(
        "--store", metavar="PATH", type=Path, help="SQLite file that survives restarts (default: memory)"
    )
    store.add_argument("--store-responses", type=positive, default=10_000, help="most of them (default: %(default)s)")
    store.add_argument("--store-mb", type=positive, default=1024, help="their size at most (default: %(default)s)")
    store.add_argument("--store-days", type=positive, default=30, help="how long they are kept (default: %(default)s)")
    tools = parser.add_argument_group("tools that the server runs when a request offers them")
    tools.add_argument(
        "--browser-backend", metavar="NAME", help="youcom, exa, searxng, local or none (default: from the environment)"
    )
    tools.add_argument(
        "--python-backend", metavar="NAME", help="how code is run, or none (default: $PYTHON_EXECUTION_BACKEND or none)"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="log every request (never its content)")
    add_backend_arguments(
        parser,
        context_length=None,
        backend_flags=("--inference-backend", "--backend"),
        checkpoint_flag="--checkpoint",
    )
    return parser


def main(arguments: Sequence[str] | None = None, prog: str = "gpt-oss serve", *, load: Load | None = None) -> int:
    """The command; returns its exit status (see `gpt_oss.command_line`). load: makes the generator."""
    options = build_parser(prog).parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO if options.verbose else logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    # A failed inference means a bug or a broken card: who runs a server wants its traceback.
    logging.getLogger("gpt_oss.scheduler").setLevel(logging.INFO)
    return run_command(prog, lambda: _run(options, load or _load))


def _load(options: argparse.Namespace) -> "TokenGenerator | None":
    return load_from_arguments(options, slots=options.slots)


def settle_capacity(options: argparse.Namespace) -> None:
    """Fill in the slots, and the context length where the backend would promise more than the machine can hold."""
    alone = world_size() == 1  # ranks must not measure each for itself
    try:
        measured = alone and (options.backend or default_backend(options.device)) == "torch"
        if measured:
            from gpt_oss.checkpoint import Checkpoint
            from gpt_oss.torch.backend import choose_device
            from gpt_oss.torch.weights import free_memory
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "torch", "torch") from error
    if measured:
        wanted = LoadOptions(checkpoint=options.checkpoint, dtype=options.dtype)
        with Checkpoint(wanted.folder) as checkpoint:
            options.slots, options.context_length = choose_capacity(
                checkpoint.config,
                free_memory(choose_device(options.device)),
                wanted.torch_dtype.itemsize,
                slots=options.slots,
                context_length=options.context_length,
            )
    options.slots = options.slots or SLOTS


def _run(options: argparse.Namespace, load: Load) -> int:
    settle_capacity(options)
    if is_follower():
        load(options)  # serves rank 0 until it leaves
        return 0
    try:  # a missing server extra shall be found before the model is loaded
        import uvicorn  # noqa: F401

        from gpt_oss.responses_api.api_server import create_api_server
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "uvicorn", "server") from error
    from gpt_oss.responses_api.store import Store

    settings = server_settings(options)
    Store(settings.store_path).close()  # what cannot be used is said before a large model is loaded for nothing
    if options.host not in LOOPBACK and settings.api_key is None:
        logger.warning("listening on %s without --api-key: whoever reaches this machine may use it", options.host)
    with listen(options.host, options.port) as listening:  # likewise
        generator = load(options)
        assert generator is not None  # rank 0 has one
        sys.setswitchinterval(SWITCH_SECONDS)
        with generator:
            _warm_up()
            app = create_api_server(generator, settings=settings)
            asyncio.run(_serve(app, options, listening))
    return 0


def listen(host: str, number: int) -> socket.socket:
    """Take the address; clients are refused until the server starts. Raises RequestError where it cannot be had."""
    try:
        address = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # A name may have an address of each kind, and most clients of a name such as localhost try IPv4.
        family, kind, protocol, _, place = min(address, key=lambda found: found[0] != socket.AF_INET)
        taken = socket.socket(family, kind, protocol)
        try:
            if os.name == "posix":  # elsewhere it would share a port that another server has
                taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(place)
        except BaseException:
            taken.close()
            raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise RequestError(
            f"cannot listen on {host} port {number} ({reason}); choose another --port or --host"
        ) from error
    return taken


def server_settings(options: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> "Settings":
    """What the options mean. Raises ToolError for a tool that was asked for and cannot be made."""
    from gpt_oss.responses_api.event_mapper import OPEN_RESPONSES_REASONING_EVENT, REASONING_EVENT
    from gpt_oss.responses_api.settings import Settings

    names = {"openai": REASONING_EVENT, "open-responses": OPEN_RESPONSES_REASONING_EVENT}
    return Settings(
        model=options.model_name or _model_name(options),
        slots=options.slots,
        max_waiting=options.max_waiting,
        api_key=options.api_key or environment.get(API_KEY_VARIABLE) or None,
        cors_origins=tuple(options.cors_origin),
        max_body_bytes=options.max_body_mb << 20,
        reasoning_event=names[options.reasoning_event_names],
        max_seconds=options.max_seconds,
        store_path=options.store,
        store_max_responses=options.store_responses,
        store_max_bytes=options.store_mb << 20,
        store_max_age=options.store_days * 86400.0,
        hosted=_hosted(options, environment),
    )


def _model_name(options: argparse.Namespace) -> str:
    """`gpt-oss-20b` or `-120b` by the number of layers; `gpt-oss-demo` without a checkpoint."""
    if options.checkpoint is None:
        return "gpt-oss-demo"
    if options.backend == "ollama":
        return options.checkpoint
    if Path(options.checkpoint).is_file():
        from gpt_oss.metal.converter import number_of_layers

        layers = number_of_layers(options.checkpoint)
    else:
        from gpt_oss.checkpoint import Checkpoint

        with Checkpoint(options.checkpoint) as checkpoint:
            layers = checkpoint.config.num_hidden_layers
    return {24: "gpt-oss-20b", 36: "gpt-oss-120b"}.get(layers, "gpt-oss")


def _hosted(options: argparse.Namespace, environment: Mapping[str, str]) -> "dict[str, Callable[[], Tool]]":
    """The tools that can be made, by name; made once now, so that a wrong setting stops the start, not a request."""
    from gpt_oss.tools.registry import build_tool

    asked = {
        "browser": ("BROWSER_BACKEND", options.browser_backend),
        "python": ("PYTHON_EXECUTION_BACKEND", options.python_backend),
    }
    factories: dict[str, Callable[[], Tool]] = {}
    for name, (variable, backend) in asked.items():
        if backend == "none" or (name == "python" and backend is None and variable not in environment):
            continue
        settings = {**environment, **({variable: backend} if backend else {})}
        try:
            build_tool(name, settings)
        except ToolError as error:
            if backend or variable in environment:
                raise
            logger.info("requests for %s are ignored: %s", name, error)
        else:
            factories[name] = lambda name=name, settings=settings: build_tool(name, settings)  # type: ignore[misc]
    return factories


def _warm_up() -> None:
    """Load what the first request would otherwise wait for."""
    from gpt_oss.responses_api import grammar
    from gpt_oss.tokenizer import get_harmony_encoding

    get_harmony_encoding()
    grammar.warm_up()


async def _serve(app: Any, options: argparse.Namespace, listening: socket.socket) -> None:
    """Run uvicorn; a signal begins the orderly end before uvicorn waits for its connections."""
    import uvicorn

    service = app.state.service
    seconds = service.settings.shutdown_seconds
    config = uvicorn.Config(
        app,
        log_level="info" if options.verbose else "warning",
        access_log=options.verbose,
        timeout_graceful_shutdown=int(seconds) + 5,
        ws="websockets-sansio",
        ws_max_size=service.settings.max_body_bytes,
    )

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: Any) -> None:
            loop.call_soon_threadsafe(lambda: ending.append(loop.create_task(service.shut_down(seconds))))
            super().handle_exit(sig, frame)

        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            for server in self.servers:
                for listening in server.sockets:
                    host, taken = listening.getsockname()[:2]
                    shown = f"[{host}]" if ":" in host else host
                    at_once = f"{service.settings.slots} x {service.generator.context_length} tokens"
                    sys.stdout.write(f"gpt-oss: {service.settings.model} on http://{shown}:{taken}/v1 ({at_once})\n")
                    sys.stdout.flush()

    loop = asyncio.get_running_loop()
    ending: list[asyncio.Task[None]] = []
    server = Server(config)
    await server.serve([listening])
    await asyncio.gather(*ending)


if __name__ == "__main__":
    sys.exit(main())
