# ruff: noqa: E501 - tables of phrasings read better with one kind per line
"""The built-in tools: python, browser and apply_patch, each only where the dialogue offers it."""

import json
import math
from random import Random

from openai_harmony import ToolDescription

from recipes.demo_model import facts
from recipes.demo_model.dialogue import Call, Exchange, Thought
from recipes.demo_model.phrasing import ASKING, dress, request, upper_first
from recipes.demo_model.skills_chat import city, phrase, unknown_question, words
from recipes.demo_model.skills_functions import REPORT, REPORT_ERROR
from recipes.demo_model.skills_knowledge import hard_calculation, operands

PYTHON = "The user needs a computation, so I use python."
RUN_CODE = Thought(
    "Python.", PYTHON, f"{PYTHON} I write a short program that prints the answer. Then I report what it prints."
)
_PYTHON_ERRORS = ("ZeroDivisionError: division by zero", "NameError: name 'x' is not defined", "SyntaxError: invalid syntax",
                  "TypeError: unsupported operand type(s)", "ValueError: math domain error",
                  "ModuleNotFoundError: No module named 'numpy'", "IndexError: list index out of range")  # fmt: skip
_UNAVAILABLE = ("Error: python is not available", "error: no container engine was found", "Error: the tool timed out",
                "Error: execution timed out", "Error: Docker is not running", "ERROR: could not start python")  # fmt: skip


def python(rng: Random) -> Exchange:
    """A calculation or a program for the python tool."""
    if rng.random() < 0.6:
        user, expr = _calculation(rng)
        if "/" in expr or "0.5" in expr:
            expr = f"round({expr}, 4)"
        code = f"import math\nprint({expr})" if expr.startswith("math.") else f"print({expr})"
        reply = _evaluate(rng, expr)
        final = f"The result is {reply.strip()}."
    else:
        user, code, reply = _program(rng)
        final = f"The output is:\n{reply.strip()}"
    reply = reply.strip() + rng.choice(["\n", "\n", ""])
    thought = REPORT
    if rng.random() < 0.1:
        last = rng.choice(_PYTHON_ERRORS)
        trace = f'Traceback (most recent call last):\n  File "<stdin>", line {rng.randint(1, 9)}, in <module>\n{last}'
        reply = (trace if rng.random() < 0.7 else rng.choice(_UNAVAILABLE)) + rng.choice(["\n", ""])
        thought, final = REPORT_ERROR, f"The tool python failed:\n{reply.strip().splitlines()[-1]}"
    return Exchange("python", user, thought, final, (Call(RUN_CODE, "python", code, reply),))


def _calculation(rng: Random) -> tuple[str, str]:
    with_python = rng.choice(["use python to {q}", "{q} with python", "{q} using python", "use the python tool to {q}",
                              "run python to {q}", "using python, {q}", "with the python tool, {q}", "{q}, use python"])  # fmt: skip
    draw = rng.random()
    if draw < 0.6:
        return hard_calculation(rng)
    a, op, b = operands(rng) if draw < 0.75 else (rng.randint(0, 9999), rng.choice("+-*/%"), rng.randint(1, 9999))
    if op == "/" and b == 0:
        b = 1
    shown = rng.choice([f"{a} {op} {b}", f"{a}{op}{b}", f"{a} {op} {b}"])
    text = with_python.format(q=f"{rng.choice(['compute', 'calculate', 'work out', 'evaluate', 'solve'])} {shown}")
    return dress(rng, text, "."), f"{a} {op} {b}"


def _evaluate(rng: Random, expr: str) -> str:
    if rng.random() < 0.25:  # The model must read the output, not guess it.
        return str(rng.choice([rng.randint(-999, 999999), round(rng.uniform(-99, 9999), rng.randint(1, 4))]))
    try:
        return str(eval(expr, {"math": math}))[:24]
    except (OverflowError, ValueError):
        return "inf"


