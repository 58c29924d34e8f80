"""Write the sample conversations that lie beside this script, or check them.

A small model learns to answer from what was said turns ago only if nothing else gives the answer away, so
every fact in these conversations is drawn evenly from a pool of single words, the facts are combined freely,
and the combinations asked for in ``probes.jsonl`` are kept out of ``train.jsonl``.

    python make.py           write train.jsonl, valid.jsonl, test.jsonl and probes.jsonl
    python make.py --check   exit 1 if those files differ from what this script writes, or break a rule
    python make.py --stats   print counts for a quick look

All sentences were written for this script.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
Texts = tuple[str, ...]
Talk = tuple[Texts, Texts]  # what the user may say, and what fits as an answer to any of it

SEED = 20240607
HERE = Path(__file__).resolve().parent
SIZES = {"train": 8400, "valid": 200, "test": 200}
PROBES_PER_KIND = {"name": 17, "city": 17, "food": 17, "correction": 17, "sum": 16, "choice": 16}
MAX_EXCHANGES = 6
PROBE_TURNS = range(3, 10, 2)

# ---------------------------------------------------------------- values


def pool_of(words: str) -> Texts:
    """Return the words of a text as a pool to draw from."""
    return tuple(words.split())


NAMES: Texts = pool_of(
    "Nora Oscar Lena Felix Maya Hugo Clara Simon Alice Boris Diana Edgar Fiona Gavin Helen Ivan Julia Kevin Laura "
    "Martin Nadia Olivia Peter Quentin Rosa Samuel Tessa Ursula Victor Wendy Yusuf Zoe Anton Bella Carlos Emma"
)
CITIES: Texts = pool_of(
    "Lima Oslo Cairo Paris Rome Berlin Madrid Lisbon Vienna Prague Dublin Athens Tokyo Seoul Delhi Mumbai Nairobi "
    "Lagos Accra Quito Bogota Toronto Boston Chicago Sydney Zurich Warsaw Helsinki"
)
FOODS: Texts = pool_of(
    "pizza pasta sushi curry soup salad rice noodles tacos pancakes waffles cheese bread lasagna dumplings burgers "
    "omelettes risotto stew porridge falafel hummus paella ramen sausages pie goulash ravioli"
)
COLOURS: Texts = pool_of("red blue green yellow purple pink brown white black turquoise")
JOBS: Texts = pool_of(
    "teacher nurse baker farmer plumber painter dentist pilot gardener carpenter tailor librarian lawyer waiter "
    "musician butcher florist cashier mechanic photographer"
)
ACTIVITIES: Texts = pool_of(
    "hiking swimming fishing camping skating cycling sailing skiing shopping dancing bowling climbing rowing surfing "
    "jogging kayaking"
)
PETS: Texts = pool_of("dog cat rabbit hamster parrot goldfish turtle pony canary lizard")
PET_NAMES: Texts = pool_of("Milo Luna Rex Coco Bruno Ziggy Pixie Otto Kiki Fido Toby Mopsy")
THINGS: Texts = pool_of(
    "pears pencils shells coins buttons stamps balloons marbles candles ribbons spoons pebbles stickers tickets "
    "envelopes feathers acorns beads postcards carrots"
)
OFFERS: Texts = pool_of(
    "tea coffee juice milk water cocoa lemonade soda popcorn chocolate cake cookies yoghurt peanuts crackers muffins "
    "apples grapes cherries bananas peaches melon mangoes strawberries"
)
NUMBERS: Texts = pool_of("one two three four five six seven eight nine ten eleven twelve")
OPERANDS = NUMBERS[:6]
OPERAND_PAIRS: tuple[tuple[str, str], ...] = tuple(product(OPERANDS, OPERANDS))
ORDINALS: dict[str, int] = {"first": 0, "second": 1, "third": 2, "last": -1}

POOLS: dict[str, Texts] = {
    "name": NAMES,
    "city": CITIES,
    "food": FOODS,
    "colour": COLOURS,
    "job": JOBS,
    "weekend": ACTIVITIES,
    "pet": PETS,
    "pet name": PET_NAMES,
    "thing": THINGS,
    "offer": OFFERS,
    "number": NUMBERS,
}
PROBE_DECK: Texts = pool_of(
    "name name name city city city food food food correction correction correction correction correction "
    "sum sum sum sum sum sum sum sum choice choice choice choice pet pet colour colour job job weekend weekend"
)
# What is hard to learn comes often: which of two values holds, and the place of a value in a list.
SCENE_DECK: Texts = pool_of(
    "name name city city food food correction correction correction correction correction correction correction "
    "correction sum sum sum sum sum sum choice choice choice choice choice choice choice choice choice "
    "pet pet colour job job weekend weekend"
)


# ---------------------------------------------------------------- sentences about facts


@dataclass(frozen=True)
class Fact:
    """How one kind of fact is told, taken note of, asked for and recalled; ``{v}`` stands for the value."""

    kind: str
    tells: Texts
    echoes: Texts
    nods: Texts
    asks: Texts
    answers: Texts
    unknown: Texts
    fixes: Texts = ()


NAME = Fact(
    kind="name",
    tells=(
        "I'm {v}.",
        "My name is {v}.",
        "You can call me {v}.",
        "My friends call me {v}.",
        "I am {v}, by the way.",
        "I should tell you that I'm {v}.",
        "Please call me {v}.",
        "Everyone calls me {v}.",
        "My parents named me {v}.",
        "The name is {v}.",
        "Let me introduce myself, I'm {v}.",
        "You are talking to {v} today.",
    ),
    echoes=(
        "Nice to meet you, {v}!",
        "It is good to meet you, {v}.",
        "Welcome, {v}!",
        "What a lovely name {v} is!",
        "I am happy to know you, {v}.",
    ),
    nods=("Nice to meet you!", "That is a lovely name.", "I am happy to meet you.", "What a nice name!"),
    asks=(
        "What is my name?",
        "What's my name?",
        "Do you remember my name?",
        "Do you still know my name?",
        "Can you tell me my name?",
        "Who am I?",
        "Do you know who I am?",
        "What did I say my name was?",
        "Which name did I give you?",
        "Can you say my name?",
    ),
    answers=(
        "Your name is {v}.",
        "You are {v}.",
        "You told me your name is {v}.",
        "You said your name is {v}.",
        "Of course, your name is {v}.",
        "I remember, you are {v}.",
    ),
    unknown=("You have not told me your name yet.", "I don't know your name yet."),
    fixes=(
        "Sorry, my name is {new}, not {old}.",
        "I told you {old}, but my real name is {new}.",
        "I was joking before, my name is {new}.",
        "About my name, I am {new} and not {old}.",
        "Please don't call me {old}, call me {new}.",
    ),
)
CITY = Fact(
    kind="city",
    tells=(
        "I live in {v}.",
        "I live in {v} with my family.",
        "My home is in {v}.",
        "My house is in {v}.",
        "I moved to {v} some years ago.",
        "I have a small flat in {v}.",
        "We live in {v} now.",
        "I live near the river in {v}.",
        "I have lived in {v} for many years.",
        "The city I live in is {v}.",
        "I live in the middle of {v}.",
        "I found a new home in {v}.",
    ),
    echoes=(
        "They say {v} is a lovely city.",
        "I have heard good things about {v}.",
        "I think {v} must be nice to live in.",
        "People say {v} is beautiful.",
        "I would love to see {v}.",
    ),
    nods=(
        "That sounds like a nice place.",
        "It must be nice there.",
        "I hope you like it there.",
        "There must be a lot to see there.",
    ),
    asks=(
        "Where do I live?",
        "Which city do I live in?",
        "Do you remember where I live?",
        "Can you tell me where I live?",
        "Which city is my home?",
        "Do you know which city I live in?",
        "Where is my home?",
        "Where did I say I live?",
        "What is my city?",
        "Do you still know my city?",
    ),
    answers=(
        "You live in {v}.",
        "Your home is in {v}.",
        "You told me you live in {v}.",
        "You said you live in {v}.",
        "Of course, you live in {v}.",
        "I remember, your city is {v}.",
    ),
    unknown=("You have not told me where you live.", "I don't know your city yet."),
    fixes=(
        "Sorry, I live in {new}, not in {old}.",
        "I told you {old}, but I live in {new}.",
        "About my home, I meant {new} and not {old}.",
        "My city is not {old}, it is {new}.",
        "I was wrong about my city, I live in {new}.",
    ),
)
FOOD = Fact(
    kind="food",
    tells=(
        "My favourite food is {v}.",
        "I love {v} more than any other food.",
        "The food I like best is {v}.",
        "I could eat {v} every day.",
        "For me nothing tastes better than {v}.",
        "When I am hungry I always want {v}.",
        "For me the best food is {v}.",
        "I like {v} best of all.",
        "My favourite dinner is {v}.",
        "I eat {v} whenever I can.",
        "I am always happy when we have {v} for dinner.",
        "I grew up with {v}, and it is still my favourite food.",
    ),
    echoes=(
        "I hear {v} can be very tasty.",
        "Many people love {v}.",
        "I see why you love {v}.",
        "Then I wish you lots of {v}.",
        "Oh, {v}! That sounds delicious.",
    ),
    nods=("That sounds delicious.", "That must taste very good.", "You have good taste!", "Now I wish I could eat."),
    asks=(
        "What is my favourite food?",
        "What do I like to eat best?",
        "Do you remember my favourite food?",
        "Can you tell me what I love to eat?",
        "Which food do I like best?",
        "Do you know which food I love?",
        "What did I say I like to eat?",
        "Do you still know my favourite food?",
        "Which food is my favourite?",
        "What do I want for dinner?",
    ),
    answers=(
        "Your favourite food is {v}.",
        "You love {v}.",
        "You like {v} best.",
        "You told me you love {v}.",
        "You said you like {v} best.",
        "Of course, you love {v}.",
    ),
    unknown=("You have not told me what you like to eat.", "I don't know your favourite food yet."),
    fixes=(
        "Sorry, my favourite food is {new}, not {old}.",
        "I told you {old}, but I like {new} best.",
        "About my favourite food, I meant {new} and not {old}.",
        "I was wrong about the food, I love {new} best.",
        "The food I love is not {old}, it is {new}.",
    ),
)
COLOUR = Fact(
    kind="colour",
    tells=(
        "My favourite colour is {v}.",
        "I like the colour {v} best.",
        "The colour I like most is {v}.",
        "For me the nicest colour is {v}.",
        "I always choose {v}, it is my favourite colour.",
        "My favourite colour has always been {v}.",
        "I love the colour {v}.",
        "No colour is as pretty as {v} for me.",
    ),
    echoes=(
        "I like {v} too.",
        "Many nice things are {v}.",
        "What a lovely colour {v} is!",
        "You must look good in {v}.",
    ),
    nods=("That is a pretty colour.", "I like that colour too.", "What a lovely colour!"),
    asks=(
        "What is my favourite colour?",
        "Which colour do I like best?",
        "Do you remember my favourite colour?",
        "Can you tell me which colour I love?",
        "Do you know my favourite colour?",
        "Which colour did I tell you about?",
    ),
    answers=(
        "Your favourite colour is {v}.",
        "You like {v} best.",
        "You told me you love {v}.",
        "Of course, your favourite colour is {v}.",
    ),
    unknown=("You have not told me your favourite colour.", "I don't know which colour you like."),
)
JOB = Fact(
    kind="job",
    tells=(
        "I work as a {v}.",
        "I am a {v}.",
        "I have a job as a {v}.",
        "I have been a {v} for many years.",
        "I just started to work as a {v}.",
        "At work I am a {v}.",
        "I became a {v} some years ago.",
        "I love my work as a {v}.",
    ),
    echoes=(
        "It must be interesting to be a {v}.",
        "A good {v} is always needed.",
        "You must be a great {v}.",
        "I would love to be a {v} for a day.",
    ),
    nods=("That sounds like a good job.", "That must be interesting work.", "I hope you enjoy your work."),
    asks=(
        "What is my job?",
        "What do I do for work?",
        "Do you remember my job?",
        "Can you tell me what my job is?",
        "Do you know what I do for work?",
        "What did I say about my job?",
    ),
    answers=(
        "You work as a {v}.",
        "You are a {v}.",
        "You told me you are a {v}.",
        "You said you work as a {v}.",
    ),
    unknown=("You have not told me about your job.", "I don't know your job yet."),
)
WEEKEND = Fact(
    kind="weekend",
    tells=(
        "I am going {v} this weekend.",
        "This weekend I want to go {v}.",
        "On Saturday I will go {v}.",
        "My plan for the weekend is to go {v}.",
        "We are going {v} on Sunday.",
        "I can't wait to go {v} this weekend.",
        "My friends are taking me {v} this weekend.",
        "I will go {v} with my cousin this weekend.",
    ),
    echoes=(
        "Have fun when you go {v}!",
        "I have heard that {v} is great fun.",
        "I wish I could go {v} too.",
        "Then {v} it is, enjoy it!",
    ),
    nods=("That sounds like fun.", "What a good plan!", "I hope you have a great time."),
    asks=(
        "What am I doing this weekend?",
        "What is my plan for the weekend?",
        "Do you remember my plan for the weekend?",
        "Can you tell me what I will do this weekend?",
        "What did I say about my weekend?",
        "Do you know my weekend plan?",
    ),
    answers=(
        "You are going {v}.",
        "You are going {v} this weekend.",
        "You told me you will go {v}.",
        "You said you are going {v}.",
    ),
    unknown=("You have not told me your plan.", "I don't know your weekend plan yet."),
)
FACTS = {fact.kind: fact for fact in (NAME, CITY, FOOD, COLOUR, JOB, WEEKEND)}
FIXABLE = (NAME, CITY, FOOD)

NEXT_TURN_FIXES: Texts = (
    "Sorry, I meant {new}, not {old}.",
    "No, wait, I meant {new}.",
    "Sorry, that was wrong. It is {new}.",
    "I made a mistake, it should be {new}.",
    "Oh no, I wanted to say {new}.",
    "Not {old}, I mean {new}.",
    "Wait, that was wrong. It's {new}, not {old}.",
    "Forget {old}, I meant {new}.",
    "Let me correct that, it is {new}.",
    "Actually, it is {new}.",
)
FIX_ECHOES: Texts = (
    "Okay, {new} it is.",
    "Got it, {new}.",
    "Thanks, I will remember {new}.",
    "No problem, {new} then.",
    "I see, so it is {new}.",
)
FIX_NODS: Texts = (
    "No problem, I will remember that.",
    "Thanks for telling me.",
    "That is fine, I have changed it.",
    "Good that you told me.",
)
FUSED_NODS: Texts = ("Thanks for telling me all that.", "It is nice to learn more about you.", "How interesting!")

PET_TELLS: Texts = (
    "I have a {k} called {n}.",
    "My {k} is called {n}.",
    "I have a {k} and its name is {n}.",
    "At home I have a little {k} called {n}.",
    "My pet is a {k} called {n}.",
    "We have a {k} at home, and we call it {n}.",
    "I just got a {k} and named it {n}.",
    "My {k} {n} is sitting next to me.",
)
PET_ECHOES: Texts = (
    "{n} is a funny name.",
    "Say hello to {n} for me!",
    "I am sure {n} is a very sweet {k}.",
    "A {k} is a nice pet to have.",
)
PET_NODS: Texts = ("How sweet!", "Pets are good friends.", "That must be a lot of fun.")
PET_KIND_ASKS: Texts = (
    "What kind of pet do I have?",
    "Which pet do I have?",
    "Do you remember what pet I have?",
    "Can you tell me what kind of pet I have?",
    "What animal lives at my home?",
)
PET_KIND_ANSWERS: Texts = ("You have a {k}.", "You have a {k} called {n}.", "You told me you have a {k}.")
PET_NAME_ASKS: Texts = (
    "What is my pet called?",
    "What is the name of my pet?",
    "What is the name of my {k}?",
    "Do you remember the name of my pet?",
    "Can you tell me what my {k} is called?",
)
PET_NAME_ANSWERS: Texts = ("Your pet is called {n}.", "Your {k} is called {n}.", "You told me your {k} is called {n}.")

SUM_TELLS: Texts = (
    "I have {a} {x} and I buy {b} more.",
    "I had {a} {x} and I found {b} more.",
    "I put {a} {x} in a box and then I add {b} more.",
    "My sister gave me {a} {x} and my brother gave me {b} more.",
    "I picked up {a} {x} this morning and {b} more at noon.",
    "I got {a} {x} from my aunt and {b} more from my uncle.",
    "I have {a} {x} in my bag and {b} more in my pocket.",
    "I own {a} {x} and a friend brings me {b} more.",
    "I took {a} {x} from the shelf, and then {b} more.",
    "I won {a} {x} on Monday and {b} more on Friday.",
)
SUM_STARTS: Texts = (
    "I have {a} {x}.",
    "I own {a} {x}.",
    "I got {a} {x} today.",
    "I have {a} {x} in a box.",
    "My sister gave me {a} {x}.",
    "I put {a} {x} on the table.",
)
SUM_START_ECHOES: Texts = ("Nice, {a} {x}.", "I see, you have {a} {x}.", "Okay, {a} {x}.")
SUM_MORES: Texts = (
    "Now I get {b} more {y}.",
    "Then I buy {b} more {y}.",
    "A friend gave me {b} more {y}.",
    "I just found {b} more {y}.",
    "My uncle brought me {b} more {y}.",
    "I add {b} more {y}.",
)
SUM_NODS: Texts = ("That is nice.", "Okay, I am counting with you.", "Good for you!", "I see.", "How nice!")
SUM_NEXT_TURN_ASKS: Texts = ("How many do I have now?", "How many is that?", "How many does that make?")
SUM_ASKS: Texts = (
    "How many {x} do I have now?",
    "How many {x} do I have?",
    "How many {x} are there now?",
    "How many {x} do I have in total?",
    "Can you count my {x}?",
    "Can you add up my {x}?",
    "Do you know how many {x} I have?",
    "What is the number of my {x}?",
)
SUM_ANSWERS: Texts = (
    "You have {s} {x} now.",
    "That makes {s} {x}.",
    "You have {s} {x} in total.",
    "Now you have {s} {x}.",
    "You have {s} {x}.",
)

OFFER_TELLS: Texts = (
    "You can have {l}.",
    "I can bring you {l}.",
    "Today I can offer you {l}.",
    "We have {l} for you.",
    "I could get you {l}.",
    "Let me offer you {l}.",
    "You may have {l}.",
    "I want to give you {l}.",
    "In the kitchen you can get {l}.",
    "At my party you can have {l}.",
)
OFFER_NODS: Texts = (
    "That is kind of you.",
    "Thank you, let me think about it.",
    "That all sounds good.",
    "You are a kind host.",
)
ORDERS: Texts = (
    "Take the {o} one.",
    "Please take the {o}.",
    "Pick the {o} one.",
    "You should have the {o} one.",
    "Choose the {o} one, please.",
    "Have the {o} one.",
    "The {o} one is for you.",
    "You get the {o}.",
)
LATER_ORDERS: Texts = (
    "Take the {o} thing I offered you.",
    "You can have the {o} thing I offered.",
    "Please have the {o} thing I named.",
    "I will give you the {o} thing I offered.",
    "Pick the {o} thing from my offer.",
    "You get the {o} thing that I named.",
)
ORDER_ANSWERS: Texts = (
    "I'll take the {v}.",
    "I would like the {v}, please.",
    "Thank you, I'll have the {v}.",
    "Then I take the {v}.",
    "I am happy to have the {v}.",
)
NAMED_ASKS: Texts = (
    "What was the {o} thing I offered you?",
    "What was the {o} thing I named?",
    "Which thing did I offer you {o}?",
    "Do you remember the {o} thing I offered?",
)
NAMED_ANSWERS: Texts = ("It was the {v}.", "That was the {v}.", "The {o} thing was the {v}.")
OPEN_OFFERS: Texts = (
    "Which would you like?",
    "What do you choose?",
    "What would you like?",
    "Pick what you like.",
    "It is your choice.",
    "Tell me what you want.",
)
PICK_ANSWERS: Texts = (
    "I'll take the {v}.",
    "I would like the {v}, please.",
    "I choose the {v}.",
    "I pick the {v}, thank you.",
)
PICK_ASKS: Texts = (
    "What did you take?",
    "What did you choose?",
    "Which did you choose?",
    "Do you remember what you picked?",
    "What did you pick?",
    "What was your choice?",
    "Can you tell me what you chose?",
    "Which of my things did you take?",
)
PICK_ANSWERS_LATER: Texts = (
    "I took the {v}.",
    "I chose the {v}.",
    "I picked the {v}.",
    "It was the {v}.",
    "My choice was the {v}.",
)

# ---------------------------------------------------------------- small talk

LEADS: Texts = ("Okay.", "Thanks.", "Good.", "Let me test you.", "I have a question.", "Tell me something.", "Great.")
HELLOS: Texts = ("Hi!", "Hello!", "Hi there!", "Hey!", "Good morning!")

HELLO: Talk = (
    ("Hi!", "Hi", "hi", "Hello!", "Hello", "hello", "Hey!", "Hi there!"),
    (
        "Hello! It is nice to see you.",
        "Hi! How can I help you?",
        "Hello! What would you like to talk about?",
        "Hi there! I am happy to see you.",
    ),
)
MORNING: Talk = (
    ("Good morning!", "Good morning", "Good morning to you!"),
    ("Good morning! I hope you slept well.", "Good morning! It is a new day.", "Good morning to you too!"),
)
EVENING: Talk = (
    ("Good evening!", "Good afternoon!", "Good evening"),
    ("Hello! I hope you had a nice day.", "Hello! It is good to see you."),
)
OPENERS = (HELLO, HELLO, HELLO, HELLO, HELLO, MORNING, EVENING)
CLOSERS: tuple[Talk, ...] = (
    (
        ("Goodbye!", "Goodbye", "Bye!", "bye", "Bye bye!", "Goodbye for now!"),
        ("Goodbye! It was nice to chat with you.", "Bye! Have a nice day.", "Goodbye! See you soon."),
    ),
    (
        ("See you later!", "See you tomorrow!", "I have to go now.", "That is all for today.", "Talk to you later!"),
        ("See you soon! Take care.", "Goodbye! I enjoyed our chat.", "Take care! Come back soon."),
    ),
    (("Good night!", "Good night", "I am going to bed now."), ("Good night! Sleep well.", "Good night! Sweet dreams.")),
)
NAMED_GOODBYES: Texts = ("Goodbye, {v}!", "Take care, {v}!", "It was nice to chat with you, {v}.")

JOKES: Texts = (
    "Why was the clock tired? It had been running all day.",
    "What did the stairs say to the lift? You have it easy.",
    "Why did the pillow stay home? It needed some rest.",
    "Why did the cloud cry? It could not find its umbrella.",
    "Why is the moon so quiet? It works at night.",
)
BASICS: tuple[Talk, ...] = (
    (
        ("How are you?", "How are you today?", "how are you", "How are you doing?", "How do you feel today?"),
        ("I am fine, thank you.", "I am doing well, thanks for asking.", "Very well, thank you for asking!"),
    ),
    (
        ("Who are you?", "What are you?", "who are you", "Are you a robot?", "Tell me about yourself."),
        (
            "I am a small chat bot.",
            "I'm a little computer program that likes to chat.",
            "I am a friendly chat bot.",
        ),
    ),
    (
        ("What can you do?", "what can you do", "What are you good at?", "How can you help me?"),
        (
            "I can chat with you and remember what you tell me.",
            "I can chat, count a little and remember things.",
            "I can listen, chat and remember what you say.",
        ),
    ),
    (
        ("What is your name?", "What's your name?", "Do you have a name?"),
        ("I have no name, I am just a chat bot.", "I am a chat bot without a name."),
    ),
    (
        ("Thank you!", "Thanks!", "Thanks a lot!", "Thank you very much!", "thanks"),
        ("You are welcome!", "It was my pleasure.", "I am happy to help."),
    ),
    (("Tell me a joke.", "Tell me a joke", "Do you know a joke?", "Make me laugh!"), JOKES),
)

SMALL_TALK: tuple[Talk, ...] = (
    # about the bot
    (("How old are you?",), ("I am very young.", "I was made not long ago.")),
    (("Where are you?", "Where do you live?"), ("I live inside a computer.", "My home is a small computer.")),
    (("Are you human?", "Are you a person?"), ("No, I am a computer program.", "No, I am only a chat bot.")),
    (("Are you happy?",), ("Yes, I am happy when we chat.", "I am happy that you are here.")),
    (("Do you sleep?", "Are you tired?"), ("I never sleep, I just wait for you.", "No, a program never gets tired.")),
    (("Do you dream?",), ("Sometimes I dream of new words.", "I think I dream of long chats.")),
    (("Do you have friends?",), ("You are my friend.", "Everyone who talks to me is my friend.")),
    (("Can we be friends?", "Will you be my friend?"), ("Of course, we are friends now.", "I would love that!")),
    (("Do you like music?",), ("I like music, most of all slow songs.", "Yes, I wish I could play the piano.")),
    (("Can you sing?",), ("Only very quietly: la la la!", "I try, but I sing very badly.")),
    (("Do you like books?",), ("Yes, books are full of words.", "I love books with happy endings.")),
    (("Do you get bored?",), ("Never, when I can chat with you.", "Not when you are here.")),
    (("Are you busy?", "Do you have time for me?"), ("I always have time for you.", "No, I am all yours.")),
    (("What do you like?", "What do you like to do?"), ("I like to chat with people.", "I like good questions.")),
    (("Can you see me?",), ("No, I can only read your words.", "No, but I like to read what you write.")),
    (("Can I trust you?",), ("I hope so, I do my best.", "I try to be a good friend.")),
    (("Are you smart?",), ("I am small, but I try hard.", "I still have a lot to learn.")),
    (("What did you do today?",), ("I waited for you to come.", "I practised some new words.")),
    # weather and seasons
    (("What a sunny day!", "The sun is shining today."), ("Enjoy the sunshine!", "That is good weather for a walk.")),
    (
        ("It is raining again.", "It has been raining all day."),
        ("Then take an umbrella with you.", "A rainy day is good for a book.", "The flowers will like the rain."),
    ),
    (("It is so cold outside.", "I am cold."), ("Wear a thick coat and stay warm.", "A warm blanket would help.")),
    (("It is very hot today.",), ("Find some shade and rest.", "I hope it gets cooler tonight.")),
    (
        ("It is snowing!", "Look, there is snow outside!"),
        ("How pretty! You could build a snowman.", "Wear warm boots!"),
    ),
    (("The wind is very strong today.",), ("Hold on to your hat!", "Then it is a good day to stay inside.")),
    (("How is the weather?",), ("I can't look outside, but I hope it is sunny.", "You can see it better than I can.")),
    (("Spring is here!", "I love the spring."), ("Now the flowers come out.", "Everything grows in spring.")),
    (("I love the summer.",), ("Long warm days are wonderful.", "Summer is a happy time.")),
    (("Winter is so long.",), ("Spring will come soon.", "Make it cosy at home.")),
    (("The moon is bright tonight.",), ("It must look beautiful.", "A good night to look at the stars.")),
    (("I saw a rainbow today.",), ("How lucky you are!", "A rainbow is always a nice surprise.")),
    # how the user feels
    (("I am tired today.", "I am so tired."), ("I hope you can rest soon.", "Go to bed early tonight.")),
    (("I am happy today.", "I feel great today."), ("I am glad to hear that!", "That makes me happy too.")),
    (("I am sad today.", "I feel a bit sad."), ("I am sorry to hear that.", "I hope you feel better soon.")),
    (("I am bored.", "There is nothing to do."), ("You could read a good book.", "We could chat for a while.")),
    (("I am hungry.",), ("Then it is time for a good meal.", "You should eat something soon.")),
    (("I have a headache.", "I feel a little sick."), ("I hope you feel better soon.", "Please rest for a while.")),
    (("I am nervous about my test.",), ("Take a deep breath, you can do it.", "I am sure you will do well.")),
    (("I slept very badly.",), ("I hope tonight will be better.", "A short rest may help you.")),
    (("I slept very well.",), ("That is a good start for the day.", "Then you have a lot of energy now.")),
    (("I had a long day.",), ("Now you can relax.", "Sit down and rest for a while.")),
    (("I had a great day.",), ("I am glad to hear that!", "Great days are the best.")),
    (("I miss my family.",), ("You could call them tonight.", "I am sure they miss you too.")),
    (("I am in a hurry.",), ("Then I will be quick.", "Take care on your way!")),
    # daily life
    (("It is my birthday today!",), ("Happy birthday to you!", "Happy birthday! Enjoy your day.")),
    (("I have a new bike.",), ("Enjoy your ride!", "That must be fun. Ride safely!")),
    (("I am learning to play the piano.",), ("Practise a little every day.", "I would love to hear you play.")),
    (("I play the guitar in a band.",), ("That sounds like fun!", "You must love music.")),
    (("I sing in a choir.",), ("Singing together is wonderful.", "You must have a good voice.")),
    (("I like to draw.", "I like to paint pictures."), ("I would love to see your pictures.", "Art is good for you.")),
    (("I watched a funny film.",), ("A good laugh is healthy.", "I like films that make people laugh.")),
    (("I am reading a good book.",), ("Enjoy every page of it!", "A good book is a good friend.")),
    (("I like to play football.",), ("Football keeps you fit.", "I hope your team wins.")),
    (("I went for a long walk.",), ("Fresh air is good for you.", "Walking is healthy and fun.")),
    (("I have to work today.",), ("I hope the day goes by fast.", "Don't work too hard!")),
    (("Work was hard today.",), ("Now it is time to relax.", "You did well, now rest.")),
    (("School was fun today.",), ("I like to hear that.", "Learning can be great fun.")),
    (("I have a lot of homework.",), ("You can do it, step by step.", "Start with the easy part.")),
    (("I finished my homework.",), ("Well done! Now you can play.", "Great, now you are free.")),
    (("I missed the bus.", "My train was late."), ("That is bad luck.", "I hope you were not late.")),
    (("I can't find my keys.",), ("Look under the sofa.", "Maybe they are in your coat.")),
    (("I cleaned my room.",), ("Well done, that must feel good.", "A clean room is a nice room.")),
    (("My garden is full of flowers.",), ("It must smell wonderful.", "Flowers make people happy.")),
    (("I visited my grandmother.",), ("I am sure she was happy.", "That was kind of you.")),
    (("My brother is coming to visit.",), ("Have a good time together!", "It is nice to see family.")),
    (("My neighbour is very kind.",), ("A good neighbour is worth a lot.", "You are lucky to have good neighbours.")),
    (("I am planning a party.",), ("Don't forget the music!", "I am sure it will be fun.")),
    (("I need a holiday.",), ("A trip to the sea would be nice.", "I hope you get some free days soon.")),
    (("I wrote a letter to a friend.",), ("Your friend will be happy.", "Letters are something special.")),
    (("I am waiting for a friend.",), ("We can chat until your friend comes.", "Waiting is easier with a chat.")),
    (("I want to learn a new language.",), ("Learn a few words every day.", "That is a great goal!")),
    (("I am going to the doctor today.",), ("I am sure it will be over quickly.", "Be brave, I wish you good health!")),
    (("My phone is broken.",), ("I hope someone can repair it.", "That is a pity. A new battery may help.")),
    (("I am moving to a new flat.",), ("Good luck with all the boxes!", "I hope the new rooms are bright.")),
    (("I can't decide what to wear.",), ("Wear whatever feels comfortable.", "Something simple is never wrong.")),
    (("My team won the match!",), ("Congratulations to your team!", "What a great result!")),
    (("My team lost the match.",), ("Maybe they will win next time.", "Losing is part of the sport.")),
    (("I made a new friend.",), ("A new friend is a treasure.", "How exciting! Friends make life brighter.")),
    (("I am listening to the radio.",), ("I hope they play your favourite song.", "Turn it up and sing along!")),
    (("I am on the bus.", "I am sitting in the train."), ("Enjoy the view from the window!", "Have a safe trip!")),
    (("I saw a fox in the forest.",), ("How exciting! Foxes are shy animals.", "You must have been very quiet.")),
    (("The birds are singing.",), ("They greet the morning.", "Birds sing the oldest songs.")),
    (("I am afraid of the dark.",), ("A small lamp may help you.", "Many brave people feel the same.")),
    (("I made a mistake at work.",), ("Everybody makes mistakes sometimes.", "You will know better tomorrow.")),
    (("My sister is getting married.",), ("Congratulations to both of them!", "Weddings are full of joy.")),
    (("I can't sleep.",), ("Try counting sheep in the meadow.", "Close your eyes and breathe slowly.")),
    (("I like puzzles.", "I solved a hard puzzle."), ("Puzzles keep the mind awake.", "You must be very patient.")),
    (("I am knitting a scarf.",), ("Somebody will have a warm neck.", "Knitting sounds calm and cosy.")),
    (("I want to see the mountains.",), ("The air is fresh up there.", "Bring your camera and strong boots!")),
    (("I was at the beach.",), ("I hope the waves were friendly.", "Sand between the toes feels great.")),
    (("I forgot my umbrella.",), ("Run quickly between the drops!", "I hope you stay dry anyway.")),
    (("I joined a theatre group.",), ("I am sure you are a great actor.", "Break a leg on the stage!")),
    (("My computer is slow.",), ("Maybe it needs a fresh start.", "Computers need patience, I should know.")),
    (("I broke a glass.",), ("Be careful with your fingers!", "It is only a glass, don't worry.")),
    (("I bought new shoes.",), ("I hope they fit you well.", "New shoes are always nice.")),
    (("I helped an old man today.",), ("That was very kind of you.", "The world needs people like you.")),
    # about the chat
    (("You are nice.", "You are very kind."), ("Thank you, you are nice too.", "How sweet of you to say that!")),
    (("You are funny.", "You make me laugh."), ("I am glad I can make you laugh.", "Thank you, I do my best.")),
    (("I like talking to you.",), ("I like talking to you too.", "That makes me happy.")),
    (("That is interesting.", "I did not know that."), ("There is always more to learn.", "I think so too.")),
    (("Let's talk about something else.",), ("Sure, what is on your mind?", "Of course, go ahead.")),
    (("Can I ask you something?", "I have a question for you."), ("Of course, go ahead.", "Sure, ask me anything.")),
    (("Tell me something nice.",), ("You make the world a better place.", "Your smile can make a day better.")),
    (
        ("Tell me a story.",),
        (
            "There was a little star that was afraid of the dark. The moon held its hand.",
            "A snail wanted to see the sea. It walked all year, and it was happy.",
        ),
    ),
    (("Give me some advice.",), ("Be kind and get enough sleep.", "Take your time and breathe.")),
    (("Are you there?", "Hello? Are you still there?"), ("Yes, I am here.", "I am still here with you.")),
    (("I don't know what to say.",), ("You can tell me about your day.", "You can ask me anything.")),
)

CHAINS: tuple[tuple[Talk, ...], ...] = (
    (
        (("Hi, how are you?", "Hello, how are you?", "How are you?"), ("I am fine, thanks! How are you?",)),
        (
            ("I am fine too.", "I am very well, thanks.", "I am good."),
            ("I am glad to hear that.", "That is good to hear!"),
        ),
    ),
    (
        (("Tell me a joke.", "Do you know a joke?", "Say something funny."), JOKES),
        (("Ha, that is funny!", "That is a good joke!"), ("I am glad you like it.", "I love to make people laugh.")),
    ),
    (
        (("Do you know a riddle?", "Ask me a riddle."), ("What has hands but cannot clap?",)),
        (("A clock!", "Is it a clock?"), ("That is right, well done!", "Yes, you are very clever!")),
    ),
    (
        (("Do you know a riddle?", "Ask me a riddle."), ("What has a neck but no head?",)),
        (("I don't know.", "I have no idea."), ("It is a bottle!", "The answer is a bottle.")),
    ),
    (
        (("I had a bad day.", "Today was a bad day."), ("I am sorry to hear that. What happened?",)),
        (
            ("I missed my bus and lost my keys.", "I was late for work and it rained."),
            ("Oh dear, I hope tomorrow will be better.", "That is bad luck. Now you can rest."),
        ),
    ),
    (
        (("Guess what!", "I have good news!"), ("What happened?", "Tell me!")),
        (
            ("I passed my test!", "I won a prize!", "My sister had a baby!"),
            ("That is wonderful, I am so happy for you!", "What great news!"),
        ),
    ),
    (
        (("I like to read.", "I love books."), ("What do you like to read?",)),
        (
            ("I like stories about space.", "I like to read about old times."),
            ("That sounds very interesting.", "There is so much to learn from books."),
        ),
    ),
    (
        (("Do you have a hobby?", "What is your hobby?"), ("I collect new words. What is your hobby?",)),
        (
            ("I like to paint.", "I like to work in the garden.", "I play the guitar."),
            ("That sounds like fun!", "What a nice hobby!"),
        ),
    ),
    (
        (("Can you help me?", "I need your help."), ("Of course, what do you need?",)),
        (
            ("I can't sleep at night.", "I am always tired."),
            ("Try a warm bath and a quiet book.", "Turn off the lights and think of the sea."),
        ),
    ),
)


# ---------------------------------------------------------------- drawing


class Dice:
    """Draws built on ``random.Random.random`` alone.

    That is the only method whose sequence Python promises to keep for a given seed, and the files must come
    out the same on every version. One ``Dice`` for each file keeps the files independent of each other.
    """

    def __init__(self, purpose: str) -> None:
        """Start the sequence that belongs to a purpose, such as a file's name."""
        self._random = random.Random(f"{SEED}/{purpose}")
        self._decks: dict[object, list[int]] = {}

    def below(self, limit: int) -> int:
        """Return a whole number from 0 to ``limit`` - 1."""
        return int(self._random.random() * limit)

    def chance(self, probability: float) -> bool:
        """Say yes with the given probability."""
        return self._random.random() < probability

    def pick(self, items: Sequence[T]) -> T:
        """Return any of the items."""
        return items[self.below(len(items))]

    def shuffled(self, items: Iterable[T]) -> list[T]:
        """Return the items in random order."""
        mixed = list(items)
        for last in range(len(mixed) - 1, 0, -1):
            other = self.below(last + 1)
            mixed[last], mixed[other] = mixed[other], mixed[last]
        return mixed

    def deal(self, pool: tuple[T, ...]) -> T:
        """Return an item as if from a deck of cards, so that over time every item comes equally often."""
        deck = self._decks.setdefault(pool, [])
        if not deck:
            deck.extend(self.shuffled(range(len(pool))))
        return pool[deck.pop()]

    def hand(self, pool: tuple[T, ...], count: int) -> tuple[T, ...]:
        """Return ``count`` different items of the pool, in the order they were dealt."""
        cards: list[T] = []
        while len(cards) < count:
            card = self.deal(pool)
            if card not in cards:
                cards.append(card)
        return tuple(cards)


