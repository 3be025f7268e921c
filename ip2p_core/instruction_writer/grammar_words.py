"""The words of the grammar: families of things, looks, states, and the ways to ask for them."""

from __future__ import annotations

import re
from collections.abc import Sequence


def _any_of(names: Sequence[str], *, before: str = r"\b", after: str = r"\b") -> re.Pattern[str]:
    return re.compile(
        f"{before}(?:{'|'.join(sorted(map(re.escape, names), key=len, reverse=True))}){after}", re.IGNORECASE
    )


SHAPE_NAMES = ("circle", "square", "triangle", "star", "heart", "diamond", "hexagon", "cross")
COLOURS_OF_SHAPES = ("red", "green", "blue", "yellow", "purple", "orange", "pink", "cyan")
GROUNDS = ("white", "black", "gray", "brown", "beige")
COLOURS = (*COLOURS_OF_SHAPES[:7], "white", "black", "golden", "silver", "turquoise", "crimson")
ANIMALS = (
    "dog", "cat", "horse", "cow", "sheep", "fox", "wolf", "bear", "lion", "tiger", "elephant", "rabbit", "deer", "monkey", "panda",
    "goat", "pig", "squirrel", "kitten", "puppy", "zebra", "giraffe",
)  # fmt: skip
BIRDS = (
    "bird",
    "owl",
    "eagle",
    "parrot",
    "swan",
    "duck",
    "penguin",
    "crow",
    "flamingo",
    "peacock",
    "pigeon",
    "rooster",
    "seagull",
)
VEHICLES = (
    "car", "truck", "bus", "bicycle", "motorcycle", "tractor", "van", "taxi", "tram", "carriage", "scooter", "train",
)  # fmt: skip
BOATS = ("boat", "ship", "canoe", "sailboat", "ferry", "yacht", "kayak", "raft")
BUILDINGS = (
    "house", "castle", "church", "cottage", "lighthouse", "temple", "barn", "tower", "cabin", "palace", "mosque", "skyscraper",
    "windmill", "cathedral",
)  # fmt: skip
FOODS = (
    "apple",
    "cake",
    "pizza",
    "bread",
    "burger",
    "banana",
    "pie",
    "sandwich",
    "salad",
    "donut",
    "pancake",
    "lemon",
    "pear",
)
PLANTS = ("tree", "flower", "rose", "tulip", "sunflower", "cactus", "fern", "palm", "oak", "lily", "daisy", "orchid")
FURNITURE = (
    "chair",
    "table",
    "sofa",
    "bed",
    "bench",
    "desk",
    "lamp",
    "bookshelf",
    "couch",
    "armchair",
    "stool",
    "wardrobe",
)
OBJECTS = (
    "vase",
    "cup",
    "bottle",
    "bowl",
    "book",
    "guitar",
    "clock",
    "umbrella",
    "teapot",
    "candle",
    "violin",
    "basket",
    "mug",
)
LANDSCAPES = (
    "mountain",
    "lake",
    "river",
    "forest",
    "desert",
    "beach",
    "valley",
    "waterfall",
    "field",
    "meadow",
    "hill",
    "garden",
)
PEOPLE = (
    "woman", "man", "girl", "boy", "lady", "gentleman", "person", "child", "bride", "queen", "king", "dancer", "soldier", "farmer",
    "princess", "knight", "chef", "sailor", "model", "nurse", "musician", "teacher", "astronaut",
)  # fmt: skip
FAMILIES: tuple[tuple[Sequence[str], re.Pattern[str]], ...] = tuple(
    (family, _any_of(family))
    for family in (
        SHAPE_NAMES, ANIMALS, BIRDS, VEHICLES, BOATS, BUILDINGS, FOODS, PLANTS, FURNITURE, OBJECTS, LANDSCAPES, PEOPLE,
    )
)  # fmt: skip
UNCOLOURED: tuple[Sequence[str], ...] = (PEOPLE, LANDSCAPES)
SHAPES, PERSON = _any_of(SHAPE_NAMES), _any_of(PEOPLE)
NOT_THINGS = frozenset({"background", "and", "photo", "photograph", "painting", "drawing", "hair", "light"})

PLAIN_GROUND = re.compile(r"\bon an? (?P<ground>[a-z]+) background\b", re.IGNORECASE)
COLOURED_THING = re.compile(rf"\b(?P<colour>{'|'.join({*COLOURS, *COLOURS_OF_SHAPES, *GROUNDS})}) (?P<thing>[a-z]+)\b")
LISTED = re.compile(
    r",? (?:and|with) (?P<thing>(?:an?|the|some) (?:[a-z]+ ){0,2}?[a-z]+)(?=$|[.,]| on | in | at | and )"
)
PLACE = re.compile(r",? (?:in|on|at|near|by|under|inside|beside) (?:an?|the) (?:[a-z]+ ){0,2}?[a-z]+(?=$|[.,])")
MEDIUM_START = re.compile(
    r"(?:an?|the)? ?(?:[a-z-]+ )?(?:photo|photograph|picture|painting|drawing|sketch|watercolou?r|portrait|illustration|image|"
    r"etching|print|mosaic|engraving|render) of ",
    re.IGNORECASE,
)
STYLE = re.compile(r",? in (?:the )?[a-z -]+ style", re.IGNORECASE)
SEASON_STATE = re.compile(r",? in (?:early |late )?(?:spring|summer|autumn|fall|winter)\b", re.IGNORECASE)
WEATHER_STATE = re.compile(
    r",? (?:in|under|during|on) (?:an? |the )?(?:[a-z]+ )?(?:rain|snow|fog|storm|sunshine|clouds|mist)\b"
)
TIME_STATE = re.compile(
    r",? (?:at|by|in|on) (?:the |an? )?(?:[a-z]+ )?(?:night|sunset|sunrise|dawn|dusk|morning|noon|evening)\b"
)

