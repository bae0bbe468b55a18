"""Responses from request to store: everything behind the HTTP endpoints that is not HTTP.

In: parsed requests. Out: `Run`s and records. One service per server; used on its event loop only, blocking work goes to
threads.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gpt_oss.errors import GptOssError
from gpt_oss.harmony.events import TurnDone
from gpt_oss.harmony.prompt import render_for_completion
from gpt_oss.responses_api.conversation import Entry
from gpt_oss.responses_api.errors import ApiError, api_error, too_many_requests
from gpt_oss.responses_api.event_mapper import EventMapper
from gpt_oss.responses_api.input_items import ItemReference
from gpt_oss.responses_api.metrics import Metrics
from gpt_oss.responses_api.output_items import new_id
from gpt_oss.responses_api.preparation import Prepared, check_model, check_supported, prepare, response_fields
from gpt_oss.responses_api.request_models import CreateResponse, PromptRequest, parse
from gpt_oss.responses_api.run import ApiEvent, Mapper, Run
from gpt_oss.responses_api.settings import Settings
from gpt_oss.responses_api.store import Record, Store
from gpt_oss.token_generator import TokenGenerator

Records = Mapping[str, Record]
SHUTDOWN = "The server is shutting down."


class ResponseService:
    """What the endpoints call."""

    def __init__(self, generator: TokenGenerator, settings: Settings):
        self.generator = generator
        self.settings = settings
        self.store = Store(
            settings.store_path,
            max_responses=settings.store_max_responses,
            max_bytes=settings.store_max_bytes,
            max_age=settings.store_max_age,
        )
        self.metrics = Metrics(generator)
        self.stopping = False
        self._began = int(time.time())
        self._runs: dict[str, Run] = {}
        self._abandon_unfinished()

    # --- Making responses --------------------------------------------------------------------------------------

    async def create(self, body: dict[str, Any], local: Records | None = None) -> "Made":
        """Start a response to a request's body. local: records of this connection that are not stored.

        This returns once its prompt was found to fit; a background response is stored, as queued, by then. Raises
        ApiError.
        """
        request = await self.parsed(body)
        stored, background = request.store is not False, bool(request.background)
        if background and not stored:
            raise ApiError("Background responses need 'store' to be true.", param="background")
        made = await self._made(request, body, local)
        mapper = made.mapper

        async def save(events: list[ApiEvent]) -> None:
            await asyncio.to_thread(lambda: self.store.put(made.record(events)))

        if background:
            first = list(mapper.start(queued=True))
            await asyncio.to_thread(self.store.put, Record(mapper.response, made.input))
            try:
                made.run = self.run(made.id, mapper, made.prepared, save, first)
                await made.run.started()
            except ApiError:
                await asyncio.to_thread(self.store.delete, made.id)
                raise
        else:
            made.run = self.run(made.id, mapper, made.prepared, save if stored else None)
            await made.run.started()
        return made

    async def announce(self, body: dict[str, Any], local: Records) -> tuple[Record, list[ApiEvent]]:
        """Answer a request that wants nothing generated: what may be continued, and its events."""
        request = await self.parsed(body)
        made = await self._made(request, body, local)
        events = [*made.mapper.start(), *made.mapper.map(TurnDone("stop", ()))]
        await made.prepared.hosted.close()
        return made.record(events), events

    async def parsed(self, body: dict[str, Any]) -> CreateResponse:
        """The request in a body, checked; in both, references are replaced by the items. Raises ApiError."""
        request = await asyncio.to_thread(parse, CreateResponse, body)
        check_supported(request, self.settings)
        if isinstance(request.input, list) and any(isinstance(item, ItemReference) for item in request.input):
            await asyncio.to_thread(self._resolve_references, request.input, body["input"])
        return request

    async def _made(self, request: CreateResponse, body: dict[str, Any], local: Records | None) -> "Made":
        prepared = await self.prepare(request, await self.previous(request, local))
        mapper = EventMapper(
            response_fields(request, prepared.offer, self.settings),
            prepared.offer,
            _include(request),
            self.settings.reasoning_event,
            prepared.hosted.pages,
        )
        return Made(prepared, mapper, listed_input(body.get("input")))

    async def count_tokens(self, body: dict[str, Any]) -> int:
        """The length of the prompt that a request would make; raises ApiError."""
        request = await self.parsed(body)
        prepared = await self.prepare(request, await self.previous(request))
        await prepared.hosted.close()
        return len(await asyncio.to_thread(render_for_completion, prepared.messages))

    def model(self, name: str | None = None) -> dict[str, Any]:
        """The model as it is listed; raises ApiError for one that is not served."""
        check_model(name, self.settings)
        return {"id": name or self.settings.model, "object": "model", "created": self._began, "owned_by": "gpt-oss"}

    def run(
        self,
        id: str,
        mapper: Mapper,
        prepared: Prepared,
        save: Any = None,
        first_events: Sequence[ApiEvent] = (),
    ) -> Run:
        """Start a turn; raises ApiError 429 where too many wait, 503 during shutdown."""
        settings = self.settings
        if self.stopping:
            raise ApiError(SHUTDOWN, status=503, type="server_error", code="server_error")
        if len(self._runs) >= settings.slots + settings.max_waiting:
            raise too_many_requests(f"{len(self._runs)} requests are being worked on already; try again later.")
        run = Run(
            mapper,
            prepared.turn(self.generator),
            prepared.hosted,
            save,
            lambda: self._forget(id),
            first_events,
            self.metrics.observer(),
        )
        self._runs[id] = run
        self.metrics.running(len(self._runs), settings.slots)
        return run

    def _forget(self, id: str) -> None:
        self._runs.pop(id, None)
        self.metrics.running(len(self._runs), self.settings.slots)

    async def prepare(self, request: CreateResponse, previous: Record | None, seed: int | None = None) -> Prepared:
        """The turn for a request that continues `previous`. Raises ApiError."""
        try:
            return await asyncio.to_thread(prepare, request, self.generator, self.settings, previous, seed=seed)
        except GptOssError as error:
            raise api_error(error) from error

    def _resolve_references(self, items: list[Any], given: list[Any]) -> None:
        for position, item in enumerate(items):
            if isinstance(item, ItemReference):
                found = self.store.item(item.id)
                if found is None:
                    raise ApiError(f"Item with id '{item.id}' not found.", param=f"input[{position}].id")
                items[position], given[position] = _one_item(found), found

    async def previous(self, request: PromptRequest, local: Records | None = None) -> Record | None:
        """The response that a request continues; raises ApiError where there is no such."""
        id = request.previous_response_id
        if id is None:
            return None
        record = (local or {}).get(id) or await asyncio.to_thread(self.store.get, id)
        if record is None or record.is_open:
            text = f"Previous response with id '{id}' not found."
            raise ApiError(text, param="previous_response_id", code="previous_response_not_found")
        return record

    # --- Stored responses --------------------------------------------------------------------------------------

    async def get(self, id: str) -> Record:
        """A stored response, as far as it is made; raises ApiError 404."""
        record = await asyncio.to_thread(self.store.get, id)
        if record is None:
            raise ApiError(f"Response with id '{id}' not found.", status=404, param="response_id")
        run = self._runs.get(id)
        if run is not None and run.events and record.is_open:
            record.response = run.mapper.response  # type: ignore[attr-defined]
        return record

    def live(self, id: str) -> Run | None:
        """The response being made."""
        return self._runs.get(id)

    async def delete(self, id: str) -> None:
        """Forget a response, ending it if need be; raises ApiError 404."""
        await self.get(id)
        if run := self.live(id):
            run.cancel()
            await run.finished()
        await asyncio.to_thread(self.store.delete, id)

    async def cancel(self, id: str) -> Record:
        """End a background response; raises ApiError for any other."""
        record = await self.get(id)
        if not record.response["background"]:
            raise ApiError("Cannot cancel a synchronous response.", param="response_id")
        if run := self.live(id):
            run.cancel()
            await run.finished()
        return await self.get(id)

    # --- The end -----------------------------------------------------------------------------------------------

    def _abandon_unfinished(self) -> None:
        """Responses that were being made when an earlier process ended will never be finished."""
        for record in self.store.unfinished():
            error = {"code": "server_error", "message": "The server was restarted while making this response."}
            record.response.update(status="failed", error=error)
            self.store.put(record)

    async def shut_down(self, seconds: float) -> None:
        """Accept no more, give open responses some seconds to finish, then end them in order."""
        self.stopping = True
        runs = list(self._runs.values())
        if runs:
            await asyncio.wait([asyncio.ensure_future(run.finished()) for run in runs], timeout=seconds)
        for run in runs:
            if not run.over:
                run.end(SHUTDOWN)
        await asyncio.gather(*(run.finished() for run in runs), return_exceptions=True)

    def close(self) -> None:
        """Close the store; the generator belongs to the caller."""
        self.store.close()


def _one_item(item: dict[str, Any]) -> Any:
    """An item of ours as a request would hold it."""
    items = parse(PromptRequest, {"input": [item]}).input
    assert isinstance(items, list)
    return items[0]


@dataclass
class Made:
    """A response that is being made."""

    prepared: Prepared
    mapper: EventMapper
    input: list[dict[str, Any]]
    run: Run = field(init=False)

    @property
    def id(self) -> str:
        """The response's id."""
        return self.mapper.response["id"]

    def record(self, events: Sequence[ApiEvent] = ()) -> Record:
        """What is remembered of it once it is over."""
        call_ids = {id(message): call_id for message, call_id in self.mapper.calls}
        made = [Entry(message, call_ids.get(id(message))) for message in self.mapper.messages]
        shown = [entry for entry in made if entry.call_id or not _is_unseen_call(entry, self.prepared)]
        history = [entry.to_dict() for entry in [*self.prepared.entries, *shown]]
        browser = self.prepared.hosted.browser_state()
        return Record(self.mapper.response, self.input, history, list(events), browser)


