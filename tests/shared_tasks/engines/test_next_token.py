"""The distribution that sampling parameters make of logits, at exact values."""

import math

import pytest
import torch
from torch import Tensor

from shared_tasks.models.engine import SamplingParams
from shared_tasks.models.next_token import choose, probabilities

P = torch.tensor([0.5, 0.25, 0.125, 0.0625, 0.0625], dtype=torch.float64)
ORDER = torch.tensor([3, 0, 4, 1, 2])  # the same tokens under other ids


def distribution(dtype: torch.dtype = torch.float64, **params: float) -> Tensor:
    return probabilities(P.log().to(dtype)[None], [SamplingParams(**params)])[0]


def kept(count: int) -> Tensor:
    return torch.cat([P[:count] / P[:count].sum(), torch.zeros(5 - count, dtype=torch.float64)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("params", "count"),
    [
        ({"top_p": 0.5}, 1),
        ({"top_p": 0.75}, 2),
        ({"top_p": 0.76}, 3),
        ({"top_p": 1e-9}, 1),
        ({"top_p": 1.0}, 5),
        ({"top_k": 1}, 1),
        ({"top_k": 3}, 3),
        ({"top_k": 9}, 5),
        ({"top_k": -1}, 5),
        ({"min_p": 0.25}, 3),
        ({"min_p": 0.26}, 2),
        ({"min_p": 1.0}, 1),
    ],
)
def test_truncation_keeps_the_head_and_renormalises_it(dtype, params, count):
    """Each truncation keeps as many of the most likely tokens as it says, the crossing one included."""
    torch.testing.assert_close(distribution(dtype, **params).double(), kept(count), rtol=0, atol=1e-6)


def test_min_p_is_applied_before_top_p():
    """With min_p .25 and top_p .8 two tokens are left, as in vLLM; the other order would leave three."""
    torch.testing.assert_close(distribution(min_p=0.25, top_p=0.8), kept(2))


def test_top_k_is_applied_before_top_p():
    """With top_k 2 and top_p .6 one token is left, since it has two thirds of what top_k left over."""
    torch.testing.assert_close(distribution(top_k=2, top_p=0.6), kept(1))


def test_temperature_is_a_power_and_comes_before_truncation():
    """At temperature 1/2 probabilities are squared; the first then has .744, so that top_p .74 keeps it alone."""
    torch.testing.assert_close(distribution(temperature=0.5), P**2 / (P**2).sum())
    torch.testing.assert_close(distribution(temperature=0.5, top_p=0.74), kept(1))


def test_logit_bias_multiplies_odds():
    """A bias of log 4 makes a token four times as likely against the others, before the temperature."""
    weights = torch.tensor([0.5, 1.0, 0.125, 0.0625, 0.0625], dtype=torch.float64)
    bias = {1: math.log(4)}
    torch.testing.assert_close(distribution(logit_bias=bias), weights / weights.sum())
    torch.testing.assert_close(distribution(logit_bias=bias, temperature=0.5), weights**2 / (weights**2).sum())
    assert distribution(logit_bias=bias, temperature=0.0).tolist() == [0, 1, 0, 0, 0]


def test_logit_bias_outside_the_vocabulary_is_refused():
    """A bias on a token that does not exist is an error that says which ids there are."""
    with pytest.raises(ValueError, match="from 0 to 4, got 5"):
        distribution(logit_bias={5: 1.0})


def test_token_ids_do_not_matter():
    """Permuting the vocabulary permutes the distribution."""
    params = [SamplingParams(top_p=0.76, min_p=0.1, top_k=4)]
    plain, permuted = probabilities(P.log()[None], params), probabilities(P.log()[ORDER][None], params)
    torch.testing.assert_close(permuted, plain[:, ORDER])


def test_ties_do_not_enlarge_the_head():
    """Among equally likely tokens top_p and top_k still keep the fewest that suffice."""
    uniform = torch.zeros(1, 4)
    assert sorted(probabilities(uniform, [SamplingParams(top_p=0.5)])[0].tolist()) == [0, 0, 0.5, 0.5]
    assert sorted(probabilities(uniform, [SamplingParams(top_k=3)])[0].tolist())[0] == 0


def test_rows_have_their_own_parameters():
    """Every row of a batch has the distribution that it has alone, and the logits are left as they are."""
    params = [
        SamplingParams(),
        SamplingParams(temperature=0),
        SamplingParams(top_k=2),
        SamplingParams(top_p=0.6, temperature=2.0),
        SamplingParams(min_p=0.3),
        SamplingParams(logit_bias={4: 5.0}),
    ]
    logits = torch.stack([P.log(), P[ORDER].log(), P.log(), P[ORDER].log(), P.log(), P.log()])
    before = logits.clone()
    together = probabilities(logits, params)
    for row, of_row in enumerate(params):
        torch.testing.assert_close(together[row], probabilities(logits[row : row + 1], [of_row])[0])
    assert torch.equal(logits, before)


def test_draws_are_quantiles():
    """Sixteen evenly spread draws give each token as often as its sixteenths say."""
    draws = [(i + 0.5) / 16 for i in range(16)]
    tokens = choose(P.log().expand(16, -1), [SamplingParams()] * 16, draws)
    assert torch.bincount(tokens).tolist() == [8, 4, 2, 1, 1]


def test_tokens_that_were_cut_are_never_drawn():
    """The smallest and the largest draw give the first and the last token that truncation left, wherever they stand."""
    logits = P[ORDER].log().expand(2, -1)  # the two most likely tokens have the ids 1 and 3
    tokens = choose(logits, [SamplingParams(top_k=2)] * 2, [0.0, 1 - 2**-53])
    assert tokens.tolist() == [1, 3]


def test_greedy_rows_ignore_their_draws():
    """At temperature 0 the most likely token is taken, also beside rows that sample."""
    params = [SamplingParams(temperature=0), SamplingParams(), SamplingParams(temperature=0)]
    assert choose(P.log().expand(3, -1), params, [0.99, 0.99, 0.0]).tolist() == [0, 4, 0]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n": 0}, "n: expected at least 1"),
        ({"n": 2, "temperature": 0}, "1 where temperature is 0"),
        ({"temperature": -0.1}, "temperature: expected"),
        ({"temperature": math.nan}, "temperature: expected"),
        ({"temperature": math.inf}, "temperature: expected"),
        ({"top_p": 0.0}, "top_p: expected above 0"),
        ({"top_p": 1.1}, "top_p: expected above 0"),
        ({"top_k": -2}, "top_k: expected"),
        ({"min_p": 1.5}, "min_p: expected"),
        ({"max_tokens": 0}, "max_tokens: expected at least 1"),
        ({"stop": "\n"}, "stop: expected a tuple"),
        ({"stop": ("",)}, "non-empty strings"),
        ({"logprobs": -1}, "logprobs: expected at least 0"),
        ({"logit_bias": {3: 101.0}}, "logit_bias: expected values from -100 to 100"),
    ],
)
def test_values_out_of_range_are_refused(params, message):
    """Sampling parameters say what was expected and what came."""
    with pytest.raises(ValueError, match=message):
        SamplingParams(**params)
