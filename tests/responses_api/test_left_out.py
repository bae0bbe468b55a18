"""A type of tool that cannot be offered is said once, not with every request of a client that always sends it."""

import logging

from gpt_oss.responses_api.offered_tools import read_offer


def test_a_tool_that_is_left_out_is_said_once(caplog):
    caplog.set_level(logging.WARNING)
    for _ in range(3):
        assert read_offer([{"type": "web_search"}, {"type": "holography-1"}], None).callables == {}
    assert caplog.text.count("web_search") <= 1 and caplog.text.count("holography-1") == 1
