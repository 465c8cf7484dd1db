"""Your algorithms as methods of the shared tasks: `shared-tasks evaluate math --method hw2.methods:self_consistency`.

Given, and not graded: it calls what you write in the modules beside it. Each method answers one question at a time; the
command runs all questions side by side, puts what they ask for next into one call of the engine, and counts their
tokens. `--n` is the number of samples, rounds, beams, or expansions, as each method says.
"""

import math
import re
from collections.abc import Callable, Sequence
from functools import cache, partial
from threading import Lock

from msgspec.structs import replace
from torch import Tensor

from hw2.budget import force_budget
from hw2.debate import debate as hold_debate
from hw2.mbr import bleu_matrix, chrf_matrix, expected_utility, rouge_l_matrix
from hw2.refinement import Refinement, Templates
from hw2.refinement import self_correct as correct_answers
from hw2.refinement import self_refine as refine_answers
from hw2.reranking import (
    full_tournament,
    generate_and_rerank,
    likelihood_scores,
    logprob_scores,
    reward_scores,
)
from hw2.self_consistency import adaptive_self_consistency as adaptive_vote
from hw2.self_consistency import answer_distribution
from hw2.self_consistency import self_consistency as vote
from hw2.tools import Tool, calculate, run_agent
from hw2.tree_search import (
    State,
    best_first_search,
    mcts,
    propose_steps,
    step_beam_search,
)
from shared_tasks.evaluation.methods import Method, OnDone, Question
from shared_tasks.models.engine import Completion, Engine, Generation, SamplingParams

Answer = Callable[[Engine, Question, SamplingParams], str]
Rerank = Callable[[Engine, str, list[Completion]], Sequence[float]]

STRONGER = "course-base"
STEPS_AT_MOST = 12
BRANCHES = 3
EQUATION = re.compile(r"[\d+\-*/().]*\d(?:=[\d+\-*/().]*\d)+")
FINAL = re.compile(r"####|The answer is")
REFINEMENT = Templates(
    draft="{question}",
    critique="{question}\n\nAnswer: {answer}\n\nIs this right? Say what is wrong with it, or say: It is right.",
    refine="{question}\n\nAnswer: {answer}\n\nFeedback: {feedback}\n\nAnswer again.",
)
JUDGE = "{question}\n\nFirst answer: {first}\n\nSecond answer: {second}\n\nWhich answer is better, first or second?"
REVISE = "Other answers to this question were:\n\n{others}\n\nWith them in mind, answer the question again."
CALCULATOR = 'You may calculate: write Action: {"name": "calculator", "arguments": {"expression": "2 + 3"}}, and you '
CALCULATOR += "will be told the result. In the end write Final Answer: and the answer."


def method(about: str, answer: Answer, default_n: int) -> Method:
    """Make a method of a function that answers one question."""

    def generate(
        engine: Engine, questions: Sequence[Question], params: Sequence[SamplingParams], on_done: OnDone
    ) -> list[Generation]:
        generations = []
        for index, (question, settings) in enumerate(zip(questions, params, strict=True)):
            text = answer(engine, question, settings)
            generations.append(Generation(0, [Completion(text, [], [], "stop")], latency=0.0))  # the meter counts
            on_done(index, generations[-1])
        return generations

    return Method(about, generate, default_n=default_n)


def parts_of(question: Question) -> tuple[str, str, str]:
    """Return what stands before, in and after the user's last message in the text that the model continues.

    Raises ValueError for a chat with a model whose template is not known.
    """
    if question.text is None:
        raise ValueError("this method continues texts: name the model's tokenizer with --tokenizer")
    message = question.prompt if isinstance(question.prompt, str) else question.prompt[-1]["content"]
    before, _, after = question.text.rpartition(message)
    return before, message, after


def text_of(question: Question) -> str:
    """Return the text that the model continues; ValueError as in `parts_of`."""
    return "".join(parts_of(question))


# Best of n


def _best_of_n(rerank: Rerank) -> Answer:
    def answer(engine: Engine, question: Question, params: SamplingParams) -> str:
        reranker = partial(rerank, engine)
        return generate_and_rerank(engine, reranker, params.n, text_of(question), params).text

    return answer


@cache
def _stronger() -> tuple[Engine, Lock]:
    from shared_tasks.models.registry import load_engine  # takes seconds, which the other methods need not wait for

    return load_engine(STRONGER), Lock()


LOADING = Lock()


def _by_stronger(engine: Engine, x: str, candidates: list[Completion]) -> list[float]:
    with LOADING:
        stronger, one_at_a_time = _stronger()
    with one_at_a_time:
        return likelihood_scores(stronger, x, candidates)


def holding_equations(text: str) -> float:
    """Return the share of the equations in a text that hold, by calculating them again; 0.5 where there is none.

    A verifier that knows arithmetic, and nothing of the question.
    """
    held = [_holds(chain.split("=")) for chain in EQUATION.findall(text)]
    return sum(held) / len(held) if held else 0.5


def _holds(sides: Sequence[str]) -> bool:
    try:
        return len({calculate(side) for side in sides}) == 1
    except ValueError:
        return False


