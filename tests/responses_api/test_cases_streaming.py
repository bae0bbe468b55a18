"""Cases 1 to 20 of spec/responses.md, section 5: streams and limits."""

import pytest

from gpt_oss.responses_api.event_mapper import OPEN_RESPONSES_REASONING_EVENT
from tests.helpers.harmony_text import ids, shown
from tests.responses_api.hosted import hosted_browser, hosted_python
from tests.responses_api.replies import WEATHER, answer, browse, call, preamble, run_python, think
from tests.responses_api.stream_rules import check_events, check_stream, sse_events


def stream(server, **body):
    reply = server.post({"input": "hi", "stream": True, **body})
    assert reply.status_code == 200, reply.text
    return check_stream(reply.content)


def of_type(events, *types):
    return [event for event in events if event["type"].removeprefix("response.") in types]


def output(events):
    return events[-1]["response"]["output"]


def test_01_the_first_item_has_index_0_in_all_its_events(serve):
    events = stream(serve(answer("Hello there.")))
    assert {event["output_index"] for event in events if "output_index" in event} == {0}
    assert len(of_type(events, "output_text.delta")) == 3


def test_02_a_message_after_reasoning_has_index_1(serve):
    events = stream(serve(answer("Hi.", thought="Greet.")))
    assert [e["item"]["type"] for e in of_type(events, "output_item.added")] == ["reasoning", "message"]
    assert {e["output_index"] for e in of_type(events, "output_text.delta", "output_text.done")} == {1}


def test_03_a_function_call_streams_its_arguments(serve):
    events = stream(serve(call("get_weather", '{"location": "Oslo"}', "Look.")), tools=[WEATHER])
    assert "".join(e["delta"] for e in of_type(events, "function_call_arguments.delta")) == '{"location": "Oslo"}'
    _reasoning, function_call = output(events)
    assert function_call["name"] == "get_weather" and function_call["call_id"].startswith("call_")
    assert "namespace" not in function_call


def test_04_a_preamble_is_a_message(serve):
    events = stream(serve(preamble("Let me look.") + call("get_weather", "{}")), tools=[WEATHER])
    message, function_call = output(events)
    assert message["phase"] == "commentary" and message["content"][0]["text"] == "Let me look."
    assert function_call["type"] == "function_call"


@pytest.mark.parametrize("include", [[], ["web_search_call.action.sources", "web_search_call.results"]])
def test_05_06_07_a_search_and_a_cited_answer(serve, include):
    server = serve(
        think("Search.") + browse("search", '{"query": "berlin news"}'),
        answer("Berlin is fine【0†L3】, they say."),
        hosted=hosted_browser(),
    )
    events = stream(server, tools=[{"type": "web_search"}], include=include)
    _reasoning, search, message = output(events)
    added = of_type(events, "output_item.added")
    assert [e["output_index"] for e in added] == [0, 1, 2]
    assert added[1]["item"]["status"] == "in_progress" and search["status"] == "completed"
    kinds = [e["type"].rpartition(".")[2] for e in events if "web_search_call." in e["type"]]
    assert kinds == ["in_progress", "searching", "completed"]
    assert search["action"]["query"] == "berlin news"
    assert ("sources" in search["action"], "results" in search) == (bool(include), bool(include))
    (annotation,) = of_type(events, "output_text.annotation.added")
    assert annotation["annotation_index"] == 0
    said_before = "".join(
        e["delta"] for e in of_type(events, "output_text.delta") if e["sequence_number"] < annotation["sequence_number"]
    )
    assert len(said_before) >= annotation["annotation"]["end_index"]
    assert annotation["annotation"]["url"].startswith("https://news.example/")
    assert message["content"][0]["text"].endswith(", they say.")


def test_08_09_a_message_and_its_part_are_complete(serve):
    events = stream(serve(answer("Hi.")))
    (added,), (done,) = of_type(events, "output_item.added"), of_type(events, "output_item.done")
    assert (added["item"]["status"], done["item"]["status"]) == ("in_progress", "completed")
    (part,) = of_type(events, "content_part.added")
    assert part["part"] == {"type": "output_text", "text": "", "annotations": [], "logprobs": []}


