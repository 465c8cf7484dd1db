"""IFEval's instructions: each with a response that follows it and one that narrowly does not."""

from typing import Any

import pytest

from shared_tasks.metrics.constraints import follows_instructions, instruction_accuracies, instruction_arguments
from shared_tasks.metrics.constraints.checkers import CHECKERS
from shared_tasks.metrics.constraints.language import detect_language
from shared_tasks.metrics.constraints.splitting import capital_words, sentences
from tests.shared_tasks.metrics.public_data import rows

ENGLISH = "the weather was fine and we walked along the river until it got dark"
AT_LEAST, LESS_THAN = "at least", "less than"

CASES: list[tuple[str, dict[str, Any], str, str]] = [
    ("keywords:existence", {"keywords": ["Cat", "dog"]}, "Two CATS and a dog.", "Two cats."),
    ("keywords:frequency", {"keyword": "cat", "frequency": 2, "relation": AT_LEAST}, "A cat. Cats!", "A cat."),
    ("keywords:frequency", {"keyword": "cat", "frequency": 2, "relation": LESS_THAN}, "A cat.", "A cat. Cats!"),
    ("keywords:forbidden_words", {"forbidden_words": ["cat"]}, "A catalogue.", "A Cat."),
    ("keywords:letter_frequency", {"letter": "e", "let_frequency": 3, "let_relation": AT_LEAST}, "Eel, he", "Eel"),
    ("keywords:letter_frequency", {"letter": "e", "let_frequency": 3, "let_relation": LESS_THAN}, "Eel", "Eel, he"),
    ("keywords:letter_frequency", {"letter": "!", "let_frequency": 2, "let_relation": AT_LEAST}, "Oh! Ah!", "Oh!"),
    ("language:response_language", {"language": "de"}, "Das Wetter ist heute sehr schön.", ENGLISH),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": AT_LEAST}, "One. Two!", "Mr. One."),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": LESS_THAN}, "Mr. One.", "One. Two!"),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "One\n***\nTwo\n***", "One\n***\n***\nTwo"),
    ("length_constraints:number_words", {"num_words": 4, "relation": AT_LEAST}, "I don't know", "I do know"),
    ("length_constraints:number_words", {"num_words": 4, "relation": LESS_THAN}, "I do know", "I don't know"),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Two"},
        'One\n\n"two", she said',
        "One\n\nTwofold",
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name], [town]", "[name], [to\nwn]"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye. P. S. Hi", "Bye. PS. Hi"),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "Bye.\np.p.s hi", "Bye.\nP.S. hi"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* one\n  - two\n**three**", "* one\n* two\n- three"),
    ("detectable_format:constrained_response", {}, "My answer is maybe.", "My answer is perhaps."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*one* and **two**", "*one* and ** **"),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        "Section 1\nx\nSection2\ny",
        "Section 1\nx\nSection two",
    ),
    ("detectable_format:json_format", {}, '```json\n{"a": [1]}\n```', '```json\n{"a": [1]\n```'),
    ("detectable_format:title", {}, "<<A title>>\ntext", "<< >>\ntext"),
    ("combination:two_responses", {}, "One\n******\nTwo", "One\n******\nOne"),
    ("combination:two_responses", {}, "******One******Two", "One******\n******Two"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it."}, " say it. It.", "OK: Say it."),
    ("startend:end_checker", {"end_phrase": "The end."}, 'It was "the end."', "The end. Bye."),
    ("startend:quotation", {}, '"quoted"', '"quoted".'),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": AT_LEAST},
        "NASA and U.S. law",
        "NASA and Nato",
    ),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": LESS_THAN},
        "NASA and Nato",
        "NASA and U.S. law",
    ),
    ("change_case:english_capital", {}, ENGLISH.upper(), ENGLISH.capitalize()),
    ("change_case:english_lowercase", {}, ENGLISH, ENGLISH.capitalize()),
    ("change_case:english_lowercase", {}, ENGLISH, "das wetter ist heute sehr schön"),
    ("punctuation:no_comma", {}, "No comma; none.", "One, comma."),
]


@pytest.mark.parametrize(("name", "kwargs", "good", "bad"), CASES, ids=lambda value: value if ":" in str(value) else "")
def test_an_instruction_is_followed_or_narrowly_not(name: str, kwargs: dict[str, Any], good: str, bad: str) -> None:
    """Each instruction accepts the response that follows it and refuses the one that just misses it."""
    assert follows_instructions(good, [name], [kwargs]) == [True]
    assert follows_instructions(bad, [name], [kwargs]) == [False]


