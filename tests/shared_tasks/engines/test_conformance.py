"""All engines mean the same: what each of them gives is what one plain run of the model says, on any of them.

The engine endpoint is tested on vLLM's own server and on the reference server of the final project. What the engines
do not have in common stands at the end.
"""

from typing import Any

import pytest
import torch
from transformers import LogitsProcessorList, MinPLogitsWarper, TopPLogitsWarper

from shared_tasks.models.engine import Completion, Engine, SamplingParams
from shared_tasks.models.next_token import probabilities
from shared_tasks.models.tokenizing import PromptTokenizer

CHAT = [{"role": "user", "content": "Tom has 12 apples."}]
PROMPTS = ["Tom has 12 apples.", "One day Mia lost", CHAT, "", "In the garden there was a green box. Ada asked her"]
PROMPT = PROMPTS[4]
CONTEXTS = [PROMPTS[0], PROMPTS[0], PROMPT, "", PROMPTS[0], "One day Mia lost ", CHAT, CHAT]
CONTINUATIONS = [" He eats 3 of them.", " He", " mother", "Tom", " and and and", "her", "He", "She has 12."]

# A made-up distribution of the next token, and the tokens that are left of it, as vLLM orders the truncations.
MADE_UP = (0.5, 0.25, 0.125, 0.0625, 0.0625)
TRUNCATIONS = [
    ({}, 5),
    ({"top_k": 3}, 3),
    ({"top_p": 0.49}, 1),
    ({"top_p": 0.74}, 2),
    ({"top_p": 0.76}, 3),
    ({"min_p": 0.24}, 3),
    ({"min_p": 0.26}, 2),
    ({"top_k": 2, "top_p": 0.7}, 2),  # top_k first: 2/3 of what is left are not enough
    ({"top_k": 2, "top_p": 0.6}, 1),  # 0.5 alone would not be enough without it
    ({"min_p": 0.24, "top_p": 0.8}, 2),  # min_p first: 4/7 + 2/7
    ({"temperature": 0.5, "min_p": 0.24}, 2),  # temperature before it
    ({"temperature": 2.0, "top_p": 0.49}, 2),
]  # fmt: skip


@pytest.fixture(scope="session")
def tokenizer(on_transformers: Any) -> PromptTokenizer:
    return on_transformers.tokenizer


@pytest.fixture(scope="session")
def made_up(on_transformers: Any, reference: Any) -> dict[int, float]:
    """The logit bias that turns the distribution after PROMPT into the made-up one, and the five tokens' order."""
    tokenizer = on_transformers.tokenizer
    words = [tokenizer.tokenizer(f" {word}").input_ids for word in ("the", "a", "to", "and", "was")]
    tokens = [ids[0] for ids in words]
    assert all(len(ids) == 1 for ids in words)
    (ids,) = tokenizer.encode([PROMPT])
    with torch.inference_mode():
        logits = reference(torch.tensor([ids])).logits[0, -1]
    bias = dict.fromkeys(range(len(logits)), -100.0)
    top = float(logits.max())
    for token, p in zip(tokens, MADE_UP, strict=True):
        bias[token] = float(torch.tensor(p).log()) - float(logits[token]) + top
    return {token: bias[token] for token in tokens} | bias


@torch.inference_mode()
def greedy_ids(reference: Any, ids: list[int], length: int, bias: dict[int, float] | None = None) -> list[int]:
    """Return the most likely tokens, each from one plain run of the model, up to the end token."""
    generated: list[int] = []
    while len(generated) < length and generated[-1:] != [reference.config.eos_token_id]:
        logits = reference(torch.tensor([ids + generated])).logits[0, -1]
        for token, value in (bias or {}).items():
            logits[token] += value
        generated.append(int(logits.argmax()))
    return generated


@torch.inference_mode()
def plain_logprobs(reference: Any, ids: list[int], start: int) -> torch.Tensor:
    """log P of every token at each place from `start` on, in one plain run of the model."""
    return reference(torch.tensor([ids])).logits[0, start - 1 : -1].log_softmax(-1)


def encoded(tokenizer: PromptTokenizer, prompt: Any) -> list[int]:
    return tokenizer.encode([tokenizer.render(prompt)])[0]


def told_ids(completion: Completion, ids: list[int]) -> bool:
    """Whether the token ids are these; a server that is not vLLM hides them."""
    return completion.token_ids in (ids, [])


