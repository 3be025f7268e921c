"""What kind of edit an instruction asks for, by its words; and which edits Prompt-to-Prompt cannot make.

Rules in order, the first that fits decides. They serve counting and quotas, and see the instruction alone: six of ten of the
starter set are placed as their writer did (free wordings as "let the bird fly off" are not), of the grammar's nine of ten.
"""

from __future__ import annotations

import re
from functools import lru_cache

EDIT_TYPES = (
    "replace", "add", "remove", "colour", "material", "medium", "style", "season", "weather", "time", "background", "clothing",
    "hair", "make_up", "spectacles", "expression", "artwork", "transform",
)  # fmt: skip
OTHER = "other"

_COLOURS = (
    r"(?:red|green|blue|yellow|orange|purple|violet|pink|black|white|gr[ae]y|brown|beige|golden?|silver|turquoise|teal|cyan|"
    r"magenta|crimson|scarlet|navy|emerald|lavender|ivory|maroon|mint|coral|indigo|olive|amber|cream|bronze|copper|"
    r"(?:dark|light|pale|bright|deep|pastel|mustard|cherry|forest|royal|sky|burnt|neon|powder|bottle|rose)[- ]\w+)"
)
_RULES: tuple[tuple[str, str], ...] = (
    ("spectacles", r"glasses|goggles|monocle|spectacles|sunglasses|shades|eyewear|pince-nez|bifocals|lorgnette"),
    (
        "make_up",
        r"make-?up|lipstick|mascara|eyeliner|eye ?shadow|blush\b|rouge|freckles|face ?paint|war ?paint|nail polish|lashes|"
        r"glitter on|kohl|foundation|lip gloss",
    ),
    (
        "hair",
        r"\b(?:hair|haircut|hairstyle|beard|mou?stache|mohawk|ponytail|braids?|braided|bangs|fringe|curls|curly|bald|"
        r"blonde?|brunette|redhead|dreadlocks|pigtails|afro|buzz ?cut|bob|bun|sideburns|goatee|stubble|pixie cut|wig|plaits?)\b",
    ),
    (
        "expression",
        r"\b(?:smil\w+|frown\w*|laugh\w*|angry|sad|happy|cry\w*|scowl\w*|grin\w*|surprised|worried|bored|expression|wink\w*|"
        r"serious|cheerful|scared|tears|yawn\w*|sulk\w*|shout\w*|grumpy|delighted|frightened|proud|pout\w*|furious|amused)\b",
    ),
    ("season", r"\b(?:spring|summer|autumn|fall|winter|wintry|christmas|cherry blossom|autumnal|springtime|season)\b"),
    (
        "weather",
        r"\b(?:rain\w*|snow(?:s|y|ing|ed|fall|storm)?|fog(?:gy)?|mist(?:y)?|storm\w*|thunder\w*|lightning|cloud(?:s|y)|sunny|"
        r"overcast|hail|blizzard|wind(?:y)?|rainbow|hazy|drizzl\w*|weather|sandstorm|downpour|tornado|frost\w*|sleet)\b",
    ),
    (
        "time",
        r"\b(?:night|nighttime|dusk|dawn|sunset|sunrise|midnight|noon|morning|evening|twilight|golden hour|century|1[0-9]{3}s?|"
        r"medieval times|years? (?:later|ago)|older|younger|moonlit|day(?:time|light)|moonlight|afternoon|ancient|era|future)\b",
    ),
    (
        "medium",
        r"\b(?:painting|painted in|watercolou?rs?|drawing|sketch|mosaic|photo\w*|woodcut|engraving|etching|oil|pastels?|charcoal|"
        r"collage|embroidery|tapestry|stained glass|linocut|pencil|ink|fresco|crayon\w*|pixel art|origami|claymation|lego|render|"
        r"3d|sculpture|bas-relief|needlepoint|cross-?stitch|gouache|acrylic|comic|blueprint|lithograph|polaroid|daguerreotype|"
        r"doodle|cartoon|screen ?print|papercut|paper cut\w*|quilt|illustration)\b",
    ),
    (
        "style",
        r"\b(?:style|cubis\w+|impressionis\w+|steampunk|cyberpunk|noir|art deco|art nouveau|surreal\w*|baroque|pop art|bauhaus|"
        r"gothic|rococo|expressionis\w+|minimalis\w+|van gogh|monet|picasso|hokusai|klimt|mondrian|rembrandt|anime|ukiyo-e|"
        r"pointillis\w+|psychedelic|vaporwave|retro|vintage|western|fauvis\w+|romanticis\w+|futuris\w+|vermeer|munch|like a film)\b",
    ),
    (
        "background",
        r"\b(?:background|backdrop|behind (?:him|her|it|them|the)|setting|in front of|put (?:him|her|it|them|the \w+) "
        r"(?:in|on|at|under|inside|by)|move (?:\w+ ){0,3}to|set (?:it|the \w+|this) (?:in|on|at|under)|location|place (?:\w+ ){1,3}in)\b",
    ),
    (
        "material",
        r"\b(?:made (?:out )?of|wood(?:en)?|marble|glass|metal(?:lic)?|stone|brick|steel|iron|leather|ceramic|porcelain|plastic|"
        r"paper|cardboard|chocolate|ice|crystal|bamboo|concrete|granite|velvet|denim|wool(?:len)?|knitted|straw|clay|rust\w*|"
        r"brass|chrome|terracotta|felt|silk|cork|wax|jade|obsidian|wicker|rubber|yarn)\b",
    ),
    (
        "clothing",
        r"\b(?:wear(?:s|ing)?|dress(?:ed)?|shirt|coat|jacket|hat|suit|trousers|skirt|shoes|boots|scarf|gown|uniform|costume|"
        r"kimono|hoodie|jeans|sweater|jumper|tuxedo|cape|robe|outfit|clothes|apron|gloves|tie|crown|helmet|sari|armou?r|socks)\b",
    ),
    (
        "add",
        r"^(?:add|put|insert|include|give (?:it|the \w+)|draw|there should be|place|throw in|have a|fill|cover|hang|plant)\b",
    ),
    (
        "remove",
        r"\b(?:remove|delete|erase|take (?:away|out|off)|get rid of|without|no more|lose the|clear (?:away|the)|drop the|"
        r"cut out|strip|leave out|empty|wipe)\b",
    ),
    (
        "colour",
        rf"\b(?:colou?r\w*|recolou?r|paint|dye|tint|{_COLOURS})\b(?! (?:cat|dog|horse|bird|car|dress|rose|bear|fox)s?\b)",
    ),
    (
        "replace",
        r"\b(?:replace|swap|exchange|instead of|substitute|trade|change the [\w ]+ (?:to|into|for) (?:an? |the )?\w+|"
        r"switch)\b",
    ),
    ("transform", r"\b(?:turn|transform|make|change|become|what if)\b"),
)
_COMPILED = tuple((name, re.compile(rule, re.IGNORECASE)) for name, rule in _RULES)

