"""OpenAI's Responses API (and Chat Completions) over any `TokenGenerator`; `serve` is the command."""