def one(engine: Engine, params: SamplingParams, prompt: Any = PROMPT) -> Completion:
    (generation,) = engine.generate([prompt], params)
    return generation.completions[0]


class TestLogLikelihood:
    def test_equals_a_plain_run(self, any_engine, tokenizer, reference):
        """Log-likelihoods of tokens and pairs are those of one plain run within 1e-3, and so is what is greedy."""
        scored = any_engine.loglikelihood(CONTEXTS, CONTINUATIONS)
        pairs = tokenizer.encode_pairs(CONTEXTS, CONTINUATIONS)
        for (context, continuation), result in zip(pairs, scored, strict=True):
            rows = plain_logprobs(reference, context + continuation, len(context))
            expected = rows.gather(1, torch.tensor(continuation)[:, None])[:, 0].tolist()
            assert result.logprobs == pytest.approx(expected, abs=1e-3)
            assert result.total == pytest.approx(sum(expected), abs=1e-3)
            assert result.is_greedy == (rows.argmax(-1).tolist() == continuation)
            assert result.prompt_tokens == len(context)

    def test_greedy_continuations_are_told(self, any_engine, tokenizer, reference):
        """What is generated greedily is a greedy continuation; with another last word it is not."""
        text = tokenizer.decode(greedy_ids(reference, encoded(tokenizer, PROMPT), 8))
        yes, no = any_engine.loglikelihood([PROMPT] * 2, [text, text + " green"])
        assert (yes.is_greedy, no.is_greedy) == (True, False)


class TestGreedy:
    def test_tokens(self, any_engine, tokenizer, reference):
        """Greedy completions of texts and chats are the most likely tokens, one plain run after the other."""
        results = any_engine.generate(PROMPTS, SamplingParams(temperature=0, max_tokens=24))
        for prompt, result in zip(PROMPTS, results, strict=True):
            ids = encoded(tokenizer, prompt)
            expected = greedy_ids(reference, ids, 24)
            (completion,) = result.completions
            assert completion.text == tokenizer.decode(expected)
            assert told_ids(completion, expected)
            assert (result.prompt_tokens, result.generated_tokens) == (len(ids), len(expected))
            rows = plain_logprobs(reference, ids + expected, len(ids))
            of_tokens = rows.gather(1, torch.tensor(expected)[:, None])[:, 0].tolist()
            assert completion.logprobs == pytest.approx(of_tokens, abs=1e-3)

    def test_bias(self, any_engine, tokenizer, reference):
        """A bias changes what is chosen and not the log-probabilities that are told, which are the model's own."""
        ids = encoded(tokenizer, PROMPT)
        first, second = greedy_ids(reference, ids, 2)
        bias = {first: -100.0, second: 2.5}
        expected = greedy_ids(reference, ids, 12, bias)
        completion = one(any_engine, SamplingParams(temperature=0, max_tokens=12, logit_bias=bias))
        assert completion.text == tokenizer.decode(expected)
        assert told_ids(completion, expected)
        assert first not in expected
        rows = plain_logprobs(reference, ids + expected, len(ids))
        of_tokens = rows.gather(1, torch.tensor(expected)[:, None])[:, 0].tolist()
        assert completion.logprobs == pytest.approx(of_tokens, abs=1e-3)

    @pytest.mark.parametrize("cut", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}])
    def test_cut_to_one_token(self, any_engine, cut):
        """A truncation that leaves one token is greedy, at a high temperature too."""
        greedy = one(any_engine, SamplingParams(temperature=0, max_tokens=16))
        assert one(any_engine, SamplingParams(temperature=2, seed=3, max_tokens=16, **cut)).text == greedy.text


