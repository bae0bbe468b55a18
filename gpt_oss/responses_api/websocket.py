"""The Responses API over a WebSocket: `response.create` frames in, the same events out, one response at a time.

What is not stored can be continued on the same connection: its newest responses are remembered. A frame with
`generate: false` only announces a prompt; it is answered as an empty response that the next one may continue.
"""

import asyncio
import contextlib
from collections import OrderedDict
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from gpt_oss.errors import GptOssError
from gpt_oss.responses_api.errors import ApiError, api_error
from gpt_oss.responses_api.http_bodies import decode_object, encode
from gpt_oss.responses_api.service import ResponseService
from gpt_oss.responses_api.store import Record

REMEMBERED = 8
WAITING_FRAMES = 16


async def serve_websocket(socket: WebSocket, service: ResponseService) -> None:
    """Serve one connection until the client leaves."""
    await socket.accept()
    connection = _Connection(socket, service)
    frames: asyncio.Queue[str | None] = asyncio.Queue(WAITING_FRAMES)
    answering = asyncio.create_task(connection.answer_all(frames))
    try:
        while not answering.done():
            await frames.put(await socket.receive_text())
    except WebSocketDisconnect:
        pass
    except KeyError:  # a binary frame
        await socket.close(1003, "the frames of this server are text")
    finally:
        connection.leave()
        answering.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await answering


class _Connection:
    def __init__(self, socket: WebSocket, service: ResponseService):
        self._socket = socket
        self._service = service
        self._records: OrderedDict[str, Record] = OrderedDict()
        self._run: Any = None

    def leave(self) -> None:
        """The client has gone."""
        if self._run is not None and not self._run.over:
            self._run.cancel()

    async def answer_all(self, frames: "asyncio.Queue[str | None]") -> None:
        """Answer frames in their order."""
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # the connection may end at any send
            while (frame := await frames.get()) is not None:
                try:
                    await self._answer(decode_object(frame))
                except GptOssError as error:
                    await self._send_error(api_error(error))

    async def _answer(self, frame: dict[str, Any]) -> None:
        if frame.pop("type", None) != "response.create":
            raise ApiError("The only frames this server reads are of type 'response.create'.", param="type")
        lane = {"stream_id": frame["stream_id"]} if isinstance(frame.get("stream_id"), str) else {}
        if len(encode(frame)) > self._service.settings.max_body_bytes:
            raise ApiError("The request is too large.", status=413, code="request_too_large")
        if frame.get("background"):
            raise ApiError("Background responses cannot be made over a WebSocket.", param="background")
        if frame.get("generate") is False:
            record, events = await self._service.announce(frame, self._records)
            for event in events:
                await self._send(event, lane)
        else:
            made = await self._service.create(frame, self._records)
            self._run = made.run
            async for event in made.run.follow():
                await self._send(event, lane)
            record = made.record()
        self._remember(record)

    def _remember(self, record: Record) -> None:
        self._records[record.id] = record
        while len(self._records) > REMEMBERED:
            self._records.popitem(last=False)

    async def _send(self, event: dict[str, Any], lane: dict[str, str]) -> None:
        await self._socket.send_text(encode({**event, **lane}).decode())

    async def _send_error(self, error: ApiError) -> None:
        event = {
            "type": "error",
            "sequence_number": 0,
            "status": error.status,
            "code": error.code,
            "message": error.message,
            "param": error.param,
            **error.body(),
        }
        await self._send(event, {})
