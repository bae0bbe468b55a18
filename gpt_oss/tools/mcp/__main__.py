"""`python -m gpt_oss.tools.mcp browser|python`: serve one tool over the Model Context Protocol.

By default over standard input and output, as clients that start their servers expect; with `--http` over
streamable HTTP at http://HOST:PORT/mcp. The tool is configured by the environment, see `gpt_oss.tools.registry`.
"""

import argparse
import asyncio
import logging
import socket
import sys
from collections.abc import Sequence

from gpt_oss.command_line import port, run_command
from gpt_oss.errors import ToolError
from gpt_oss.tools.registry import build_tool
from gpt_oss.tools.tool import Tool

_log = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server until its client hangs up or it is interrupted; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m gpt_oss.tools.mcp", description="Serve a tool over MCP.")
    parser.add_argument("tool", choices=("browser", "python"))
    parser.add_argument("--http", action="store_true", help="serve streamable HTTP instead of stdin and stdout")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=port, default=8001, help="port to listen on, 0 for any (default: %(default)s)")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)  # stdout belongs to the protocol
    return run_command(parser.prog, lambda: _serve(options))


def _serve(options: argparse.Namespace) -> None:
    from gpt_oss.tools.mcp.server import HTTP_PATH, http_app, serve_stdio

    def make_tool() -> Tool:
        return build_tool(options.tool)

    if not options.http:
        asyncio.run(serve_stdio(make_tool))
        return
    import uvicorn

    if options.host not in LOOPBACK:
        _log.warning("anyone who reaches %s may use this tool", options.host)
    app = http_app(make_tool, options.host)
    listening = _listen(options.host, options.port)
    host = f"[{options.host}]" if ":" in options.host else options.host
    sys.stderr.write(f"serving {options.tool} at http://{host}:{listening.getsockname()[1]}{HTTP_PATH}\n")
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    server.run(sockets=[listening])
    if server.started:  # Ctrl-C alone ends it here; whether asyncio still raises for it is a matter of timing
        raise KeyboardInterrupt


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ToolError(f"cannot listen on {host}, port {port}: {error.strerror}") from error


if __name__ == "__main__":
    raise SystemExit(main())