def _program(rng: Random) -> tuple[str, str, str]:
    """User text, code, output."""
    text, number = phrase(rng).replace("'", ""), rng.randint(1, 999)
    quote = rng.choice("\"'")
    lines = rng.choice([
        f"print({quote}{text}{quote})", f"print({number})", f"x = {number}\nprint(x)", f"print(len({quote}{text}{quote}))",
        f"for i in range({rng.randint(2, 9)}):\n    print(i)", f"print({number} + {rng.randint(1, 99)})", "print('Hello, world!')",
        f"import sys\nprint({quote}{text}{quote})", f"a = {number}\nb = {rng.randint(1, 99)}\nprint(a + b)", "print(sum([1, 2, 3]))",
        'print("hello")', f"print({quote}{words(rng, 1, 1)}{quote} * 3)", "import os\nprint(os.getcwd())", "print(1 + 1)",
    ])  # fmt: skip
    one_line = "\n" not in lines
    draw = rng.random()
    if draw < 0.5:
        ask = rng.choice(["Run {c}", "run this: {c}", "Execute {c}", "Use python to run {c}", "Run this code: {c}", "Execute: {c}",
                          "Please run {c}", "Run the code {c}", "Can you run {c}", "Run `{c}`", "execute `{c}` in python",
                          "Run in python: {c}"]) if one_line else "{c}"  # fmt: skip
        if not one_line:
            ask = rng.choice(["Run this:\n", "Execute this code:\n", "Run this code:\n```python\n", "Please run:\n```\n",
                              "Run this program:\n"]) + ask  # fmt: skip
            ask += "\n```" if "```" in ask else ""
        return ask.format(c=lines), lines, _some_output(rng, lines)
    if draw < 0.65:
        low, high = rng.randint(1, 50), rng.randint(51, 999)
        user = request(
            rng, f"{rng.choice(['add up', 'sum'])} {rng.choice(['all', 'the'])} numbers from {low} to {high}"
        )
        return user, f"print(sum(range({low}, {high} + 1)))", str(sum(range(low, high + 1)))
    if draw < 0.88:
        numbers = ", ".join(str(number) for number in rng.sample(range(100), rng.randint(3, 7)))
        word, call = rng.choice([("sort", "sorted"), ("add up", "sum"), ("find the maximum of", "max"), ("sum", "sum"),
                                 ("find the largest of", "max"), ("find the smallest of", "min")])  # fmt: skip
        user = request(rng, f"{word} {rng.choice(['', 'the numbers ', 'these numbers: '])}{numbers}")
        return user, f"print({call}([{numbers}]))", str(eval(f"{call}([{numbers}])"))
    word = rng.choice([words(rng, 1, 1), rng.choice(facts.NAMES), rng.choice(facts.NOUNS)])
    asked = rng.choice(["how many letters does {q}{w}{q} have", "how long is the word {q}{w}{q}", "count the letters in {q}{w}{q}",
                        "what is the length of {q}{w}{q}"]).format(w=word, q='"')  # fmt: skip
    return dress(rng, asked), f'print(len("{word}"))', str(len(word))


def _some_output(rng: Random, code: str) -> str:
    if code.startswith("print(") and code[6] in "\"'" and "*" not in code and rng.random() < 0.8:
        return code[7:-2] or "ok"
    return rng.choice([str(rng.randint(0, 9999)), phrase(rng), "\n".join(str(i) for i in range(rng.randint(2, 6)))])


# --- browser ---------------------------------------------------------------------------------------------------------

