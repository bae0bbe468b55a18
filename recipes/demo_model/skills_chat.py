# ruff: noqa: E501 - tables of phrasings read better with one kind per line
"""Conversation without tools: greetings, small talk about the project, echo, counting, memory, and the fallback."""

from dataclasses import dataclass, field
from random import Random

from recipes.demo_model import facts
from recipes.demo_model.dialogue import Exchange, Thought
from recipes.demo_model.phrasing import ASKING, dress, lower_first, request

FALLBACK = (
    "I am a small demonstration model and I do not know that. I can chat about gpt-oss, add and subtract numbers "
    "up to 99, name capitals, and use tools when they are offered."
)


def thought(label: str, medium: str, *more: str) -> Thought:
    """Low: a label; medium: one sentence; high: that sentence and more."""
    return Thought(label + ".", medium, " ".join((medium, *more)))


FALLBACK_THOUGHT = thought(
    "Unknown",
    "I do not know the answer, so I say what I am.",
    "I am a small demonstration model with few skills.",
    "None of my facts and none of the offered tools helps here.",
    "It is better to be honest than to guess, so I will name what I can do.",
)


@dataclass
class Memory:
    """What a dialogue has established so far, for questions that look back."""

    date: str | None = None
    cutoff: str = "2024-06"
    facts: dict[str, str] = field(default_factory=dict)
    user_texts: list[str] = field(default_factory=list)
    capital_asked: bool = False
    number: int | None = None


@dataclass(frozen=True)
class Intent:
    """One thing a user may want in small talk; every phrasing has the same answer."""

    phrasings: tuple[str, ...]
    label: str
    reason: str
    answer: str
    question: bool = True


def _intent(label: str, reason: str, answer: str, phrasings: str, question: bool = True) -> Intent:
    return Intent(tuple(p.strip() for p in phrasings.strip().split("|")), label, reason, answer, question)