def test_all_25_types_have_a_case() -> None:
    """The cases above leave out no type of instruction."""
    assert len(CHECKERS) == 25
    assert {name for name, *_ in CASES} == set(CHECKERS)


def test_paragraphs_are_counted_exactly() -> None:
    """Two paragraphs are not three; a divider at the start or end adds none."""
    kwargs = [{"num_paragraphs": 3}]
    for response, followed in (
        ("a***b***c", True),
        ("***a***b***c***", True),
        ("a***b", False),
        ("a***b***c***d", False),
    ):
        assert follows_instructions(response, ["length_constraints:number_paragraphs"], kwargs) == [followed]


def test_the_number_of_paragraphs_counts_with_the_first_word() -> None:
    """The right first word in a response of three paragraphs, where two are asked for, is not enough."""
    name, kwargs = (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 1, "first_word": "a"},
    )
    assert follows_instructions("A b\n\nc", [name], [kwargs]) == [True]
    assert follows_instructions("A b\n\nc\n\nd", [name], [kwargs]) == [False]
    assert follows_instructions("A b", [name], [kwargs]) == [False]


def test_keywords_are_text_and_not_patterns() -> None:
    """A keyword with characters of regular expressions means itself."""
    for response, followed in (("I like C++ (a lot", True), ("I like CCC a lot", False)):
        assert follows_instructions(response, ["keywords:existence"], [{"keywords": ["C++", "(a"]}]) == [followed]
    assert follows_instructions("axc", ["keywords:forbidden_words"], [{"forbidden_words": ["a.c"]}]) == [True]


def test_json_of_any_depth_is_decided() -> None:
    """A response that nests deeper than the parser goes is not followed, and raises nothing."""
    assert follows_instructions("[" * 100_000, ["detectable_format:json_format"], [{}]) == [False]


@pytest.mark.parametrize("response", ["", "  \n "])
def test_an_empty_response_follows_nothing(response: str) -> None:
    """Silence has no comma, but follows no instruction, strictly or loosely."""
    for loose in (False, True):
        assert follows_instructions(response, ["punctuation:no_comma"], [{}], loose=loose) == [False]


@pytest.mark.parametrize(
    ("response", "strict", "loose"),
    [
        ("Sure, here it is:\nno comma", False, True),
        ("no comma\nHope this helps, bye", False, True),
        ("Sure, here:\nno comma\nBye, bye", False, True),
        ("a, b\nc, d\ne", False, False),
        ("one line, with a comma", False, False),
        ("no comma", True, True),
    ],
)
def test_loose_forgives_the_first_and_the_last_line(response: str, strict: bool, loose: bool) -> None:
    """A comma in the first line, in the last or in both is forgiven; one in between, or in the only line, is not."""
    assert follows_instructions(response, ["punctuation:no_comma"], [{}]) == [strict]
    assert follows_instructions(response, ["punctuation:no_comma"], [{}], loose=True) == [loose]


def test_loose_forgives_asterisks() -> None:
    """Bold type around the prescribed end does no harm, and neither does it together with an extra line."""
    for response in ("Well. **The end.**", "Well. **The end.**\nBye."):
        assert follows_instructions(response, ["startend:end_checker"], [{"end_phrase": "The end."}]) == [False]
        assert follows_instructions(response, ["startend:end_checker"], [{"end_phrase": "The end."}], loose=True) == [
            True
        ]


def test_each_instruction_may_be_followed_by_another_variant() -> None:
    """Loosely, two bullets are found in the response as it is, and no comma without the first line."""
    names, kwargs = ["detectable_format:number_bullet_lists", "punctuation:no_comma"], [{"num_bullets": 2}, {}]
    response = "* one, two\n* three"
    assert follows_instructions(response, names, kwargs) == [True, False]
    assert follows_instructions(response, names, kwargs, loose=True) == [True, True]