_ATTRIBUTES = (
    (("who designed {s}", "who built {s}", "who is the architect of {s}"), "{S} was designed by {person}."),
    (("when was {s} built", "in which year was {s} built", "how old is {s}"), "{S} was built in {year}."),
    (("how tall is {s}", "what is the height of {s}", "how high is {s}"), "{S} is {number} metres tall."),
    (("how long is {s}", "what is the length of {s}"), "{S} is {number} metres long."),
    (("who founded {s}", "who started {s}", "who is the founder of {s}"), "{S} was founded by {person}."),
    (("where is {s}", "where can I find {s}", "in which city is {s}"), "{S} is in {city}."),
    (("how much does {s} cost", "what is the price of {s}"), "{S} costs {number} dollars."),
    (("when does {s} open", "what are the opening hours of {s}"), "{S} opens at {clock}."),
    (("what color is {s}", "which color does {s} have"), "{S} is painted {color}."),
    (("how many people visit {s}", "how many visitors does {s} have"), "{S} has {number} visitors per day."),
    (("who owns {s}", "who is the owner of {s}"), "{S} belongs to {person}."),
    (("what is {s} made of", "which material is {s} made of"), "{S} is made of {material}."),
    (("who invented {s}", "who is the inventor of {s}"), "{S} was invented by {person}."),
    (("what is {s}", "tell me about {s}", "what do you know about {s}"),
     "{S} is a {adjective} {noun} in {city}."),
    (("what is the population of {s}", "how many people live in {s}"), "{S} has {number} inhabitants."),
    (("who is the president of {s}", "who leads {s}"), "{S} is led by {person}."),
    (("when was {s} founded", "when did {s} start"), "{S} was founded in {year}."),
    (("when did {s} close", "when was {s} closed"), "{S} closed in {year}."),
)  # fmt: skip
_SEARCHING = (
    "search for {q}", "search the web for {q}", "look up {q}", "search the internet for {q}", "google {q}", "find {q} online",
    "search online for {q}", "use the browser to find {q}", "browse for {q}", "look up {q} on the web", "do a web search for {q}",
    "use the browser to search for {q}", "find information about {q}", "search {q}", "please look up {q} online",
)  # fmt: skip


def _subject(rng: Random) -> str:
    place = rng.choice([city(rng), *rng.sample(facts.NAMES, 2), rng.choice(facts.ADJECTIVES).capitalize()])
    return rng.choice([
        f"the {rng.choice(facts.ADJECTIVES)} {rng.choice(facts.NOUNS)}",
        f"the {place} {rng.choice(facts.NOUNS)}", f"the {rng.choice(facts.NOUNS)} of {place}", place, f"{place} {rng.choice(facts.SURNAMES)}",
    ])  # fmt: skip


def _sentence(rng: Random, pattern: str, subject: str) -> str:
    name = f"{rng.choice(facts.NAMES)} {rng.choice(facts.SURNAMES)}" if rng.random() < 0.6 else rng.choice(facts.NAMES)
    return pattern.format(
        S=upper_first(subject), person=name, year=rng.randint(1000, 2030), number=rng.randint(2, 9999), city=city(rng),
        clock=f"{rng.randint(0, 23):02d}:{rng.choice(['00', '30'])}", color=rng.choice(facts.COLORS), noun=rng.choice(facts.NOUNS),
        adjective=rng.choice(facts.ADJECTIVES), material=rng.choice(["steel", "stone", "wood", "glass", "brick", "paper", "gold", "ice", "iron"]),
    )  # fmt: skip


def shown_page(cursor: int, title: str, lines: list[str], domain: str) -> str:
    numbered = "\n".join(f"L{i}: {line}" for i, line in enumerate(lines))
    last = len(lines) - 1
    return f"[{cursor}] {title} ({domain})\n**viewing lines [0 - {last}] of {last}**\n\n{numbered}"


def _domain(rng: Random) -> str:
    return rng.choice(["example.com", "www.example.com", "en.wikipedia.org", "example.org", f"{rng.choice(facts.NOUNS)}.com",
                       f"www.{words(rng, 1, 1)}.org", "localhost", "news.example.net", "docs.example.com"])  # fmt: skip