MATERIALS = (
    "wood",
    "glass",
    "marble",
    "gold",
    "stone",
    "chocolate",
    "ice",
    "paper",
    "bronze",
    "porcelain",
    "wool",
    "lego bricks",
)
ADDED = (
    "a rainbow", "a hot air balloon", "fireworks", "a flock of birds", "a full moon", "a wooden fence", "a red kite", "a fountain",
    "a campfire", "colorful lanterns", "a small dog", "a bouquet of roses", "butterflies", "a stone bridge",
)  # fmt: skip
PLACES = (
    "in a desert", "on a beach", "in a forest", "in front of the Eiffel Tower", "in a library", "on the moon", "in a snowy village",
    "in a jungle", "in a busy street", "under water", "in a flower field", "in a cave", "on a mountain top", "in a ballroom",
)  # fmt: skip
MEDIA = (
    "a watercolor", "an oil painting", "a pencil drawing", "a mosaic", "a woodcut", "a photograph", "a charcoal sketch",
    "an embroidery", "a stained glass window", "a claymation scene", "a pixel art picture", "a chalk pastel", "an engraving",
)  # fmt: skip
STYLES = (
    "art deco", "impressionist", "cubist", "steampunk", "cyberpunk", "baroque", "pop art", "art nouveau", "surrealist", "bauhaus",
    "film noir", "gothic", "ukiyo-e", "pointillist", "minimalist",
)  # fmt: skip
SEASONS = (("spring", "in spring"), ("summer", "in summer"), ("autumn", "in autumn"), ("winter", "in winter"))
WEATHERS = (
    ("rain", "in the rain"), ("snow", "in the snow"), ("fog", "in thick fog"), ("a thunderstorm", "in a storm"),
    ("sunshine", "in bright sunshine"),
)  # fmt: skip
TIMES = (
    ("night", "at night"), ("sunset", "at sunset"), ("sunrise", "at sunrise"), ("dawn", "at dawn"), ("dusk", "at dusk"),
    ("noon", "at noon"),
)  # fmt: skip
CLOTHES = (
    "a red dress", "a leather jacket", "a top hat", "a wool scarf", "a suit of armor", "a kimono", "a straw hat", "a raincoat",
    "a tuxedo", "a denim shirt", "a golden crown", "a fur coat",
)  # fmt: skip
HAIR = (
    "blond hair",
    "curly hair",
    "a long braid",
    "pink hair",
    "short gray hair",
    "a mohawk",
    "long black hair",
    "red hair",
)
MAKE_UP = (
    "red lipstick",
    "blue eyeshadow",
    "dramatic make-up",
    "glitter on the cheeks",
    "black eyeliner",
    "clown make-up",
)
SPECTACLES = ("sunglasses", "round glasses", "aviator goggles", "a monocle", "heart-shaped glasses", "reading glasses")
EXPRESSIONS = ("a big smile", "an angry face", "a sad face", "a surprised look", "a laughing face", "a serious look")

REPLACE = (
    "replace the {old} with a {new}", "turn the {old} into a {new}", "swap the {old} for a {new}", "make it a {new}",
    "change the {old} to a {new}", "have a {new} instead of the {old}",
)  # fmt: skip
COLOUR = (
    "make the {thing} {colour}", "turn the {thing} {colour}", "paint the {thing} {colour}", "change the {thing} to {colour}",
    "color the {thing} {colour}",
)  # fmt: skip
MATERIAL = (
    "make the {thing} out of {material}",
    "the {thing} should be made of {material}",
    "turn the {thing} to {material}",
)
ADD = ("add {new}", "put in {new}", "insert {new}", "there should be {new}", "place {new} in the picture")
REMOVE = (
    "remove the {thing}",
    "take away the {thing}",
    "get rid of the {thing}",
    "erase the {thing}",
    "delete the {thing}",
)
GROUND = ("make the background {ground}", "change the background to {ground}", "turn the background {ground}")
SET = ("set it {place}", "change the background, {place}", "put it {place}", "make the scene take place {place}")
MEDIUM = ("make it {medium}", "turn it into {medium}", "as {medium}", "change it to {medium}", "it should be {medium}")
STYLED = (
    "make it {style} style",
    "in {style} style",
    "give it a {style} look",
    "turn it {style}",
    "as if it were {style}",
)
SEASON = (
    "make it {state}",
    "change the season to {state}",
    "turn it into {state}",
    "what if it were {state}",
    "set it in {state}",
)
WEATHER = (
    "make it {state}",
    "add {state}",
    "change the weather to {state}",
    "let there be {state}",
    "show it in {state}",
)
TIME = (
    "make it {state}",
    "change the time of day to {state}",
    "it should be {state}",
    "set it at {state}",
    "turn it to {state}",
)
WEAR = ("give {person} {look}", "make {person} wear {look}", "have {person} wear {look}", "put {look} on {person}")
HAVE = ("give {person} {look}", "make {person} have {look}", "{person} should have {look}", "let {person} have {look}")
