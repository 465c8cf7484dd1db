"""Running a task on an engine: prompts in, scored samples out, every answer kept as soon as it is there."""

import hashlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic

import msgspec

from shared_tasks.evaluation.answers import Answer, Answers, key_of
from shared_tasks.evaluation.apart import answer_apart
from shared_tasks.evaluation.methods import METHODS, Question, code_of, find_method
from shared_tasks.evaluation.plan import LOGLIKELIHOOD, Plan
from shared_tasks.models.engine import Engine, Generation, LogLikelihood, Prompt, SamplingParams
from shared_tasks.tasks import prompts
from shared_tasks.tasks.loading import shots_for
from shared_tasks.tasks.task import Item, Output, Scored, Task, prompt

OnSample = Callable[["Sample"], None]


class Tokens(msgspec.Struct):
    """What an item cost."""

    prompt: int
    generated: int
    forward_positions: int


class Choice(msgspec.Struct):
    """An option, with its log-likelihood in nats."""

    text: str
    logprob: float
    tokens: int


class Sample(Scored, kw_only=True):
    """One item of a run: how it was asked, what came, what it is worth. A line of samples.jsonl."""

    index: int
    id: str
    group: str
    question: str
    """As the data set has it."""
    prompt: Prompt
    """Of the last turn, which holds those before it."""
    gold: str
    outputs: list[str] = []
    """The samples of the prompt, or the answers to the turns of a conversation."""
    logprobs: list[float | None] = []
    """log P of each output, in nats."""
    output_tokens: list[int] = []
    finish_reasons: list[str] = []
    exceeded: str = ""
    """Why it is unanswered, where its token budget was too small for an answer."""
    choices: list[Choice] = []
    tokens: Tokens
    latency: float | None = None
    """Seconds, where something was generated."""


def evaluate(
    task: Task[Item],
    items: Sequence[Item],
    engine: Engine,
    plan: Plan,
    answers: Answers,
    on_sample: OnSample,
    examples: Sequence[Item] = (),
) -> list[Sample]:
    """Run a task's items and score them; the samples come in the order of the items.

    Only what `answers` does not hold yet is run, and goes into it as it comes. `on_sample` is called with each sample
    as soon as it is scored. `examples` are what few-shot prompts are made from.

    Raises ValueError, before anything runs, for prompts that the engine or the plan cannot take.
    """
    talks = [_talk(task, item, index, examples, plan) for index, item in enumerate(items)]
    samples: dict[int, Sample] = {}

    def done(sample: Sample) -> None:
        samples[sample.index] = sample
        on_sample(sample)

    (_compare_options if plan.method == LOGLIKELIHOOD else _generate)(task, talks, engine, plan, answers, done)
    return [samples[index] for index in range(len(items))]


@dataclass
class _Talk(Generic[Item]):
    """The conversation about one item."""

    index: int
    item: Item
    shots: list[tuple[str, str]]
    questions: list[str]
    chat: bool
    said: list[Generation] = field(default_factory=list)
    exceeded: str = ""

    def prompt(self, turn: int) -> Prompt:
        """Return what the model is told in a turn: examples, what was said before, and the question."""
        earlier = [
            (question, generation.completions[0].text)
            for question, generation in zip(self.questions, self.said[:turn], strict=False)
        ]
        return prompt([*self.shots, *earlier], self.questions[turn], self.chat)


def _talk(task: Task[Item], item: Item, index: int, examples: Sequence[Item], plan: Plan) -> _Talk[Item]:
    chosen = shots_for(task, item, examples, plan.shots) if plan.shots else []
    shots = [(task.questions(shot, plan.style)[0], task.answer(shot, plan.style)) for shot in chosen]
    return _Talk(index, item, shots, task.questions(item, plan.style), plan.chat)


