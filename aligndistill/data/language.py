"""The language that a text is written in, by its script and by frequent short words.

It is sure of languages with a script of their own, and of Latin and Cyrillic ones from a sentence on. It knows no others than
`LANGUAGES`, tells neither Norwegian from Danish nor Malay from Indonesian, and says nothing of texts without a hint, such as code,
names or two words.
"""

import re
from typing import get_args

from aligndistill.config.filters import Language
from aligndistill.data.overlap import units

LANGUAGES: tuple[Language, ...] = get_args(Language)

_WORDS: dict[Language, str] = {
    "cs": "a je se na v že to s z do jak pro jsem ale jako které který není být nebo jsou má podle",
    "da": "og er det at en til på for med af den ikke som har jeg et hvad hvordan kan skal blev fra eller også",
    "de": "der die das und ist in nicht ein eine zu von mit auf für den wie sie ich es im dem was auch wird sind oder werden bitte",
    "en": "the of and to is in that it a for on with as are this be what how you from an was which do does can i write my not or",
    "es": "de la el que en los y un una las por con para es del se no cómo qué su al lo más como son cuál o escribe",
    "fi": "ja on ei se että mitä miten kuinka oli joka ovat tai kun niin mikä hän myös ole kirjoita voi",
    "fr": "de la le les et des est un une en que pour dans du qui sur pas au avec ce comment il je quel quelle sont ou vous écris",
    "hu": "a az és hogy nem egy is ez van mint mi milyen hogyan azt meg vagy volt be csak el",
    "id": "yang dan di untuk dengan dari ini itu adalah pada apa bagaimana dalam tidak saya ke sebuah akan oleh atau",
    "it": "di che il la e un una per è non in con del della sono come le i si gli da cosa qual anche più o scrivi",
    "nl": "de het een en van is in dat op te voor niet met zijn wat hoe die aan er ik je ook naar of deze schrijf",
    "pl": "i w na nie się z do to jest że jak co o dla od po czy jakie który są przez lub oraz być",
    "pt": "de que o a e do da em um uma para é não os no com por as dos como mais se qual na são ou você escreva",
    "ro": "și de la în a un o care este nu cu pe pentru din ce sunt să cum mai sau ale",
    "sv": "och att det i är en som på av för med inte den till ett hur vad jag har om kan från eller du skriv",
    "tr": "bir ve bu için ne nasıl ile de da çok olarak var mı olan gibi daha nedir en değil yaz veya",
    "vi": "của và là có trong cho một các không được những người với này như về khi hãy gì thế nào để viết",
    "ru": "и в не на что с как это по к из у он я то для от так но же или напиши который был о почему",
    "uk": "і в не на що з як це до та у для від є або який яка про за але бути напиши чи",
}

_SCRIPTS: tuple[tuple[str, str], ...] = (
    ("kana", r"\u3041-\u3096\u30a1-\u30fa"),
    ("han", r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"),
    ("ko", r"\uac00-\ud7a3\u1100-\u11ff"),
    ("th", r"\u0e01-\u0e4e"),
    ("arabic", r"\u0620-\u064a\u066e-\u06d3"),
    ("he", r"\u05d0-\u05ea"),
    ("hi", r"\u0900-\u0963"),
    ("el", r"\u0370-\u03ff"),
    ("cyrillic", r"\u0400-\u04ff"),
    ("latin", r"A-Za-z\u00c0-\u024f\u1e00-\u1eff"),
)
_SCRIPT = re.compile("|".join(f"(?P<{name}>[{ranges}])" for name, ranges in _SCRIPTS))
_PERSIAN = frozenset("پچژگ")
_UKRAINIAN = frozenset("іїєґ")

_LANGUAGES_OF: dict[str, tuple[Language, ...]] = {}
for _language, _words in _WORDS.items():
    for _word in _words.split():
        _LANGUAGES_OF[_word] = (*_LANGUAGES_OF.get(_word, ()), _language)
_LATIN = frozenset(_WORDS) - {"ru", "uk"}

CHARACTERS_READ = 2000
ENOUGH_SHARE = 0.08
"""Of the different words of a Latin or Cyrillic text: fewer frequent short words than this say nothing."""


def language_of(text: str) -> Language | None:
    """The language of a text, from its first 2,000 characters; None if it cannot be told."""
    start = text[:CHARACTERS_READ]
    script = "latin" if start.isascii() else _main_script(start)
    match script:
        case None:
            return None
        case "han" | "kana":
            kana = sum("\u3041" <= one <= "\u30fa" for one in start)
            return "ja" if kana >= 0.1 * sum("\u3400" <= one <= "\u9fff" for one in start) and kana else "zh"
        case "arabic":
            return "fa" if _PERSIAN & set(start) else "ar"
        case "cyrillic" if _UKRAINIAN & set(start.lower()):
            return "uk"
        case "cyrillic" | "latin":
            return _by_words(units(start), script)
    return next(one for one in LANGUAGES if one == script)


def _main_script(text: str) -> str | None:
    """The script of most of the text. A character of Chinese, Japanese or Korean counts three times: it says more than a letter."""
    counts: dict[str, int] = {}
    for found in _SCRIPT.finditer(text):
        name = str(found.lastgroup)
        counts[name] = counts.get(name, 0) + (3 if name in ("han", "kana", "ko") else 1)
    return max(counts, key=lambda name: counts[name], default=None)


def _by_words(words: tuple[str, ...], script: str) -> Language | None:
    counts: dict[Language, int] = {}
    for word in set(words):
        for language in _LANGUAGES_OF.get(word, ()):
            counts[language] = counts.get(language, 0) + 1
    wanted = _LATIN if script == "latin" else {"ru", "uk"}
    ordered = sorted(((count, language) for language, count in counts.items() if language in wanted), reverse=True)
    if not ordered or ordered[0][0] < max(2, ENOUGH_SHARE * len(set(words))):
        return None
    return None if len(ordered) > 1 and ordered[1][0] == ordered[0][0] else ordered[0][1]