def reward(question: str, text: str) -> float:
    """Return how good an answer is: the share of its equations that hold, nothing without a final answer."""
    return holding_equations(text) if FINAL.search(text) else 0.0


def _by_tournament(engine: Engine, x: str, candidates: list[Completion]) -> list[float]:
    def prefer(x: str, first: str, second: str) -> float:
        context = JUDGE.format(question=x, first=first, second=second)
        one, two = (scored.total for scored in engine.loglikelihood([context] * 2, [" first", " second"]))
        return 1 / (1 + math.exp(min(700.0, two - one)))

    return full_tournament(prefer, x, [candidate.text for candidate in candidates])


best_of_n_sum = method(
    "the most probable of n samples", _best_of_n(lambda engine, x, candidates: logprob_scores(candidates, 0.0)), 16
)
best_of_n_mean = method(
    "the most probable a token of n samples",
    _best_of_n(lambda engine, x, candidates: logprob_scores(candidates, 1.0)),
    16,
)
best_of_n_stronger = method(
    f"the one of n samples that {STRONGER} finds most likely; its tokens are not in the count",
    _best_of_n(_by_stronger),
    16,
)
best_of_n_verifier = method(
    "the one of n samples whose arithmetic holds best",
    _best_of_n(lambda engine, x, candidates: reward_scores(reward, x, candidates)),
    16,
)
pairwise = method("the one of n samples that wins most comparisons by the model itself", _best_of_n(_by_tournament), 4)


# Votes


def _text_with(question: Question, completions: Sequence[Completion], answer: str | None) -> str:
    """Return the first text that gives an answer."""
    return next((one.text for one in completions if answer is not None and question.parse(one.text) == answer), "")


class _Listening:
    """An engine that keeps what it generated, to show the reasoning of the answer that won."""

    def __init__(self, engine: Engine):
        self.name, self.has_chat_template, self.usage = engine.name, engine.has_chat_template, engine.usage
        self._engine = engine
        self.fingerprint, self.count_tokens, self.loglikelihood = (
            engine.fingerprint,
            engine.count_tokens,
            engine.loglikelihood,
        )
        self.heard: list[Completion] = []

    def generate(
        self,
        prompts: Sequence[object],
        params: SamplingParams | Sequence[SamplingParams],
        on_done: Callable[[int, Generation], None] | None = None,
    ) -> list[Generation]:
        generations = self._engine.generate(prompts, params, on_done)  # type: ignore[arg-type]
        self.heard += [completion for generation in generations for completion in generation.completions]
        return generations


def _self_consistency(engine: Engine, question: Question, params: SamplingParams) -> str:
    listening = _Listening(engine)
    return _text_with(
        question, listening.heard, vote(listening, text_of(question), question.parse, params.n, params).answer
    )


def _weighted(engine: Engine, question: Question, params: SamplingParams) -> str:
    (generation,) = engine.generate([text_of(question)], params)
    shares = answer_distribution(generation.completions, question.parse, weighted=True)
    return _text_with(question, generation.completions, max(shares, key=shares.__getitem__, default=None))


def _adaptive(engine: Engine, question: Question, params: SamplingParams) -> str:
    listening = _Listening(engine)
    outcome = adaptive_vote(listening, text_of(question), question.parse, params.n, min(4, params.n), params)
    return _text_with(question, listening.heard, outcome.answer)


self_consistency = method("the answer that most of n samples give", _self_consistency, 16)
self_consistency_weighted = method("the answer of most probability among n samples", _weighted, 16)
self_consistency_adaptive = method("a vote of at most n samples that ends when it is decided", _adaptive, 16)


# Minimum Bayes risk


def _mbr(utilities: Callable[[Sequence[str], Sequence[str]], Tensor]) -> Answer:
    def answer(engine: Engine, question: Question, params: SamplingParams) -> str:
        (generation,) = engine.generate([text_of(question)], params)
        texts = [completion.text for completion in generation.completions]
        return texts[int(expected_utility(utilities(texts, texts)).argmax())]

    return answer


mbr_chrf = method("the one of n samples that agrees most with all, by chrF", _mbr(chrf_matrix), 16)
mbr_bleu = method("the one of n samples that agrees most with all, by BLEU", _mbr(bleu_matrix), 16)
mbr_rouge = method("the one of n samples that agrees most with all, by ROUGE-L", _mbr(rouge_l_matrix), 16)


# Refinement


def templates_for(question: Question) -> Templates:
    """Return REFINEMENT as the model's template writes it."""
    before, _, after = (part.replace("{", "{{").replace("}", "}}") for part in parts_of(question))
    return Templates(*(before + part + after for part in (REFINEMENT.draft, REFINEMENT.critique, REFINEMENT.refine)))


def refine(engine: Engine, questions: Sequence[Question], params: SamplingParams) -> list[Refinement]:
    """Refine the answers to questions of one form for at most n rounds, led by the model's own critique."""
    return refine_answers(
        engine,
        [parts_of(question)[1] for question in questions],
        templates_for(questions[0]),
        lambda critique: "it is right" in critique.lower(),
        max_rounds=params.n,
        params=replace(params, n=1),
    )


