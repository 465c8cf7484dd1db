"""Plausible wrong solutions of hw2.reranking: each must fail a hidden test.

A mutant is called NAME__the_bug and stands in for NAME of the reference module.
"""

import math
from collections.abc import Callable, Sequence

import msgspec
import torch
from torch import Tensor

from grader.reference.hw2 import reranking as reference
from shared_tasks.models.engine import Completion, Engine, SamplingParams
from shared_tasks.models.randomness import Randomness

ONE = SamplingParams()
Reranker = Callable[[str, list[Completion]], Sequence[float]]
Prefer = Callable[[str, str, str], float]


def generate_and_rerank__lowest_score(
    model: Engine, reranker: Reranker, candidate_count: int, x: str, params: SamplingParams = ONE
) -> Completion:
    """Takes scores for losses."""
    return reference.generate_and_rerank(model, lambda x, y: [-s for s in reranker(x, y)], candidate_count, x, params)


def generate_and_rerank__a_request_per_candidate(
    model: Engine, reranker: Reranker, candidate_count: int, x: str, params: SamplingParams = ONE
) -> Completion:
    """Pays the prompt for every candidate."""
    one = msgspec.structs.replace(params, n=1)
    candidates = [model.generate([x], one)[0].completions[0] for _ in range(candidate_count)]
    scores = list(reranker(x, candidates))
    return candidates[scores.index(max(scores))]


def generate_and_rerank__parameters_lost(
    model: Engine, reranker: Reranker, candidate_count: int, x: str, params: SamplingParams = ONE
) -> Completion:
    """Makes new parameters instead of changing n in the caller's."""
    return reference.generate_and_rerank(model, reranker, candidate_count, x)


def generate_and_rerank__caller_decides_n(
    model: Engine, reranker: Reranker, candidate_count: int, x: str, params: SamplingParams = ONE
) -> Completion:
    """Leaves n as the caller set it when it is set."""
    count = params.n if params.n > 1 else candidate_count
    return reference.generate_and_rerank(model, reranker, count, x, params)


def generate_and_rerank__best_score_starts_at_zero(
    model: Engine, reranker: Reranker, candidate_count: int, x: str, params: SamplingParams = ONE
) -> Completion:
    """Keeps the first candidate when all scores are negative."""

    def clamped(x: str, candidates: list[Completion]) -> list[float]:
        return [max(score, 0.0) for score in reranker(x, candidates)]

    return reference.generate_and_rerank(model, clamped, candidate_count, x, params)


def generate_and_rerank__different_candidates_only(
    model: Engine, reranker: Reranker, candidate_count: int, x: str, params: SamplingParams = ONE
) -> Completion:
    """Removes duplicates before the reranker sees them."""
    (generation,) = model.generate([x], msgspec.structs.replace(params, n=candidate_count))
    candidates = list({candidate.text: candidate for candidate in generation.completions}.values())
    scores = list(reranker(x, candidates))
    return candidates[max(range(len(candidates)), key=scores.__getitem__)]


def generate_and_rerank__one_candidate_at_a_time(
    model: Engine, reranker: Reranker, candidate_count: int, x: str, params: SamplingParams = ONE
) -> Completion:
    """Calls the reranker for each candidate alone."""

    def each(x: str, candidates: list[Completion]) -> list[float]:
        return [reranker(x, [candidate])[0] for candidate in candidates]

    return reference.generate_and_rerank(model, each, candidate_count, x, params)


def generate_and_rerank__nan_wins(
    model: Engine, reranker: Reranker, candidate_count: int, x: str, params: SamplingParams = ONE
) -> Completion:
    """Checks the number of scores but not the scores."""

    def scores(x: str, candidates: list[Completion]) -> list[float]:
        return [math.inf if score != score else score for score in reranker(x, candidates)]

    return reference.generate_and_rerank(model, scores, candidate_count, x, params)


def logprob_scores__always_the_mean(candidates: Sequence[Completion], length_penalty: float) -> list[float]:
    """Ignores the penalty."""
    return reference.logprob_scores(candidates, 1.0)


def logprob_scores__always_the_sum(candidates: Sequence[Completion], length_penalty: float) -> list[float]:
    """Ignores the penalty, the other way."""
    return reference.logprob_scores(candidates, 0.0)


def logprob_scores__penalty_times_length(candidates: Sequence[Completion], length_penalty: float) -> list[float]:
    """Multiplies the length by the penalty where there is one."""
    return [c.cumulative_logprob / (length_penalty * len(c.logprobs) or 1) for c in candidates]


