"""A second correct solution of `reranking`: plain Python, loops and sorting instead of tensors."""

import math
from collections.abc import Callable, Sequence

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
    """Take the last of the best."""
    if candidate_count < 1:
        raise ValueError("no candidates")
    settings = {name: getattr(params, name) for name in params.__struct_fields__}
    generations = model.generate((x,), [SamplingParams(**(settings | {"n": candidate_count}))])
    candidates = generations[0].completions
    scores = [float(score) for score in reranker(x, list(candidates))]
    if len(scores) != len(candidates) or any(score != score for score in scores):
        raise ValueError("the scores do not fit")
    best = max(scores)
    return [candidate for candidate, score in zip(candidates, scores, strict=True) if score == best][-1]


def logprob_scores(candidates: Sequence[Completion], length_penalty: float) -> list[float]:
    """Divide by exp(penalty log length)."""
    scores = []
    for candidate in candidates:
        if not candidate.logprobs:
            raise ValueError("no log-probabilities")
        scores.append(math.fsum(candidate.logprobs) * math.exp(-length_penalty * math.log(len(candidate.logprobs))))
    return scores


def likelihood_scores(model: Engine, x: str, candidates: Sequence[Completion]) -> list[float]:
    """Score the sorted set of texts."""
    texts = sorted({candidate.text for candidate in candidates})
    results = model.loglikelihood([x for _ in texts], texts)
    return [sum(results[texts.index(candidate.text)].logprobs) for candidate in candidates]


def reward_scores(reward: Callable[[str, str], float], x: str, candidates: Sequence[Completion]) -> list[float]:
    """Keep a table as it goes."""
    known: dict[str, float] = {}
    for candidate in candidates:
        if candidate.text not in known:
            known[candidate.text] = float(reward(x, candidate.text))
    return [known[candidate.text] for candidate in candidates]


def full_tournament(prefer: Callable[[str, str, str], float], x: str, texts: Sequence[str]) -> list[float]:
    """Fill a table of all ordered pairs first."""
    n = len(texts)
    table = {(i, j): prefer(x, texts[i], texts[j]) for i in range(n) for j in range(n) if i != j}
    return [sum((table[i, j] + 1 - table[j, i]) / 2 for j in range(n) if j != i) for i in range(n)]


def knockout_tournament(prefer: Callable[[str, str, str], float], x: str, texts: Sequence[str]) -> int:
    """Play round by round, the second of even chances going on."""
    if len(texts) == 0:
        raise ValueError("nobody plays")

    def play(players: list[int]) -> int:
        if len(players) == 1:
            return players[0]
        winners = []
        while len(players) >= 2:
            first, second, *players = players
            forward, backward = prefer(x, texts[first], texts[second]), prefer(x, texts[second], texts[first])
            winners.append(first if forward > backward else second)
        return play(winners + players)

    return play(list(range(len(texts))))


def soft_best_of_n(rewards: Sequence[float], temperature: float, rng: Randomness) -> int:
    """Normalise by hand."""
    if temperature <= 0 or len(rewards) == 0:
        raise ValueError("cannot draw")
    top = max(rewards)
    weights = [math.exp((reward - top) / temperature) for reward in rewards]
    return rng.categorical(torch.tensor([weight / sum(weights) for weight in weights])).item()


def best_of_n_distribution(
    probs: Float[Tensor, "outcomes"], rewards: Float[Tensor, "outcomes"], n: int
) -> Float[Tensor, "outcomes"]:
    """Go through the rewards from the lowest."""
    if n <= 0:
        raise ValueError("no sample")
    p, r = probs.tolist(), rewards.tolist()
    best, below = [0.0] * len(p), 0.0
    for level in sorted(set(r)):
        mass = sum(q for q, reward in zip(p, r, strict=True) if reward == level)
        kept = (below + mass) ** n - below**n
        for i in range(len(p)):
            if r[i] == level and p[i] > 0:
                best[i] = kept * p[i] / mass
        below += mass
    return torch.tensor(best)


def best_of_n_kl(probs: Float[Tensor, "outcomes"], rewards: Float[Tensor, "outcomes"], n: int) -> float:
    """Add the terms up one by one."""
    best = best_of_n_distribution(probs.double(), rewards, n).tolist()
    return sum(q * math.log(q / p) for q, p in zip(best, probs.tolist(), strict=True) if q > 0)