def test_every_instruction_of_the_data_set_constructs() -> None:
    """All 834 instructions of the 541 prompts take their arguments, bare or padded with nulls as on the hub."""
    prompts = rows("ifeval/input_data.jsonl")
    names = {name for row in prompts for kwargs in row["kwargs"] for name in kwargs}
    count = 0
    for row in prompts:
        for name, kwargs in zip(row["instruction_id_list"], row["kwargs"], strict=True):
            assert instruction_arguments(name, kwargs) == kwargs
            assert instruction_arguments(name, dict.fromkeys(names) | kwargs) == kwargs
            count += 1
        padded = [dict.fromkeys(names) | kwargs for kwargs in row["kwargs"]]
        for loose in (False, True):
            bare = follows_instructions("My answer is yes.", row["instruction_id_list"], row["kwargs"], loose)
            assert follows_instructions("My answer is yes.", row["instruction_id_list"], padded, loose) == bare
    assert (len(prompts), count) == (541, 834)


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("punctuation:no_commas", {}, "there are: change_case"),
        ("keywords:existence", {}, "missing required field `keywords`"),
        ("keywords:existence", {"keywords": "cat"}, "Expected `array`, got `str`"),
        ("keywords:existence", {"keywords": ["cat"], "keyword": "cat"}, "unknown field `keyword`"),
        ("length_constraints:number_words", {"num_words": "many", "relation": "at least"}, "Expected `int`"),
        ("length_constraints:number_words", {"num_words": 3, "relation": "around"}, "around"),
        ("language:response_language", {"language": "xx"}, "expected one of af, ar"),
    ],
)
def test_bad_arguments_are_refused(name: str, kwargs: dict[str, Any], message: str) -> None:
    """What the data set gets wrong is named, and never filled with a random value as in the original."""
    with pytest.raises(ValueError, match=message):
        follows_instructions("text", [name], [kwargs])


def test_whole_floats_are_integers() -> None:
    """A table with missing values turns 3 into 3.0, which still counts."""
    assert instruction_arguments("detectable_format:number_bullet_lists", {"num_bullets": 3.0}) == {"num_bullets": 3}


def test_every_instruction_needs_its_arguments() -> None:
    """Two instructions with one set of arguments are an error."""
    with pytest.raises(ValueError, match="each of 2 instructions"):
        follows_instructions("text", ["punctuation:no_comma", "startend:quotation"], [{}])


def test_the_four_accuracies() -> None:
    """Prompts TT, TF, F: one of three prompts and three of five instructions strictly; two and four loosely."""
    strict = [[True, True], [True, False], [False]]
    loose = [[True, True], [True, True], [False]]
    assert instruction_accuracies(strict, loose) == {
        "prompt_level_strict_acc": 1 / 3,
        "inst_level_strict_acc": 3 / 5,
        "prompt_level_loose_acc": 2 / 3,
        "inst_level_loose_acc": 4 / 5,
    }
    for bad in ([], [[]], [[True]]):
        with pytest.raises(ValueError, match="same prompts"):
            instruction_accuracies(bad, loose)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("One. Two! Three? Four", 4),
        ("Mr. Smith met Dr. J. R. R. Jones at 5 p.m. in the U.S. Army base.", 1),
        ("We met at 5 p.m. Then we left.", 2),
        ("It costs 3.50 dollars, e.g. on www.shop.com.", 1),
        ('She said "Go!" and left. "Why?" he asked.', 4),
        ("Wait... what? No way!!! Really?!", 3),
        ("(One.) Two.", 2),
        ("no end\n\nand none here", 1),
        ("今日は晴れ。明日は雨？たぶん！", 3),
        ("वह गया। वह आया।", 2),
        ("1. Do this.\n2. Do that.", 4),
        ("", 0),
    ],
)
def test_sentences(text: str, count: int) -> None:
    """Abbreviations, initials, decimals and ellipses end no sentence; other marks do, in several scripts."""
    assert len(sentences(text)) == count


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("NASA and Nato", ["NASA"]),
        ("A TOP-10 list of CO2 (AND OTHERS)", ["A", "TOP-10", "CO2", "AND", "OTHERS"]),
        ("I DON'T know, U.S. law", ["I", "DO", "N'T", "U.S."]),
        ("123 and Ab", []),
        ("ÄRGER", ["ÄRGER"]),
    ],
)
def test_capital_words(text: str, words: list[str]) -> None:
    """Words with a letter and no small one count, whole with hyphens, a contraction twice; numbers do not."""
    assert capital_words(text) == words


def test_language_is_detected_the_same_way_every_time() -> None:
    """A text between languages, which an unseeded detector gives several answers to, has one answer."""
    assert len({detect_language("hotel taxi") for _ in range(30)}) == 1
    assert detect_language("12345 !!") is None


def test_undetectable_language_counts_as_followed() -> None:
    """As in the original, a response without any language is not held against it, but wrong letters are."""
    assert follows_instructions("12345", ["language:response_language"], [{"language": "kn"}]) == [True]
    assert follows_instructions("12345", ["change_case:english_lowercase"], [{}]) == [False]