@pytest.mark.parametrize("include", [[], ["code_interpreter_call.outputs"]])
def test_10_11_the_code_interpreter(serve, include):
    server = serve(run_python("print(6*7)"), answer("It is 42."), hosted=hosted_python("42\n"))
    events = stream(server, tools=[{"type": "code_interpreter", "container": {"type": "auto"}}], include=include)
    added = of_type(events, "output_item.added")[0]["item"]
    assert added["code"] == "" and added["container_id"]
    assert len(of_type(events, "code_interpreter_call_code.delta")) > 1
    kinds = [e["type"].rpartition(".")[2] for e in events if "code_interpreter_call." in e["type"]]
    assert kinds == ["in_progress", "interpreting", "completed"]
    interpreter, _message = output(events)
    assert interpreter["code"] == "print(6*7)"
    assert interpreter["outputs"] == ([{"type": "logs", "logs": "42\n"}] if include else None)


def test_12_done_ends_the_stream(serve):
    reply = serve(answer("Hi.")).post({"input": "hi", "stream": True})
    assert reply.content.endswith(b"\n\ndata: [DONE]\n\n")
    assert reply.headers["content-type"].startswith("text/event-stream")


def test_13_the_request_is_echoed_from_the_first_event(serve):
    body = {
        "instructions": "Be brief.",
        "temperature": 0.5,
        "top_p": 0.9,
        "max_output_tokens": 100,
        "tools": [WEATHER],
        "metadata": {"a": "b"},
        "truncation": "auto",
        "reasoning": {"effort": "high", "summary": "auto"},
        "store": False,
        "parallel_tool_calls": False,
        "user": "me",
        "prompt_cache_key": "k",
        "safety_identifier": "s",
        "text": {"format": {"type": "text"}, "verbosity": "low"},
    }
    for event in stream(serve(answer("Hi.")), **body)[:2]:
        response = event["response"]
        assert {name: response[name] for name in body if name != "tools"} == {
            k: v for k, v in body.items() if k != "tools"
        }
        assert response["tools"] == [{**WEATHER, "strict": None}]


def test_14_bad_arguments_end_in_error_and_failed(serve):
    events = stream(serve(call("get_weather", "not json")), tools=[WEATHER])
    error, failed = events[-2:]
    assert error["type"] == "error" and error["error"]["message"] == error["message"]
    assert failed["type"] == "response.failed" and failed["response"]["error"]["code"] == "server_error"


def test_14_an_engine_that_breaks_ends_in_error_and_failed(serve):
    server = serve([*ids(think("Hm.")), RuntimeError("out of order")])
    events = stream(server)
    assert [e["type"] for e in events[-2:]] == ["error", "response.failed"]
    again = serve([*ids("<|channel|>final<|message|>Hal"), RuntimeError("out of order")]).json({"input": "hi"})
    assert again["status"] == "failed" and again["output"][0]["status"] == "incomplete"


def test_14_a_store_that_breaks_ends_in_error_and_failed(serve):
    server = serve(answer("Said."), answer("Said."))
    server.service.store.close()
    events = check_stream(server.post({"input": "hi", "stream": True}).content)
    assert [e["type"] for e in events[-2:]] == ["error", "response.failed"]
    response = server.json({"input": "hi"})
    assert (response["status"], response["output"][0]["content"][0]["text"]) == ("failed", "Said.")
    assert "stored" in response["error"]["message"]


def test_14_an_unknown_browser_function_is_answered_to_the_model(serve):
    server = serve(browse("jump", "{}"), answer("Sorry."), hosted=hosted_browser())
    assert output(stream(server, tools=[{"type": "web_search"}]))[-1]["content"][0]["text"] == "Sorry."