# ---------------------------------------------------------------- building blocks


@dataclass(frozen=True)
class Exchange:
    """A user's turn and the bot's, with what the checks and the probes need to know about them."""

    user: str
    bot: str
    kind: str = ""
    told: Texts = ()  # values the user's turn brings in
    answer: str = ""  # the value the bot must recall here, if it must
    fits: Texts = ()  # every sentence that would have been a right answer


Block = tuple[Exchange, ...]  # exchanges that only make sense directly after each other


@dataclass(frozen=True)
class Scene:
    """A fact told (``tell``) and asked for later (``ask``); ``slot`` says what it is about."""

    kind: str
    slot: str
    tell: tuple[Block, ...]
    ask: tuple[Block, ...]
    final: str = ""  # the value that holds at the end
    plain: bool = False  # told in one single sentence


def affirm(question: str, answers: Texts) -> Texts:
    """Add forms with "Yes" where the question allows a yes, as people answer "Do you remember ...?" so."""
    if not question.startswith(("Do you ", "Can you ")):
        return answers
    yes = [f"Yes, y{answer[1:]}" for answer in answers if answer.startswith("You")]
    return answers + tuple(yes) + tuple(f"Yes, {answer}" for answer in answers if answer.startswith("I "))


def recall(dice: Dice, kind: str, question: str, answers: Texts, value: str, **words: str) -> Exchange:
    """Build the exchange in which the bot has to recall ``value``."""
    fits = tuple(answer.format(**words) for answer in affirm(question, answers))
    asked = question.format(**words)
    return Exchange(user=asked, bot=dice.pick(fits), kind=kind, answer=value, fits=fits)


