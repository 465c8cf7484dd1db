"""Reranking: draw several candidates, score them, and keep the best one.

A reranker is a function of the prompt and the candidates that returns a score for each candidate, higher is better.
Logarithms are natural. No function changes its arguments.
"""

from collections.abc import Callable, Sequence

import msgspec
import torch
from jaxtyping import Float
from torch import Tensor

from shared_tasks.models.engine import Completion, Engine, SamplingParams
from shared_tasks.models.randomness import Randomness

ONE_SAMPLE = SamplingParams()


def generate_and_rerank(
    model: Engine,
    reranker: Callable[[str, list[Completion]], Sequence[float]],
    candidate_count: int,
    x: str,
    params: SamplingParams = ONE_SAMPLE,
) -> Completion:
    """Draw `candidate_count` completions of the prompt `x` and return the one with the highest score.

    All candidates come from one request of one `model.generate` call: `params` with n = `candidate_count`. `reranker`
    is called once, with all candidates in order, equal ones too. Which of equally high scores wins is left open. Raises
    ValueError unless candidate_count >= 1 and the reranker returns as many scores as candidates, none of them NaN.
    """
    if candidate_count < 1:
        raise ValueError(f"expected at least one candidate, got candidate_count = {candidate_count}")
    (generation,) = model.generate([x], msgspec.structs.replace(params, n=candidate_count))
    scores = torch.as_tensor(reranker(x, generation.completions), dtype=torch.float64)
    if len(scores) != candidate_count or scores.isnan().any():
        raise ValueError(f"expected {candidate_count} scores and no NaN from the reranker, got {scores.tolist()}")
    return generation.completions[int(scores.argmax())]


def logprob_scores(candidates: Sequence[Completion], length_penalty: float) -> list[float]:
    """Return log P(candidate | prompt) / length ** length_penalty of each candidate, from what its engine told.

    The length is the number of generated tokens. 0 ranks by the sum of the log-probabilities, 1 by their mean. Raises
    ValueError for a candidate without log-probabilities.
    """
    return [candidate.cumulative_logprob / len(candidate.logprobs) ** length_penalty for candidate in candidates]


def likelihood_scores(model: Engine, x: str, candidates: Sequence[Completion]) -> list[float]:
    """Return log P(text | x) in nats of each candidate's text under `model`, which need not be the one that drew it.

    Takes one `model.loglikelihood` call, in which every different text is scored once.
    """
    texts = list(dict.fromkeys(candidate.text for candidate in candidates))
    results = model.loglikelihood([x] * len(texts), texts)
    totals = {text: result.total for text, result in zip(texts, results, strict=True)}
    return [totals[candidate.text] for candidate in candidates]


def reward_scores(reward: Callable[[str, str], float], x: str, candidates: Sequence[Completion]) -> list[float]:
    """Return `reward(x, text)` of each candidate's text; every different text is scored once."""
    rewards = {text: reward(x, text) for text in dict.fromkeys(candidate.text for candidate in candidates)}
    return [rewards[candidate.text] for candidate in candidates]


def full_tournament(prefer: Callable[[str, str, str], float], x: str, texts: Sequence[str]) -> list[float]:
    """Return how many matches each text wins, in expectation, when every two texts meet.

    `prefer(x, first, second)` is the probability that the text shown first is the better one, and may favour a place.
    Every match is judged twice, in both orders, and the text's chances are averaged: n (n - 1) calls. No text meets
    itself. Texts are told apart by their place in the list, not by what they say.
    """
    n = len(texts)
    wins = [0.0] * n
    for i in range(n):
        for j in range(i):
            chance = _chance(prefer, x, texts[i], texts[j])
            wins[i] += chance
            wins[j] += 1 - chance
    return wins


def knockout_tournament(prefer: Callable[[str, str, str], float], x: str, texts: Sequence[str]) -> int:
    """Return the index of the text that wins a knock-out tournament.

    In each round neighbours meet, the first with the second, the third with the fourth, and so on; the winners go on in
    the same order, and so does the last of an odd number, without a match. Every match is judged in both orders, as in
    `full_tournament`: 2 (n - 1) calls. At even chances either may go on. Raises ValueError when there is no text.
    """
    if not texts:
        raise ValueError("expected at least one text, got none")
    left = list(range(len(texts)))
    while len(left) > 1:
        pairs = zip(left[::2], left[1::2], strict=False)
        winners = [i if _chance(prefer, x, texts[i], texts[j]) >= 0.5 else j for i, j in pairs]
        left = winners + left[2 * len(winners) :]
    return left[0]


def _chance(prefer: Callable[[str, str, str], float], x: str, text: str, other: str) -> float:
    return (prefer(x, text, other) + 1 - prefer(x, other, text)) / 2


def soft_best_of_n(rewards: Sequence[float], temperature: float, rng: Randomness) -> int:
    """Draw the index of one of n candidates with probability proportional to exp(reward / temperature).

    Takes one `rng.categorical`. Temperature towards 0 approaches best-of-n, towards infinity a plain sample. Raises
    ValueError unless temperature > 0 and there is a reward.

    Paper: Verdun et al., 2025, https://arxiv.org/abs/2505.03156.
    """
    if not len(rewards) or not temperature > 0:
        raise ValueError(f"expected rewards and a temperature above 0, got {len(rewards)} rewards at {temperature}")
    logits = torch.as_tensor(rewards, dtype=torch.float64) / temperature
    return int(rng.categorical(logits.softmax(-1)))


def best_of_n_distribution(
    probs: Float[Tensor, "outcomes"], rewards: Float[Tensor, "outcomes"], n: int
) -> Float[Tensor, "outcomes"]:
    """Return the probability of each outcome when the best of n independent samples is kept.

    `probs` is the distribution of one sample over a finite set. Among outcomes of equal reward the first one drawn is
    kept, so they share what falls on their reward in proportion to `probs`. Raises ValueError unless n >= 1.
    """
    if n < 1:
        raise ValueError(f"expected at least one sample, got n = {n}")
    probs = probs.double()
    better = rewards[:, None] < rewards
    equal = rewards[:, None] == rewards
    at_reward = (equal * probs).sum(-1)
    at_most = 1 - (better * probs).sum(-1)
    below = (at_most - at_reward).clamp_min(0)
    share = torch.where(at_reward > 0, probs / at_reward, 0)
    return share * (at_most**n - below**n)


def best_of_n_kl(probs: Float[Tensor, "outcomes"], rewards: Float[Tensor, "outcomes"], n: int) -> float:
    """Return KL(best-of-n || one sample) in nats, exactly, for a finite set of outcomes.

    At most log n - (n - 1) / n, the value for a continuous reward. Raises ValueError unless n >= 1.

    Paper: Beirami et al., 2024, https://arxiv.org/abs/2401.01879.
    """
    best = best_of_n_distribution(probs, rewards, n)
    return float(torch.where(best > 0, best * (best / probs.double()).log(), 0).sum())
