"""Texts without one right answer: instructions that can be checked, references, questions for a judge."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any, Literal

from shared_tasks.metrics.constraints import follows_instructions, instruction_arguments
from shared_tasks.metrics.diversity import distinct_n, pairwise_diversity, self_bleu
from shared_tasks.metrics.overlap import bleu, chrf, rouge, sentence_bleu, sentence_chrf
from shared_tasks.metrics.reasoning import strip_reasoning
from shared_tasks.metrics.statistics import standard_error
from shared_tasks.tasks.correctness import score_samples
from shared_tasks.tasks.prompts import open_ended_prompt
from shared_tasks.tasks.task import Example, Metric, Output, Schema, Scored, Task


class Instruction(Example):
    """What the user says, and what is known about a good answer."""

    further: list[str] = []
    """What the user says in later turns."""
    references: list[str] = []
    """Good answers; in a conversation one a turn."""
    instructions: list[str] = []
    """Names of IFEval's checkers, and the arguments of each."""
    arguments: list[dict[str, Any]] = []
    questions: list[str] = []
    """Yes-or-no questions about the answer, for a judge."""


# The rows of each data set


class IFEvalRow(Schema):
    """Hub: google/IFEval, split train (541); there each of kwargs lists the arguments of all types, most of them null.

    The kit's own set adds a reference, a text that does what the prompt asks for.
    """

    prompt: str
    instruction_id_list: list[str]
    kwargs: list[dict[str, Any]]
    key: int | str = ""
    reference: str | None = None

    def item(self) -> Instruction:
        """Return the row in the form of all instructions."""
        if len(self.kwargs) != len(self.instruction_id_list):
            count = len(self.instruction_id_list)
            raise ValueError(f"field kwargs: expected one for each of {count} instructions, got {len(self.kwargs)}")
        for name, kwargs in zip(self.instruction_id_list, self.kwargs, strict=True):
            instruction_arguments(name, kwargs)
        return Instruction(
            id=str(self.key),
            question=self.prompt,
            references=[self.reference] if self.reference else [],
            instructions=self.instruction_id_list,
            arguments=[{name: value for name, value in kwargs.items() if value is not None} for kwargs in self.kwargs],
        )


class InfoBenchRow(Schema):
    """Hub: kqsong/InFoBench, split train (500 instructions, 2,250 questions); subset is Easy_set or Hard_set."""

    instruction: str
    decomposed_questions: list[str]
    input: str = ""
    subset: str = ""
    category: str = ""
    id: str = ""

    def item(self) -> Instruction:
        """Return the row in the form of all instructions."""
        if not self.decomposed_questions:
            raise ValueError("field decomposed_questions: expected at least one question")
        asked = f"{self.instruction}\n\n{self.input}" if self.input else self.instruction
        return Instruction(id=self.id, group=self.subset, question=asked, questions=self.decomposed_questions)


class MTBenchRow(Schema):
    """The original MT-bench questions: two turns, for some of them a reference answer to each."""

    turns: list[str]
    category: str = ""
    question_id: int | str = ""
    reference: list[str] = []

    def item(self) -> Instruction:
        """Return the row in the form of all instructions."""
        return _conversation(str(self.question_id), self.category, self.turns, self.reference)


class MTBenchHubRow(Schema):
    """Hub: HuggingFaceH4/mt_bench_prompts, split train (80): the turns are called prompt."""

    prompt: list[str]
    category: str = ""
    prompt_id: int | str = ""
    reference: list[str] = []

    def item(self) -> Instruction:
        """Return the row in the form of all instructions."""
        return _conversation(str(self.prompt_id), self.category, self.prompt, self.reference)


def _conversation(identifier: str, category: str, turns: list[str], references: list[str]) -> Instruction:
    if len(turns) != 2:
        raise ValueError(f"expected two turns, got {len(turns)}")
    first, *further = turns
    references = [text for text in references if text]
    return Instruction(question=first, further=further, id=identifier, group=category, references=references)


class PromptRow(Schema):
    """Plain prompts, with one reference, several, or none."""

    prompt: str
    reference: str | None = None
    references: list[str] = []
    id: str | int = ""

    def item(self) -> Instruction:
        """Return the row in the form of all instructions."""
        references = [*([self.reference] if self.reference else []), *self.references]
        return Instruction(id=str(self.id), question=self.prompt, references=references)


