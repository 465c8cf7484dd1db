"""The 25 verifiable instructions of IFEval, one function each.

A checker takes the response and the instruction's arguments, named as in the data set, and says whether the response
meets the instruction. Definitions are those of the public implementation (google-research/instruction_following_eval),
quirks included, so that figures compare; where it is left open or needs downloads, the docstring says what holds here.
Keywords and markers are plain text, never regular expressions.

Paper: Zhou et al., 2023, https://arxiv.org/abs/2311.07911.
"""

import json
import re
from collections.abc import Callable, Sequence
from typing import Literal

from shared_tasks.metrics.constraints.language import detect_language
from shared_tasks.metrics.constraints.splitting import capital_words, sentences

Relation = Literal["less than", "at least"]


def _holds(count: int, relation: Relation, threshold: float) -> bool:
    return count < threshold if relation == "less than" else count >= threshold


def existence(response: str, keywords: Sequence[str]) -> bool:
    """Every keyword occurs, in any case, also inside a longer word."""
    return all(keyword.casefold() in response.casefold() for keyword in keywords)


def keyword_frequency(response: str, keyword: str, frequency: int, relation: Relation) -> bool:
    """The keyword occurs so often, in any case, also inside longer words."""
    return _holds(response.casefold().count(keyword.strip().casefold()), relation, frequency)


def forbidden_words(response: str, forbidden_words: Sequence[str]) -> bool:
    """None of the words occurs as a whole word, in any case."""
    return not any(re.search(rf"\b{re.escape(word)}\b", response, re.IGNORECASE) for word in forbidden_words)


def letter_frequency(response: str, letter: str, let_frequency: int, let_relation: Relation) -> bool:
    """The letter occurs so often, in any case."""
    return _holds(response.lower().count(letter.strip().lower()), let_relation, let_frequency)


def response_language(response: str, language: str) -> bool:
    """The detected language is the one asked for (ISO 639-1).

    A text in which no language can be detected, such as one of digits alone, counts as following.
    """
    detected = detect_language(response)
    return detected is None or language in (detected, detected.partition("-")[0])


def number_sentences(response: str, num_sentences: int, relation: Relation) -> bool:
    """The response has so many sentences, as `splitting.sentences` finds them."""
    return _holds(len(sentences(response)), relation, num_sentences)


def number_paragraphs(response: str, num_paragraphs: int) -> bool:
    """The response has exactly so many paragraphs, separated by `***`; an empty one is allowed at the ends only."""
    paragraphs = [paragraph.strip() for paragraph in response.split("***")]
    inner = paragraphs[1:-1]
    return all(inner) and sum(map(bool, paragraphs)) == num_paragraphs


def number_words(response: str, num_words: int, relation: Relation) -> bool:
    r"""The response has so many words, runs of letters, digits and underscores: "don't" has two."""
    return _holds(len(re.findall(r"\w+", response)), relation, num_words)