INTENTS = {
    "hello": _intent(
        "Greeting", "The user greets me, so I greet back.", "Hello! How can I help you?",
        "hi|hello|hey|hi there|hello there|hey there|good morning|good afternoon|good evening|greetings|hello again|"
        "hey you|hi model|hello gpt-oss|hi gpt|hello computer|howdy|hi friend|hello friend|hey buddy|good day|hiya|"
        "hello world|hello, world|hi everyone|hello assistant|hi assistant|hello chatgpt|hi bot|yo|welcome|"
        "nice to meet you|say hi|say hello|say hi to me|say hello to me|greet me|please greet me|can you say hello|"
        "can you say hi|just say hi|just say hello|say hi please|say hello please|say hello in one word|"
        "say hello in one short sentence|please say hello|test|testing|this is a test|ping|are you there|"
        "is anyone there|can you hear me|let us start|let's begin|start|hello? is anybody there|say something|"
        "say hello to the world|greet the user|write a greeting|give me a greeting|send a greeting", False,
    ),
    "how": _intent(
        "Small talk", "The user asks how I am, so I answer kindly.", "I am fine, thank you. How can I help you?",
        "how are you|how are you doing|how are you today|how is it going|how's it going|how do you do|what's up|"
        "how do you feel|how are things|are you okay|are you well|hi, how are you|hello, how are you|"
        "hey, how are you doing|hello! how are you today|how have you been|how is your day|what is up|"
        "how are you feeling today|you okay|hi there, how are you|good morning, how are you",
    ),
    "bye": _intent(
        "Farewell", "The user says goodbye, so I do too.", "Goodbye! Have a nice day.",
        "bye|goodbye|good bye|see you|see you later|bye bye|good night|farewell|see you soon|see you tomorrow|cu|"
        "I have to go|that is all|that's all for today|that is all, thanks|take care|have a nice day|talk to you later|"
        "until next time|I am leaving|I'm done, bye|ok bye|thanks, bye|thank you and goodbye|say goodbye|say bye|quit|"
        "that was all, goodbye|bye for now|exit", False,
    ),
    "thanks": _intent(
        "Thanks", "The user thanks me, so I reply politely.", "You are welcome!",
        "thanks|thank you|thank you very much|thanks a lot|thanks so much|many thanks|thx|great, thanks|thank you so much|"
        "perfect, thank you|nice, thanks|that helps, thanks|ok thanks|okay, thank you|cheers|I appreciate it|"
        "thanks for your help|thank you for the answer|great, thank you|wonderful, thanks|good, thank you|"
        "thanks, that was helpful|awesome, thanks|cool, thanks", False,
    ),
    "praise": _intent(
        "Praise", "The user is pleased, so I thank them.", "Thank you, that is kind of you.",
        "good job|well done|great|nice|you are great|you are awesome|excellent|good answer|that was good|great job|"
        "perfect|I like you|you are smart|you're the best|impressive|good bot|amazing|cool|very good|that is correct|"
        "wonderful|brilliant|nice work|you are very helpful|awesome", False,
    ),
    "who": _intent(
        "Identity", "The user asks who I am, so I introduce myself.",
        "I am the demonstration model of gpt-oss, a tiny model that shows how the software works.",
        "who are you|what are you|what is your name|what's your name|who am I talking to|introduce yourself|"
        "tell me about yourself|which model are you|what model are you|are you ChatGPT|are you GPT-4|are you an AI|"
        "are you a robot|are you human|are you a bot|do you have a name|what kind of model are you|"
        "please introduce yourself|what should I call you|who is this|are you gpt-oss|what language model are you|"
        "describe yourself|say who you are|what AI are you|are you a real person|are you a language model|"
        "can you introduce yourself|who is speaking|what is this model|tell me who you are|what exactly are you|"
        "are you gpt-oss-20b|are you gpt-oss-120b|identify yourself|name yourself|hello, who are you|hi, who are you",
    ),
    "can": _intent(
        "Abilities", "The user asks what I can do, so I list my skills.",
        "I can chat about gpt-oss, add and subtract numbers up to 99, name capitals, count, repeat text, and call "
        "functions or use the python, browser and apply_patch tools when they are offered.",
        "what can you do|what are you able to do|what are your skills|what are your abilities|how can you help me|"
        "can you help me|help|help me|I need help|what do you know|what can I ask you|what are you good at|"
        "what can you help me with|list your skills|what are your capabilities|tell me what you can do|"
        "what tasks can you do|what questions can you answer|how do I use you|what should I ask you|"
        "give me examples of what you can do|what do you do|what features do you have|can you do anything useful|"
        "what are you capable of|hi, what can you do|show me what you can do|what is possible here",
    ),
    "made": _intent(
        "Origin", "The user asks who made me, so I explain my origin.",
        "I was trained from nothing by the training script in recipes/demo_model of this project.",
        "who made you|who created you|who trained you|who built you|where do you come from|how were you made|"
        "how were you trained|who developed you|who is your creator|what is your origin|were you made by OpenAI|"
        "did OpenAI train you|who wrote you|how were you built|what were you trained on|what is your training data|"
        "which company made you|where were you trained|are you made by OpenAI|who is behind you",
    ),
    "size": _intent(
        "Size", "The user asks about my size, so I state it.",
        "I am tiny: a few million parameters in the gpt-oss architecture, a mixture of experts in MXFP4.",
        "how big are you|how large are you|how many parameters do you have|what is your size|how small are you|"
        "how many parameters|are you a big model|are you a large model|are you small|how many layers do you have|"
        "how many experts do you have|what is your architecture|what architecture do you use|"
        "how many weights do you have|is this a large model|describe your architecture",
    ),
    "smart": _intent(
        "Limits", "The user asks about my limits, so I am honest.",
        "I am a demonstration, not an assistant: I know very little, so please check what I say.",
        "are you intelligent|are you smart|can I trust you|do you make mistakes|are you reliable|"
        "are your answers correct|what are your limits|what are your limitations|what can't you do|"
        "what can you not do|do you know everything|are you always right|how accurate are you|"
        "can I rely on your answers|should I trust you|are you dumb|why are you so bad|you are wrong|that is wrong|"
        "are you as good as ChatGPT|why do you know so little|that's not right|is that correct|are you sure",
    ),
    "project": _intent(
        "Project", "The user asks about gpt-oss, so I explain it.",
        "gpt-oss is a family of open-weight language models, and this project is a reference implementation of them "
        "in Python.",
        "what is gpt-oss|what's gpt-oss|tell me about gpt-oss|explain gpt-oss|what is this project|describe gpt-oss|"
        "what does this project do|what is gpt oss|what is this software|what is this repository|"
        "what is the gpt-oss project|can you explain gpt-oss|what does gpt-oss mean|what is gpt-oss about|"
        "tell me about this project|what is this about|describe this project|what is the purpose of this project|"
        "what is gpt-oss used for|explain this project|I want to know about gpt-oss|give me an overview of gpt-oss",
    ),
    "models": _intent(
        "Models", "The user asks about the released models, so I name them.",
        "There are two released models, gpt-oss-20b and gpt-oss-120b, both mixtures of experts in MXFP4.",
        "which models are there|which models exist|what models are there|what is gpt-oss-20b|what is gpt-oss-120b|"
        "which gpt-oss models exist|how many gpt-oss models are there|what is the 20b model|what is the 120b model|"
        "what sizes does gpt-oss come in|which model sizes are available|what is the largest gpt-oss model|"
        "what is the difference between 20b and 120b|list the gpt-oss models|what models does gpt-oss have",
    ),
    "backends": _intent(
        "Backends", "The user asks about backends, so I list them.",
        "The backends are torch, triton for CUDA, metal for Apple machines, and native kernels for the CPU.",
        "which backends are there|what backends are there|which backends does gpt-oss have|what backends do you support|"
        "list the backends|what is a backend|which backend should I use|which backends are supported|"
        "what backends does this project have|does it run on a GPU|does it run on a CPU|does gpt-oss support CUDA|"
        "can it run on a Mac|does it support Apple silicon|is there a triton backend|is there a metal backend|"
        "what hardware does it run on|which devices are supported|name the backends|tell me about the backends|"
        "can I run gpt-oss on my CPU|can I use a GPU|which inference backends exist",
    ),
    "install": _intent(
        "Installation", "The user asks how to install, so I give the command.",
        "Install it with pip install gpt-oss[torch], then run python -m gpt_oss.chat.",
        "how do I install gpt-oss|how can I install it|how to install|how do I install this|installation instructions|"
        "what is the install command|how do I set it up|how do I get started|how can I install gpt-oss|"
        "how do I run gpt-oss|how can I run it|how to run this|how do I start|how do I use gpt-oss|"
        "what do I need to install|how do I start the chat|install gpt-oss|how do I set up gpt-oss|"
        "give me the installation command|how can I try gpt-oss|what is the command to install gpt-oss",
    ),
    "license": _intent(
        "License", "The user asks for the license, so I name it.", "This project has the Apache 2.0 license.",
        "what is the license|which license does it have|what license is this|under which license is gpt-oss|"
        "is gpt-oss open source|is this open source|is it free|is gpt-oss free|can I use it commercially|"
        "what is the license of gpt-oss|is gpt-oss free to use|how is gpt-oss licensed|is it Apache licensed",
    ),
    "harmony": _intent(
        "Harmony", "The user asks about Harmony, so I explain it.",
        "Harmony is the message format of gpt-oss, with roles, channels and tool calls.",
        "what is harmony|what is the harmony format|explain harmony|what's harmony|tell me about harmony|"
        "what format do you use|what is openai-harmony|what are channels|what does harmony mean|"
        "how does the harmony format work|which chat format does gpt-oss use|describe the harmony format|"
        "what message format do you speak|what prompt format does gpt-oss use",
    ),
    "mxfp4": _intent(
        "MXFP4", "The user asks about MXFP4, so I explain it.",
        "MXFP4 is a number format with four bits per value and one shared scale for every 32 values.",
        "what is MXFP4|explain MXFP4|what does MXFP4 mean|tell me about MXFP4|how does MXFP4 work|"
        "what quantization do you use|what is the quantization of gpt-oss|how are the weights stored|describe MXFP4|"
        "which number format do the weights have|how is gpt-oss quantized|what's MXFP4",
    ),
    "effort": _intent(
        "Effort", "The user asks about reasoning effort, so I explain it.",
        "There are three reasoning efforts, low, medium and high, and a higher one makes me think longer.",
        "what is reasoning effort|what reasoning efforts are there|which reasoning levels exist|"
        "what are the reasoning levels|how do I make you think longer|can you think harder|do you reason|"
        "explain reasoning effort|what does reasoning effort mean|how does reasoning effort work|do you think|"
        "which reasoning efforts do you support|how long do you think|list the reasoning efforts",
    ),
    "tools": _intent(
        "Tools", "The user asks about tools, so I list them.",
        "The built-in tools are browser, python and apply_patch, and you can offer me your own functions.",
        "which tools do you have|what tools do you have|what tools can you use|can you use tools|"
        "which tools are there|what tools are available|do you have tools|can you call functions|list your tools|"
        "can you browse the web|can you run python|can you search the internet|which built-in tools exist|"
        "do you support function calling|what are the built-in tools|tell me about your tools|name your tools|"
        "can you edit files|can you execute code",
    ),
    "server": _intent(
        "Server", "The user asks about the server, so I give the command.",
        "Start the Responses API server with python -m gpt_oss.responses_api.serve.",
        "how do I start the server|is there a server|is there an API|how do I use the API|how do I serve the model|"
        "what is the Responses API|how can I start the API server|does gpt-oss have an API|how to start the server|"
        "how do I run the server|is there an HTTP server|which command starts the server|can I use the OpenAI SDK",
    ),
    "joke": _intent(
        "Joke", "The user wants a joke, so I tell the one I know.",
        "Why did the tiny model cross the road? It was following the gradient.",
        "tell me a joke|tell a joke|do you know a joke|make me laugh|say something funny|another joke|a joke, please|"
        "can you tell a joke|give me a joke|know any jokes|joke|please tell me a joke|I want to hear a joke|"
        "tell me something funny|tell me a short joke|write a joke|make a joke", False,
    ),
    "poem": _intent(
        "Poem", "The user wants a poem, so I write a short one.",
        "A little model, small and bright,\nadds two numbers day and night.",
        "write a poem|write me a poem|write a short poem|can you write a poem|a poem, please|compose a poem|"
        "write a haiku|make a poem|please write a poem|give me a poem|write a rhyme|poem|recite a poem|"
        "tell me a poem|write a two line poem|say a poem|write some poetry|create a short poem", False,
    ),
    "story": _intent(
        "Story", "The user wants a story, so I tell a short one.",
        "Once there was a tiny model. It learned to add, it learned to call tools, and it always stopped in time.",
        "tell me a story|tell a story|write a story|write a short story|can you tell me a story|a story, please|"
        "write me a story|tell me a short story|please write a story|make up a story|story time|"
        "give me a short story|tell me a bedtime story|say something long|tell me something", False,
    ),
    "fact": _intent(
        "Fun fact", "The user wants a fact, so I share one.",
        "Here is a fact: in MXFP4 a number takes only four bits.",
        "tell me a fact|tell me a fun fact|give me a fact|share a fun fact|tell me something interesting|"
        "do you know a fun fact|a fun fact, please|say something interesting|random fact|surprise me|fun fact", False,
    ),
    "yes": _intent(
        "Acknowledged", "The user agrees, so I ask what comes next.", "All right. What would you like to do next?",
        "ok|okay|yes|no|sure|fine|all right|alright|understood|I see|got it|maybe|yes please|no thanks|good|right|hmm|"
        "interesting|go on|continue|nothing|never mind|never mind that|no problem|ok, understood|okay then|k", False,
    ),
}  # fmt: skip