def _generate(
    task: Task[Item], talks: Sequence[_Talk[Item]], engine: Engine, plan: Plan, answers: Answers, done: OnSample
) -> None:
    """Generate turn by turn."""

    def hear(talk: _Talk[Item], generation: Generation, exceeded: str) -> None:
        talk.said.append(generation)
        talk.exceeded = talk.exceeded or exceeded
        if len(talk.said) == task.turns:
            done(_generated(task, talk, plan))

    for turn in range(task.turns):
        _ask(task, talks, turn, engine, plan, answers, hear)


def _ask(
    task: Task[Item],
    talks: Sequence[_Talk[Item]],
    turn: int,
    engine: Engine,
    plan: Plan,
    answers: Answers,
    hear: Callable[[_Talk[Item], Generation, str], None],
) -> None:
    """Take the answers that are stored, and let the method generate the others."""
    method = find_method(plan.method)
    model = _model_key(engine) | {"method": code_of(plan.method)}
    if plan.token_budget is not None:
        model["token_budget"] = str(plan.token_budget)
    if plan.method not in METHODS:
        model["name"] = plan.method
    params = [_seeded(plan.params, talk.index, turn) for talk in talks]
    keys = [key_of(prompt=talk.prompt(turn), params=params[i], **model) for i, talk in enumerate(talks)]
    stored = [answers.get(key) for key in keys]
    missing = [i for i, answer in enumerate(stored) if answer is None]
    for talk, answer in zip(talks, stored, strict=True):
        if answer is not None and answer.generation is not None:
            hear(talk, answer.generation, answer.exceeded)
    unheard = set(missing)

    def keep(position: int, generation: Generation, exceeded: str = "") -> None:
        i = missing[position]
        if i in unheard:
            unheard.remove(i)
            generation = _storable(generation)
            answers.add(Answer(keys[i], generation, exceeded=exceeded))
            hear(talks[i], generation, exceeded)

    if not missing:
        return
    questions = [_question(engine, talks[i].prompt(turn), partial(task.parse, talks[i].item)) for i in missing]
    settings = [params[i] for i in missing]
    if plan.token_budget is not None or plan.method not in METHODS:
        # A budget is a question's own, and of another's code only what passes a meter is believed.
        answer_apart(method, engine, questions, settings, plan.token_budget, keep, plan.method)
        return
    for position, generation in enumerate(method.generate(engine, questions, settings, keep)):
        keep(position, generation)  # a method need not report before it is done


def _question(engine: Engine, prompt: Prompt, parse: Callable[[str], str | None]) -> Question:
    render = getattr(getattr(engine, "tokenizer", None), "render", None)
    text = prompt if isinstance(prompt, str) else render(prompt) if render else None
    return Question(prompt, parse, text)


def _storable(generation: Generation) -> Generation:
    """Replace halves of surrogate pairs, which a server may send and which no file can hold."""
    completions = [
        msgspec.structs.replace(completion, text=completion.text.encode("utf-8", "replace").decode("utf-8"))
        for completion in generation.completions
    ]
    return msgspec.structs.replace(generation, completions=completions)


def _compare_options(
    task: Task[Item], talks: Sequence[_Talk[Item]], engine: Engine, plan: Plan, answers: Answers, done: OnSample
) -> None:
    """Compare the options of each item by their log-likelihood."""
    model = _model_key(engine)
    contexts = [talk.prompt(0) for talk in talks]
    # After a chat's own markers the answer begins at once, after "Answer:" it begins with a space.
    options = [
        [option if plan.chat else f" {option}" for option in task.options(talk.item, plan.style)] for talk in talks
    ]
    keys = [key_of(prompt=contexts[i], options=options[i], **model) for i in range(len(talks))]
    pairs: list[tuple[int, int]] = []
    for i, talk in enumerate(talks):
        stored = answers.get(keys[i])
        if stored is None:
            pairs += [(i, choice) for choice in range(len(options[i]))]
        else:
            done(_compared(task, talk, plan, stored.options))
    scored: dict[int, dict[int, LogLikelihood]] = {i: {} for i, _ in pairs}

    def keep(position: int, likelihood: LogLikelihood) -> None:
        i, choice = pairs[position]
        scored[i][choice] = likelihood
        if len(scored[i]) == len(options[i]):
            likelihoods = [scored[i][choice] for choice in range(len(options[i]))]
            answers.add(Answer(keys[i], options=likelihoods))
            done(_compared(task, talks[i], plan, likelihoods))

    if pairs:
        engine.loglikelihood([contexts[i] for i, _ in pairs], [options[i][choice] for i, choice in pairs], keep)