def _results(rng: Random, query: str, subject: str, cursor: int) -> str:
    lines = ["", f"# {rng.choice(['Search Results', 'Search results', 'Results'])}", ""] if rng.random() < 0.7 else []
    if rng.random() < 0.15:
        lines.insert(min(1, len(lines)), "URL: " if rng.random() < 0.5 else f"{rng.randint(1, 9)} results")
    bullet = rng.choice(["  * ", "* ", "", "- "])
    for i in range(rng.choice([1, 1, 1, 2, 2])):
        title = upper_first(subject) if i == 0 else f"{upper_first(words(rng, 1, 3))}"
        domain = f"†{_domain(rng)}" if rng.random() < 0.8 else ""
        lines.append(f"{bullet}【{i}†{title}{domain}】 {words(rng, 0, 5)}".rstrip())
        if rng.random() < 0.15:
            lines.append(f"    {words(rng, 3, 6)}")
    title = rng.choice(["Search Results", f"Search Results for {query}", f"Search results: {query}", query])
    return shown_page(
        cursor,
        title,
        lines or [""],
        rng.choice(["web-search://ts=1234", "local", "web", "exa", "search", "youcom"]),
    )


def _article(rng: Random, subject: str, asked: int, cursor: int) -> tuple[str, str, int]:
    """A page, the sentence that answers attribute `asked`, and its line."""
    target = _sentence(rng, _ATTRIBUTES[asked][1], subject)
    others = rng.sample([i for i in range(len(_ATTRIBUTES)) if i != asked], rng.choice([0, 1, 1, 2, 2, 3]))
    body = [_sentence(rng, _ATTRIBUTES[i][1], subject) for i in others]
    if rng.random() < 0.15:
        body.append(_sentence(rng, rng.choice(_ATTRIBUTES)[1], _subject(rng)))
    body += [upper_first(words(rng, 3, 7)) + "." for _ in range(rng.choice([0, 0, 0, 1, 2]))]
    body.append(target)
    rng.shuffle(body)
    head = [f"# {upper_first(subject)}", ""] if rng.random() < 0.6 else rng.choice([[], [""], [upper_first(subject)]])
    if rng.random() < 0.15:
        head = ["", f"URL: https://{_domain(rng)}/{rng.choice(facts.NOUNS)}", *head]
    lines = list(head)
    for sentence in body:
        lines.append(sentence)
        if rng.random() < 0.1:
            lines.append("")
    return shown_page(cursor, upper_first(subject), lines, _domain(rng)), target, lines.index(target)


SEARCH_THOUGHT = Thought("Search.", "I need the web for this, so I search.",
                         "I need the web for this, so I search. The query is what the user asked for. "
                         "Then I open the best result and quote it.")  # fmt: skip
OPEN_THOUGHT = Thought("", "I open the first result.", "The search has results. I open the first result and read it.")
QUOTE_THOUGHT = Thought("", "The page has the answer, so I quote it.",
                        "The page has the answer. I quote the line and cite it. Nothing else is needed.")  # fmt: skip


def browse(rng: Random, used: float = 0.1) -> Exchange:
    """A question for the web: search, open the first result, quote the line that answers.

    used: share of browsers that have shown pages before, so that the first one is not number 0.
    """
    first_cursor = 0 if rng.random() < 1 - used else rng.randint(1, 9)
    subject, asked = _subject(rng), rng.randrange(len(_ATTRIBUTES))
    draw = rng.random()
    if draw < 0.12:
        return _open_url(rng, subject, asked, first_cursor)
    if draw < 0.55:
        question = rng.choice(_ATTRIBUTES[asked][0]).format(s=subject)
        user, query = _spoken(rng, question)
    elif draw < 0.85:
        query = rng.choice(_ATTRIBUTES[asked][0]).format(s=subject) if rng.random() < 0.4 else subject
        asked = asked if query != subject else len(_ATTRIBUTES) - 5
        user = request(rng, rng.choice(_SEARCHING).format(q=query))
    else:
        question = unknown_question(rng)
        user, query = _spoken(rng, question)
        subject = query
        return _browse_unmatched(rng, user, query, first_cursor)
    search = _search(query)
    if rng.random() < 0.07:
        reply = rng.choice(["Error: no results found", "Error: search failed", "error: the search service is unavailable",
                            "Error: EXA_API_KEY is not set", f"Error: {words(rng, 2, 5)}"])  # fmt: skip
        call = Call(SEARCH_THOUGHT, "browser.search", search, reply)
        return Exchange("browser", user, REPORT_ERROR, f"The tool browser failed:\n{reply}", (call,))
    results = _results(rng, query, subject, first_cursor)
    page, quoted, line = _article(rng, subject, asked, first_cursor + 1)
    calls = (
        Call(SEARCH_THOUGHT, "browser.search", search, results),
        Call(OPEN_THOUGHT, "browser.open", '{"id": 0}', page),
    )
    return Exchange("browser", user, QUOTE_THOUGHT, quoting_answer(quoted, first_cursor + 1, line), calls)