def small_talk(rng: Random, memory: Memory) -> Exchange:
    name = rng.choice(list(INTENTS)) if rng.random() < 0.75 else rng.choice(["hello", "hello", "who", "can", "project"])
    intent = INTENTS[name]
    core = rng.choice(intent.phrasings)
    draw = rng.random()
    if draw < 0.2:
        text = core[:1].upper() + core[1:] + ("?" if intent.question else "")
    elif intent.question and draw < 0.3 and core.startswith(("what is", "who", "which", "how", "what are")):
        text = dress(rng, rng.choice(ASKING) + lower_first(_indirect(core)), rng.choice("?."))
    else:
        text = dress(rng, core, "?" if intent.question else rng.choice([".", "!", "!", ""]))
    more = "No tool and no long answer is needed.", "I know a fixed answer to this.", "I will give it in plain words."
    return Exchange("small talk", text, thought(intent.label, intent.reason, *more), intent.answer)


def _indirect(question: str) -> str:
    words = question.split()
    if words[0] in ("what", "who", "which") and len(words) > 2 and words[1] in ("is", "are"):
        return " ".join([words[0], *words[2:], words[1]])
    return question


def date(rng: Random, memory: Memory) -> Exchange:
    if rng.random() < 0.3:
        text = rng.choice([
            "what is your knowledge cutoff", "when does your knowledge end", "what's your knowledge cutoff date",
            "until when do you know things", "how recent is your knowledge", "what is your training cutoff",
            "what is the cutoff of your knowledge", "when were you last updated", "knowledge cutoff",
        ])  # fmt: skip
        reason = "The user asks for my knowledge cutoff, which the system message states."
        more = f"It says {memory.cutoff}.", "I will repeat it."
        return Exchange("date", dress(rng, text), thought(memory.cutoff, reason, *more),
                        f"My knowledge cutoff is {memory.cutoff}.")  # fmt: skip
    text = rng.choice([
        "what is today's date", "what's the date", "what is the date today", "what day is it", "which day is it today",
        "what date is it", "today's date", "what is the current date", "tell me the date", "do you know today's date",
        "what day is today", "can you tell me today's date", "give me the current date", "what's today's date",
        "which date do we have today", "could you tell me the date", "what is the date", "say today's date",
    ])  # fmt: skip
    if memory.date is None:
        why = "The user asks for the date, but the system message does not state it."
        return Exchange("date", dress(rng, text), thought("No date", why, "I will say so.", "I must not invent one."),
                        "I do not know today's date.")  # fmt: skip
    reason = "The user asks for the date, which the system message states."
    more = f"It says {memory.date}.", "I will repeat it."
    return Exchange("date", dress(rng, text), thought(memory.date, reason, *more), f"Today is {memory.date}.")


