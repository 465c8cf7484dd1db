"""Randomness: drawn, enumerated, scripted."""

import math

import pytest
import torch

from shared_tasks.checks import assert_close, assert_same_distribution
from shared_tasks.models.randomness import Randomness, ScriptedNoise, TorchRandomness, enumerate_outcomes


def test_enumeration_is_exact() -> None:
    """Every branch is visited once: two dice have the distribution of two dice."""
    die = torch.full((6,), 1 / 6, dtype=torch.float64)

    def run(rng: Randomness) -> int:
        return int(rng.categorical(die)) + int(rng.categorical(die)) + 2

    expected = {total: (6 - abs(7 - total)) / 36 for total in range(2, 13)}
    assert_same_distribution(enumerate_outcomes(run), expected)


def test_enumeration_follows_paths_of_different_length() -> None:
    """A path may draw as often as it likes: the first success of at most three coins is geometric."""

    def run(rng: Randomness) -> int:
        for count in range(3):
            if bool(rng.bernoulli(0.25)):
                return count
        return 3

    assert_same_distribution(enumerate_outcomes(run), {0: 0.25, 1: 0.1875, 2: 0.140625, 3: 0.421875})


def test_rows_of_a_batch_are_independent() -> None:
    """A categorical draw of two rows has the product of their distributions; impossible tokens are not visited."""
    rows = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.25, 0.75]], dtype=torch.float64)

    def run(rng: Randomness) -> tuple[int, ...]:
        return tuple(rng.categorical(rows).tolist())

    expected = {(a, b): 0.5 * p for a in (0, 1) for b, p in ((1, 0.25), (2, 0.75))}
    assert_same_distribution(enumerate_outcomes(run), expected)


def test_enumeration_refuses_what_it_cannot_enumerate() -> None:
    """Continuous noise, endless draws and too many paths are errors, not wrong answers."""
    coin = torch.tensor([0.5, 0.5])

    def forever(rng: Randomness) -> int:
        while True:
            rng.categorical(coin)

    with pytest.raises(ValueError, match="discrete"):
        enumerate_outcomes(lambda rng: float(rng.uniform([])))
    with pytest.raises(RuntimeError, match="at most 50 random draws"):
        enumerate_outcomes(forever, max_draws=50)
    with pytest.raises(RuntimeError, match="at most 100 random paths"):
        enumerate_outcomes(lambda rng: [rng.categorical(coin) for _ in range(10)] and 0, max_paths=100)


@pytest.mark.parametrize("row", [[0.5, 0.6], [0.5, 0.4], [1.5, -0.5], [math.nan, 1.0], [math.inf, 0.0]])
def test_rows_that_are_no_distribution_are_refused(row: list[float]) -> None:
    """Both sources check what they draw from: an unnormalised row would hide a student's mistake."""
    probs = torch.tensor(row)
    with pytest.raises(ValueError, match=r"rng\.categorical expected"):
        TorchRandomness(0).categorical(probs)
    with pytest.raises(ValueError, match=r"rng\.categorical expected"):
        enumerate_outcomes(lambda rng: int(rng.categorical(probs)))


def test_a_seed_repeats_itself() -> None:
    """The same seed gives the same draws, another seed others; nothing reads or moves the global seed."""
    state = torch.random.get_rng_state()
    draws = [TorchRandomness(seed).uniform([8]).tolist() for seed in (3, 3, 4)]
    assert draws[0] == draws[1] != draws[2]
    assert torch.equal(state, torch.random.get_rng_state())


def test_gumbel_noise_has_its_closed_form() -> None:
    """Gumbel noise is -log(-log u) of the uniform draws of the same seed, and never infinite."""
    noise, uniform = TorchRandomness(1).gumbel([1000]), TorchRandomness(1).uniform([1000])
    assert_close(noise, -torch.log(-torch.log(uniform)))
    assert bool(noise.isfinite().all())


def test_scripted_noise_answers_in_order_and_ends() -> None:
    """A script gives its values in order in the shape asked for, and says so when it is used up."""
    script = ScriptedNoise([1.0, 2.0, 3.0, 4.0, 5.0])
    assert script.gumbel([2, 2]).tolist() == [[1.0, 2.0], [3.0, 4.0]]
    with pytest.raises(ValueError, match="at most 5 values"):
        script.uniform([2])
    assert script.used == 4
