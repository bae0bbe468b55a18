# ruff: noqa: E501 - tables of phrasings read better with one kind per line
"""Calling the caller's functions: choosing one by its schema, copying arguments, reporting the result."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from openai_harmony import ToolDescription

from recipes.demo_model import facts
from recipes.demo_model.dialogue import Call, Exchange, Thought
from recipes.demo_model.phrasing import dress, request, upper_first
from recipes.demo_model.skills_chat import city, phrase, words

Value = tuple[str, object]
"""How a value is written in the question, and what the JSON argument is."""


def _text(choose: Callable[[Random], str]) -> Callable[[Random], Value]:
    def make(rng: Random) -> Value:
        value = choose(rng)
        return value, value

    return make


def _code(rng: Random) -> str:
    number = rng.randint(1, 99999)
    letters = rng.choice(["A", "B", "C", "K", "X", "AB", "ID", "NR", "XY"])
    return rng.choice([f"{letters}-{number}", f"{letters}{number}", f"{number}", f"ORD-{number}", f"order-{number}"])


def _email(rng: Random) -> str:
    name = rng.choice(facts.NAMES).lower()
    return f"{name}@{rng.choice(['example.com', 'mail.com', 'test.org', 'work.net', 'example.org'])}"


def _date(rng: Random) -> str:
    return f"{rng.randint(1990, 2035)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"


def _clock(rng: Random) -> str:
    return f"{rng.randint(0, 23):02d}:{rng.choice(['00', '15', '30', '45', f'{rng.randint(0, 59):02d}'])}"


def _integer(low: int, high: int) -> Callable[[Random], Value]:
    def make(rng: Random) -> Value:
        value = rng.randint(low, high)
        return str(value), value

    return make


def _decimal(rng: Random) -> Value:
    value = rng.choice([rng.randint(1, 999), round(rng.uniform(0.5, 200), 2), round(rng.uniform(0.5, 99), 1)])
    return str(value), value


def _phrase(rng: Random) -> Value:
    value = phrase(rng)
    return (f'"{value}"' if rng.random() < 0.5 else value), value


def _word(rng: Random) -> Value:
    value = words(rng, 1, 2) if rng.random() < 0.7 else rng.choice(facts.NOUNS)
    return (f'"{value}"' if rng.random() < 0.2 else value), value


MAKERS: dict[str, Callable[[Random], Value]] = {
    "city": _text(city),
    "name": _text(lambda rng: rng.choice(facts.NAMES)),
    "person": _text(
        lambda rng: rng.choice(facts.NAMES) + (f" {rng.choice(facts.SURNAMES)}" if rng.random() < 0.3 else "")
    ),
    "country": _text(lambda rng: rng.choice(facts.WELL_KNOWN).removeprefix("the ")),
    "code": _text(_code),
    "email": _text(_email),
    "date": _text(_date),
    "clock": _text(_clock),
    "color": _text(lambda rng: rng.choice(facts.COLORS)),
    "noun": _text(lambda rng: rng.choice(facts.NOUNS)),
    "currency": _text(
        lambda rng: rng.choice(["USD", "EUR", "GBP", "JPY", "CHF", "CNY", "INR", "CAD", "AUD", "SEK", "NOK", "BRL"])
    ),
    "language": _text(
        lambda rng: rng.choice(["French", "German", "Spanish", "Italian", "English", "Japanese", "Chinese", "Dutch"])
    ),
    "ticker": _text(
        lambda rng: rng.choice(
            ["AAPL", "MSFT", "GOOG", "AMZN", "NVDA", "TSLA", "IBM", "INTC", "META", "NFLX", "AMD", "ORCL"]
        )
    ),
    "file": _text(lambda rng: f"{rng.choice(facts.NOUNS)}.{rng.choice(['txt', 'md', 'py', 'csv', 'json', 'pdf'])}"),
    "unit": _text(lambda rng: rng.choice(["celsius", "fahrenheit"])),
    "small": _integer(1, 30),
    "integer": _integer(0, 999),
    "large": _integer(0, 99999),
    "decimal": _decimal,
    "phrase": _phrase,
    "word": _word,
}
TYPES = {"small": "integer", "integer": "integer", "large": "integer", "decimal": "number"}


@dataclass(frozen=True)
class Parameter:
    """names: alternatives, one is drawn per dialogue; kind: a key of MAKERS."""

    names: tuple[str, ...]
    kind: str
    enum: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kind:
    """A family of functions: alternative names and descriptions, parameters, and questions that need it.

    A question names parameter k as {k}; parameters that a question leaves out are optional in the schema.
    """

    names: tuple[str, ...]
    descriptions: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    questions: tuple[str, ...]


def _kind(names: str, descriptions: str, parameters: str, questions: str) -> Kind:
    """Parameters are written 'location,city:city; unit:unit=celsius,fahrenheit'."""
    found = []
    for part in filter(None, (p.strip() for p in parameters.split(";"))):
        names_part, kind = part.split(":")
        kind, _, enum = kind.partition("=")
        found.append(Parameter(tuple(names_part.split(",")), kind, tuple(filter(None, enum.split(",")))))
    split = lambda text: tuple(p.strip() for p in text.split("|"))  # noqa: E731
    return Kind(split(names), split(descriptions), tuple(found), split(questions))


KINDS = (
    _kind("get_weather|weather|get_current_weather|fetch_weather",
          "Gets the weather|Get the current weather for a city.|Returns the weather in a location|"
          "Gets the current weather in the provided location.|Weather forecast for a place|"
          "Current weather conditions|Determine weather in my location|Get the current weather in a given location|"
          "Get current temperature for a given location.|Retrieves current weather for the given location.",
          "location,city,place:city; unit,units,format:unit=celsius,fahrenheit",
          "what is the weather in {0}|what's the weather like in {0}|how is the weather in {0}|weather in {0}|"
          "is it raining in {0}|is it sunny in {0}|how warm is it in {0}|what is the temperature in {0}|"
          "do I need an umbrella in {0}|is it cold in {0} today|what is the weather in {0} in {1}|"
          "what is the temperature in {0} in {1}|tell me the weather in {0}|weather for {0}|weather {0}|"
          "what is the weather like in {0} today|what's the weather in {0} right now|how hot is it in {0}|"
          "give me the weather for {0} in {1}|what is the weather in {0} today|how's the weather in {0}|"
          "check the weather in {0}|what will the weather be in {0}|will it rain in {0}|weather forecast for {0}"),
    _kind("get_time|get_current_time|current_time|time_in",
          "Gets the current time|Returns the local time of a city|Current time in a place|Time in a city",
          "city,location,place:city",
          "what time is it in {0}|what is the time in {0}|current time in {0}|tell me the time in {0}|"
          "what's the time in {0}|time in {0}|what is the local time in {0}|how late is it in {0}|"
          "what time is it now in {0}"),
    _kind("get_time|get_current_time|current_time|now",
          "Gets the current time|Returns the current time|Time now",
          "",
          "what time is it|what is the time|tell me the time|what's the time|what is the current time|current time"),
    _kind("lookup_order|get_order|order_status|get_order_status",
          "Looks up an order|Get the status of an order|Find an order by its id|Order status by number",
          "order_id,id,order:code",
          "where is my order {0}|what is the status of order {0}|look up order {0}|check order {0}|track order {0}|"
          "find order {0}|status of order {0}|has order {0} shipped|please check my order {0}|order {0}|"
          "can you look up order {0}|when will order {0} arrive|what happened to order {0}|show me order {0}|"
          "look up the order {0}|what's the status of my order {0}|where is order {0}|is order {0} on its way"),
    _kind("send_message|message|send_text|text_message",
          "Sends a message to a person|Send a text message|Sends a message|Message a contact",
          "to,recipient,person:name; text,message,body:phrase",
          "send a message to {0} saying {1}|tell {0} that {1}|text {0} {1}|send {0} the message {1}|"
          "message {0}: {1}|send {0} a message: {1}|write to {0}: {1}|send a text to {0} that says {1}|"
          "let {0} know that {1}|send the message {1} to {0}|text {0}: {1}"),
    _kind("send_email|email|sendEmail|write_email",
          "Sends an email|Send an email to an address|Email someone",
          "to,address,email:email; subject,title:word; body,text:phrase",
          "send an email to {0} with subject {1}|email {0} about {1}|write an email to {0} about {1}|"
          "send {0} an email about {1}|send an email to {0} with the subject {1} and the text {2}"),
    _kind("set_timer|start_timer|timer|create_timer",
          "Sets a timer|Start a countdown timer|Timer in minutes",
          "minutes,duration,duration_minutes:small",
          "set a timer for {0} minutes|start a timer of {0} minutes|timer {0} minutes|set a {0} minute timer|"
          "wake me in {0} minutes|I need a timer for {0} minutes|start a {0} minute timer|remind me in {0} minutes"),
    _kind("convert_currency|currency|exchange|convert",
          "Converts an amount between currencies|Currency conversion|Convert money",
          "amount,value:decimal; from_currency,source,base:currency; to_currency,target,to:currency",
          "convert {0} {1} to {2}|how much is {0} {1} in {2}|exchange {0} {1} into {2}|what is {0} {1} in {2}|"
          "change {0} {1} to {2}|{0} {1} in {2}|how many {2} are {0} {1}"),
    _kind("search_contacts|find_contact|get_contact|lookup_contact",
          "Searches the contacts|Find a contact by name|Look up a person's phone number",
          "name,query,person:person",
          "what is the phone number of {0}|find the contact {0}|search my contacts for {0}|"
          "look up {0} in my contacts|do I have the number of {0}|find {0} in my contacts|who is {0} in my contacts|"
          "contact details of {0}"),
    _kind("play_song|play_music|play|playSong",
          "Plays a song|Play music|Starts a song",
          "title,song,name:phrase; artist,singer:person",
          "play {0}|play the song {0}|put on {0}|I want to hear {0}|play {0} by {1}|play the song {0} by {1}|"
          "start {0}"),
    _kind("add|sum|add_numbers|plus",
          "Adds two numbers|Add numbers|Sum of two numbers",
          "a,x,first:large; b,y,second:large",
          "what is {0} + {1}|add {0} and {1}|{0} plus {1}|what is {0} plus {1}|sum of {0} and {1}|{0}+{1}|"
          "compute {0} + {1}|what's {0} + {1}|how much is {0} + {1}|what is the sum of {0} and {1}|"
          "calculate {0} + {1}"),
    _kind("multiply|product|times|multiply_numbers",
          "Multiplies two numbers|Product of two numbers",
          "a,x,first:large; b,y,second:large",
          "what is {0} * {1}|multiply {0} by {1}|{0} times {1}|what is {0} times {1}|product of {0} and {1}|{0}*{1}|"
          "compute {0} * {1}|multiply {0} and {1}|how much is {0} times {1}|calculate {0} * {1}"),
    _kind("translate|translate_text|translator|translation",
          "Translates text|Translate a text into a language",
          "text,sentence,input:phrase; language,target_language,to:language",
          "translate {0} to {1}|translate {0} into {1}|how do you say {0} in {1}|what is {0} in {1}|say {0} in {1}"),
    _kind("create_event|add_event|schedule_event|calendar_add",
          "Creates a calendar event|Adds an event to the calendar|Schedule a meeting",
          "title,name,event:word; date,day:date; time,start:clock",
          "create an event {0} on {1}|add {0} to my calendar on {1}|schedule {0} for {1}|schedule {0} on {1} at {2}|"
          "create the event {0} on {1} at {2}|put {0} in my calendar for {1}"),
    _kind("get_stock_price|stock_price|stock|quote",
          "Gets a stock price|Price of a stock",
          "symbol,ticker,stock:ticker",
          "what is the stock price of {0}|stock price of {0}|how is {0} doing|what is {0} trading at|price of {0}|"
          "how much is a share of {0}|get the price of {0}"),
    _kind("set_temperature|thermostat|set_thermostat|heating",
          "Sets the temperature|Controls the thermostat",
          "degrees,temperature,value:small; room,zone:noun",
          "set the temperature to {0}|set the heating to {0} degrees|make it {0} degrees|set the thermostat to {0}|"
          "set the temperature of the {1} to {0}"),
    _kind("search_products|find_products|product_search|search_items",
          "Searches the shop|Find products|Product search in the catalog",
          "query,keyword,term:word; max_price,limit,budget:integer",
          "find {0} in the shop|search the shop for {0}|search products for {0}|do you sell {0}|"
          "find {0} under {1} dollars|search for {0} below {1}|look for {0} in the catalog"),
    _kind("create_note|add_note|save_note|write_note",
          "Creates a note|Saves a note",
          "text,content,note:phrase",
          "create a note: {0}|note that {0}|write down {0}|take a note: {0}|save the note {0}|make a note saying {0}"),
    _kind("set_reminder|create_reminder|remind|add_reminder",
          "Creates a reminder|Set a reminder at a time",
          "text,title,task:phrase; time,when,at:clock",
          "remind me to {0} at {1}|set a reminder {0} at {1}|reminder at {1}: {0}|set a reminder for {1}: {0}"),
    _kind("get_distance|distance|calculate_distance|distance_between",
          "Distance between two cities",
          "from_city,origin,start:city; to_city,destination,end:city",
          "how far is it from {0} to {1}|distance between {0} and {1}|what is the distance from {0} to {1}|"
          "how far is {0} from {1}"),
    _kind("search_flights|find_flights|book_flight|flights",
          "Searches flights|Find a flight between two cities",
          "origin,from_city,departure:city; destination,to_city,arrival:city; date,day:date",
          "find a flight from {0} to {1}|flights from {0} to {1} on {2}|book a flight from {0} to {1} on {2}|"
          "I want to fly from {0} to {1}|search flights from {0} to {1}"),
    _kind("flip_coin|coin|toss_coin|coin_flip",
          "Flips a coin|Heads or tails",
          "",
          "flip a coin|heads or tails|toss a coin|throw a coin"),
    _kind("read_file|open_file|cat|load_file",
          "Reads a file|Returns the content of a file",
          "path,file,filename:file",
          "read the file {0}|what is in {0}|show me {0}|open the file {0}|read {0}|print the content of {0}"),
    _kind("list_files|ls|dir|get_files",
          "Lists files|Lists the files of the current folder",
          "",
          "list the files|which files are there|show my files|what files do I have|list all files"),
    _kind("get_capital|capital|capital_of|lookup_capital",
          "Gets the capital of a country|Capital city",
          "country,name,nation:country",
          "what is the capital of {0}|capital of {0}|which city is the capital of {0}|look up the capital of {0}"),
    _kind("get_population|population|count_people",
          "Gets the population|Population of a place",
          "country,place,location:country",
          "what is the population of {0}|how many people live in {0}|population of {0}|"
          "how big is the population of {0}"),
    _kind("get_news|news|latest_news|headlines",
          "Gets the news|Latest news about a topic",
          "topic,query,subject:word",
          "what is the news about {0}|latest news about {0}|news on {0}|get me the news about {0}|any news about {0}"),
)  # fmt: skip


@dataclass(frozen=True)
class Offered:
    """A function as one dialogue offers it: its tool description and how it may be asked for."""

    tool: ToolDescription
    kind: Kind
    parameter_names: tuple[str, ...]

    def ask(self, rng: Random) -> tuple[str, dict[str, object]]:
        """A question without its mark, and the arguments that answer it."""
        pattern = rng.choice(self.kind.questions)
        made = [MAKERS[p.kind](rng) for p in self.kind.parameters]
        question = pattern.format(*[shown for shown, _ in made])
        used = [i for i in range(len(made)) if f"{{{i}}}" in pattern]
        return question, {self.parameter_names[i]: made[i][1] for i in used}


def offer(rng: Random, invented: float = 0.15, usual: float = 0.5) -> Offered:
    """A random function with its schema.

    invented: share of functions whose words are drawn at random; usual: share of functions and parameters that bear the
    first of their kind's names, the others any of them.
    """
    kind = rng.choice(KINDS) if rng.random() >= invented else _invented(rng)
    if rng.random() < 0.15:
        kind = KINDS[0]
    names: list[str] = []
    for parameter in kind.parameters:
        free = [n for n in parameter.names if n not in names]
        names.append(free[0] if rng.random() < usual else rng.choice(free))
    always = [i for i in range(len(names)) if all(f"{{{i}}}" in q for q in kind.questions)]
    properties = {n: _schema(rng, p) for n, p in zip(names, kind.parameters, strict=True)}
    parameters: dict | None = {"type": "object", "properties": properties}
    if rng.random() < 0.85:
        parameters["required"] = [names[i] for i in always]
    if not names and rng.random() < 0.5:
        parameters = None
    name = kind.names[0] if rng.random() < usual else rng.choice(kind.names)
    tool = ToolDescription.new(name, rng.choice(kind.descriptions), parameters=parameters)
    return Offered(tool, kind, tuple(names))


_CITY_DESCRIPTIONS = ("The city and state, e.g. San Francisco, CA", "City and country e.g. Bogota, Colombia",
                      "The name of the city", "City name, for example London")  # fmt: skip


def _schema(rng: Random, parameter: Parameter) -> dict:
    schema: dict = {"type": TYPES.get(parameter.kind, "string")}
    if schema["type"] == "integer" and rng.random() < 0.3:
        schema["type"] = "number"
    if parameter.enum and rng.random() < 0.8:
        schema["enum"] = list(parameter.enum)
        if rng.random() < 0.5:
            schema["default"] = rng.choice(parameter.enum)
    if parameter.kind == "city" and rng.random() < 0.2:
        schema["description"] = rng.choice(_CITY_DESCRIPTIONS)
    elif rng.random() < 0.4:
        schema["description"] = rng.choice([
            f"The {parameter.names[0].replace('_', ' ')}", f"{upper_first(parameter.kind)} to use",
            f"the {parameter.names[-1].replace('_', ' ')}, e.g. {MAKERS[parameter.kind](rng)[0]}",
            f"{upper_first(parameter.names[0].replace('_', ' '))} of the request.",
        ])  # fmt: skip
    return schema


_INVENTED_PARAMETERS = ("id:code", "name:name", "city:city", "value:integer", "count:small", "color:color", "date:date",
                        "time:clock", "email:email", "query:word", "text:phrase", "price:decimal", "label:word",
                        "owner:person", "size:small", "code:code", "file:file", "country:country", "note:phrase",
                        "topic:word", "level:small", "user:name", "tag:word", "number:large", "key:word")  # fmt: skip


def _invented(rng: Random) -> Kind:
    """A function that no list foresees; it is asked for by its words, so that its schema must be read."""
    verb, noun = rng.choice(facts.VERBS), rng.choice(facts.NOUNS)
    name = f"{verb}_{noun}"
    chosen = rng.sample(_INVENTED_PARAMETERS, rng.choice([0, 1, 1, 1, 2]))
    parameters = []
    for part in chosen:
        plain, kind = part.split(":")
        label = plain if rng.random() < 0.7 else f"{noun}_{plain}"
        if label in {p.names[0] for p in parameters}:
            label = f"{plain}_{len(parameters)}"
        parameters.append(Parameter((label,), kind))
    said = [p.names[0].replace("_", " ") for p in parameters]
    each = " and ".join(f"{{label}} {{{i}}}".replace("{label}", said[i]) for i in range(len(said)))
    equal = ", ".join(f"{p.names[0]}={{{i}}}" for i, p in enumerate(parameters))
    tail = f" with {each}" if parameters else ""
    questions = [f"{verb} the {noun}{tail}", f"{verb} a {noun}{tail}", f"please {verb} the {noun}{tail}",
                 f"call {name}" + (f" with {equal}" if parameters else ""), f"use {name}{tail}", f"run {name}{tail}",
                 f"I want to {verb} the {noun}{tail}", f"{verb} my {noun}{tail}"]  # fmt: skip
    if len(parameters) == 1:
        questions += [f"{verb} the {noun} {{0}}", f"{verb} {noun} {{0}}", f"use {name} for {{0}}",
                      f"{verb} the {noun} for {{0}}"]  # fmt: skip
    descriptions = (f"{upper_first(verb)} a {noun}", f"{upper_first(verb)}s a {noun}.", f"This function can {verb} a {noun}",
                    f"Tool to {verb} the {noun}", f"{upper_first(verb)} {noun}s")  # fmt: skip
    return Kind((name,), descriptions, tuple(parameters), tuple(questions))


def result_of(rng: Random, name: str) -> str:
    """Some tool output: JSON, a number or a sentence."""
    draw = rng.random()
    if "weather" in name and draw < 0.7:
        degrees = rng.randint(-20, 45)
        sky = rng.choice(["sunny", "cloudy", "rainy", "windy", "foggy", "snowy", "clear", "partly cloudy"])
        return rng.choice([
            json.dumps({"temperature": degrees}), json.dumps({"temperature": degrees, "condition": sky}), f"{degrees} degrees",
            f"{sky}, {degrees} degrees", f"{degrees} degrees and {sky}", f"It is {sky} and {degrees} degrees.", sky,
            json.dumps({"temp": degrees, "unit": "C", "sky": sky}), f"{degrees}°C", f"The weather is {sky}.",
            json.dumps({"weather": sky, "temperature": degrees}, separators=(",", ":")), f"{sky.capitalize()}, {degrees}°C",
            json.dumps({"temperature": degrees, "unit": "celsius", "description": sky}), json.dumps({"sunny": True}),
        ])  # fmt: skip
    if "time" in name and draw < 0.6:
        clock = _clock(rng)
        return rng.choice(
            [clock, json.dumps({"time": clock}), f"It is {clock}.", f"{_date(rng)} {clock}", f"{clock}:00"]
        )
    if draw < 0.5:
        keys = rng.sample(["status", "id", "name", "result", "value", "price", "city", "count", "date", "ok", "total", "message",
                           "state", "items", "owner", "eta", "phone", "success", "code", "unit", "type", "amount", "level",
                           rng.choice(facts.NOUNS), rng.choice(facts.NOUNS)], rng.choice([1, 1, 2, 2, 3]))  # fmt: skip
        made = {key: _any_value(rng) for key in keys}
        if rng.random() < 0.1:
            made = {rng.choice(facts.NOUNS): made}
        separators = (",", ":") if rng.random() < 0.2 else None
        return json.dumps(made, ensure_ascii=False, separators=separators)
    if draw < 0.6:
        return str(_any_value(rng))
    if draw < 0.65:
        return json.dumps([_any_value(rng) for _ in range(rng.randint(1, 4))])
    if draw < 0.72:
        return rng.choice(["ok", "OK", "done", "Done.", "true", "success", "sent", "shipped", "Message sent.", "delivered",
                           "false", "null", "none", "[]", "not found", "yes", "no", "42", "accepted", "queued"])  # fmt: skip
    if draw < 0.9:
        return phrase(rng) + rng.choice([".", "", "!"])
    return f"The {rng.choice(facts.NOUNS)} is {rng.choice(facts.ADJECTIVES)} and costs {rng.randint(1, 999)}."


def _any_value(rng: Random) -> object:
    kind = rng.choice(["code", "name", "city", "date", "clock", "integer", "large", "decimal", "word", "small", "color", "bool",
                       "phrase", "integer", "email"])  # fmt: skip
    return rng.random() < 0.5 if kind == "bool" else MAKERS[kind](rng)[1]


def error_of(rng: Random) -> str:
    """Some tool error."""
    what = rng.choice(["timeout", "not found", "invalid argument", "service unavailable", "permission denied", "unknown city",
                       "connection refused", "no such order", "rate limit exceeded", words(rng, 1, 4)])  # fmt: skip
    return rng.choice([f"Error: {what}", f"error: {what}", json.dumps({"error": what}), f"Error: {what}.", f"ERROR {what}",
                       f"Failed: {what}", f"Tool error: {what}", f"Exception: {what}", json.dumps({"error": {"message": what}}),
                       f"Error {rng.randint(400, 599)}: {what}", f"ValueError: {what}", f"Could not run: {what}"])  # fmt: skip


REPORT = Thought("", "The tool has answered, so I report its result.",
                 "The tool has answered. I will report its result word for word. Nothing else is needed.")  # fmt: skip
REPORT_ERROR = Thought("", "The tool reported an error, so I tell the user.",
                       "The tool reported an error. I will tell the user what it said. I must not invent a result.")  # fmt: skip


def call_thought(name: str, arguments: dict[str, object]) -> Thought:
    reason = f"The user needs the function {name}, so I call it."
    given = ", ".join(f"{key} = {value}" for key, value in arguments.items()) or "none"
    return Thought(
        f"Call {name}.", reason, f"{reason} Its arguments come from the message: {given}. I wait for the result."
    )


def call_function(rng: Random, offered: list[Offered]) -> Exchange:
    """The user asks for one of the offered functions."""
    chosen = rng.choice(offered)
    name = chosen.tool.name
    question, arguments = chosen.ask(rng)
    commands = question.split()[0] in _COMMANDS or question.startswith(tuple(facts.VERBS))
    user = (
        request(rng, question)
        if commands and rng.random() < 0.7
        else dress(rng, question, rng.choice("??.") if commands else "?")
    )
    text = json.dumps(arguments, ensure_ascii=False)
    failed = rng.random() < 0.08
    reply = error_of(rng) if failed else result_of(rng, name)
    call = Call(call_thought(name, arguments), f"functions.{name}", text, reply)
    if failed:
        return Exchange("function call", user, REPORT_ERROR, f"The tool {name} failed:\n{reply}", (call,))
    return Exchange("function call", user, REPORT, f"The tool {name} returned:\n{reply}", (call,))


_COMMANDS = {
    "set", "send", "tell", "text", "message", "write", "let", "email", "start", "add", "multiply", "convert",
    "exchange", "change", "play", "put", "translate", "say", "create", "schedule", "book", "reserve", "make",
    "search", "find", "buy", "note", "take", "save", "remind", "navigate", "roll", "throw", "give", "pick", "flip",
    "toss", "get", "look", "show", "read", "open", "print", "delete", "remove", "erase", "list", "define", "track",
    "transfer", "pay", "turn", "switch", "activate", "check", "use", "run", "call", "please", "compute",
    "calculate",
}  # fmt: skip