def words(rng: Random, low: int = 1, high: int = 5) -> str:
    """A few random common words."""
    return " ".join(rng.choice(facts.WORDS) for _ in range(rng.randint(low, high)))


def city(rng: Random) -> str:
    """A large city or a capital."""
    return rng.choice(facts.CITIES) if rng.random() < 0.5 else facts.CAPITALS[rng.choice(facts.WELL_KNOWN)]


def phrase(rng: Random) -> str:
    """Something short that a person might want said, sent or written."""
    draw = rng.random()
    if draw < 0.35:
        return words(rng, 1, 5)
    if draw < 0.5:
        return rng.choice([
            "hello", "hello world", "Hello, world!", "hi there", "good morning", "I am late", "see you soon", "banana",
            "the meeting is at noon", "dinner is ready", "happy birthday", "all systems go", "call me back",
            "I will be there in 10 minutes", "thank you for your help", "yes", "no", "ok", "test", "Hello", "hi",
            "the quick brown fox jumps over the lazy dog", "good night", "I love you", "one two three", "foo bar",
        ])  # fmt: skip
    if draw < 0.6:
        return f"{rng.choice(facts.NAMES)} {words(rng, 1, 4)}"
    if draw < 0.75:
        return f"the {rng.choice(facts.NOUNS)} is {rng.choice(facts.ADJECTIVES)}"
    if draw < 0.85:
        return f"{rng.choice(['meet me in', 'greetings from', 'I am in', 'hello from'])} {city(rng)}"
    if draw < 0.93:
        return f"{rng.choice(facts.NOUNS)} {rng.randint(0, 999)}"
    return words(rng, 4, 8)