def logprob_scores__length_in_characters(candidates: Sequence[Completion], length_penalty: float) -> list[float]:
    """Divides by the length of the text."""
    return [c.cumulative_logprob / max(len(c.text), 1) ** length_penalty for c in candidates]


def logprob_scores__probabilities(candidates: Sequence[Completion], length_penalty: float) -> list[float]:
    """Returns exp of the score."""
    return [math.exp(score) for score in reference.logprob_scores(candidates, length_penalty)]


def logprob_scores__zero_without_logprobs(candidates: Sequence[Completion], length_penalty: float) -> list[float]:
    """Gives a candidate without log-probabilities the score 0."""
    return [sum(c.logprobs) / max(len(c.logprobs), 1) ** length_penalty for c in candidates]


def likelihood_scores__the_candidates_own(model: Engine, x: str, candidates: Sequence[Completion]) -> list[float]:
    """Returns what the drawing engine told."""
    return [candidate.cumulative_logprob for candidate in candidates]


def likelihood_scores__mean(model: Engine, x: str, candidates: Sequence[Completion]) -> list[float]:
    """Divides by the number of tokens."""
    results = model.loglikelihood([x] * len(candidates), [c.text for c in candidates])
    return [result.total / len(result.logprobs) for result in results]


def likelihood_scores__a_call_per_candidate(model: Engine, x: str, candidates: Sequence[Completion]) -> list[float]:
    """Calls the model for each candidate."""
    return [model.loglikelihood([x], [candidate.text])[0].total for candidate in candidates]


def likelihood_scores__duplicates_scored_again(model: Engine, x: str, candidates: Sequence[Completion]) -> list[float]:
    """Scores equal texts once each."""
    return [result.total for result in model.loglikelihood([x] * len(candidates), [c.text for c in candidates])]


def likelihood_scores__without_the_prompt(model: Engine, x: str, candidates: Sequence[Completion]) -> list[float]:
    """Scores the texts on their own."""
    return reference.likelihood_scores(model, "", candidates)


def likelihood_scores__sorted_texts(model: Engine, x: str, candidates: Sequence[Completion]) -> list[float]:
    """Answers in the order of the different texts."""
    texts = sorted({candidate.text for candidate in candidates})
    return [result.total for result in model.loglikelihood([x] * len(texts), texts)]


def likelihood_scores__stripped(model: Engine, x: str, candidates: Sequence[Completion]) -> list[float]:
    """Strips the texts, so that different ones become equal."""
    stripped = [msgspec.structs.replace(candidate, text=candidate.text.strip()) for candidate in candidates]
    return reference.likelihood_scores(model, x, stripped)


def reward_scores__arguments_swapped(
    reward: Callable[[str, str], float], x: str, candidates: Sequence[Completion]
) -> list[float]:
    """Passes the text first."""
    return [reward(candidate.text, x) for candidate in candidates]


def reward_scores__duplicates_scored_again(
    reward: Callable[[str, str], float], x: str, candidates: Sequence[Completion]
) -> list[float]:
    """Calls the reward for every candidate."""
    return [reward(x, candidate.text) for candidate in candidates]


def reward_scores__sorted(reward: Callable[[str, str], float], x: str, candidates: Sequence[Completion]) -> list[float]:
    """Returns the rewards from the highest to the lowest."""
    return sorted(reference.reward_scores(reward, x, candidates), reverse=True)


def reward_scores__different_texts_only(
    reward: Callable[[str, str], float], x: str, candidates: Sequence[Completion]
) -> list[float]:
    """Returns one reward per different text."""
    return [reward(x, text) for text in dict.fromkeys(candidate.text for candidate in candidates)]


def reward_scores__clamped(
    reward: Callable[[str, str], float], x: str, candidates: Sequence[Completion]
) -> list[float]:
    """Takes rewards for probabilities."""
    return [min(max(score, 0.0), 1.0) for score in reference.reward_scores(reward, x, candidates)]


def full_tournament__one_order(prefer: Prefer, x: str, texts: Sequence[str]) -> list[float]:
    """Judges every match once, the earlier text first."""
    wins = [0.0] * len(texts)
    for i in range(len(texts)):
        for j in range(i + 1, len(texts)):
            chance = prefer(x, texts[i], texts[j])
            wins[i] += chance
            wins[j] += 1 - chance
    return wins


def full_tournament__against_itself(prefer: Prefer, x: str, texts: Sequence[str]) -> list[float]:
    """Lets every text meet itself too."""
    return [sum((prefer(x, text, other) + 1 - prefer(x, other, text)) / 2 for other in texts) for text in texts]