def _is_unseen_call(entry: Entry, prepared: Prepared) -> bool:
    """A call of the caller's that was not shown to it (parallel calls were not wanted), so nobody will answer it."""
    recipient = entry.message.recipient or ""
    return recipient in prepared.offer.callables or f"functions.{recipient}" in prepared.offer.callables


def _include(request: CreateResponse) -> list[str]:
    asked: list[str] = list(request.include or ())
    return [*asked, "message.output_text.logprobs"] if request.top_logprobs else asked


_PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc", "custom_tool_call": "ctc"}


def listed_input(given: Any) -> list[dict[str, Any]]:
    """The input items as they are listed later: all with an id, messages with a list of parts."""
    if given is None:
        return []
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    return [_listed(item) for item in items]


def _listed(item: dict[str, Any]) -> dict[str, Any]:
    kind = item.get("type") or "message"
    id = item.get("id")
    listed = {**item, "type": kind, "id": id if id and isinstance(id, str) else new_id(_PREFIXES.get(kind, "item"))}
    content = item.get("content")
    if kind == "message":
        listed.setdefault("status", "completed")
    if kind == "message" and isinstance(content, str):
        part = "output_text" if item.get("role") == "assistant" else "input_text"
        extra: dict[str, Any] = {"annotations": []} if part == "output_text" else {}
        listed["content"] = [{"type": part, "text": content, **extra}]
    return listed
