"""Conversation: Harmony prompts in, typed events out. See `prompt`, `parser`, `events` and `agent`."""