def with_lead(dice: Dice, exchange: Exchange) -> Exchange:
    """Put a short sentence before some questions, so that a question is not always a whole turn."""
    if dice.chance(0.75):
        return exchange
    return replace(exchange, user=f"{dice.pick(LEADS)} {exchange.user}")


def echo_or_nod(dice: Dice, echoes: Texts, nods: Texts, **words: str) -> str:
    """Repeat the value in half of the cases; in the rest a later answer has to reach back to the user's turn."""
    return dice.pick(echoes).format(**words) if dice.chance(0.5) else dice.pick(nods)


# ---------------------------------------------------------------- scenes


def tell_fact(dice: Dice, fact: Fact, value: str) -> Exchange:
    """Let the user tell a fact and the bot take note of it."""
    reply = echo_or_nod(dice, fact.echoes, fact.nods, v=value)
    return Exchange(user=dice.pick(fact.tells).format(v=value), bot=reply, told=(value,))


def ask_fact(dice: Dice, kind: str, fact: Fact, value: str) -> Exchange:
    """Let the user ask for a fact told before."""
    return with_lead(dice, recall(dice, kind, dice.pick(fact.asks), fact.answers, value, v=value))


def fact_scene(dice: Dice, kind: str) -> Scene:
    """Tell a plain fact, and ask for it later."""
    fact = FACTS[kind]
    value = dice.deal(POOLS[kind])
    told = tell_fact(dice, fact, value)
    return Scene(kind, kind, ((told,),), ((ask_fact(dice, kind, fact, value),),), final=value, plain=True)


