"""How much of one text is in another: units, ROUGE-L, shingles, and n-grams shared with an evaluation set.

Everything counts *units*: words, or characters of scripts that are written without spaces.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence

Units = tuple[str, ...]

SHINGLE = 3
"""Units in a shingle: 3 % of the words changed leave 91 % of the 3-word shingles, and 78 % of 8-word ones."""

NGRAM = 8
"""Units in an n-gram of the decontamination, as in Tulu 3 (arXiv:2411.15124)."""

_HAN = r"\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
_KANA = r"\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"
_THAI_LAO = r"\u0e01-\u0e30\u0e32\u0e33\u0e40-\u0e46\u0e50-\u0e59\u0e81-\u0eb0\u0eb2\u0eb3\u0ebd-\u0ec6\u0ed0-\u0edf"
_THAI_LAO_MARKS = r"\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ece"
_BURMESE_KHMER = r"\u1000-\u102a\u103f-\u1049\u1050-\u1055\u1780-\u17b3\u17e0-\u17e9"
_BURMESE_KHMER_MARKS = r"\u102b-\u103e\u1056-\u1059\u17b4-\u17d3"
_MARKS = r"\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed\u0900-\u0963\u0966-\u0dff"
"""Vowel signs and accents, which `\\w` leaves out: without them a Hindi or vowelled Arabic word falls apart."""

SPACELESS = _HAN + _KANA + _THAI_LAO + _BURMESE_KHMER
"""Characters of scripts without spaces between words, as ranges for a regular expression."""

_LETTER = rf"(?:(?![{SPACELESS}])[\w{_MARKS}])"
_UNIT = re.compile(
    rf"[{SPACELESS}][{_THAI_LAO_MARKS}{_BURMESE_KHMER_MARKS}]*"
    rf"|{_LETTER}+(?:['\u2019]{_LETTER}+)*"
    r"|[+*%=<>&|^~]"
    r"|(?<![^\W\d_])[-/]|[-/](?![^\W\d_])"
)
_ASCII_UNIT = re.compile(r"\w+(?:'\w+)*|[+*%=<>&|^~]|(?<![A-Za-z])[-/]|[-/](?![A-Za-z])", re.ASCII)


def units(text: str) -> Units:
    """The units of a text, lowercased: words, and single characters of Chinese, Japanese, Thai, Lao, Burmese and Khmer.

    A word is a run of letters, digits and underscores, with apostrophes inside, so an identifier in code is one unit. Operators
    (`+ * % = < > & | ^ ~`, and `-` and `/` unless they join two letters) are units too: `a + b` is not `a - b`. Other
    punctuation is not. A text of nothing else is split at its spaces. Compatibility forms are equal (NFKC): full-width letters,
    half-width kana.
    """
    if text.isascii():  # the same, and four times as fast
        return tuple(_ASCII_UNIT.findall(text.lower()) or text.lower().split())
    return tuple(_UNIT.findall(unicodedata.normalize("NFKC", text).lower()) or text.lower().split())


def rouge_l(a: str, b: str) -> float:
    """ROUGE-L of two texts (Lin 2004): the F-measure of their longest common subsequence of units, in [0, 1]; 0 without units."""
    return rouge_l_of_units(units(a), units(b))


def rouge_l_of_units(a: Sequence[str], b: Sequence[str]) -> float:
    """`rouge_l` of texts that are split already."""
    return 2 * common_subsequence(a, b) / (len(a) + len(b)) if a and b else 0.0


def common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """The length of the longest common subsequence; len(b) operations on integers of len(a) bits (Hyyro 2004)."""
    return _common(_bits(a), len(a), b)


def nearest_by_rouge_l(text: Sequence[str], others: Iterable[tuple[str, Sequence[str]]]) -> tuple[str | None, float]:
    """The id of the nearest of other texts and its ROUGE-L; (None, 0.0) if none shares a unit.

    Args:
        text: the units of the text.
        others: ids with units. Of equally near ones the first counts.
    """
    bits, length = _bits(text), len(text)
    nearest: str | None = None
    highest = 0.0
    for identity, other in others:
        if 2 * min(length, len(other)) <= highest * (length + len(other)):
            continue  # even if the shorter text were inside the longer one
        score = 2 * _common(bits, length, other) / (length + len(other))
        if score > highest:
            nearest, highest = identity, score
    return nearest, highest


def _bits(a: Sequence[str]) -> dict[str, int]:
    """Unit -> an integer with a bit at each of its places."""
    bits: defaultdict[str, int] = defaultdict(int)
    for place, unit in enumerate(a):
        bits[unit] |= 1 << place
    return bits


def _common(bits: dict[str, int], length: int, b: Sequence[str]) -> int:
    full = (1 << length) - 1
    row = full  # a zero bit: the subsequence grows at this place of `a`
    for unit in b:
        if unit in bits:
            hits = row & bits[unit]
            row = ((row + hits) | (row - hits)) & full
    return length - row.bit_count()


def shingles(text: Sequence[str], size: int = SHINGLE) -> frozenset[Units]:
    """The distinct runs of `size` units of a text; of a shorter text, the whole."""
    if len(text) <= size:
        return frozenset([tuple(text)])
    return frozenset(zip(*(text[start:] for start in range(size)), strict=False))


class EvaluationIndex:
    """The items of evaluation sets, by their n-grams: which of them a training text contains.

    An item is contained if n-grams of the text cover more than `above` of its units. An item shorter than an n-gram is compared
    whole.

    Args:
        items: ids with texts.
        above: a share of an item's units, in [0, 1).
    """

    def __init__(self, items: Iterable[tuple[str, str]], above: float = 0.5, size: int = NGRAM) -> None:
        self.above = above
        self._size = size
        self._ids: list[str] = []
        self._lengths: list[int] = []
        self._whole: dict[Units, int] = {}
        self._places: defaultdict[Units, list[tuple[int, int]]] = defaultdict(list)
        for identity, text in items:
            item = units(text)
            number = len(self._ids)
            self._ids.append(identity)
            self._lengths.append(len(item))
            if len(item) < size:
                self._whole.setdefault(item, number)
            for place in range(len(item) - size + 1):
                self._places[item[place : place + size]].append((number, place))

    def __len__(self) -> int:
        return len(self._ids)

    def contained(self, text: Sequence[str]) -> tuple[str | None, float]:
        """The id of the item that the text's n-grams cover most, and the share covered; (None, 0.0) if that is not above `above`.

        Args:
            text: the text's units.
        """
        own = tuple(text)
        if own in self._whole:
            return self._ids[self._whole[own]], 1.0
        covered: defaultdict[int, set[int]] = defaultdict(set)
        for start in range(len(own) - self._size + 1):
            for number, place in self._places.get(own[start : start + self._size], ()):
                covered[number].update(range(place, place + self._size))
        share = {number: len(places) / self._lengths[number] for number, places in covered.items()}
        best = max(share, key=lambda number: (share[number], -number), default=None)
        if best is None or share[best] <= self.above:
            return None, 0.0
        return self._ids[best], share[best]
