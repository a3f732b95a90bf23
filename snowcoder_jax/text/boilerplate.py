"""What many texts share by chance: words and phrases that do not tell where a text came from."""

from __future__ import annotations

import re

from snowcoder_jax.text import words

# Keywords and library names, English function words, months, weekdays, numerals, colours.
_COMMON_WORDS = frozenset(
    b"""
    abs all and any append args array as assert async auto await bool boolean break byte case catch
    char class collections const continue copy data def default defaultdict del delete dict do
    double elem else elif end enum enumerate except export extends extern false file final finally
    float fn for foreach format from func function functools get global goto if impl implements
    import in include index init input instanceof int integer interface is isinstance it item items
    itertools join key keys kwargs lambda len length let list long lst main map math matplotlib max
    min mod module mut name namespace new nil node none not np null num number numbers numpy object
    open optional or os out override package pandas pass path pd plt pop print println private
    protected pub public push pyplot raise random range re res result ret return returns reverse
    self set short size sort sorted split static std str string struct sub sum super switch sys
    template this throw throws time to true try tuple type typeof typing union unsigned use using
    val value values var vec vector void where while with yield zip

    about above after again against also an are at be because been before being below between both
    but by can could did does doing done down during each every few further had has have having he
    her here his how into its just many may me might more most must my no non of off on once only
    other our over own per same she should so some such than that the their them then there these
    they those through too under until up upon us very via was we well were what when which who
    will within without would you your

    january february march april june july august september october november december
    jan feb mar apr jun jul aug sep oct nov dec
    monday tuesday wednesday thursday friday saturday sunday mon tue wed thu fri sat sun
    zero one two three four five six seven eight nine ten eleven twelve hundred thousand
    first second third black blue brown gray green grey orange pink purple red white yellow
    """.split()
)

# Over words joined by one blank. Each says how an API is always called, or is a stock text.
_PHRASES = (
    rb"if not os path (?:exists|isdir|isfile) \w+(?: \w+)? os (?:makedirs|mkdir) \w+",
    rb"(?:the )?(?:file|directory|folder|table|path) (?:if it )?does not exist",
    rb"(?:fig )?plt figure(?: figsize \d+ \d+)?",
    rb"fig (?:ax|axs|axes) plt subplots(?: \d+)*(?: figsize \d+ \d+)?",
    rb"(?:ax )?fig add_subplot \d+(?: projection 3d)?",
    rb"(?:ax|plt) (?:plot|scatter)(?: x y)?",
    rb"(?:ax|plt) (?:set_)?(?:title|xlabel|ylabel|zlabel|xlim|ylim|legend|show|grid)",
    rb"(?:class \w+ )?json jsonencoder(?: def)? default self (?:obj|o)"
    rb"(?: if isinstance (?:obj|o)(?: (?:datetime|date|decimal))*)?",
    rb"return (?:obj|o) isoformat",
    rb"subprocess (?:popen|run|check_output|check_call)(?: command| cmd)?",
    rb"std(?:out|err|in) subprocess (?:pipe|stdout|devnull)",
    rb"stdout stderr (?:process|proc|p) communicate",
    rb"self send_(?:response|error) \d+",
    rb"self send_header content (?:type application json|type text \w+|length)",
    rb"self end_headers(?: self wfile write)?",
    rb"csv (?:dict)?(?:reader|writer) \w+",
    rb"pd dataframe np random \w+(?: \d+)* columns",
    rb"random choice string ascii_(?:letters|lowercase|uppercase)(?: string digits)?",
    rb"thread(?:s)? (?:append thread|start|join)",
    rb"(?:less|greater|smaller|larger|bigger|lower) than(?: or equal to)?",
    rb"(?:the )?quick brown fox jumps over (?:the )?lazy dog",
    rb"lorem ipsum dolor sit amet(?: consectetur adipiscing elit)?",
    rb"abcdefghijklmnopqrstuvwxyz",
    rb"permission is hereby granted free of charge",
)
_PHRASE = re.compile(rb"(?<![^ ])(?:%b)(?![^ ])" % b"|".join(_PHRASES))

# What stands on such a line is told by what the file is about, not by who wrote it.
_IMPORT_LINE = re.compile(
    rb"^[ \t>#/*.]*(?:import\b|from[ \t]+[\w.]+[ \t]+import\b|include[ \t]*[\"<]|"
    rb"us(?:e|ing)\b[^\n;]*;)[^\n]{0,80}$",
    re.MULTILINE,
)


def telling_words(data: bytes, start: int, end: int) -> set[bytes]:
    """The different words of a part of a lower-case text that few texts would hold by chance.

    Not among them: words of import lines and of stock phrases, common words, numbers, single
    letters.
    """
    first = data.rfind(b"\n", 0, start) + 1
    last = data.find(b"\n", end)
    lines = data[first : last if last >= 0 else len(data)]
    without_imports = _IMPORT_LINE.sub(lambda m: b" " * len(m.group()), lines)
    spaced = words.spaced_words(without_imports[start - first : end - first])
    return {word for word in _PHRASE.sub(b" ", spaced).split() if _tells(word)}


def _tells(word: bytes) -> bool:
    return len(word) > 1 and not word.isdigit() and word not in _COMMON_WORDS