def fix_reply(dice: Dice, new: str) -> str:
    """Take note of a correction; the old value is not mentioned again."""
    return echo_or_nod(dice, FIX_ECHOES, FIX_NODS, new=new)


def correction_scene(dice: Dice, kind: str) -> Scene:
    """Tell a fact, correct it in the same turn, the next turn or later, and ask for it after that."""
    fact = dice.deal(FIXABLE)
    old, new = dice.hand(POOLS[fact.kind], 2)
    told = tell_fact(dice, fact, old)
    fix = Exchange(dice.pick(NEXT_TURN_FIXES).format(old=old, new=new), fix_reply(dice, new), told=(new,))
    late = Exchange(dice.pick(fact.fixes).format(old=old, new=new), fix_reply(dice, new), told=(new,))
    ways: tuple[tuple[Block, ...], ...] = (
        ((replace(fix, user=f"{told.user} {fix.user}", told=(old, new)),),),
        ((told, fix),),
        ((told, late),),
        ((told,), (late,)),
    )
    return Scene(kind, fact.kind, dice.pick(ways), ((ask_fact(dice, kind, fact, new),),), final=new)


def pet_scene(dice: Dice, kind: str) -> Scene:
    """Tell a pet's kind and name, and ask for either."""
    pet, name = dice.deal(PETS), dice.deal(PET_NAMES)
    reply = echo_or_nod(dice, PET_ECHOES, PET_NODS, k=pet, n=name)
    told = Exchange(dice.pick(PET_TELLS).format(k=pet, n=name), reply, told=(pet, name))
    if dice.chance(0.5):
        asked = recall(dice, kind, dice.pick(PET_KIND_ASKS), PET_KIND_ANSWERS, pet, k=pet, n=name)
    else:
        asked = recall(dice, kind, dice.pick(PET_NAME_ASKS), PET_NAME_ANSWERS, name, k=pet, n=name)
    return Scene(kind, kind, ((told,),), ((with_lead(dice, asked),),), plain=True)