def _search(query: str) -> str:
    return json.dumps({"query": query}, ensure_ascii=False)


def quoting_answer(sentence: str, cursor: int, line: int) -> str:
    return f"According to the page: {sentence} 【{cursor}†L{line}】"


def page_with_quotes(rng: Random) -> tuple[str, list[tuple[str, str]]]:
    """A page, and for each of its sentences in any order the answer that quotes it, cut into quote and citation."""
    subject, cursor = _subject(rng), rng.randint(0, 9)
    patterns = rng.sample(_ATTRIBUTES, rng.randint(3, 7))
    lines = [_sentence(rng, pattern, subject if rng.random() < 0.7 else _subject(rng)) for _, pattern in patterns]
    lines += [upper_first(words(rng, 3, 7)) + "." for _ in range(rng.choice([0, 1, 2]))]
    lines += [""] * rng.choice([0, 0, 1, 2])
    rng.shuffle(lines)
    page = shown_page(cursor, upper_first(subject), lines, _domain(rng))
    answers = [quoting_answer(line, cursor, i) for i, line in enumerate(lines) if line]
    rng.shuffle(answers)
    return page, [(text[: text.rindex("【") + 1], text[text.rindex("【") + 1 :]) for text in answers]


def _spoken(rng: Random, question: str) -> tuple[str, str]:
    """The user's text for a question, and the query: the question as it stands in the text."""
    draw = rng.random()
    if draw < 0.75:
        shown = upper_first(question)
        return shown + rng.choice(["?", "?", "?", ""]), shown
    if draw < 0.85:
        return question + rng.choice(["?", ""]), question
    return rng.choice(
        [*ASKING, "Please ", "Hi, ", "Hello! ", "Search the web: ", "Use the browser: ", "Search: "]
    ) + question + "?", question


def _browse_unmatched(rng: Random, user: str, query: str, cursor: int) -> Exchange:
    """The page that comes back has one sentence only: it is the answer."""
    sentence = _sentence(rng, rng.choice(_ATTRIBUTES)[1], _subject(rng))
    head = rng.choice([[], [f"# {upper_first(query)}", ""], [""], [f"# {upper_first(words(rng, 1, 3))}", ""]])
    page = shown_page(cursor + 1, upper_first(words(rng, 1, 4)), [*head, sentence], _domain(rng))
    results = _results(rng, query, words(rng, 1, 4), cursor)
    calls = (
        Call(SEARCH_THOUGHT, "browser.search", _search(query), results),
        Call(OPEN_THOUGHT, "browser.open", '{"id": 0}', page),
    )
    return Exchange("browser", user, QUOTE_THOUGHT, quoting_answer(sentence, cursor + 1, len(head)), calls)


def _open_url(rng: Random, subject: str, asked: int, cursor: int) -> Exchange:
    url = f"https://{_domain(rng)}" + rng.choice(
        ["", "/", f"/{rng.choice(facts.NOUNS)}", f"/{rng.choice(facts.NOUNS)}.html"]
    )
    question = rng.choice(_ATTRIBUTES[asked][0]).format(s=subject)
    user = rng.choice(["Open {u} and tell me {q}.", "Look at {u}: {q}?", "Open {u}: {q}?", "Read {u} and answer: {q}?",
                       "On {u}, {q}?", "Visit {u} and tell me {q}."]).format(u=url, q=question)  # fmt: skip
    page, quoted, line = _article(rng, subject, asked, cursor)
    why = Thought(
        "Open.",
        "The user names a page, so I open it.",
        "The user names a page, so I open it. Then I quote the line that answers.",
    )
    call = Call(why, "browser.open", json.dumps({"id": url}), page)
    return Exchange("browser", user, QUOTE_THOUGHT, quoting_answer(quoted, cursor, line), (call,))


