"""Small surface changes of a user's text: politeness, case, punctuation."""

from random import Random

PREFIXES = (
    "Please ", "Hi! ", "Hello, ", "Hey, ", "Quick question: ", "So, ", "Okay, ", "Now ", "Hi, ", "Thanks. ", "Good. ",
    "Great! ", "And ", "I have a question. ", "One more thing: ", "Next question: ",
)  # fmt: skip
SUFFIXES = (" Thanks!", " Thank you.", " Please.", " Answer briefly.", " I am curious.", " Thanks in advance.")
ASKING = (
    "Can you tell me ", "Could you tell me ", "Please tell me ", "Tell me ", "Do you know ", "I would like to know ",
    "I want to know ", "Can you please tell me ", "I wonder ",
)  # fmt: skip
REQUESTING = (
    "Please ", "Can you ", "Could you ", "Could you please ", "Can you please ", "I want you to ", "Would you ",
    "I need you to ", "I'd like you to ", "Now ", "Hey, ", "Hi, please ", "Will you ",
)  # fmt: skip


def lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def upper_first(text: str) -> str:
    return text[:1].upper() + text[1:]


def dress(rng: Random, text: str, mark: str = "?") -> str:
    """A question or sentence without its closing mark, as different people would type it."""
    if rng.random() < 0.1:
        text = rng.choice(PREFIXES) + text
    text = upper_first(text) if rng.random() < 0.85 else text
    draw = rng.random()
    closed = text + (mark if draw < 0.8 else "" if draw < 0.92 else rng.choice(["!", "??", " ?", ".", "..."]))
    if rng.random() < 0.05:
        closed += rng.choice(SUFFIXES)
    return closed


def request(rng: Random, text: str) -> str:
    """A command such as 'add 2 and 3', asked for in one of many ways; closed with a mark."""
    if rng.random() < 0.45:
        text = rng.choice(REQUESTING) + text
        mark = "?" if text.startswith(("Can", "Could", "Would", "Will")) else "."
    else:
        mark = rng.choice([".", "", "!", "."])
        text += ", please" if rng.random() < 0.06 else ""
    return dress(rng, text, mark) if rng.random() < 0.3 else upper_first(text) + mark