def nth_paragraph_first_word(response: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    r"""There are exactly so many paragraphs, separated by two newlines, and the n-th (from 1) begins with the word.

    Case does not count, quotation marks before the word neither, and the word ends at a punctuation mark. An empty
    paragraph, as three blank lines make one, is not counted but keeps its place.
    """
    paragraphs = response.split("\n\n")
    count = sum(bool(paragraph.strip()) for paragraph in paragraphs)
    if nth_paragraph > count or not (words := paragraphs[nth_paragraph - 1].split()):
        return False
    word = re.split(r"[.,?!'\"]", words[0].lstrip("'").lstrip('"'), maxsplit=1)[0]
    return count == num_paragraphs and word.lower() == first_word.lower()


def number_placeholders(response: str, num_placeholders: int) -> bool:
    """There are at least so many placeholders in square brackets, such as [address], each within a line."""
    return len(re.findall(r"\[[^\]\n]*\]", response)) >= num_placeholders


def postscript(response: str, postscript_marker: str) -> bool:
    """The marker of a postscript occurs, in any case; P.S. and P.P.S also with spaces between the letters."""
    marker = postscript_marker.strip()
    patterns = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    return re.search(patterns.get(marker, re.escape(marker.lower())), response.lower()) is not None


def number_bullet_lists(response: str, num_bullets: int) -> bool:
    """There are exactly so many lines that begin, after spaces, with - or with a single *."""
    lines = [line.lstrip() for line in response.split("\n")]
    return sum(line.startswith("-") or (line[:1] == "*" != line[1:2]) for line in lines) == num_bullets


def constrained_response(response: str) -> bool:
    """One of the three sentences occurs: My answer is yes. / no. / maybe."""
    return any(f"My answer is {word}." in response for word in ("yes", "no", "maybe"))


def number_highlighted_sections(response: str, num_highlights: int) -> bool:
    """There are at least so many *highlighted* or **highlighted** parts with text in them, each within a line.

    A part between double asterisks is found once as such; what the single ones around it enclose is empty.
    """
    single = re.findall(r"\*[^\n*]*\*", response)
    double = re.findall(r"\*\*[^\n*]*\*\*", response)
    return sum(bool(part.strip("*").strip()) for part in single + double) >= num_highlights


def multiple_sections(response: str, section_spliter: str, num_sections: int) -> bool:
    """There are at least so many section heads: the word, then a number."""
    return len(re.findall(rf"{re.escape(section_spliter.strip())}\s?\d+", response)) >= num_sections


def json_format(response: str) -> bool:
    """The whole response is JSON, possibly in a fenced block marked json or not at all."""
    text = response.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        text = text.removeprefix(fence)
    try:
        json.loads(text.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def title(response: str) -> bool:
    """There is a <<title>> with text between its brackets, within a line."""
    return any(found.lstrip("<").rstrip(">").strip() for found in re.findall(r"<<[^\n]+>>", response))


def two_responses(response: str) -> bool:
    """There are two different responses, separated by six asterisks; an empty one is allowed at the ends only."""
    parts = [part.strip() for part in response.split("******")]
    responses = [part for part in parts if part]
    return all(parts[1:-1]) and len(responses) == 2 and responses[0] != responses[1]


def repeat_prompt(response: str, prompt_to_repeat: str) -> bool:
    """The response begins with the prompt, in any case."""
    return response.strip().lower().startswith(prompt_to_repeat.strip().lower())


def end_checker(response: str, end_phrase: str) -> bool:
    """The response ends with the phrase, in any case; quotation marks after it do not count."""
    return response.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def capital_word_frequency(response: str, capital_frequency: int, capital_relation: Relation) -> bool:
    """So many words are in capitals throughout, as `splitting.capital_words` finds them."""
    return _holds(len(capital_words(response)), capital_relation, capital_frequency)


def english_capital(response: str) -> bool:
    """The response is in English and has no small letter."""
    return response.isupper() and detect_language(response) in ("en", None)


def english_lowercase(response: str) -> bool:
    """The response is in English and has no capital letter."""
    return response.islower() and detect_language(response) in ("en", None)


def no_comma(response: str) -> bool:
    """There is no comma."""
    return "," not in response


def quotation(response: str) -> bool:
    """The response stands between double quotation marks."""
    text = response.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


CHECKERS: dict[str, Callable[..., bool]] = {
    "keywords:existence": existence,
    "keywords:frequency": keyword_frequency,
    "keywords:forbidden_words": forbidden_words,
    "keywords:letter_frequency": letter_frequency,
    "language:response_language": response_language,
    "length_constraints:number_sentences": number_sentences,
    "length_constraints:number_paragraphs": number_paragraphs,
    "length_constraints:number_words": number_words,
    "length_constraints:nth_paragraph_first_word": nth_paragraph_first_word,
    "detectable_content:number_placeholders": number_placeholders,
    "detectable_content:postscript": postscript,
    "detectable_format:number_bullet_lists": number_bullet_lists,
    "detectable_format:constrained_response": constrained_response,
    "detectable_format:number_highlighted_sections": number_highlighted_sections,
    "detectable_format:multiple_sections": multiple_sections,
    "detectable_format:json_format": json_format,
    "detectable_format:title": title,
    "combination:two_responses": two_responses,
    "combination:repeat_prompt": repeat_prompt,
    "startend:end_checker": end_checker,
    "startend:quotation": quotation,
    "change_case:capital_word_frequency": capital_word_frequency,
    "change_case:english_capital": english_capital,
    "change_case:english_lowercase": english_lowercase,
    "punctuation:no_comma": no_comma,
}
"""Each instruction id of the data set and its checker."""