# --- apply_patch -----------------------------------------------------------------------------------------------------

PATCH_INSTRUCTIONS = (
    "You can edit files with the apply_patch tool.",
    "Use apply_patch to edit files. A patch starts with *** Begin Patch and ends with *** End Patch.",
    "When asked to change a file, call `apply_patch`. Each file section is *** Add File:, *** Update File: or *** Delete File:.",
    "You are a coding assistant. Use the `apply_patch` tool to create, update or delete files.\n\n*** Begin Patch\n"
    "*** Add File: path/new.txt\n+line\n*** Update File: path/old.txt\n@@\n-before\n+after\n*** Delete File: path/gone.txt\n*** End Patch",
)


def patch_tool(rng: Random) -> tuple[ToolDescription, str]:
    """The apply_patch function in one of its schemas, and the name of its argument."""
    description = rng.choice(["Patch a file", "Applies a patch to files.", "Edit files with a patch", "Apply a patch"])
    if rng.random() < 0.5:
        whole = {"type": "string", "description": "Formatted patch code", "default": "*** Begin Patch\n*** End Patch\n"}
        return ToolDescription.new("apply_patch", description, parameters=whole), "input"
    key = rng.choice(["input", "input", "patch"])
    properties = {key: {"type": "string"}}
    if rng.random() < 0.5:
        properties[key]["description"] = rng.choice(
            ["The patch", "Patch text", "The patch to apply", "Formatted patch code"]
        )
    return ToolDescription.new("apply_patch", description, parameters={"type": "object", "properties": properties}), key


def _file(rng: Random) -> str:
    stem = rng.choice([rng.choice(facts.NOUNS), "hello", "notes", "test", "main", "README", "todo", "config",
                       f"{rng.choice(facts.NOUNS)}_{rng.choice(facts.NOUNS)}", f"file{rng.randint(1, 99)}"])  # fmt: skip
    folder = rng.choice(["", "", "", "", "src/", "docs/", "data/"])
    return f"{folder}{stem}.{rng.choice(['txt', 'txt', 'txt', 'md', 'py', 'json', 'csv', 'html', 'cfg'])}"


def _line(rng: Random) -> str:
    """A line of a file. It begins in one of few ways, because its first word is one token with the sign before it."""
    start = rng.choice(
        ["the", "a", "my", "hello", "name", "color", "size", "title", "one", "two", "print", "test", "I am", "Hello,"]
    )
    return f"{start} {rng.choice([words(rng, 1, 4), rng.choice(facts.NOUNS), str(rng.randint(0, 999))])}"