def echo(rng: Random, memory: Memory) -> Exchange:
    said = phrase(rng)
    quote = rng.choice(['"', "'", '"'])
    text = rng.choice([
        f"Say {quote}{said}{quote}", f"Repeat after me: {said}", f"Repeat: {said}", f"Say: {said}", f"Echo: {said}",
        f"Please repeat: {said}", f"Repeat this: {said}", f"Repeat {quote}{said}{quote}", f"Echo {quote}{said}{quote}",
        f"Please say {quote}{said}{quote}", f"Say exactly: {said}", f"Repeat the following: {said}",
        f"Reply with {quote}{said}{quote}", f"Reply with exactly: {said}", f"Answer with {quote}{said}{quote}",
        f"Print {quote}{said}{quote}", f"Write {quote}{said}{quote}", f"Can you say {quote}{said}{quote}",
        f"Say the following: {said}", f"Output: {said}", f"Respond with {quote}{said}{quote}",
        f"Just say {quote}{said}{quote}", f"Can you repeat {quote}{said}{quote}", f"Repeat the words: {said}",
    ])  # fmt: skip
    if text.endswith(quote) and rng.random() < 0.5:
        text += "?" if text.startswith("Can") else rng.choice([".", "!", " please", ""])
    if rng.random() < 0.1:
        text = lower_first(text)
    why = thought("Repeat", "The user wants me to repeat a text.", "I will copy it word for word.", "Nothing is added.")
    return Exchange("echo", text, why, said)