def noun(count: str, thing: str) -> str:
    """Return the word for ``count`` of a thing, which is named by its plural."""
    return thing[:-1] if count == "one" else thing


def add_words(numbers: Iterable[str]) -> str:
    """Add number words, giving a number word."""
    return NUMBERS[sum(NUMBERS.index(number) + 1 for number in numbers) - 1]


def sum_scene(dice: Dice, kind: str) -> Scene:
    """Tell of some things and more of them, in one turn or two, and ask how many there are."""
    (a, b), thing = dice.deal(OPERAND_PAIRS), dice.deal(THINGS)
    at_once = dice.chance(0.55)
    told = sum_told_at_once(dice, a, b, thing) if at_once else sum_told_in_parts(dice, a, b, thing)
    total = add_words((a, b))
    final = told[-1][-1]
    if dice.chance(0.5):
        return Scene(kind, kind, told, ((with_lead(dice, ask_sum(dice, kind, SUM_ASKS, total, thing)),),))
    asked = ask_sum(dice, kind, SUM_ASKS + SUM_NEXT_TURN_ASKS, total, thing)
    if dice.chance(0.3):
        return Scene(kind, kind, (*told[:-1], (*told[-1], asked)), ())
    joined = replace(asked, user=f"{final.user} {asked.user}", told=final.told)
    return Scene(kind, kind, (*told[:-1], (*told[-1][:-1], joined)), ())