@pytest.mark.parametrize("limit", [1, 2, 6, 8, 11, 13])
@pytest.mark.parametrize("streamed", [True, False])
def test_15_16_17_18_a_cut_anywhere_is_incomplete(serve, limit, streamed):
    reply = answer("One two three four five.", thought="A thought.")
    server = serve(reply)
    if streamed:
        response = stream(server, max_output_tokens=limit)[-1]["response"]
    else:
        response = server.json({"input": "hi", "max_output_tokens": limit})
    assert response["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response["usage"]["output_tokens"] == limit
    assert server.generator.generations[0]._generated == limit


def test_15_an_item_that_was_cut_is_incomplete_and_last(serve):
    events = stream(serve(answer("One two three.", thought="T.")), max_output_tokens=12)
    assert [item["status"] for item in output(events)] == ["completed", "incomplete"]


def test_16_a_call_that_was_cut_is_incomplete(serve):
    events = stream(serve(call("get_weather", '{"location": "Oslo"}')), tools=[WEATHER], max_output_tokens=14)
    (function_call,) = output(events)
    assert function_call["status"] == "incomplete" and '{"location": "Oslo"}'.startswith(function_call["arguments"])


def test_19_no_limit(serve):
    assert serve(answer("Hi.")).json({"input": "hi", "max_output_tokens": None})["status"] == "completed"


def test_20_loops_are_bounded(serve):
    searches = [browse("search", '{"query": "x"}')] * 6
    server = serve(*searches, hosted=hosted_browser(), max_rounds=4)
    response = server.json({"input": "hi", "tools": [{"type": "web_search"}]})
    assert response["status"] == "incomplete" and len(server.generator.requests) == 4


def test_20_max_tool_calls(serve):
    server = serve(
        browse("search", '{"query": "x"}'),
        browse("search", '{"query": "y"}'),
        answer("Enough."),
        hosted=hosted_browser(),
    )
    response = server.json({"input": "hi", "tools": [{"type": "web_search"}], "max_tool_calls": 1})
    assert response["status"] == "completed"
    assert "no more tool calls" in shown(list(server.generator.requests[2].prompt_tokens))


def test_open_responses_event_names(serve):
    server = serve(answer("Hi.", thought="Greet."), reasoning_event=OPEN_RESPONSES_REASONING_EVENT)
    content = server.post({"input": "hi", "stream": True}).content
    events = check_events(sse_events(content), OPEN_RESPONSES_REASONING_EVENT)
    assert of_type(events, "reasoning.delta") and not of_type(events, "reasoning_text.delta")


def test_several_calls_in_one_sample_become_items_in_order(serve):
    two = call("get_weather", '{"location": "Oslo"}').replace("<|call|>", "<|end|><|start|>assistant")
    reply = two + call("get_weather", '{"location": "Rome"}')
    events = stream(serve(reply), tools=[WEATHER])
    assert [item["arguments"] for item in output(events)] == ['{"location": "Oslo"}', '{"location": "Rome"}']
    alone = stream(serve(reply), tools=[WEATHER], parallel_tool_calls=False)
    assert [item["arguments"] for item in output(alone)] == ['{"location": "Oslo"}']


def test_a_hosted_call_and_another_in_one_sample_do_not_interleave(serve):
    first = browse("search", '{"query": "x"}').replace("<|call|>", "<|end|><|start|>assistant")
    server = serve(first + browse("search", '{"query": "y"}'), answer("Done."), hosted=hosted_browser())
    searches = output(stream(server, tools=[{"type": "web_search"}]))
    assert [item["type"] for item in searches] == ["web_search_call", "web_search_call", "message"]


def test_the_reply_without_stream_is_the_streams_end(serve):
    reply = answer("Hi.", thought="Greet.")
    streamed = stream(serve(reply))[-1]["response"]
    whole = serve(reply).json({"input": "hi"})

    def shape(response):
        return [{k: v for k, v in item.items() if k != "id"} for item in response["output"]], response["usage"]

    assert shape(streamed) == shape(whole)