class TestEnd:
    def test_end_token(self, any_engine):
        """The end token ends a completion: it counts as a token and is left out of the text."""
        bias = {0: 100.0}
        (result,) = any_engine.generate([PROMPT], SamplingParams(temperature=0, max_tokens=5, logit_bias=bias))
        (completion,) = result.completions
        assert (completion.text, completion.finish_reason, result.generated_tokens) == ("", "stop", 1)
        assert told_ids(completion, [0])

    def test_max_tokens(self, any_engine):
        """max_tokens is the number of tokens where nothing else ends a completion; ignore_eos lets nothing else."""
        params = SamplingParams(temperature=0, max_tokens=5, logit_bias={0: 100.0}, ignore_eos=True)
        (result,) = any_engine.generate([PROMPT], params)
        assert (result.generated_tokens, result.completions[0].finish_reason) == (5, "length")

    def test_the_window_ends_a_completion(self, any_engine, reference):
        """Prompt and completion together have as many tokens as the model takes, whatever max_tokens says."""
        window = reference.config.max_position_embeddings
        prompt = " the" * (window - 4)
        params = SamplingParams(temperature=0, max_tokens=500, ignore_eos=True)
        (result,) = any_engine.generate([prompt], params)
        assert result.prompt_tokens + result.generated_tokens == window

    def test_stop(self, any_engine, tokenizer, reference):
        """A text is cut before the first of the stop strings, also where one begins in the middle of a token."""
        text = tokenizer.decode(greedy_ids(reference, encoded(tokenizer, PROMPT), 40))
        stops = (text[14:17], text[9:12], "never")
        completion = one(any_engine, SamplingParams(temperature=0, max_tokens=40, stop=stops))
        assert completion.text == text[: min(text.index(stop) for stop in stops[:2])]
        assert completion.finish_reason == "stop"

    def test_stop_in_the_last_token(self, any_engine, tokenizer, reference):
        """A stop string that is complete just at max_tokens still counts as a stop."""
        text = tokenizer.decode(greedy_ids(reference, encoded(tokenizer, PROMPT), 6))
        completion = one(any_engine, SamplingParams(temperature=0, max_tokens=6, stop=(text[-3:],)))
        assert (completion.text, completion.finish_reason) == (text[: text.index(text[-3:])], "stop")


class TestSampling:
    def test_n_and_seed(self, any_engine):
        """n completions are those of n requests with the following seeds, whatever runs beside them, and differ."""
        (together,) = any_engine.generate([PROMPT], SamplingParams(n=4, seed=7, max_tokens=20))
        others = [SamplingParams(seed=7 + i, max_tokens=20) for i in range(4)]
        apart = any_engine.generate([PROMPT] * 4 + PROMPTS[:2], [*others, *others[:2]])[:4]
        texts = [completion.text for completion in together.completions]
        assert texts == [result.completions[0].text for result in apart]
        assert len(set(texts)) == 4

    @pytest.mark.parametrize(("cut", "kept"), TRUNCATIONS)
    def test_truncations_keep_the_same_tokens(self, any_engine, tokenizer, made_up, cut, kept):
        """Of a made-up distribution just the tokens are drawn that are left: bias, temperature, min_p, top_k, top_p."""
        params = SamplingParams(n=96, seed=0, max_tokens=1, logit_bias=made_up, **cut)
        (result,) = any_engine.generate([PROMPT], params)
        left = {tokenizer.decode([token]) for token in list(made_up)[:kept]}
        assert {completion.text for completion in result.completions} == left


class TestDistributions:
    """Distributions of vLLM, the whole vocabulary; those of transformers are `probabilities`, which is tested apart."""

    PARAMS = [
        SamplingParams(),
        SamplingParams(temperature=0.7),
        SamplingParams(top_k=20),
        SamplingParams(top_p=0.9, temperature=1.3),
        SamplingParams(min_p=0.05),
        SamplingParams(logit_bias={18: 3.0, 201: -2.0}),
        SamplingParams(temperature=1.5, min_p=0.02, top_k=12, top_p=0.8, logit_bias={18: 3.0}),
    ]

    @pytest.mark.parametrize("params", PARAMS)
    def test_processed(self, vllm_processed, tokenizer, reference, params):
        """What vLLM draws from after bias, temperature and truncations is this kit's distribution, token by token."""
        rows = vllm_processed.next_token_logprobs(PROMPTS, params)
        for prompt, row in zip(PROMPTS, rows, strict=True):
            with torch.inference_mode():
                logits = reference(torch.tensor([encoded(tokenizer, prompt)])).logits[:, -1]
            (expected,) = probabilities(logits, [params])
            assert torch.equal(row > -torch.inf, expected > 0)
            torch.testing.assert_close(row.exp(), expected, rtol=0, atol=1e-5)

    @pytest.mark.parametrize(("cut", "kept"), TRUNCATIONS)
    def test_made_up(self, vllm_processed, made_up, cut, kept):
        """The truncations of the made-up distribution leave the same tokens, with the probabilities renormalised."""
        params = SamplingParams(logit_bias=made_up, **cut)
        (row,) = vllm_processed.next_token_logprobs([PROMPT], params)
        left = torch.tensor(MADE_UP[:kept]) ** (1 / params.temperature)
        torch.testing.assert_close(row[list(made_up)[:kept]].exp(), left / left.sum(), rtol=0, atol=1e-4)
        assert int((row.exp() > 1e-30).sum()) == kept

    def test_raw(self, vllm, tokenizer, reference):
        """Raw distributions are the model's own, whatever the parameters."""
        rows = vllm.next_token_logprobs(PROMPTS, SamplingParams(temperature=0.3, top_k=2, logit_bias={18: 50.0}))
        for prompt, row in zip(PROMPTS, rows, strict=True):
            with torch.inference_mode():
                logits = reference(torch.tensor([encoded(tokenizer, prompt)])).logits[0, -1]
            torch.testing.assert_close(row, logits.log_softmax(-1), rtol=0, atol=1e-3)