@dataclass(frozen=True)
class OpenEnded(Task[Instruction]):
    """Prompts that are answered freely.

    An output is scored by what is known about its item: whether it follows the instructions that can be checked, or how
    much it overlaps with the references. Questions for a judge are left to `shared_tasks.evaluation.judge`.
    """

    judged: Literal["questions", "ratings"] | None = None
    """What a judge is needed for."""

    votes = False

    def questions(self, item: Instruction, style: str) -> list[str]:
        """Return the prompts of all turns, as they are."""
        return [open_ended_prompt(text) for text in (item.question, *item.further)]

    def answer(self, item: Instruction, style: str) -> str:
        """Return the reference."""
        if not item.references:
            raise ValueError(f"{self.name}: example {item.id} has no reference to show in a prompt")
        return item.references[0]

    def score(self, item: Instruction, outputs: Sequence[Output]) -> Scored:
        """Score each output by what is known about a good one; the score is None where nothing is known."""
        texts = [strip_reasoning(output.text) for output in outputs]
        if self.turns > 1:
            if len(texts) != self.turns:
                raise ValueError(f"expected an output for each of {self.turns} turns, got {len(texts)}")
            return Scored(score=None, parsed=[], values={"words": mean(len(text.split()) for text in texts)})
        result = _checked(texts, item, outputs) if item.instructions else Scored(score=None, parsed=[], values={})
        if item.references:
            result.values |= _overlap(texts, item.references)
            if result.score is None:
                result.score = result.values["rougeL"] / 100
        result.values["words"] = mean(len(text.split()) for text in texts)
        if len(texts) > 1:
            result.values["distinct_2"] = distinct_n(texts, 2)
            result.values["self_bleu"] = self_bleu(texts)
            result.values["pairwise_diversity"] = pairwise_diversity(texts)
        return result

    def metrics(
        self, items: Sequence[Instruction], outputs: Sequence[Sequence[str]], scores: Sequence[Scored]
    ) -> dict[str, Metric]:
        """Return what counts instructions, questions or texts of the whole set."""
        texts = [[strip_reasoning(output) for output in several] for several in outputs]
        all_texts = [text for several in texts for text in several]
        return {
            **_followed("inst_level_strict_acc", [score.details.get("strict", []) for score in scores]),
            **_followed("inst_level_loose_acc", [score.details.get("loose", []) for score in scores]),
            **_followed("drfr", [score.details.get("verdicts", []) for score in scores]),
            **({} if self.turns > 1 else _corpus_overlap(items, texts, scores)),
            **{f"distinct_{n}_of_all": Metric(distinct_n(all_texts, n), n=len(items)) for n in (1, 2)},
        }


def _overlap(texts: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Return the means over texts of how much each overlaps with its references, from 0 to 100."""
    rouges = {name: overlap.score for name, overlap in rouge(texts, [references] * len(texts)).items()}
    values = {"rougeL": rouges["rougeL"]} | rouges  # the one that is the score comes first
    values["sentence_bleu"] = mean(sentence_bleu(text, references).score for text in texts)
    values["sentence_chrf"] = mean(sentence_chrf(text, references).score for text in texts)
    return values


def _corpus_overlap(
    items: Sequence[Instruction], texts: Sequence[Sequence[str]], scores: Sequence[Scored]
) -> dict[str, Metric]:
    """Return BLEU and chrF of all texts together, and the means of ROUGE, with the signature of each."""
    places = [place for place, item in enumerate(items) if item.references]
    pairs = [(text, items[place].references) for place in places for text in texts[place]]
    if not pairs:
        return {}
    hypotheses, references = [text for text, _ in pairs], [texts for _, texts in pairs]
    found = {}
    for name, overlap in (("bleu", bleu(hypotheses, references)), ("chrf", chrf(hypotheses, references))):
        found[name] = Metric(overlap.score, n=len(places), share=False, note=overlap.signature)
    for name, overlap in rouge(hypotheses[:1], references[:1]).items():
        values = [scores[place].values[name] for place in places]
        found[name] = Metric(mean(values), standard_error(values), len(places), False, overlap.signature)
    return found


def _followed(name: str, verdicts: Sequence[Sequence[Sequence[bool | None]]]) -> dict[str, Metric]:
    """Return the share of all verdicts that say yes, those of one item being alike; nothing where there is none."""
    flags = [
        (float(flag), place)
        for place, of_outputs in enumerate(verdicts)
        for of_output in of_outputs
        for flag in of_output
        if flag is not None
    ]
    if not flags:
        return {}
    followed = [flag for flag, _ in flags]
    error = standard_error(followed, [place for _, place in flags])
    return {name: Metric(mean(followed), error, len({place for _, place in flags}))}


def _checked(texts: Sequence[str], item: Instruction, outputs: Sequence[Output]) -> Scored:
    """Score by IFEval's checkers: an output is right that follows all of its instructions."""
    strict, loose = (
        [follows_instructions(text, item.instructions, item.arguments, loose) for text in texts]
        for loose in (False, True)
    )
    result = score_samples([], [all(flags) for flags in strict], outputs, votes=[], name="prompt_level_strict_acc")
    result.values["prompt_level_loose_acc"] = mean(float(all(flags)) for flags in loose)
    result.details |= {"instructions": item.instructions, "strict": strict, "loose": loose}
    return result