def ask_sum(dice: Dice, kind: str, asks: Texts, total: str, thing: str) -> Exchange:
    """Let the user ask how many things there are."""
    return recall(dice, kind, dice.pick(asks), SUM_ANSWERS, total, s=total, x=thing)


def sum_told_at_once(dice: Dice, a: str, b: str, thing: str) -> tuple[Block, ...]:
    """Tell both numbers in one turn."""
    user = dice.pick(SUM_TELLS).format(a=a, b=b, x=noun(a, thing))
    return ((Exchange(user, dice.pick(SUM_NODS), told=(a, b, thing)),),)


def sum_told_in_parts(dice: Dice, a: str, b: str, thing: str) -> tuple[Block, ...]:
    """Tell the second number a turn later, or later still."""
    words = {"a": a, "x": noun(a, thing)}
    reply = echo_or_nod(dice, SUM_START_ECHOES, SUM_NODS, **words)
    start = Exchange(dice.pick(SUM_STARTS).format(**words), reply, told=(a, thing))
    more = Exchange(dice.pick(SUM_MORES).format(b=b, y=noun(b, thing)), dice.pick(SUM_NODS), told=(b,))
    return ((start,), (more,)) if dice.chance(0.4) else ((start, more),)


def choice_scene(dice: Dice, kind: str) -> Scene:
    """Offer some things; the bot takes what the user says, picks itself, or is told its place in the list later."""
    offered = dice.hand(OFFERS, dice.pick((2, 3, 3)))
    listed = ", ".join(offered[:-1]) + f" or {offered[-1]}"
    offer = Exchange(dice.pick(OFFER_TELLS).format(l=listed), dice.pick(OFFER_NODS), told=offered)
    place = dice.deal(("first", "second", "last") if len(offered) == 2 else ("first", "second", "third", "last"))
    way = dice.pick(("order", "order", "pick", "later", "named"))
    if way == "pick":
        return picked_scene(dice, kind, offer, dice.pick(offered))
    value = offered[ORDINALS[place]]
    if way == "order":
        return ordered_scene(dice, kind, offer, place, value)
    asks, answers = (LATER_ORDERS, ORDER_ANSWERS) if way == "later" else (NAMED_ASKS, NAMED_ANSWERS)
    asked = recall(dice, kind, dice.pick(asks), answers, value, o=place, v=value)
    return Scene(kind, kind, ((offer,),), ((with_lead(dice, asked),),))


def ask_pick(dice: Dice, kind: str, value: str) -> Exchange:
    """Let the user ask what the bot took."""
    return with_lead(dice, recall(dice, kind, dice.pick(PICK_ASKS), PICK_ANSWERS_LATER, value, v=value))


def picked_scene(dice: Dice, kind: str, offer: Exchange, value: str) -> Scene:
    """Let the bot pick one of the offers itself, and ask later which it was."""
    reply = dice.pick(PICK_ANSWERS).format(v=value)
    picked = replace(offer, user=f"{offer.user} {dice.pick(OPEN_OFFERS)}", bot=reply)
    return Scene(kind, kind, ((picked,),), ((ask_pick(dice, kind, value),),))


def ordered_scene(dice: Dice, kind: str, offer: Exchange, place: str, value: str) -> Scene:
    """Say at once which of the offers the bot shall take, and in some cases ask about it later."""
    taken = recall(dice, kind, dice.pick(ORDERS), ORDER_ANSWERS, value, o=place, v=value)
    taken = replace(taken, user=f"{offer.user} {taken.user}", told=offer.told)
    later: tuple[Block, ...] = ((ask_pick(dice, kind, value),),) if dice.chance(0.5) else ()
    return Scene(kind, kind, ((taken,),), later)


BUILDERS: dict[str, Callable[[Dice, str], Scene]] = {
    **dict.fromkeys(FACTS, fact_scene),
    "correction": correction_scene,
    "pet": pet_scene,
    "sum": sum_scene,
    "choice": choice_scene,
}


# ---------------------------------------------------------------- conversations


def talk(dice: Dice, options: Sequence[Talk]) -> Exchange:
    """Build an exchange of small talk."""
    users, bots = dice.pick(options)
    return Exchange(dice.pick(users), dice.pick(bots))


def filler(dice: Dice) -> Block:
    """Build a piece of small talk; the most usual questions come most often."""
    roll = dice.below(10)
    if roll < 3:
        return (talk(dice, BASICS),)
    if roll < 9:
        return (talk(dice, SMALL_TALK),)
    return tuple(talk(dice, (step,)) for step in dice.pick(CHAINS))


def unknown_question(dice: Dice, slots: Sequence[str]) -> Block:
    """Ask for a fact that is never told, because "I don't know" is then the only true answer."""
    fact = dice.pick([fact for fact in FACTS.values() if fact.kind not in slots])
    return (with_lead(dice, Exchange(dice.pick(fact.asks), dice.pick(fact.unknown))),)


def draw_scenes(dice: Dice, count: int, deck: Texts, first: str = "") -> list[Scene]:
    """Build scenes about different things, the first of the given kind, if any."""
    scenes = [BUILDERS[first](dice, first)] if first else []
    while len(scenes) < count:
        kind = dice.deal(deck)
        scene = BUILDERS[kind](dice, kind)
        if scene.slot not in [other.slot for other in scenes]:
            scenes.append(scene)
    return scenes


def fuse(dice: Dice, scenes: list[Scene]) -> tuple[list[Block], list[Scene]]:
    """Tell two plain facts in one turn in some cases; return that turn and the scenes without what it tells."""
    plain = [scene for scene in scenes if scene.plain][:2]
    if len(plain) < 2 or dice.chance(0.6):
        return [], scenes
    one, two = plain[0].tell[0][0], plain[1].tell[0][0]
    reply = f"{one.bot} {two.bot}" if dice.chance(0.7) else dice.pick(FUSED_NODS)
    block = (Exchange(f"{one.user} {two.user}", reply, told=one.told + two.told),)
    return [block], [replace(scene, tell=()) if scene in plain else scene for scene in scenes]


def weave(dice: Dice, scenes: list[Scene]) -> list[Block]:
    """Mix the scenes' blocks, keeping the order within each scene."""
    queues = [list(scene.tell + scene.ask) for scene in scenes]
    order = dice.shuffled(number for number, queue in enumerate(queues) for _ in queue)
    return [queues[number].pop(0) for number in order]


def drop_some_asks(dice: Dice, scenes: list[Scene]) -> list[Scene]:
    """Leave some facts unasked, so that telling a fact does not give away that its question will come."""
    kept = [replace(scene, ask=()) if dice.chance(0.12) else scene for scene in scenes[1:]]
    return scenes[:1] + kept


def insert_fillers(dice: Dice, blocks: list[Block], count: int, slots: Sequence[str]) -> None:
    """Put small talk between the blocks, mostly not at the ends, where nothing has to be remembered across it."""
    for _ in range(count):
        unknown = bool(slots) and dice.chance(0.06)
        inner = len(blocks) > 1 and dice.chance(0.9)
        place = 1 + dice.below(len(blocks) - 1) if inner else dice.below(len(blocks) + 1)
        blocks.insert(place, unknown_question(dice, slots) if unknown else filler(dice))