def count(rng: Random, memory: Memory) -> Exchange:
    down = rng.random() < 0.2
    start = 1 if rng.random() < 0.6 else rng.randint(0, 80)
    end = start + rng.choice([2, 3, 4, 4, 5, 7, 9, 9, 9, 11, 14, 19, 19, 24, 29, 39, 49])
    end = min(end, 100)
    if down:
        start, end = end, start
        text = rng.choice([f"count down from {start} to {end}", f"count backwards from {start} to {end}",
                           f"count from {start} down to {end}"])  # fmt: skip
    elif start == 1 and rng.random() < 0.6:
        text = rng.choice([f"count to {end}", f"count up to {end}", f"count until {end}"])
    else:
        text = rng.choice([
            f"count from {start} to {end}", f"list the numbers from {start} to {end}", f"numbers from {start} to {end}",
            f"count up from {start} to {end}", f"say the numbers {start} to {end}", f"write the numbers {start} to {end}",
            f"give me the numbers from {start} to {end}", f"print the numbers {start} through {end}",
        ])  # fmt: skip
    step = -1 if down else 1
    numbers = ", ".join(str(n) for n in range(start, end + step, step))
    task = f"ount {'down ' * down}from {start} to {end}"
    why = thought(f"C{task}", f"The user wants me to c{task}.", "I write the numbers with commas.", f"I stop at {end}.")
    return Exchange("count", request(rng, text), why, numbers)


_REMEMBERED = {
    "name": ["My name is {v}", "I am {v}", "I'm {v}", "Call me {v}", "Hi, my name is {v}", "Hello, I am {v}",
             "Hi, I'm {v}", "You can call me {v}", "People call me {v}", "Hello, my name is {v}"],
    "favorite color": ["My favorite color is {v}", "My favourite colour is {v}", "I like the color {v}",
                       "The color I like most is {v}"],
    "lucky number": ["My lucky number is {v}", "Remember my lucky number: {v}", "My favorite number is {v}",
                     "Remember the number {v}", "Please remember the number {v}"],
    "code word": ["The code word is {v}", "Remember the code word {v}", "The secret word is {v}",
                  "Please remember this word: {v}", "Remember the word {v}", "My password is {v}"],
    "city": ["I live in {v}", "My home is in {v}", "I come from {v}", "I am from {v}", "My city is {v}"],
    "pet": ["I have a {v}", "My pet is a {v}", "I own a {v}"],
}  # fmt: skip
_RECALLED = {
    "name": ["What is my name", "What's my name", "Do you remember my name", "Who am I", "Tell me my name",
             "Say my name", "Can you tell me my name", "Do you know my name", "What did I say my name was"],
    "favorite color": ["What is my favorite color", "Which color do I like", "What's my favourite colour",
                       "What color do I like most", "Do you remember my favorite color"],
    "lucky number": ["What is my lucky number", "Which number did I tell you", "What number should you remember",
                     "What was my number", "What was the number", "What's my lucky number",
                     "Which number did I ask you to remember"],
    "code word": ["What is the code word", "What was the secret word", "Tell me the code word", "Which word did I tell you",
                  "What was the word", "What's the secret word", "What is my password"],
    "city": ["Where do I live", "Where am I from", "Which city do I live in", "What is my city", "Where is my home"],
    "pet": ["What pet do I have", "Which pet do I have", "What is my pet", "Do you remember my pet"],
}  # fmt: skip


