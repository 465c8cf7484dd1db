"""Sentences and words in capitals, by written-down rules instead of downloaded data.

IFEval's public implementation counts sentences with NLTK's Punkt model and words in capitals with NLTK's Treebank
tokenizer. The rules here need no data and stay close to both.
"""

import re

_ABBREVIATIONS = frozenset(
    """mr mrs ms dr prof rev hon st sr jr gen col maj capt lt sgt gov sen rep pres vs e.g i.e cf al no vol pp p fig eq
    dept est inc ltd co corp bros mt jan feb mar apr jun jul aug sep sept oct nov dec ph.d
    """.split()
)
_MAY_END = frozenset("etc a.m p.m inc ltd co corp jr sr ph.d".split())  # before a capital letter they do
_END = re.compile(r"""(?P<mark>[.!?…]+)["'”’)\]]*(?=\s)|[।॥۔؟]+|[。！？]+[”’」』）]*""")
_INITIALS = re.compile(r"(?:[A-Z]\.)*[A-Z]|(?:[a-z]\.)+[a-z]")
_WORD_BEFORE = re.compile(r"(?<![^\s(\[\"'“‘])([^\s(\[\"'“‘]+)$")
_TOKEN = re.compile(r"[^\s\"“”()\[\]{}<>,;:!?*`…]+")
_CONTRACTION = re.compile(r"(?i)(?<=\w)(?:n['’]t|['’](?:s|m|d|re|ve|ll))$")


def sentences(text: str) -> list[str]:
    """Return the sentences of a text.

    A sentence ends at . ! or ?, with the quotation marks and brackets that close after it, before white space; at the
    full stops of Chinese, Japanese and Hindi also without. A new line alone ends none. No end is the full stop of an
    abbreviation (Mr., e.g.) or of initials (J. R. R.), except of etc., a.m. and the like before a capital letter, and
    neither is an ellipsis. The number of a list item ("1.") is a sentence of its own, as in Punkt.
    """
    found, start = [], 0
    for match in _END.finditer(text):
        if match["mark"] and not _ends(text, match):
            continue
        found.append(text[start : match.end()].strip())
        start = match.end()
    return [sentence for sentence in [*found, text[start:].strip()] if sentence]


def _ends(text: str, match: re.Match[str]) -> bool:
    """Return whether a mark before white space ends a sentence."""
    mark = match["mark"]
    if mark != ".":
        return not set(mark) <= {".", "…"}
    before = _WORD_BEFORE.search(text[max(0, match.start() - 20) : match.start()])
    word = before[1] if before else ""
    if word.lower() in _MAY_END:
        return text[match.end() : match.end() + 40].lstrip(" \n\t\"'“‘([*_")[:1].isupper()
    return word.lower() not in _ABBREVIATIONS and not _INITIALS.fullmatch(word)


def capital_words(text: str) -> list[str]:
    """Return the words in which every letter is a capital, and at least one is a letter: A, NASA, CO2, TOP-10, U.S.

    Words are split at white space, brackets, quotation marks and punctuation, but not at hyphens, slashes or inner full
    stops; a contraction counts twice (DON'T: DO and N'T), as in the Treebank tokenizer.
    """
    words = []
    for token in _TOKEN.findall(text):
        word = token.strip("'’")
        contraction = _CONTRACTION.search(word)
        words += [word[: contraction.start()], contraction[0]] if contraction else [word]
    return [word for word in words if word.isupper()]
