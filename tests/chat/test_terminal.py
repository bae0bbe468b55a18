"""Real sessions in a pseudo-terminal: typed keys in, screens out."""

import re

from tests.helpers.terminal import ALT_ENTER, CTRL_C, CTRL_D, ENTER

THINK = "<|channel|>analysis<|message|>{}<|end|><|start|>assistant"
FINAL = "<|channel|>final<|message|>{}<|return|>"
PATCH = (
    "<|channel|>commentary to=functions.apply_patch <|constrain|>json<|message|>"
    '{"input": "*** Begin Patch\\n*** Add File: hello.txt\\n+Hello\\n+world\\n*** End Patch"}<|call|>'
)
READY = "\n>"
MARKDOWN = """## Two **facts**

1. Paris is the capital of France, and it has been so for a very long time indeed.
2. `1 + 1` is *2*.
"""


def dialogue(text):
    """The screen below the greeting."""
    return text[text.index("\n>") + 1 :]


def test_a_session(scripted_chat, tmp_path):
    """Markdown, a tool with its diff, /undo, the history of typed lines, Ctrl-D."""
    facts = THINK.format("Two facts are wanted.") + FINAL.format(MARKDOWN)
    chat = scripted_chat(
        [facts, PATCH, FINAL.format("Written."), FINAL.format("Again.")],
        *("-a", "--patch-root", str(tmp_path)),
        columns=60,
    )
    chat.wait_for(READY)
    chat.type("Tell me two facts" + ENTER)
    chat.wait_for("is 2.")
    chat.type("Write hello.txt" + ENTER)
    chat.wait_for("Written.")
    chat.type("/undo" + ENTER)
    chat.wait_for("undone:")
    chat.type("\x1b[A\x1b[A" + ENTER)  # twice the arrow up: the message before /undo
    shown = dialogue(chat.wait_for(lambda shown: shown.endswith("Again.\n>")))
    assert shown == (
        """> Tell me two facts
│ Two facts are wanted.
Two facts

1. Paris is the capital of France, and it has been so for a
   very long time indeed.
2. 1 + 1 is 2.

> Write hello.txt
⚙ functions.apply_patch {"input": "*** Begin Patch\\n*** Add
  File: hello.txt\\n+Hello\\n+world\\n*** End Patch"}
  diff --git a/hello.txt b/hello.txt
  new file mode 100644
  --- /dev/null
  +++ b/hello.txt
  @@ -0,0 +1,2 @@
  +Hello
  +world
Written.
> /undo
undone: Write hello.txt
> Write hello.txt
Again.
>"""
    )
    assert (tmp_path / "hello.txt").read_text() == "Hello\nworld\n"
    assert chat.cells("  +world")[2].fg == "green" and chat.cells("⚙")[0].bold
    assert chat.cells("1 + 1 is")[0].fg == "cyan"
    chat.type(CTRL_D)
    assert chat.wait_for_exit() == 0
    assert b"Traceback" not in chat.output


def test_ctrl_c_stops_the_answer_and_twice_leaves(scripted_chat):
    slow = THINK.format("Counting.") + FINAL.format("word " * 2_000)
    chat = scripted_chat([slow, FINAL.format("Still here."), slow], seconds_per_token=0.01)
    chat.wait_for(READY)
    chat.type("Count" + ENTER)
    chat.wait_for("word word")
    chat.type(CTRL_C)
    chat.wait_for("(stopped; Ctrl-C again leaves)")
    chat.type("Are you there?" + ENTER)
    chat.wait_for("Still here.")
    chat.type("Count" + ENTER)
    chat.wait_for(lambda shown: "word" in shown.split("Still here.")[1])
    chat.type(CTRL_C)
    chat.wait_for(lambda shown: shown.count("(stopped;") == 2 and shown.endswith("\n>"))
    chat.type(CTRL_C)
    assert chat.wait_for_exit() == 130
    assert b"Traceback" not in chat.output


def test_ctrl_c_at_the_prompt(scripted_chat):
    chat = scripted_chat([FINAL.format("Fine.")])
    chat.wait_for(READY)
    chat.type(CTRL_C)
    chat.wait_for("(Ctrl-C again leaves")
    chat.type("How are you?" + ENTER)
    chat.wait_for("Fine.")
    chat.type("half a line" + CTRL_C)
    chat.wait_for(lambda shown: shown.count("(Ctrl-C again leaves") == 2)
    chat.type(CTRL_C)
    assert chat.wait_for_exit() == 130


def test_resize_counts_for_the_next_word(scripted_chat):
    words = " ".join(f"w{number:02}" for number in range(60))
    chat = scripted_chat([FINAL.format(words), FINAL.format(words)], columns=80)
    chat.wait_for(READY)
    chat.type("One" + ENTER)
    chat.wait_for("w59")
    assert max(len(line) for line in chat.text().split("\n") if line.startswith("w")) == 79
    chat.resize(40, 40)
    chat.settle()
    chat.type("Two" + ENTER)
    chat.wait_for(lambda shown: "w59" in shown.partition("> Two")[2])
    second = chat.text().split("> Two")[1]
    assert max(len(line) for line in second.split("\n") if line.startswith("w")) == 39


