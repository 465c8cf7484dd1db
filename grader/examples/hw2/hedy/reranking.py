"""Reranking: draw several candidates, score them, and keep the best one.

A reranker is a function of the prompt and the candidates that returns a score for each candidate, higher is better.
Logarithms are natural. No function changes its arguments.
"""

import math
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
    [generation] = model.generate([x], msgspec.structs.replace(params, n=candidate_count))
    candidates = generation.completions
    scores = [float(score) for score in reranker(x, list(candidates))]
    if len(scores) != len(candidates):
        raise ValueError(f"expected a score for each of {len(candidates)} candidates, got {len(scores)} scores")
    if any(math.isnan(score) for score in scores):
        raise ValueError(f"expected scores that can be compared, got NaN among {scores}")
    return candidates[scores.index(max(scores))]


def logprob_scores(candidates: Sequence[Completion], length_penalty: float) -> list[float]:
    """Return log P(candidate | prompt) / length ** length_penalty of each candidate, from what its engine told.

    The length is the number of generated tokens. 0 ranks by the sum of the log-probabilities, 1 by their mean. Raises
    ValueError for a candidate without log-probabilities.
    """
    # cumulative_logprob raises ValueError where there are no log-probabilities
    return [y.cumulative_logprob / len(y.logprobs) ** length_penalty for y in candidates]


def likelihood_scores(model: Engine, x: str, candidates: Sequence[Completion]) -> list[float]:
    """Return log P(text | x) in nats of each candidate's text under `model`, which need not be the one that drew it.

    Takes one `model.loglikelihood` call, in which every different text is scored once.
    """
    texts = list(dict.fromkeys(y.text for y in candidates))
    totals = {
        text: result.total for text, result in zip(texts, model.loglikelihood([x] * len(texts), texts), strict=True)
    }
    return [totals[y.text] for y in candidates]


def reward_scores(reward: Callable[[str, str], float], x: str, candidates: Sequence[Completion]) -> list[float]:
    """Return `reward(x, text)` of each candidate's text; every different text is scored once."""
    rewards = {text: reward(x, text) for text in dict.fromkeys(y.text for y in candidates)}
    return [rewards[y.text] for y in candidates]


def full_tournament(prefer: Callable[[str, str, str], float], x: str, texts: Sequence[str]) -> list[float]:
    """Return how many matches each text wins, in expectation, when every two texts meet.

    `prefer(x, first, second)` is the probability that the text shown first is the better one, and may favour a place.
    Every match is judged twice, in both orders, and the text's chances are averaged: n (n - 1) calls. No text meets
    itself. Texts are told apart by their place in the list, not by what they say.
    """
    scores = [0.0] * len(texts)
    for i in range(len(texts)):
        for j in range(i + 1, len(texts)):
            chance = _chance(prefer, x, texts[i], texts[j])
            scores[i] += chance
            scores[j] += 1 - chance
    return scores


def knockout_tournament(prefer: Callable[[str, str, str], float], x: str, texts: Sequence[str]) -> int:
    """Return the index of the text that wins a knock-out tournament.

    In each round neighbours meet, the first with the second, the third with the fourth, and so on; the winners go on in
    the same order, and so does the last of an odd number, without a match. Every match is judged in both orders, as in
    `full_tournament`: 2 (n - 1) calls. At even chances either may go on. Raises ValueError when there is no text.
    """
    if not texts:
        raise ValueError("expected at least one text, got none")
    players = list(range(len(texts)))
    while len(players) > 1:
        winners = [
            i if _chance(prefer, x, texts[i], texts[j]) > 0.5 else j
            for i, j in zip(players[::2], players[1::2], strict=False)
        ]
        players = winners + players[2 * len(winners) :]
    return players[0]


def soft_best_of_n(rewards: Sequence[float], temperature: float, rng: Randomness) -> int:
    """Draw the index of one of n candidates with probability proportional to exp(reward / temperature).

    Takes one `rng.categorical`. Temperature towards 0 approaches best-of-n, towards infinity a plain sample. Raises
    ValueError unless temperature > 0 and there is a reward.

    Paper: Verdun et al., 2025, https://arxiv.org/abs/2505.03156.
    """
    if not temperature > 0:
        raise ValueError(f"expected a temperature above 0, got {temperature}")
    if len(rewards) == 0:
        raise ValueError("expected at least one reward, got none")
    values = torch.tensor(rewards, dtype=torch.float64)
    # subtracting first keeps a large reward finite when it is divided by a small temperature
    return int(rng.categorical(torch.softmax((values - values.max()) / temperature, dim=0)))


def best_of_n_distribution(
    probs: Float[Tensor, "outcomes"], rewards: Float[Tensor, "outcomes"], n: int
) -> Float[Tensor, "outcomes"]:
    """Return the probability of each outcome when the best of n independent samples is kept.

    `probs` is the distribution of one sample over a finite set. Among outcomes of equal reward the first one drawn is
    kept, so they share what falls on their reward in proportion to `probs`. Raises ValueError unless n >= 1.
    """
    if n < 1:
        raise ValueError(f"expected n of at least 1, got {n}")
    probs = probs.double()
    _, level = torch.unique(rewards, return_inverse=True)  # levels are numbered by rising reward
    at_level = torch.zeros(int(level.max()) + 1 if len(level) else 0, dtype=torch.float64).index_add(0, level, probs)
    up_to = at_level.cumsum(0)
    best = up_to**n - (up_to - at_level).clamp_min(0) ** n
    share = torch.where(probs > 0, probs / at_level[level], 0.0)
    return share * best[level]


def best_of_n_kl(probs: Float[Tensor, "outcomes"], rewards: Float[Tensor, "outcomes"], n: int) -> float:
    """Return KL(best-of-n || one sample) in nats, exactly, for a finite set of outcomes.

    At most log n - (n - 1) / n, the value for a continuous reward. Raises ValueError unless n >= 1.

    Paper: Beirami et al., 2024, https://arxiv.org/abs/2401.01879.
    """
    best, probs = best_of_n_distribution(probs, rewards, n), probs.double()
    seen = best > 0
    return float((best[seen] * (best[seen] / probs[seen]).log()).sum())


def _chance(prefer: Callable[[str, str, str], float], x: str, a: str, b: str) -> float:
    """Return the chance of a against b, averaged over both orders of showing them."""
    return (prefer(x, a, b) + 1 - prefer(x, b, a)) / 2