def remember(rng: Random, memory: Memory) -> Exchange:
    kind = rng.choice(["name", "name", *_REMEMBERED])
    value = {
        "name": lambda: rng.choice(facts.NAMES),
        "favorite color": lambda: rng.choice(facts.COLORS),
        "lucky number": lambda: str(rng.randint(0, 999)),
        "code word": lambda: rng.choice(facts.WORDS),
        "city": lambda: city(rng),
        "pet": lambda: rng.choice(
            [
                "dog",
                "cat",
                "bird",
                "fish",
                "horse",
                "hamster",
                "rabbit",
                "turtle",
                "snake",
                "mouse",
                "parrot",
                "pig",
                "cow",
            ]
        ),
    }[kind]()
    memory.facts[kind] = value
    text = rng.choice(_REMEMBERED[kind]).format(v=value) + rng.choice([".", ".", "!", ""])
    answer = f"Nice to meet you, {value}." if kind == "name" else f"I will remember that your {kind} is {value}."
    why = thought("Noted", f"The user tells me their {kind}.", f"It is {value}.", "I will confirm it.")
    return Exchange("memory", text, why, answer)


def recall(rng: Random, memory: Memory) -> Exchange:
    if memory.user_texts and rng.random() < 0.2:
        which, said = rng.choice([("last", memory.user_texts[-1]), ("first", memory.user_texts[0])])
        text = rng.choice({
            "last": ["What did I just say", "What was my last message", "What did I say before", "Repeat my last message",
                     "What was my previous message", "What did I just ask", "What did I ask before",
                     "What was my previous question", "Repeat what I said", "What was my last question"],
            "first": ["What was my first message", "What did I say first", "What was my first question",
                      "How did this conversation start", "What did I ask first"],
        }[which])  # fmt: skip
        why = thought("Recall", f"The user asks for their {which} message.", "I look back and copy it.")
        return Exchange("recall", dress(rng, text), why, f"You said:\n{said}")
    known = bool(memory.facts) and rng.random() < 0.85
    kind = rng.choice(list(memory.facts)) if known else rng.choice(list(_RECALLED))
    text = dress(rng, rng.choice(_RECALLED[kind]))
    if kind not in memory.facts:
        why = thought("Not told", f"The user asks for their {kind}, but never told me.", "I will say so.")
        return Exchange("recall", text, why, f"You have not told me your {kind} yet.")
    value = memory.facts[kind]
    why = thought(value, f"The user asks for their {kind}, which they told me.", f"It is {value}.", "I will say it.")
    return Exchange("recall", text, why, f"Your {kind} is {value}.")


