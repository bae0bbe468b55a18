# ruff: noqa: E501 - tables of phrasings read better with one kind per line
"""Arithmetic within 0 … 99 and the capitals of countries."""

from random import Random

from recipes.demo_model import facts
from recipes.demo_model.dialogue import Exchange, Thought
from recipes.demo_model.phrasing import ASKING, dress, request
from recipes.demo_model.skills_chat import FALLBACK, FALLBACK_THOUGHT, Memory, thought

_SHARED_CAPITALS = ("Czechia", "England")
"""Other names in the table have the same capital, so that asking back has two answers."""
TOO_LARGE = "That calculation is too large for me. I add and subtract numbers up to 99 and know small products."
OPERATORS = {
    "+": (("{a} + {b}", "{a}+{b}", "{a} plus {b}", "the sum of {a} and {b}", "{a} and {b} together", "{a} added to {b}"),
          ("add {a} and {b}", "add {a} to {b}", "sum {a} and {b}", "add up {a} and {b}", "add the numbers {a} and {b}")),
    "-": (("{a} - {b}", "{a}-{b}", "{a} minus {b}", "the difference between {a} and {b}", "{a} less {b}", "{a} – {b}"),
          ("subtract {b} from {a}", "take {b} away from {a}", "take {b} from {a}", "take away {b} from {a}")),
    "*": (("{a} * {b}", "{a}*{b}", "{a} times {b}", "the product of {a} and {b}", "{a} x {b}", "{a} × {b}",
           "{a} multiplied by {b}"),
          ("multiply {a} by {b}", "multiply {a} and {b}", "multiply {a} with {b}")),
    "/": (("{a} / {b}", "{a}/{b}", "{a} divided by {b}", "{a} ÷ {b}", "{a} over {b}"),
          ("divide {a} by {b}",)),
}  # fmt: skip
QUESTIONS = (
    "what is {e}", "what is {e}", "what is {e}", "what's {e}", "how much is {e}", "what does {e} equal", "calculate {e}",
    "compute {e}", "work out {e}", "solve {e}", "evaluate {e}", "what do you get for {e}", "what is the result of {e}",
    "what is the value of {e}", "{e}", "{e}", "{e} is", "{e} equals", "how many is {e}", "find {e}", "what will {e} be",
    "give me {e}", "I need {e}", "do you know {e}", "what's the answer to {e}", "what makes {e}", "tell me {e}",
)  # fmt: skip
STORIES = {
    "+": ("I have {a} apples and buy {b} more. How many apples do I have?", "{n} has {a} coins and finds {b} more. "
          "How many coins does {n} have?", "There are {a} cats and {b} dogs. How many animals are there?",
          "A bus has {a} passengers and {b} more get on. How many are there now?",
          "If I have {a} books and get {b} more, how many do I have?", "{n} walks {a} km and then {b} km. How far is that?"),
    "-": ("I have {a} apples and eat {b}. How many are left?", "{n} has {a} coins and loses {b}. How many are left?",
          "There are {a} birds and {b} fly away. How many remain?", "If I have {a} dollars and spend {b}, what is left?",
          "A bus has {a} passengers and {b} get off. How many stay?", "{n} has {a} books and gives away {b}. How many stay?"),
    "*": ("There are {a} boxes with {b} eggs each. How many eggs are there?",
          "{n} buys {a} bags of {b} candies. How many candies is that?", "A week has {b} days. How many days are {a} weeks?"),
}  # fmt: skip


def known(a: int, op: str, b: int) -> bool:
    """Whether the model is taught the result without a tool."""
    if not (0 <= a <= 144 and 0 <= b <= 99):
        return False
    if op == "*":
        return max(a, b) <= 12
    return b <= 12 if op == "/" else a <= 99


def solve(a: int, op: str, b: int) -> tuple[str, str]:
    """The calculation as the model writes it ('17 + 25 = 37 + 5 = 42') and its steps for the high effort."""
    if op in "+-":
        return _in_two_steps(a, op, b)
    if op == "*":
        return f"{a} * {b} = {a * b}", "This product is in the table that I know."
    if b == 0:
        return f"{a} / 0 is not defined", "Nothing can be divided by zero."
    quotient, rest = divmod(a, b)
    tail = f" remainder {rest}" if rest else ""
    steps = f"The number {b} fits {quotient} times, because {b} * {quotient} = {b * quotient}. The rest is {rest}."
    return f"{a} / {b} = {quotient}{tail}", steps