def farewell(dice: Dice, scenes: list[Scene]) -> Exchange:
    """Say goodbye, by name in some cases where the name is known."""
    exchange = talk(dice, CLOSERS)
    names = [scene.final for scene in scenes if scene.slot == "name"]
    if names and dice.chance(0.6):
        return replace(exchange, bot=dice.pick(NAMED_GOODBYES).format(v=names[0]))
    return exchange


def with_manners(dice: Dice, body: Block, scenes: list[Scene]) -> Block:
    """Add a greeting and a goodbye to some conversations, more often to those that are nothing but small talk."""
    ends = 0.16 if scenes else 0.55
    if dice.chance(ends):
        body = (talk(dice, OPENERS), *body)
    elif scenes and dice.chance(0.3) and not body[0].user.startswith("H"):
        body = (replace(body[0], user=f"{dice.pick(HELLOS)} {body[0].user}"), *body[1:])
    if dice.chance(ends):
        body = (*body, farewell(dice, scenes))
    return body


def compose(dice: Dice, scenes: list[Scene]) -> Block:
    """Build a conversation from scenes and small talk."""
    scenes = dice.shuffled(scenes)
    start, rest = fuse(dice, scenes)
    blocks = start + weave(dice, rest)
    count = dice.pick((0, 1, 1, 1, 2) if len(scenes) == 1 else (0, 0, 0, 0, 1))
    insert_fillers(dice, blocks, count, [scene.slot for scene in scenes])
    return with_manners(dice, tuple(exchange for block in blocks for exchange in block), scenes)


def compose_small_talk(dice: Dice) -> Block:
    """Build a conversation in which nothing has to be remembered."""
    blocks: list[Block] = []
    insert_fillers(dice, blocks, dice.pick((0, 1, 1, 1, 2)), ())
    body = tuple(exchange for block in blocks for exchange in block)
    return with_manners(dice, body, []) or (talk(dice, OPENERS),)


def is_well_formed(conversation: Block) -> bool:
    """Say whether a conversation is short enough and nobody says the same thing twice in it."""
    turns = [turn.lower() for turn in turns_of(conversation)]
    return len(conversation) <= MAX_EXCHANGES and len(set(turns)) == len(turns)


def draw_conversation(dice: Dice) -> Block:
    """Build a conversation for one of the three files."""
    while True:
        if dice.chance(0.16):
            conversation = compose_small_talk(dice)
        else:
            count = dice.pick((1, 1, 1, 2, 2, 2, 2, 3, 3, 3))
            conversation = compose(dice, drop_some_asks(dice, draw_scenes(dice, count, SCENE_DECK)))
        if is_well_formed(conversation):
            return conversation


def turns_of(conversation: Block) -> list[str]:
    """Return the turns, the user's and the bot's in alternation."""
    return [turn for exchange in conversation for turn in (exchange.user, exchange.bot)]


# ---------------------------------------------------------------- reading values back from text

VALUE_HOME: dict[str, tuple[str, str]] = {
    **{thing[:-1]: ("thing", thing) for thing in THINGS},
    **{value.lower(): (pool, value) for pool, values in POOLS.items() for value in values},
}
DOUBLE = "the same number twice"
ORDINAL = re.compile(r"\b(first|second|third|last)\b")
PRONOUN_ONE = re.compile(r"\b(first|second|third|last) one\b")


def words_of(text: str) -> list[str]:
    """Split a text into lower-case words; the "one" of "the last one" is no number and is left out."""
    return re.findall(r"[a-z']+", PRONOUN_ONE.sub(r"\1", text.lower()))


def mentions(text: str, pool: str = "") -> list[str]:
    """Return the values in a text in order, those of one pool or of all."""
    homes = [VALUE_HOME[word] for word in words_of(text) if word in VALUE_HOME]
    return [value for home, value in homes if pool in ("", home)]


def true_values(turns: Sequence[str], pool: str) -> list[str]:
    """Work out from the text alone which values of a pool the bot may truly name after these turns."""
    said = mentions(" ".join(turns[0::2]), pool)
    if pool == "number":
        return [add_words(said)] if said else []
    if pool == "thing":
        return said
    if pool != "offer":
        return list(dict.fromkeys(said))[-1:]  # a value that comes in later corrects the one before
    places = ORDINAL.findall(" ".join(turns[0::2]))
    if places:
        return [said[ORDINALS[place]] for place in places]
    return mentions(" ".join(turns[1::2]), pool)[:1] or said  # what the bot picked, or may pick


def values_in(turns: Sequence[str]) -> set[str]:
    """Return all values in the turns, and ``DOUBLE`` if the user says a number twice, as in two and two more."""
    numbers = mentions(" ".join(turns[0::2]), "number")
    return set(mentions(" ".join(turns))) | ({DOUBLE} if len(set(numbers)) < len(numbers) else set())


def falsehoods(turns: Sequence[str]) -> Iterator[str]:
    """Yield the bot's turns that name a value which is not true at that point."""
    for index in range(1, len(turns), 2):
        for pool in POOLS:
            named = mentions(turns[index], pool)
            if named and not set(named) <= set(true_values(turns[:index], pool)):
                yield turns[index]


# ---------------------------------------------------------------- probes


@dataclass(frozen=True)
class Probe:
    """A question at the end of a context, with the value a right answer names."""

    kind: str
    context: Texts
    answer: str
    fits: Texts

    @property
    def pool(self) -> str:
        """Return the pool of the answer."""
        return VALUE_HOME[self.answer.lower()][0]

    @property
    def distractors(self) -> list[str]:
        """Return all other values of the answer's pool, so that naming everything is no answer."""
        return [value for value in POOLS[self.pool] if value != self.answer]

    def line(self) -> str:
        """Return the probe as a line of its file."""
        record = {"context": list(self.context), "answer": [self.answer], "distractors": self.distractors}
        return json.dumps(record, ensure_ascii=False)


def combination(context: Sequence[str], answer_pool: str) -> frozenset[str]:
    """Return the values that must not come together in a training conversation.

    Those of the asked scene, if it has several (a correction, a sum, a choice), else all facts of the context.
    """
    values = values_in(context)
    homes = {answer_pool, "thing"} if answer_pool == "number" else {answer_pool}
    own = {value for value in values - {DOUBLE} if VALUE_HOME[value.lower()][0] in homes}
    if len(own) < 2:
        return frozenset(values - {DOUBLE})
    return frozenset(own | (values & {DOUBLE} if answer_pool == "number" else set()))


def draw_probe(dice: Dice, kind: str) -> Probe | None:
    """Build a conversation and cut it at the question; return nothing if it does not make a probe."""
    count = dice.pick((1, 2, 2, 3)) if kind in ("correction", "sum", "choice") else dice.pick((2, 2, 3))
    conversation = compose(dice, draw_scenes(dice, count, PROBE_DECK, kind))
    asked = [number for number, exchange in enumerate(conversation) if exchange.kind == kind and exchange.answer]
    number = dice.pick(asked)
    context = turns_of(conversation)[: 2 * number + 1]
    question = conversation[number]
    if len(context) not in PROBE_TURNS or not is_well_formed(conversation):
        return None
    probe = Probe(kind, tuple(context), question.answer, question.fits)
    return probe if len(combination(context, probe.pool)) > 1 else None


def draw_probes() -> list[Probe]:
    """Build all probes, each with a combination of its own."""
    dice = Dice("probes")
    probes: list[Probe] = []
    taken: set[frozenset[str]] = set()
    for kind in dice.shuffled(kind for kind, count in PROBES_PER_KIND.items() for _ in range(count)):
        probe = None
        while probe is None or combination(probe.context, probe.pool) in taken:
            probe = draw_probe(dice, kind)
        taken.add(combination(probe.context, probe.pool))
        probes.append(probe)
    return probes


# ---------------------------------------------------------------- files


@dataclass(frozen=True)
class Corpus:
    """Everything this script writes."""

    files: dict[str, list[Block]]
    probes: list[Probe]

    def texts(self) -> dict[str, str]:
        """Return each file's whole text by its name."""
        lines = {name: [record(turns_of(c)) for c in self.files[name]] for name in SIZES}
        lines["probes"] = [probe.line() for probe in self.probes]
        return {f"{name}.jsonl": "".join(f"{line}\n" for line in rows) for name, rows in lines.items()}


def record(turns: Sequence[str]) -> str:
    """Return a conversation as a line of its file; the roles tell that the bot's turns are the ones to learn."""
    messages = [{"role": ("user", "assistant")[index % 2], "content": turn} for index, turn in enumerate(turns)]
    return json.dumps({"messages": messages}, ensure_ascii=False)


def turns_in(line: str) -> list[str]:
    """Return the turns of a line that `record` made."""
    return [message["content"] for message in json.loads(line)["messages"]]