_TAGS = tuple(
    (name, re.compile(rule, re.IGNORECASE))
    for name, rule in (
        (
            "count",
            r"\b(?:one|two|three|four|five|six|ten|several|fewer|another|double|twice|number of|more) (?:more )?\w+s\b|"
            r"\b(?:one more|another)\b",
        ),
        (
            "spatial",
            r"\b(?:left|right|swap (?:the )?(?:places|positions)|move (?:it|the \w+|him|her) (?:up|down|closer|further|to the|"
            r"next to|above|below|behind)|upside down|rotate|flip|mirror|bigger|smaller|larger|enlarge|shrink)\b",
        ),
        (
            "camera",
            r"\b(?:zoom\w*|close-?up|wide[- ]angle|camera|viewpoint|from (?:above|below|behind|the side)|bird'?s[- ]eye|crop|"
            r"angle|perspective|pan (?:left|right))\b",
        ),
    )
)


@lru_cache(maxsize=2**16)
def classify_edit(instruction: str) -> str:
    """Name the kind of edit that an instruction asks for.

    Args:
        instruction: what a person would type.

    Returns:
        One of EDIT_TYPES, or "other".
    """
    return next((name for name, rule in _COMPILED if rule.search(instruction)), OTHER)


@lru_cache(maxsize=2**16)
def tags_of(instruction: str) -> tuple[str, ...]:
    """Say which of "count", "spatial" and "camera" an edit is: what Prompt-to-Prompt cannot make (section 4.3)."""
    return tuple(name for name, rule in _TAGS if rule.search(instruction))