def _generated(task: Task[Item], talk: _Talk[Item], plan: Plan) -> Sample:
    completions = [completion for generation in talk.said for completion in generation.completions]
    outputs = [
        Output(
            completion.text,
            logprob=completion.cumulative_logprob if completion.logprobs else None,
            tokens=len(completion.logprobs) or len(completion.token_ids) or None,
        )
        for completion in completions
    ]
    scored = task.score(talk.item, outputs)
    if talk.exceeded:
        scored.score = 0.0
        scored.values = dict.fromkeys([*scored.values, *filter(None, [plan.selects])], 0.0)
    elif plan.selects:
        if plan.selects not in scored.values:
            raise ValueError(f"{plan.method} needs log-probabilities of the outputs; the engine did not tell them")
        scored.score = scored.values[plan.selects]
    return _sample(
        task,
        talk,
        scored,
        outputs=[output.text for output in outputs],
        logprobs=[output.logprob for output in outputs],
        output_tokens=[output.tokens or 0 for output in outputs],
        finish_reasons=[completion.finish_reason for completion in completions],
        exceeded=talk.exceeded,
        tokens=Tokens(
            prompt=sum(generation.prompt_tokens for generation in talk.said),
            generated=sum(generation.generated_tokens for generation in talk.said),
            forward_positions=sum(generation.forward_positions for generation in talk.said),
        ),
        latency=sum(generation.latency for generation in talk.said),
    )


def _compared(task: Task[Item], talk: _Talk[Item], plan: Plan, likelihoods: Sequence[LogLikelihood]) -> Sample:
    options = task.options(talk.item, plan.style)
    return _sample(
        task,
        talk,
        task.score_options(talk.item, plan.style, likelihoods),
        choices=[
            Choice(option, likelihood.total, len(likelihood.logprobs))
            for option, likelihood in zip(options, likelihoods, strict=True)
        ],
        tokens=Tokens(
            prompt=max(likelihood.prompt_tokens for likelihood in likelihoods),
            generated=0,
            forward_positions=sum(likelihood.forward_positions for likelihood in likelihoods),
        ),
    )


def _sample(task: Task[Item], talk: _Talk[Item], scored: Scored, **outcome: Any) -> Sample:
    return Sample(
        index=talk.index,
        id=talk.item.id,
        group=talk.item.group,
        question=talk.item.question,
        prompt=talk.prompt(task.turns - 1),
        gold=task.gold(talk.item),
        score=scored.score,
        parsed=scored.parsed,
        correct=scored.correct,
        values=scored.values,
        details=scored.details,
        **outcome,
    )


def _seeded(params: SamplingParams, index: int, turn: int) -> SamplingParams:
    """Give an item's prompt a seed of its own, so that items are independent and each is reproducible by itself."""
    if params.temperature == 0 or params.seed is None:
        return msgspec.structs.replace(params, seed=None)
    digest = hashlib.sha256(f"{params.seed} {index} {turn}".encode()).digest()
    return msgspec.structs.replace(params, seed=int.from_bytes(digest[:6]))


def _model_key(engine: Engine) -> dict[str, str]:
    return {"model": engine.fingerprint(), "engine": engine.name, "code": _code(prompts)}


def _code(thing: Any) -> str:
    return hashlib.sha256(inspect.getsource(thing).encode()).hexdigest()