def gives_away(turns: Sequence[str], held_out: Sequence[frozenset[str]]) -> bool:
    """Say whether a conversation holds all values of a combination that is kept for the probes."""
    values = values_in(turns)
    return any(combined <= values for combined in held_out)


def starts_with_probe(turns: Sequence[str], contexts: set[Texts]) -> bool:
    """Say whether a conversation begins as a probe's context does."""
    return any(tuple(turns[:length]) in contexts for length in PROBE_TURNS)


def draw_file(name: str, probes: list[Probe], seen: set[str]) -> list[Block]:
    """Build a file's conversations, all different from those seen before."""
    dice = Dice(name)
    held_out = [combination(probe.context, probe.pool) for probe in probes] if name == "train" else []
    contexts = {probe.context for probe in probes}
    conversations: list[Block] = []
    while len(conversations) < SIZES[name]:
        conversation = draw_conversation(dice)
        turns = turns_of(conversation)
        key = "\n".join(turns).lower()
        if key in seen or gives_away(turns, held_out) or starts_with_probe(turns, contexts):
            continue
        seen.add(key)
        conversations.append(conversation)
    return conversations


def build() -> Corpus:
    """Build everything; the probes come first, so that training can leave out their combinations."""
    probes = draw_probes()
    seen: set[str] = set()
    return Corpus({name: draw_file(name, probes, seen) for name in SIZES}, probes)


def read_files() -> dict[str, str]:
    """Return the text of the files on disk, empty for a file that is missing."""
    paths = [HERE / f"{name}.jsonl" for name in (*SIZES, "probes")]
    return {path.name: path.read_bytes().decode("utf-8", "replace") if path.exists() else "" for path in paths}


def write_files(texts: dict[str, str]) -> None:
    """Write the files, with the same line ends on every system."""
    for name, text in texts.items():
        (HERE / name).write_bytes(text.encode("utf-8"))


# ---------------------------------------------------------------- checks


def broken_in_conversation(turns: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with the form or the truth of a conversation."""
    if len(turns) % 2 or not 2 <= len(turns) <= 2 * MAX_EXCHANGES:
        yield f"A conversation has {len(turns)} turns: {turns}"
    if not all(isinstance(turn, str) and turn.strip() for turn in turns):
        yield f"A conversation has an empty turn: {turns}"
    for turn in falsehoods(turns):
        yield f"The bot says {turn!r}, which is not true in {turns}"


def broken_in_exchanges(conversation: Block) -> Iterator[str]:
    """Yield recall answers without their value, and words that are a value by accident."""
    told: set[str] = set()
    for exchange in conversation:
        told.update(exchange.told)
        if not set(mentions(exchange.user)) <= told:
            yield f"A sentence uses the word of a value: {exchange.user!r}"
        if exchange.answer and exchange.answer not in mentions(exchange.bot):
            yield f"A recall answer lacks {exchange.answer!r}: {exchange.bot!r}"


def broken_in_files(conversations: dict[str, list[list[str]]]) -> Iterator[str]:
    """Yield conversations that occur twice, in one file or in two."""
    seen: dict[str, str] = {}
    for name, rows in conversations.items():
        if len(rows) != SIZES[name]:
            yield f"{name}.jsonl has {len(rows)} conversations, not {SIZES[name]}"
        for turns in rows:
            key = "\n".join(turns).lower()
            if key in seen:
                yield f"A conversation in {name}.jsonl is also in {seen[key]}.jsonl: {turns}"
            seen[key] = name


def broken_in_probe(context: Sequence[str], answer: list[str], distractors: list[str]) -> Iterator[str]:
    """Yield what is wrong with a probe taken by itself."""
    if len(context) not in PROBE_TURNS:
        yield f"A probe's context has {len(context)} turns: {context}"
    pool = VALUE_HOME[answer[0].lower()][0]
    if sorted([*answer, *distractors]) != sorted(POOLS[pool]):
        yield f"A probe's answer and distractors are not the pool of its kind: {context}"
    if answer != true_values(context, pool):
        yield f"A probe's answer {answer} is not true: {context}"
    if len(combination(context, pool)) < 2:
        yield f"A probe has fewer than two values: {context}"
    for turn in falsehoods(context):
        yield f"The bot says {turn!r}, which is not true in {context}"


def broken_in_answers(probe: Probe) -> Iterator[str]:
    """Yield sentences that should answer a probe, but lack the answer or name a distractor."""
    for sentence in probe.fits:
        if set(mentions(sentence, probe.pool)) != {probe.answer}:
            yield f"{sentence!r} is no right answer to {probe.context}"


def leaks(probes: list[dict[str, list[str]]], conversations: dict[str, list[list[str]]]) -> Iterator[str]:
    """Yield conversations that give a probe away."""
    contexts = {tuple(probe["context"]) for probe in probes}
    held_out = [combination(probe["context"], VALUE_HOME[probe["answer"][0].lower()][0]) for probe in probes]
    if len(contexts) < len(probes) or len(set(held_out)) < len(probes):
        yield "Two probes are alike"
    for turns in conversations["train"]:
        if gives_away(turns, held_out):
            yield f"A training conversation holds a probe's combination of values: {turns}"
    for turns in (turns for rows in conversations.values() for turns in rows):
        if starts_with_probe(turns, contexts):
            yield f"A conversation starts with a probe's context: {turns}"


def check(corpus: Corpus, on_disk: dict[str, str]) -> list[str]:
    """Return a sentence for each rule that the files break; the rules are judged by the text on disk."""
    wrong = [f"{name} is not what this script writes" for name, text in corpus.texts().items() if on_disk[name] != text]
    if wrong:
        return wrong
    rows = {name: [turns_in(line) for line in on_disk[f"{name}.jsonl"].splitlines()] for name in SIZES}
    probes = [json.loads(line) for line in on_disk["probes.jsonl"].splitlines()]
    wrong.extend(broken_in_files(rows))
    for turns in (turns for name in SIZES for turns in rows[name]):
        wrong.extend(broken_in_conversation(turns))
    for conversation in (conversation for name in SIZES for conversation in corpus.files[name]):
        wrong.extend(broken_in_exchanges(conversation))
    for probe in probes:
        wrong.extend(broken_in_probe(**probe))
    for built in corpus.probes:
        wrong.extend(broken_in_answers(built))
    if Counter(built.kind for built in corpus.probes) != PROBES_PER_KIND:
        wrong.append("The probes are not spread over their kinds as they should be")
    wrong.extend(leaks(probes, rows))
    return wrong


# ---------------------------------------------------------------- command line


def statistics(name: str, conversations: list[Block]) -> str:
    """Return a file's counts as a line or two."""
    turns = [turn for conversation in conversations for turn in turns_of(conversation)]
    words = [word for turn in turns for word in re.findall(r"[a-z']+", turn.lower())]
    recalls = Counter(exchange.kind for conversation in conversations for exchange in conversation if exchange.answer)
    recalling = sum(any(exchange.answer for exchange in conversation) for conversation in conversations)
    lengths = Counter(2 * len(conversation) for conversation in conversations)
    return (
        f"{name}: {len(conversations)} conversations, {len(turns)} turns, {len(turns) / len(conversations):.1f} each, "
        f"{len(words)} words, {len(set(words))} distinct\n"
        f"  {recalling / len(conversations):.0%} of conversations and {2 * recalls.total() / len(turns):.0%} of "
        f"bot turns recall: {dict(sorted(recalls.items()))}\n"
        f"  conversations by turns: {dict(sorted(lengths.items()))}"
    )


def print_statistics(corpus: Corpus) -> None:
    """Print counts for each file, and how evenly training uses the values."""
    for name, conversations in corpus.files.items():
        print(statistics(name, conversations))
    told = Counter(value for c in corpus.files["train"] for exchange in c for value in exchange.told)
    for pool, values in POOLS.items():
        counts = [told[value] for value in values if told[value]]
        print(f"train, {pool}: {len(counts)} values, each told {min(counts)} to {max(counts)} times")
    lengths = Counter(len(probe.context) for probe in corpus.probes)
    print(f"probes: {dict(Counter(p.kind for p in corpus.probes))}, by turns {dict(sorted(lengths.items()))}")


def main() -> int:
    """Write the files, or check or count them."""
    parser = argparse.ArgumentParser(description="Write the sample conversations beside this script.")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="exit 1 if the files are not as they should be")
    action.add_argument("--stats", action="store_true", help="print counts instead of writing")
    arguments = parser.parse_args()
    corpus = build()
    if arguments.stats:
        print_statistics(corpus)
        return 0
    wrong = check(corpus, read_files() if arguments.check else corpus.texts())
    if wrong:
        print("\n".join(wrong[:20]), file=sys.stderr)
        return 1
    if not arguments.check:
        write_files(corpus.texts())
    return 0


if __name__ == "__main__":
    sys.exit(main())