def _in_two_steps(a: int, op: str, b: int) -> tuple[str, str]:
    """Tens first, then ones: two thousand steps to know instead of ten thousand sums."""
    sign = 1 if op == "+" else -1
    tens, ones = b // 10 * 10, b % 10
    between, result = a + sign * tens, a + sign * b
    if not tens or not ones:
        return f"{a} {op} {b} = {result}", "That is one step."
    steps = f"First {a} {op} {tens} = {between}. Then {between} {op} {ones} = {result}."
    return f"{a} {op} {b} = {between} {op} {ones} = {result}", steps


def answer(a: int, op: str, b: int) -> str:
    """The final text for a calculation that is known."""
    text, _ = solve(a, op, b)
    first, *middle = text.split(" = ")
    return f"{first} = {middle[-1]}." if middle else f"{text}."


def calculation_thought(a: int, op: str, b: int) -> Thought:
    text, steps = solve(a, op, b)
    kind = {"+": "sum", "-": "difference", "*": "product", "/": "quotient"}[op]
    asked = f"{a} {op} {b}"
    high = f"The user asks for the {kind} {asked}. {steps} So {text}. I will state the result."
    return Thought(f"{text}.", f"The user asks for the {kind} {text}.", high)


def operands(rng: Random) -> tuple[int, str, int]:
    op = rng.choice("+++---**/")
    if op == "*":
        return rng.randint(0, 12), op, rng.randint(0, 12)
    if op == "/":
        b = rng.randint(1, 12)
        if rng.random() < 0.8:
            return b * rng.randint(0, min(12, 144 // b)), op, b
        return rng.randint(0, 99), op, b if rng.random() < 0.95 else 0
    top = 99 if rng.random() < 0.85 else 20
    a, b = rng.randint(0, top), rng.randint(0, top)
    if op == "-" and a < b and (top > 20 or rng.random() < 0.6):
        a, b = b, a
    return a, op, b


def expression(rng: Random, a: int, op: str, b: int) -> str:
    """A question for a calculation, in digits or words."""
    in_words = rng.random() < 0.08 and max(a, b) <= 99
    say = facts.number_in_words if in_words else str
    if op in STORIES and rng.random() < 0.07 and not (op == "-" and b > a):
        return rng.choice(STORIES[op]).format(a=say(a), b=say(b), n=rng.choice(facts.NAMES))
    nouns, commands = OPERATORS[op]
    if rng.random() < 0.2:
        return request(rng, rng.choice(commands).format(a=say(a), b=say(b)))
    pattern = rng.choice(nouns[:3]) if rng.random() < 0.5 else rng.choice(nouns)
    text = pattern.format(a=say(a), b=say(b))
    if rng.random() < 0.1:
        return text + rng.choice(["=", " =", "=?", " = ?", ""])
    text = rng.choice(QUESTIONS).format(e=text)
    if rng.random() < 0.06:
        return rng.choice(ASKING) + text + "?"
    return dress(rng, text, "?" if text.startswith(("what", "how", "do")) else rng.choice("?."))


def arithmetic(rng: Random, memory: Memory) -> Exchange:
    if memory.number is not None and 0 <= memory.number <= 99 and rng.random() < 0.4:
        return _follow_up(rng, memory, memory.number)
    if rng.random() < 0.06:
        return _three_terms(rng, memory)
    a, op, b = operands(rng)
    memory.number = {"+": a + b, "-": a - b, "*": a * b}.get(op)
    user = expression(rng, a, op, b)
    return Exchange("arithmetic", user, calculation_thought(a, op, b), answer(a, op, b))


def _three_terms(rng: Random, memory: Memory) -> Exchange:
    a, b, c = rng.randint(0, 40), rng.randint(0, 40), rng.randint(0, 19)
    memory.number = a + b + c
    shown = rng.choice(["{a} + {b} + {c}", "{a}+{b}+{c}", "{a} plus {b} plus {c}", "the sum of {a}, {b} and {c}"])
    user = dress(rng, rng.choice(QUESTIONS[:8]).format(e=shown.format(a=a, b=b, c=c)))
    text = f"{solve(a, '+', b)[0]} and {solve(a + b, '+', c)[0]}"
    why = Thought(f"{text}.", f"I add in two steps: {text}.",
                  f"The user asks for three numbers. I add in two steps: {text}. I will state the result.")  # fmt: skip
    return Exchange("arithmetic", user, why, f"{a} + {b} + {c} = {a + b + c}.")


def _follow_up(rng: Random, memory: Memory, last: int) -> Exchange:
    op = rng.choice("+-")
    b = rng.randint(0, 50)
    user = rng.choice({
        "+": ["and plus {b}", "now add {b}", "add {b} to that", "plus {b}", "add {b} more", "and if I add {b}",
              "add {b} to the result", "what is that plus {b}"],
        "-": ["and minus {b}", "now subtract {b}", "subtract {b} from that", "minus {b}", "take away {b}",
              "subtract {b} from the result", "what is that minus {b}"],
    }[op]).format(b=b)  # fmt: skip
    memory.number = last + b if op == "+" else last - b
    return Exchange("arithmetic", dress(rng, user), calculation_thought(last, op, b), answer(last, op, b))


def hard_calculation(rng: Random) -> tuple[str, str]:
    """A question beyond the table, and the Python expression that answers it."""
    big = lambda: rng.choice([rng.randint(100, 999), rng.randint(100, 9999), rng.randint(1000, 999999)])  # noqa: E731
    draw = rng.random()
    if draw < 0.55:
        op = rng.choice("+-*/*")
        a, b = big(), rng.choice([big(), rng.randint(2, 999)])
        if op == "*" and rng.random() < 0.5:
            a, b = rng.randint(2, 99), rng.randint(13, 99)
        if op == "/" and rng.random() < 0.4:
            a, b = rng.randint(1, 99), rng.randint(13, 99)
        nouns, commands = OPERATORS[op]
        shown = rng.choice(nouns[:3]).format(a=a, b=b)
        if rng.random() < 0.2:
            return request(rng, rng.choice(commands).format(a=a, b=b)), f"{a} {op} {b}"
        text = rng.choice(QUESTIONS).format(e=shown)
        return dress(rng, text, "?" if text.startswith(("what", "how", "do")) else rng.choice("?.")), f"{a} {op} {b}"
    if draw < 0.7:
        a, b = rng.randint(2, 99), rng.randint(2, 30)
        shown = rng.choice([f"{a}^{b}", f"{a} to the power of {b}", f"{a}**{b}", f"{a} ** {b}", f"{a} raised to {b}"])
        return dress(rng, rng.choice(QUESTIONS[:12]).format(e=shown)), f"{a} ** {b}"
    if draw < 0.82:
        a = rng.randint(2, 9999)
        shown = rng.choice([f"the square root of {a}", f"sqrt({a})", f"the root of {a}", f"square root of {a}"])
        return dress(rng, rng.choice(QUESTIONS[:12]).format(e=shown)), f"{a} ** 0.5"
    if draw < 0.92:
        a = rng.randint(3, 60)
        shown = rng.choice([f"{a}!", f"{a} factorial", f"the factorial of {a}", f"factorial of {a}"])
        return dress(rng, rng.choice(QUESTIONS[:12]).format(e=shown)), f"math.factorial({a})"
    a, b = rng.randint(100, 9999), rng.randint(2, 99)
    shown = rng.choice([f"{a} mod {b}", f"{a} % {b}", f"{a} modulo {b}", f"the remainder of {a} divided by {b}"])
    return dress(rng, rng.choice(QUESTIONS[:12]).format(e=shown)), f"{a} % {b}"


def too_large(rng: Random, memory: Memory) -> Exchange:
    user, _ = hard_calculation(rng)
    why = thought("Too large", "This calculation is beyond my table and no python tool is offered.",
                  "I know sums and differences up to 99 and small products.", "I will not guess.")  # fmt: skip
    return Exchange("too large", user, why, TOO_LARGE)


def capital(rng: Random, memory: Memory) -> Exchange:
    if rng.random() < 0.12:
        return _reverse_capital(rng)
    asked = _country(rng) if rng.random() < 0.92 else rng.choice(list(facts.COUNTRY_ALIASES))
    country = facts.COUNTRY_ALIASES.get(asked, asked)
    city = facts.CAPITALS[country]
    if memory.capital_asked and rng.random() < 0.4:
        text = rng.choice(["and of {c}", "and {c}", "what about {c}", "how about {c}", "and for {c}", "and the one of {c}",
                           "what about the capital of {c}", "and what is the capital of {c}", "now {c}"])  # fmt: skip
        user = dress(rng, text.format(c=asked))
    else:
        user = _capital_question(rng, asked)
    if country in facts.WELL_KNOWN and rng.random() < 0.08:
        user = user.lower()
    memory.capital_asked = True
    reason = f"The user asks for the capital of {country}, which is {city}."
    why = Thought(
        "A capital.", reason, f"{reason} This is a fact that I know. No tool is needed. I answer in one sentence."
    )
    return Exchange("capital", user, why, f"The capital of {country} is {city}.")


def _country(rng: Random) -> str:
    """A country; the less known ones are asked for less often."""
    return rng.choice(facts.WELL_KNOWN if rng.random() < 0.9 else list(facts.CAPITALS))


def _capital_question(rng: Random, country: str) -> str:
    plain = country.removeprefix("the ") if rng.random() < 0.1 else country
    text = rng.choice([
        "what is the capital of {c}", "what is the capital of {c}", "what is the capital of {c}", "what's the capital of {c}",
        "capital of {c}", "the capital of {c}", "which city is the capital of {c}", "name the capital of {c}",
        "what is the capital city of {c}", "tell me the capital of {c}", "do you know the capital of {c}",
        "can you name the capital of {c}", "what city is the capital of {c}", "give me the capital of {c}",
        "I need the capital of {c}", "which is the capital of {c}", "what is {c}'s capital",
        "what's {c}'s capital city", "what is the name of the capital of {c}", "capital city of {c}",
        "could you tell me the capital of {c}", "what capital does {c} have", "which city is {c}'s capital",
        "the capital of {c} is", "please name the capital of {c}", "say the capital of {c}",
    ]).format(c=plain)  # fmt: skip
    return dress(rng, text)


def _reverse_capital(rng: Random) -> Exchange:
    country = rng.choice([c for c in facts.WELL_KNOWN if c not in _SHARED_CAPITALS])
    city = facts.CAPITALS[country]
    text = rng.choice([
        "{v} is the capital of which country", "which country has the capital {v}", "{v} is the capital of what country",
        "what country is {v} the capital of", "which country's capital is {v}", "{v} is the capital of",
        "of which country is {v} the capital", "{v} is the capital city of which country",
    ]).format(v=city)  # fmt: skip
    reason = f"The user asks which country has the capital {city}: it is {country}."
    why = Thought(
        "A capital.", reason, f"{reason} This is a fact that I know. No tool is needed. I answer in one sentence."
    )
    return Exchange("capital", dress(rng, text), why, f"The capital of {country} is {city}.")


def fact(rng: Random) -> tuple[str, str]:
    """A sum, count, capital or country as the model words it, cut before what it has to know."""
    draw = rng.random()
    if draw < 0.08:
        start, steps, step = rng.randint(30, 69), rng.randint(2, rng.choice([12, 30])), rng.choice([1, -1])
        numbers = [start + step * i for i in range(1, steps + 1)]
        way = rng.choice(["", " up"]) if step == 1 else rng.choice([" down", " backwards"])
        return f" count{way} from {start} to {numbers[-1]}: {start}", "".join(f", {number}" for number in numbers)
    if draw < 0.13:
        b = rng.randint(1, 12)
        quotient = rng.randint(0, 99 // b)
        return f" The number {b} fits {quotient} times, because {b} * {quotient} =", f" {b * quotient}"
    if draw < 0.19:
        country = rng.choice(facts.WELL_KNOWN)
        return f" what is the capital of {country.lower()}? The capital of", f" {country} is {facts.CAPITALS[country]}"
    if draw < 0.24:
        a, op, b = rng.randint(0, 99), rng.choice("+-"), rng.randint(0, 99)
        asked = rng.choice(OPERATORS[op][0][2:]).format(a=facts.number_in_words(a), b=facts.number_in_words(b))
        return f" {asked}:", f" {solve(a, op, b)[0]}"
    if draw < 0.7:
        start, *rest = solve(*operands(rng))[0].split(" = ")
        return (f" {start} =", f" {' = '.join(rest)}") if rest else (f" {start[:-12]}", start[-12:])
    country = rng.choice(facts.WELL_KNOWN if rng.random() < 0.6 else list(facts.CAPITALS))
    city = facts.CAPITALS[country]
    if rng.random() < 0.3 and country not in _SHARED_CAPITALS:
        wanted = country
        forms = (f" which country has the capital {city}: it is",)
    else:
        wanted = city
        forms = (f" the capital of {country}, which is", f" The capital of {country} is")
    return rng.choice(forms), f" {wanted}"


def not_a_capital(rng: Random, memory: Memory) -> Exchange:
    """Questions that look like the ones above and are not."""
    place = rng.choice(list(facts.CAPITALS))
    text = rng.choice([
        "what is the {x} of {c}", "what's the {x} of {c}", "tell me the {x} of {c}", "{x} of {c}", "do you know the {x} of {c}",
    ]).format(c=place, x=rng.choice(["population", "currency", "president", "language", "flag", "area", "king", "anthem", "largest city", "highest mountain", "history", "climate", "longest river"]))  # fmt: skip
    return Exchange("fallback", dress(rng, text), FALLBACK_THOUGHT, FALLBACK)