class TestDifferences:
    """What engines do not have in common, so that nobody is surprised."""

    def test_min_p_comes_last_in_transformers(self):
        """min_p 0.24 with top_p 0.8 leaves 2 tokens in vLLM's order, which this kit has, and 3 in transformers' own."""
        logits = torch.tensor([MADE_UP]).log()
        own = probabilities(logits, [SamplingParams(min_p=0.24, top_p=0.8)])
        warpers = LogitsProcessorList([TopPLogitsWarper(0.8), MinPLogitsWarper(0.24)])
        of_transformers = warpers(torch.zeros(1, 1, dtype=torch.long), logits).softmax(-1)
        assert ((own > 0).sum().item(), (of_transformers > 0).sum().item()) == (2, 3)

    def test_greedy_has_no_distribution_in_vllm(self, vllm_processed, tokenizer, reference):
        """At temperature 0 this kit puts all mass on one token; vLLM tells the softmax of the biased logits."""
        greedy = SamplingParams(temperature=0)
        (row,) = vllm_processed.next_token_logprobs([PROMPT], greedy)
        with torch.inference_mode():
            logits = reference(torch.tensor([encoded(tokenizer, PROMPT)])).logits[:, -1]
        torch.testing.assert_close(row, logits[0].log_softmax(-1), rtol=0, atol=1e-3)
        assert probabilities(logits, [greedy]).max() == 1

    def test_seeds_draw_differently(self, on_transformers, vllm):
        """A seed repeats a completion on its own engine, and means another one on another engine."""
        params = SamplingParams(seed=1, max_tokens=30)
        assert one(vllm, params).text == one(vllm, params).text != one(on_transformers, params).text

    def test_length_penalty_of_beam_search(self, vllm, tokenizer):
        """vLLM divides a beam's score by the length of prompt and completion, homework 1 by the completion's alone."""
        prompt = "12 + 3 ="
        (beams,) = vllm.beam_search([prompt], num_beams=6, max_tokens=16, length_penalty=1.0)
        assert len({len(beam.token_ids) for beam in beams}) > 1
        scores = [beam_score(beam, vllm.count_tokens(prompt)) for beam in beams]
        assert scores == sorted(scores, reverse=True)
        of_completions = [beam.cumulative_logprob / len(beam.token_ids) for beam in beams]
        assert of_completions != sorted(of_completions, reverse=True)

    def test_beam_search_without_penalty(self, vllm, tokenizer, reference):
        """Without a penalty the best beam is the one of transformers, and log-probabilities are a plain run's."""
        for prompt in PROMPTS[:2]:
            ids = encoded(tokenizer, prompt)
            (beams,) = vllm.beam_search([prompt], num_beams=4, max_tokens=12, length_penalty=0.0)
            prompt_ids = torch.tensor([ids])
            (best,) = reference.generate(
                prompt_ids, attention_mask=prompt_ids > -1, num_beams=4, do_sample=False, max_new_tokens=12,
                length_penalty=0.0, early_stopping="never",
            )  # fmt: skip
            assert beams[0].token_ids == best[len(ids) :].tolist()
            rows = plain_logprobs(reference, best.tolist(), len(ids))
            expected = rows.gather(1, best[len(ids) :, None])[:, 0].tolist()
            assert beams[0].logprobs == pytest.approx(expected, abs=1e-3)


def beam_score(beam: Completion, prompt_tokens: int) -> float:
    """Return the score by which vLLM orders beams at a length penalty of 1."""
    length = prompt_tokens + len(beam.token_ids) - (beam.finish_reason == "stop")
    return beam.cumulative_logprob / length