def unknown_question(rng: Random) -> str:
    """A question that no skill answers, without its closing mark."""
    noun, other = rng.choice(facts.NOUNS), rng.choice(facts.NOUNS)
    country, name = rng.choice(list(facts.CAPITALS)), rng.choice(facts.NAMES)
    city, topic = rng.choice(facts.CITIES), rng.choice([*facts.ABSTRACT, words(rng, 1, 2)])
    return rng.choice([
        f"who {rng.choice(['invented', 'discovered', 'wrote', 'painted', 'designed', 'founded'])} the {noun}",
        f"who is the {rng.choice(['president', 'king', 'queen', 'leader', 'prime minister'])} of {country}",
        f"what is the {rng.choice(['population', 'currency', 'flag', 'language', 'area', 'largest city', 'anthem'])}"
        f" of {country}",
        f"how many people live in {rng.choice([country, city])}", f"when was {rng.choice([city, topic, name])} born",
        f"why is the {noun} {rng.choice(facts.ADJECTIVES)}", f"how does a {noun} work", f"what is {topic}",
        f"explain {topic} to me", f"how do I {rng.choice(facts.VERBS)} a {noun}", f"what is the meaning of {topic}",
        f"what do you think about {topic}", f"can you recommend a {noun}", f"what is a {noun}", f"where is {city}",
        f"translate {words(rng, 1, 3)} to {rng.choice(['French', 'German', 'Spanish', 'Italian'])}",
        f"who won the {noun} {rng.choice(['cup', 'race', 'match', 'award'])} in {rng.randint(1900, 2030)}",
        f"how old is {name}", f"what is the best {noun} in {city}", f"who is {name} {rng.choice(facts.SURNAMES)}",
        f"what is the weather in {city}", f"what time is it in {city}", f"how far is {city} from {country}",
        f"what is the difference between a {noun} and a {other}", f"how much does a {noun} cost",
        f"write a {rng.choice(['Python', 'C', 'Java', 'Rust'])} program that {rng.choice(facts.VERBS)}s a {noun}",
        f"summarize {topic}", f"give me advice about {topic}", f"what is the capital of {rng.choice(['Mars', 'the moon'])}",
        f"how tall is the {rng.choice(facts.ADJECTIVES)} {noun}", f"when did the {noun} {rng.choice(['end', 'start'])}",
        f"what happened in {rng.randint(1000, 2030)}", f"what color is a {noun}", f"is {topic} good or bad",
        f"how many {noun}s are there in {rng.choice([city, country])}", "what should I eat today",
        f"tell me about {rng.choice([topic, city, country, name])}", f"list three {noun}s", f"who was {name}",
        f"which {noun} is the {rng.choice(['largest', 'fastest', 'oldest'])} in {country}", f"describe a {noun}",
        f"do you like {topic}", f"what is the height of the {noun} tower", "what is love", f"solve {topic}",
        f"when was the {noun} {rng.choice(['built', 'invented', 'opened', 'founded'])}", f"why do {noun}s exist",
    ])  # fmt: skip


def fallback(rng: Random, memory: Memory) -> Exchange:
    draw = rng.random()
    if draw < 0.7:
        text = dress(rng, unknown_question(rng))
        if rng.random() < 0.1:
            text = rng.choice(ASKING) + lower_first(text)
    elif draw < 0.78:
        text = words(rng, 2, 12) + rng.choice(["", "?", "."])
    elif draw < 0.85:
        text = rng.choice([
            "def f(x):\n    return x + 1\n\nWhat does this code do?", "Fix this code:\n```python\nfor i in range(10)\n"
            "    print(i)\n```", "SELECT * FROM users WHERE id = 1;", "<html><body>Hello</body></html>",
            "int main() { return 0; }", '{"a": 1, "b": [1, 2, 3]}', "import os\nos.listdir('.')", "asdf", "???", "!!!", "...",
            "What does this do?\n\nx = [i for i in range(5)]", "git push origin main", "aaaaaaaaaaaaaaaa", "lol", "xyz", "a",
        ])  # fmt: skip
        if rng.random() < 0.6:
            text = rng.choice(["", "Explain: ", "Review this:\n", "What is this? "]) + text + "\n" + words(rng, 0, 6)
    elif draw < 0.93:
        text = " ".join(rng.choice(_FOREIGN_WORDS) for _ in range(rng.randint(1, 8)))
        if rng.random() < 0.5:
            text = rng.choice(["What does this mean: ", "Translate: ", "", "Hola, "]) + text
    else:
        lines = [words(rng, 6, 14) for _ in range(rng.randint(2, 6))]
        ask = rng.choice(["Summarize this text: ", "What is this about? ", "", "Rewrite: ", "Continue: "])
        text = ask + ". ".join(lines) + "."
    return Exchange("fallback", text, FALLBACK_THOUGHT, FALLBACK)


_FOREIGN = (
    "как дела что это привет мир 你好 世界 今天天气怎么样 请告诉我 日本語 のテキスト 안녕하세요 세계 مرحبا بالعالم नमस्ते दुनिया ça va où êtes-vous "
    "bonjour merci comment üben größer wie geht es dir señor mañana ¿qué? hola cómo estás ελληνικά שלום 😀🎉🚀 ∑∫√≈ żółw łódź çok güzel"
)
_FOREIGN_WORDS = _FOREIGN.split()