def full_tournament__second_order_not_turned(prefer: Prefer, x: str, texts: Sequence[str]) -> list[float]:
    """Averages both answers as if both spoke of the same text."""
    n = len(texts)
    pairs = [
        [(prefer(x, a, b) + prefer(x, b, a)) / 2 for j, b in enumerate(texts) if i != j] for i, a in enumerate(texts)
    ]
    return [sum(row) for row in pairs] if n else []


def full_tournament__whole_wins(prefer: Prefer, x: str, texts: Sequence[str]) -> list[float]:
    """Rounds every match to a win or a loss."""
    return reference.full_tournament(lambda x, a, b: float(prefer(x, a, b) + 1 - prefer(x, b, a) > 1), x, texts)


def full_tournament__mean(prefer: Prefer, x: str, texts: Sequence[str]) -> list[float]:
    """Divides by the number of matches."""
    return [win / max(len(texts) - 1, 1) for win in reference.full_tournament(prefer, x, texts)]


def full_tournament__losses(prefer: Prefer, x: str, texts: Sequence[str]) -> list[float]:
    """Takes the answer for the chance of the second text."""
    return reference.full_tournament(lambda x, a, b: 1 - prefer(x, a, b), x, texts)


def full_tournament__by_text(prefer: Prefer, x: str, texts: Sequence[str]) -> list[float]:
    """Skips matches of equal texts."""
    n = len(texts)
    return [
        sum(
            (prefer(x, texts[i], texts[j]) + 1 - prefer(x, texts[j], texts[i])) / 2
            for j in range(n)
            if texts[j] != texts[i]
        )
        for i in range(n)
    ]


def _bracket(
    prefer: Prefer, x: str, texts: Sequence[str], chance: Callable[[str, str], float], keep_odd: bool = True
) -> int:
    left = list(range(len(texts)))
    while len(left) > 1:
        pairs = list(zip(left[::2], left[1::2], strict=False))
        winners = [i if chance(texts[i], texts[j]) >= 0.5 else j for i, j in pairs]
        left = winners + (left[2 * len(pairs) :] if keep_odd else [])
    return left[0]


def knockout_tournament__one_order(prefer: Prefer, x: str, texts: Sequence[str]) -> int:
    """Judges every match once."""
    return _bracket(prefer, x, texts, lambda a, b: prefer(x, a, b))


def knockout_tournament__odd_one_lost(prefer: Prefer, x: str, texts: Sequence[str]) -> int:
    """Drops the last of an odd number."""
    if not texts:
        raise ValueError("no text")
    return _bracket(prefer, x, texts, lambda a, b: (prefer(x, a, b) + 1 - prefer(x, b, a)) / 2, keep_odd=False)


def knockout_tournament__loser_goes_on(prefer: Prefer, x: str, texts: Sequence[str]) -> int:
    """Sends the winner home."""
    return reference.knockout_tournament(lambda x, a, b: 1 - prefer(x, a, b), x, texts)


def knockout_tournament__place_in_last_round(prefer: Prefer, x: str, texts: Sequence[str]) -> int:
    """Returns the winner's place in the final instead of the list."""
    winner = reference.knockout_tournament(prefer, x, texts)
    return winner % 2


def knockout_tournament__king_of_the_hill(prefer: Prefer, x: str, texts: Sequence[str]) -> int:
    """Lets the best so far meet the next one."""
    if not texts:
        raise ValueError("no text")
    best = 0
    for i in range(1, len(texts)):
        if (prefer(x, texts[i], texts[best]) + 1 - prefer(x, texts[best], texts[i])) / 2 > 0.5:
            best = i
    return best


def knockout_tournament__first_against_last(prefer: Prefer, x: str, texts: Sequence[str]) -> int:
    """Seeds the bracket from both ends."""
    if not texts:
        raise ValueError("no text")
    left = list(range(len(texts)))
    while len(left) > 1:
        half = len(left) // 2
        pairs = zip(left[:half], left[::-1][:half], strict=True)
        winners = [i if prefer(x, texts[i], texts[j]) + 1 - prefer(x, texts[j], texts[i]) >= 1 else j for i, j in pairs]
        left = winners + (left[half : half + 1] if len(left) % 2 else [])
    return left[0]


def knockout_tournament__full(prefer: Prefer, x: str, texts: Sequence[str]) -> int:
    """Plays a full tournament."""
    if not texts:
        raise ValueError("no text")
    wins = reference.full_tournament(prefer, x, texts)
    return wins.index(max(wins))


def soft_best_of_n__hard(rewards: Sequence[float], temperature: float, rng: Randomness) -> int:
    """Takes the best one without a draw."""
    return max(range(len(rewards)), key=rewards.__getitem__)