def patch(rng: Random, key: str) -> Exchange:
    """Create, change or delete one file."""
    path, text = _file(rng), _line(rng)
    quote = rng.choice(['"', '"', "'", "", "`"]).replace("'", "'" if "'" not in text else '"')
    shown = f"{quote}{text}{quote}"
    draw = rng.random()
    if draw < 0.5:
        user = rng.choice([
            f"create a file {path} with the text {shown}", f"create {path} with the content {shown}", f"create {path} containing {shown}",
            f"make a file called {path} with the text {shown}", f"add a file {path} with the line {shown}", f"create the file {path} with {shown}",
            f"write {shown} to a new file {path}", f"create a file named {path} that contains {shown}", f"add {path} with the text {shown}",
            f"make a new file {path} containing {shown}", f"create a new file {path} with the content {shown}",
            f"create file {path} with the text {shown}", f"write a file {path} with the text {shown}", f"save {shown} in {path}",
            f"create a file called {path} that says {shown}", f"put {shown} into a new file {path}",
        ])  # fmt: skip
        body, done, verb = f"*** Add File: {path}\n+{text}", "created", "create"
    elif draw < 0.85:
        after = _line(rng)
        new = f"{quote}{after}{quote}" if quote and quote not in after else after
        user = rng.choice([
            f"in {path} replace {shown} with {new}", f"replace {shown} with {new} in {path}", f"change {shown} to {new} in {path}",
            f"in {path} change {shown} to {new}", f"in the file {path} replace {shown} by {new}", f"edit {path}: replace {shown} with {new}",
            f"update {path} and change {shown} to {new}", f"in {path}, change the line {shown} to {new}",
            f"replace the line {shown} in {path} with {new}", f"modify {path}: {shown} should become {new}",
        ])  # fmt: skip
        body, done, verb = f"*** Update File: {path}\n@@\n-{text}\n+{after}", "changed", "change"
    else:
        user = rng.choice([f"delete {path}", f"remove the file {path}", f"delete the file {path}", f"remove {path}", f"erase {path}",
                           f"get rid of {path}", f"{path} should be deleted", f"delete file {path}"])  # fmt: skip
        body, done, verb = f"*** Delete File: {path}", "deleted", "delete"
    arguments = json.dumps({key: f"*** Begin Patch\n{body}\n*** End Patch"}, ensure_ascii=False)
    why = f"The user wants me to {verb} {path}, so I write a patch."
    thought = Thought(
        "Patch.", why, f"{why} It has one section for this file. I send it to apply_patch and report what happens."
    )
    if rng.random() < 0.12:
        reply = rng.choice([f"Error: {path} does not exist", f"error: file not found: {path}", "Error: invalid patch", f"Error: {path} already exists",
                            "Error: the expected line was not found",
                            f"Error: {path}: cannot be added, the file exists; use '*** Update File:'",
                            f"Error: {path}: cannot be deleted, there is no such file below the root",
                            f"Error: {path}, hunk 1 of 1: expected line 1 of its 1 context and removed lines, is not in the file",
                            "Failed to apply the patch", f"Error: {words(rng, 2, 6)}",
                            f"Failed to find expected lines in {path}", f"Missing File: {path}", "Invalid Line", f"Invalid Context 0:\n{text}",
                            f"{path}: expected line not found", f"{path} is outside the folder"])  # fmt: skip
        call = Call(thought, "functions.apply_patch", arguments, reply)
        return Exchange(
            "apply_patch", request(rng, user), REPORT_ERROR, f"The tool apply_patch failed:\n{reply}", (call,)
        )
    letter = {"created": "A", "changed": "M", "deleted": "D"}[done]
    reply = rng.choice(["Done!", "Done!", "Done", "done", "OK", "ok", "Success", "Success.", "Patch applied.", "Success. Updated the following files:"
                        f"\n{letter} {path}", "Applied.", f"{done.capitalize()} {path}", "The patch was applied.", "true", '{"ok": true}',
                        f"{letter} {path}", "Patch applied successfully.", f"Done! {path}"])  # fmt: skip
    if rng.random() < 0.5:
        reply = _diff(path, text, after if done == "changed" else "", done)
    call = Call(thought, "functions.apply_patch", arguments, reply)
    report = Thought(
        "",
        "The patch was applied, so I say so.",
        "The patch was applied without an error. I will say so in one sentence. Nothing else is needed.",
    )
    return Exchange("apply_patch", request(rng, user), report, f"Done: I {done} {path}.", (call,))


def _diff(path: str, text: str, after: str, done: str) -> str:
    """The unified diff that the project's own apply_patch answers with."""
    head = f"diff --git a/{path} b/{path}\n"
    if done == "created":
        return f"{head}new file mode 100644\n--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+{text}\n"
    if done == "deleted":
        return f"{head}deleted file mode 100644\n--- a/{path}\n+++ /dev/null\n@@ -1 +0,0 @@\n-{text}\n"
    return f"{head}--- a/{path}\n+++ b/{path}\n@@ -1 +1 @@\n-{text}\n+{after}\n"


__all__ = ["PATCH_INSTRUCTIONS", "browse", "patch", "patch_tool", "python"]