def _self_refine(engine: Engine, question: Question, params: SamplingParams) -> str:
    return refine(engine, [question], params)[0].answers[-1]


def _self_correct(engine: Engine, question: Question, params: SamplingParams) -> str:
    (refinement,) = correct_answers(
        engine,
        [parts_of(question)[1]],
        templates_for(question),
        lambda asked, answer: None if reward(asked, answer) == 1 else "An equation does not hold.",
        max_rounds=params.n,
        params=replace(params, n=1),
    )
    return refinement.answers[-1]


self_refine = method("n rounds of the model's own critique, or fewer", _self_refine, 2)
self_correct = method("n rounds, or fewer, until all arithmetic holds", _self_correct, 2)


# Tree search


def _is_final(state: State) -> bool:
    return bool(state) and FINAL.search(state[-1]) is not None


def _process_rewards(states: list[State]) -> list[float]:
    return [holding_equations(state[-1]) if state else 0.5 for state in states]


class _Proposals:
    """Proposes steps; each state's samples have a seed that follows from its depth and place."""

    def __init__(self, engine: Engine, question: Question, params: SamplingParams, branches: int):
        before, message, after = parts_of(question)
        self.start = before + message + after
        self.engine, self.params, self.branches = engine, params, branches

    def __call__(self, states: list[State]) -> list[list[str]]:
        # The first step follows the prompt at once, not on a line of its own as `propose_steps` has it.
        engine = _Joined(self.engine, self.start + "\n", self.start)
        return propose_steps(engine, self.start, states, n=self.branches, params=self.params)


class _Joined(_Listening):
    """An engine whose prompts begin with another text than they are given with."""

    def __init__(self, engine: Engine, given: str, begin: str):
        super().__init__(engine)
        self._given, self._begin = given, begin

    def generate(
        self,
        prompts: Sequence[object],
        params: SamplingParams | Sequence[SamplingParams],
        on_done: Callable[[int, Generation], None] | None = None,
    ) -> list[Generation]:
        joined = [self._begin + str(prompt).removeprefix(self._given) for prompt in prompts]
        return super().generate(joined, params, on_done)


def _step_beam_search(engine: Engine, question: Question, params: SamplingParams) -> str:
    propose = _Proposals(engine, question, params, branches=BRANCHES)
    found = step_beam_search(
        propose, _process_rewards, _is_final, num_beams=params.n, max_steps=STEPS_AT_MOST, aggregation="product"
    )
    return "\n".join(found[0].steps) if found else ""


def _best_first_search(engine: Engine, question: Question, params: SamplingParams) -> str:
    propose = _Proposals(engine, question, params, branches=BRANCHES)
    found = best_first_search(propose, _process_rewards, _is_final, max_expansions=params.n, aggregation="product")
    return "\n".join(found.steps) if found else ""


def _mcts(engine: Engine, question: Question, params: SamplingParams) -> str:
    propose = _Proposals(engine, question, params, branches=BRANCHES)
    tree = mcts(propose, _process_rewards, _is_final, num_simulations=params.n, exploration=0.5)
    return "\n".join(tree.solution) if tree.solution else ""


beam_of_steps = method("beam search over steps by their arithmetic, n beams", _step_beam_search, 4)
best_first = method("best-first search over steps by their arithmetic, n expansions", _best_first_search, 16)
monte_carlo = method("Monte Carlo tree search over steps by their arithmetic, n simulations", _mcts, 32)


# Tools, debate, budget forcing


def _calculator(engine: Engine, question: Question, params: SamplingParams) -> str:
    before, message, after = parts_of(question)
    tool = Tool("calculator", "computes an expression", {"expression": "string"}, calculate)
    prompt = f"{before}{message}\n{CALCULATOR}{after}"
    episode = run_agent(engine, prompt, [tool], max_steps=params.n, params=replace(params, n=1))
    return episode.answer or ""


def _debate(engine: Engine, question: Question, params: SamplingParams) -> str:
    if isinstance(question.prompt, str):
        raise ValueError("a debate is a chat: this model has no chat template")

    def revise(others: list[str]) -> str:
        return REVISE.format(others="\n\n".join(others))

    held = hold_debate(
        engine,
        question.prompt[-1]["content"],
        revise,
        question.parse,
        num_agents=params.n,
        num_rounds=2,
        params=params,
    )
    return next((text for text in held.rounds[-1] if question.parse(text) == held.answer), "")


def _budget_forcing(engine: Engine, question: Question, params: SamplingParams) -> str:
    thought = force_budget(
        engine,
        text_of(question),
        "####",
        "\nWait,",
        min_tokens=min(16 * params.n, params.max_tokens),
        max_tokens=params.max_tokens,
        params=replace(params, n=1),
    )
    return f"{thought.thinking}####{thought.answer}"


calculator = method("a loop of reasoning and calculating, n steps at most", _calculator, 6)
debate = method("n agents debate for two rounds, then vote", _debate, 3)
budget_forcing = method("thinking of at least 16 n tokens before ####", _budget_forcing, 2)