def soft_best_of_n__temperature_multiplies(rewards: Sequence[float], temperature: float, rng: Randomness) -> int:
    """Multiplies instead of dividing."""
    return reference.soft_best_of_n(rewards, 1 / temperature if temperature else 0.0, rng)


def soft_best_of_n__overflows(rewards: Sequence[float], temperature: float, rng: Randomness) -> int:
    """Exponentiates before it normalises."""
    if not len(rewards) or temperature <= 0:
        raise ValueError("cannot draw")
    weights = (torch.tensor(rewards, dtype=torch.float64) / temperature).exp()
    return int(rng.categorical(weights / weights.sum()))


def soft_best_of_n__proportional_to_reward(rewards: Sequence[float], temperature: float, rng: Randomness) -> int:
    """Normalises the shifted rewards themselves."""
    shifted = [reward - min(rewards) + 0.1 for reward in rewards]
    return int(rng.categorical(torch.tensor([s / sum(shifted) for s in shifted])))


def soft_best_of_n__zero_temperature_accepted(rewards: Sequence[float], temperature: float, rng: Randomness) -> int:
    """Takes temperature 0 for best-of-n."""
    if temperature == 0:
        return max(range(len(rewards)), key=rewards.__getitem__)
    return reference.soft_best_of_n(rewards, temperature, rng)


def soft_best_of_n__two_draws(rewards: Sequence[float], temperature: float, rng: Randomness) -> int:
    """Draws twice and keeps the second draw."""
    reference.soft_best_of_n(rewards, temperature, rng)
    return reference.soft_best_of_n(rewards, temperature, rng)


def best_of_n_distribution__in_list_order(probs: Tensor, rewards: Tensor, n: int) -> Tensor:
    """Accumulates in the order of the list."""
    return reference.best_of_n_distribution(probs, torch.arange(len(probs)), n)


def best_of_n_distribution__ties_in_order(probs: Tensor, rewards: Tensor, n: int) -> Tensor:
    """Lets one of equal rewards beat the other."""
    ranks = rewards.argsort(stable=True).argsort()
    return reference.best_of_n_distribution(probs, ranks, n)


def best_of_n_distribution__equal_shares(probs: Tensor, rewards: Tensor, n: int) -> Tensor:
    """Shares a group's probability out evenly."""
    best = reference.best_of_n_distribution(probs, rewards, n)
    equal = (rewards[:, None] == rewards).double()
    return (equal @ best) / equal.sum(-1)


def best_of_n_distribution__nan_for_impossible(probs: Tensor, rewards: Tensor, n: int) -> Tensor:
    """Divides zero by zero."""
    best = reference.best_of_n_distribution(probs, rewards, n)
    return best * (probs / probs)


def best_of_n_distribution__worst_of_n(probs: Tensor, rewards: Tensor, n: int) -> Tensor:
    """Keeps the lowest reward."""
    return reference.best_of_n_distribution(probs, -rewards, n)


def best_of_n_distribution__sum_of_powers(probs: Tensor, rewards: Tensor, n: int) -> Tensor:
    """Takes p^n, normalised."""
    if n < 1:
        raise ValueError("no sample")
    return probs**n / (probs**n).sum()


def best_of_n_distribution__zero_samples(probs: Tensor, rewards: Tensor, n: int) -> Tensor:
    """Returns zeros for n = 0."""
    return reference.best_of_n_distribution(probs, rewards, n) if n > 0 else torch.zeros(len(probs))


def best_of_n_kl__closed_form(probs: Tensor, rewards: Tensor, n: int) -> float:
    """Takes the bound for the value."""
    if n < 1:
        raise ValueError("no sample")
    return math.log(n) - (n - 1) / n


def best_of_n_kl__other_direction(probs: Tensor, rewards: Tensor, n: int) -> float:
    """Returns KL(one sample || best-of-n)."""
    best = reference.best_of_n_distribution(probs, rewards, n)
    return float(torch.where(probs > 0, probs * (probs / best).log(), 0).sum())


def best_of_n_kl__in_bits(probs: Tensor, rewards: Tensor, n: int) -> float:
    """Uses the logarithm to base 2."""
    return reference.best_of_n_kl(probs, rewards, n) / math.log(2)


def best_of_n_kl__nan_for_impossible(probs: Tensor, rewards: Tensor, n: int) -> float:
    """Multiplies 0 by the logarithm of 0."""
    best = reference.best_of_n_distribution(probs, rewards, n)
    return float((best * (best / probs).log()).sum())


def best_of_n_kl__entropy(probs: Tensor, rewards: Tensor, n: int) -> float:
    """Forgets to divide by the model's probability."""
    best = reference.best_of_n_distribution(probs, rewards, n)
    return float(-torch.where(best > 0, best * best.log(), 0).sum())