def test_a_full_context_drops_the_oldest_turns_and_says_so(scripted_chat):
    answer = FINAL.format("word " * 120)
    chat = scripted_chat([answer] * 4, context_length=600)
    chat.wait_for(READY)
    for number in range(4):
        chat.type(f"Question {number}" + ENTER)
        chat.wait_for(lambda shown, n=number: shown.count("Question") == n + 1 and shown.endswith("\n>"))
    text = chat.text()
    assert "the context of 600 tokens is full; the oldest" in text
    chat.type("/reset" + ENTER)
    chat.wait_for("a new conversation")
    chat.type("x " * 700 + ENTER)
    chat.wait_for("but the context holds 600")
    chat.type(CTRL_D)
    assert chat.wait_for_exit() == 0


def test_what_is_typed_during_an_answer_waits_for_its_turn(scripted_chat):
    chat = scripted_chat([FINAL.format("word " * 60), FINAL.format("Second.")], seconds_per_token=0.02)
    chat.wait_for(READY)
    chat.type("One" + ENTER)
    chat.wait_for("word word")
    chat.type("Two" + ENTER)
    shown = dialogue(chat.wait_for("Second."))
    answer, rest = shown.split("> Two")
    assert "Two" not in answer and answer.count("word") == 60 and rest.startswith("\nSecond.")


def test_messages_of_several_lines(scripted_chat):
    chat = scripted_chat([FINAL.format("A."), FINAL.format("B."), FINAL.format("C.")], "--raw", columns=200)
    chat.wait_for(READY)
    chat.type("one" + ALT_ENTER + "two" + ENTER)
    chat.wait_for("<|message|>one\ntwo<|end|>")
    chat.type("three\\" + ENTER + "four" + ENTER)
    chat.wait_for("<|message|>three\nfour<|end|>")
    chat.type("\x1b[200~five\rsix\x1b[201~" + ENTER)  # pasted
    chat.wait_for("<|message|>five\nsix<|end|>")


def test_an_answer_is_only_ever_appended(scripted_chat):
    """No flicker: while text streams nothing is erased and the cursor never goes back."""
    chat = scripted_chat([FINAL.format(MARKDOWN * 5 + "The end.")], seconds_per_token=0.002)
    chat.wait_for(READY)
    chat.type("Go" + ENTER)
    chat.wait_for("The end.")
    streamed = chat.output[chat.output.index(b"Two", chat.output.index(b"Go")) :]
    streamed = streamed[: streamed.index(b"The end.")]
    assert set(re.findall(rb"\x1b\[[0-9;?]*([A-Za-z])", streamed)) <= {b"m"}
    assert b"\r" not in streamed.replace(b"\r\n", b"")


def test_reasoning_can_be_folded(scripted_chat):
    replies = [
        THINK.format("Deep thought.") + FINAL.format("One."),
        THINK.format("Deeper.") + FINAL.format("Two."),
    ]
    chat = scripted_chat(replies, "--hide-reasoning")
    chat.wait_for(READY)
    chat.type("Go" + ENTER)
    chat.wait_for("One.")
    assert "Deep thought." not in chat.settle() and "│ thought for" in chat.text()
    chat.type("/reasoning" + ENTER)
    chat.wait_for("Deep thought.")
    chat.type("/reasoning on" + ENTER)
    chat.wait_for("reasoning is shown")
    chat.type("Go on" + ENTER)
    chat.wait_for("Two.")
    assert "│ Deeper." in chat.text()


def test_without_a_line_editor_and_without_colour(scripted_chat):
    chat = scripted_chat(
        [THINK.format("Hm.") + FINAL.format("**Yes.**")],
        "--no-color",
        environment={"TEST_WITHOUT_LINE_EDITOR": "1"},
    )
    chat.wait_for(READY)
    chat.type("a\\" + ENTER + "b" + ENTER)
    chat.wait_for("**Yes.**")
    assert "│ Hm." in chat.text()
    chat.settle()
    assert b"\x1b[" not in chat.output.replace(b"\x1b[?2004h", b"").replace(b"\x1b[?2004l", b"")
    chat.type(CTRL_C)
    chat.wait_for("(Ctrl-C again leaves")
    chat.type(CTRL_D)
    assert chat.wait_for_exit() == 0


def test_a_model_cannot_steer_the_terminal(scripted_chat):
    attack = FINAL.format("\x1b[2J\x1b]0;owned\x07gone\x9b31m")
    chat = scripted_chat([attack])
    chat.wait_for(READY)
    chat.type("Hi" + ENTER)
    shown = chat.wait_for("gone")
    assert "> Hi" in shown and b"\x1b]0;owned" not in chat.output and b"\x1b[2J" not in chat.output


def test_a_spinner_turns_while_the_model_reads(scripted_chat):
    chat = scripted_chat([FINAL.format("Done.")], seconds_to_read=2)
    chat.wait_for(READY)
    chat.type("word " * 600 + ENTER)
    chat.wait_for(lambda shown: re.search(r"[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏] reading \d+ tokens", shown) is not None)
    chat.wait_for("Done.")
    assert "reading" not in chat.settle()
