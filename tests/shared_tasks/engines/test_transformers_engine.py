"""The engine on transformers: exact, independent of what runs together, and no position runs twice."""

import gc
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, MistralConfig

from shared_tasks.models import kv_cache
from shared_tasks.models.engine import Engine, SamplingParams
from shared_tasks.models.next_token import choose
from shared_tasks.models.registry import load_engine
from shared_tasks.models.transformers_engine import TransformersEngine

PROMPTS = [
    "Tom has 12 apples.",
    "One day Mia lost",
    "The",
    "In the garden there was a green box. Nobody knew whose box it was. Ada asked her",
    "Question: Where is Ben?",
]
GREEDY = SamplingParams(temperature=0, max_tokens=40)
CHAT = [{"role": "user", "content": "Tom has 12 apples."}]


@pytest.fixture
def shapes(engine: TransformersEngine) -> list[tuple[int, int]]:
    """The shape (rows, positions) of every run of the model."""
    seen: list[tuple[int, int]] = []
    engine.model.register_forward_pre_hook(lambda _, args, kwargs: seen.append(tuple(args[0].shape)), with_kwargs=True)
    return seen


def positions(shapes: list[tuple[int, int]]) -> int:
    return sum(rows * length for rows, length in shapes)


def token_ids(generation: Any) -> list[list[int]]:
    return [completion.token_ids for completion in generation.completions]


@torch.inference_mode()
def logprobs(model: Any, ids: list[int], start: int) -> torch.Tensor:
    """log P of every token at each place from `start` on, in one plain run of the model."""
    return model(torch.tensor([ids])).logits[0, start - 1 : -1].log_softmax(-1)


def assert_scores(model: Any, context: list[int], continuation: list[int], scored: Any) -> None:
    """The log-likelihood is that of one plain run of the model."""
    rows = logprobs(model, context + continuation, len(context))
    expected = rows.gather(1, torch.tensor(continuation)[:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(scored.logprobs), expected, rtol=0, atol=1e-4)
    assert scored.total == pytest.approx(float(expected.sum()), abs=1e-3)
    assert scored.is_greedy == (rows.argmax(-1).tolist() == continuation)


class TestGeneration:
    def test_greedy_equals_generate(self, engine, reference):
        """Greedy completions of prompts of different lengths in one batch are what transformers generates of each."""
        for ids, result in zip(engine.tokenizer.encode(PROMPTS), engine.generate(PROMPTS, GREEDY), strict=True):
            prompt = torch.tensor([ids])
            output = reference.generate(prompt, attention_mask=prompt > -1, do_sample=False, max_new_tokens=40)
            assert token_ids(result) == [output[0, len(ids) :].tolist()]
            assert result.prompt_tokens == len(ids)

    def test_greedy_stays_exact_while_rows_move_and_the_cache_grows(self, engine, reference, monkeypatch):
        """Every token is the most likely one also after neighbours have left and the cache's buffers were replaced."""
        monkeypatch.setattr(kv_cache, "GROWTH", 3)
        engine.batch_size = 3
        lengths = (60, 7, 33, 4, 50)
        params = [SamplingParams(temperature=0, max_tokens=length, ignore_eos=True) for length in lengths]
        results = engine.generate(PROMPTS, params)
        for ids, length, result in zip(engine.tokenizer.encode(PROMPTS), lengths, results, strict=True):
            (generated,) = token_ids(result)
            assert len(generated) == length
            assert logprobs(reference, ids + generated, len(ids)).argmax(-1).tolist() == generated

    def test_logprobs_are_those_of_the_plain_model(self, engine, reference):
        """A completion carries log P of its tokens before bias, temperature and truncation, and their sum."""
        params = SamplingParams(temperature=0.5, top_k=5, logit_bias={20: 3.0}, seed=1, max_tokens=20)
        for ids, result in zip(engine.tokenizer.encode(PROMPTS), engine.generate(PROMPTS, params), strict=True):
            (completion,) = result.completions
            rows = logprobs(reference, ids + completion.token_ids, len(ids))
            expected = rows.gather(1, torch.tensor(completion.token_ids)[:, None])[:, 0]
            torch.testing.assert_close(torch.tensor(completion.logprobs), expected, rtol=0, atol=1e-4)
            assert completion.cumulative_logprob == pytest.approx(float(expected.sum()), abs=1e-3)

    def test_top_logprobs_are_the_most_likely_tokens(self, engine):
        """logprobs=3 tells three tokens a step, the greedy one first; None tells nothing, and no sum of nothing."""
        (three,) = engine.generate(PROMPTS[:1], SamplingParams(temperature=0, max_tokens=5, logprobs=3))
        (completion,) = three.completions
        assert [len(top) for top in completion.top_logprobs] == [3] * 5
        assert [next(iter(top)) for top in completion.top_logprobs] == completion.token_ids
        assert [max(top.values()) for top in completion.top_logprobs] == pytest.approx(completion.logprobs)
        (none,) = engine.generate(PROMPTS[:1], SamplingParams(temperature=0, max_tokens=5, logprobs=None))
        assert none.completions[0].token_ids == completion.token_ids
        with pytest.raises(ValueError, match="expected log-probabilities"):
            _ = none.completions[0].cumulative_logprob

    def test_samples_are_quantiles_of_the_models_distribution(self, engine, reference):
        """Each token is what `choose` makes of the plain model's logits and the generator that the seed begins."""
        params = SamplingParams(temperature=0.8, top_p=0.95, seed=11, max_tokens=25, ignore_eos=True)
        (result,) = engine.generate(PROMPTS[:1], params)
        (ids,) = engine.tokenizer.encode(PROMPTS[:1])
        generator = torch.Generator().manual_seed(11)
        for draw in torch.rand(25, generator=generator, dtype=torch.float64).tolist():
            with torch.inference_mode():
                ids.append(int(choose(reference(torch.tensor([ids])).logits[:, -1], [params], [draw])))
        assert token_ids(result) == [ids[-25:]]

    def test_next_to_no_temperature_is_greedy(self, engine):
        """A temperature that single precision cannot divide by takes the most likely tokens, and breaks no engine."""
        params = [SamplingParams(temperature=t, max_tokens=8, seed=0) for t in (0.0, 1e-6, 1e-40, 1e-320)]
        texts = [one.completions[0].text for one in engine.generate(PROMPTS[:1] * 4, params)]
        assert len(set(texts)) == 1

    def test_a_seeded_request_does_not_depend_on_its_neighbours(self, engine):
        """Alone, in a batch, in another order, in small batches and beside unseeded requests: the same completions."""
        seeded = SamplingParams(n=3, seed=5, max_tokens=30)
        (alone,) = engine.generate(PROMPTS[1:2], seeded)
        unseeded = SamplingParams(n=2, temperature=1.5, max_tokens=9)
        beside = engine.generate(PROMPTS, [unseeded, seeded, unseeded, unseeded, unseeded])[1]
        engine.batch_size = 2
        in_small_batches = engine.generate(PROMPTS[::-1], seeded)[3]
        assert token_ids(alone) == token_ids(beside) == token_ids(in_small_batches)

    def test_completion_i_draws_from_seed_plus_i(self, engine):
        """The completions of a request are those of n requests with the following seeds, and differ."""
        (together,) = engine.generate(PROMPTS[:1], SamplingParams(n=4, seed=7, max_tokens=20))
        apart = engine.generate(PROMPTS[:1] * 4, [SamplingParams(seed=7 + i, max_tokens=20) for i in range(4)])
        assert token_ids(together) == [token_ids(result)[0] for result in apart]
        assert len(set(map(tuple, token_ids(together)))) == 4

    def test_a_mixed_batch_keeps_parameters_apart(self, engine):
        """Greedy, biased, truncated and short requests give together what they give alone."""
        params = [
            GREEDY,
            SamplingParams(temperature=0, max_tokens=40, logit_bias={0: -100.0}),
            SamplingParams(top_k=3, seed=1, max_tokens=12),
            SamplingParams(min_p=0.2, top_p=0.7, seed=2, stop=("a",)),
            SamplingParams(max_tokens=1, seed=3),
        ]
        together = engine.generate(PROMPTS, params)
        alone = [engine.generate([prompt], of_prompt)[0] for prompt, of_prompt in zip(PROMPTS, params, strict=True)]
        assert list(map(token_ids, together)) == list(map(token_ids, alone))
        assert 0 not in token_ids(together[1])[0]

    def test_as_many_parameters_as_prompts(self, engine):
        """Three parameters for five prompts are an error that counts both."""
        with pytest.raises(ValueError, match=r"one per prompt \(5\), got 3"):
            engine.generate(PROMPTS, [GREEDY] * 3)


class TestEnd:
    def test_end_token(self, engine):
        """The end token ends a completion: it is counted among the tokens and left out of the text."""
        (result,) = engine.generate(PROMPTS[:1], SamplingParams(temperature=0, max_tokens=5, logit_bias={0: 100.0}))
        (completion,) = result.completions
        assert (completion.token_ids, completion.text, completion.finish_reason) == ([0], "", "stop")
        assert len(completion.logprobs) == 1

    def test_ignored_end_token(self, engine):
        """With ignore_eos a completion goes on to max_tokens."""
        params = SamplingParams(temperature=0, max_tokens=5, ignore_eos=True, logit_bias={0: 100.0})
        (result,) = engine.generate(PROMPTS[:1], params)
        assert token_ids(result) == [[0] * 5]
        assert result.completions[0].finish_reason == "length"

    def test_max_tokens(self, engine):
        """A completion without an end has max_tokens tokens, and says that it was its length that ended it."""
        (result,) = engine.generate(PROMPTS[:1], SamplingParams(temperature=0, max_tokens=7, ignore_eos=True))
        assert len(token_ids(result)[0]) == 7
        assert result.completions[0].finish_reason == "length"

    def test_stop_string_across_tokens(self, engine):
        """A stop string of the end of one token and the beginning of the next ends the text before it begins."""
        (free,) = engine.generate(PROMPTS[3:4], GREEDY)
        (completion,) = free.completions
        pieces = [engine.tokenizer.decode([token]) for token in completion.token_ids]
        at = next(i for i in range(3, len(pieces)) if len(pieces[i]) > 1 and len(pieces[i + 1]) > 1)
        stop = pieces[at][-1] + pieces[at + 1][0]
        cut = completion.text.index(stop)
        (stopped,) = engine.generate(PROMPTS[3:4], SamplingParams(temperature=0, max_tokens=40, stop=(stop,)))
        assert stopped.completions[0].text == completion.text[:cut]
        assert stopped.completions[0].finish_reason == "stop"
        ended = next(i for i in range(len(pieces)) if stop in "".join(pieces[: i + 1]))
        assert stopped.completions[0].token_ids == completion.token_ids[: ended + 1]

    def test_earliest_of_several_stop_strings(self, engine):
        """Where a token completes two stop strings, the text ends before the one that begins first."""
        (free,) = engine.generate(PROMPTS[3:4], GREEDY)
        text = free.completions[0].text
        stop = (text[6:10], text[4:10], "never")
        (stopped,) = engine.generate(PROMPTS[3:4], SamplingParams(temperature=0, max_tokens=40, stop=stop))
        assert stopped.completions[0].text == text[: min(text.index(stop[0]), text.index(stop[1]))]

    def test_stop_string_in_the_last_token(self, engine):
        """A stop string that is complete just at max_tokens still counts as a stop."""
        (free,) = engine.generate(PROMPTS[3:4], SamplingParams(temperature=0, max_tokens=6))
        text = free.completions[0].text
        params = SamplingParams(temperature=0, max_tokens=6, stop=(text[-3:],))
        (stopped,) = engine.generate(PROMPTS[3:4], params)
        assert stopped.completions[0].text == text[: text.index(text[-3:])]
        assert stopped.completions[0].finish_reason == "stop"

    def test_window(self, engine, shapes):
        """A completion ends with the model's window; a prompt that fills it is refused before anything runs."""
        (ids,) = engine.tokenizer.encode(PROMPTS[:1])
        engine._window = len(ids) + 3
        (result,) = engine.generate(PROMPTS[:1], SamplingParams(temperature=0, ignore_eos=True))
        assert len(token_ids(result)[0]) == 3
        engine._window = len(ids)
        shapes.clear()
        with pytest.raises(ValueError, match=f"prompt 1 has {len(ids)} tokens, course-small takes {len(ids)}"):
            engine.generate(["The", PROMPTS[0]], GREEDY)
        assert shapes == []


class TestCost:
    def test_samples_pay_for_their_prompt_once(self, engine, shapes):
        """Five completions run the prompt once and each of their tokens but the last once."""
        (result,) = engine.generate(PROMPTS[3:4], SamplingParams(n=5, seed=0, max_tokens=12))
        generated = sum(map(len, token_ids(result)))
        assert positions(shapes) == result.prompt_tokens + generated - 5
        assert result.forward_positions == engine.usage.forward_positions == positions(shapes)
        assert (result.generated_tokens, engine.usage.generated_tokens) == (generated, generated)

    def test_samples_pay_for_their_prompt_once_in_small_batches(self, engine, shapes):
        """The same holds when the completions do not fit in one batch."""
        engine.batch_size = 2
        (result,) = engine.generate(PROMPTS[3:4], SamplingParams(n=5, seed=0, max_tokens=12))
        assert positions(shapes) == result.prompt_tokens + sum(map(len, token_ids(result))) - 5
        assert max(rows for rows, _ in shapes) == 2

    def test_ended_sequences_leave_and_waiting_ones_join(self, engine, shapes):
        """No row runs after its end, and free rows are filled: 6 requests of 2 to 12 tokens take 16 steps of 3 rows."""
        engine.batch_size = 3
        lengths = (12, 2, 3, 4, 5, 6)
        params = [SamplingParams(max_tokens=length, ignore_eos=True, seed=0) for length in lengths]
        engine.generate(PROMPTS[:1] * 6, params)
        steps = [rows for rows, length in shapes if length == 1]
        assert sum(steps) == sum(lengths) - 6
        assert len(steps) == 12 - 1  # the others fit beside the longest
        assert max(steps) == 3

    def test_choices_pay_for_their_context_once(self, engine, shapes):
        """Four continuations of a context run it once, and each of their tokens but the last once."""
        continuations = [" the box", " a very long walk home", ".", " is"]
        scored = engine.loglikelihood(PROMPTS[3:4] * 4, continuations)
        context = scored[0].prompt_tokens
        expected = context + sum(len(one.logprobs) - 1 for one in scored)
        assert positions(shapes) == expected
        assert sum(one.forward_positions for one in scored) == engine.usage.forward_positions == expected

    def test_usage_adds_up(self, engine):
        """Requests, tokens and seconds are running totals over both kinds of calls."""
        began = time.perf_counter()
        results = engine.generate(PROMPTS, GREEDY)
        scored = engine.loglikelihood(PROMPTS[:2], [" and", " but"])
        elapsed = time.perf_counter() - began
        usage = engine.usage
        assert usage.requests == 7
        assert usage.prompt_tokens == sum(one.prompt_tokens for one in [*results, *scored])
        assert usage.generated_tokens == sum(len(token_ids(result)[0]) for result in results)
        assert 0 < usage.seconds <= elapsed
        assert 0 < max(result.latency for result in results) <= elapsed
        assert usage.throughput == usage.generated_tokens / usage.seconds

    def test_keys_and_values_go_with_the_call(self, engine):
        """A call leaves no cache behind, not even until Python next looks for cycles."""
        gc.collect()
        gc.disable()
        try:
            engine.generate(["one two", "three"], SamplingParams(n=2, max_tokens=4))
            left = [one for one in gc.get_objects() if type(one) is kv_cache.BatchCache]
        finally:
            gc.enable()
        assert left == []

    def test_a_batch_that_goes_on_does_not_grow(self, engine):
        """Its buffers have room for the longest sequence and what a new buffer has free, however many came and went."""
        batch = engine.open_batch()
        params = SamplingParams(max_tokens=4, ignore_eos=True, seed=0)
        for _ in range(30):
            batch.add(0, "A", params)
            batch.step()
            batch.add(1, PROMPTS[0], params)  # longer than what runs, which moves to the right
            ended = [key for _ in range(4) for key, _ in batch.step()]
            assert ended == [0, 1]
        longest = engine.count_tokens(PROMPTS[0]) + 4
        assert max(layer.keys.shape[2] for layer in batch._cache.layers) <= longest + kv_cache.GROWTH


class TestLogLikelihood:
    CONTEXTS = [PROMPTS[0], PROMPTS[0], PROMPTS[3], "", PROMPTS[0], PROMPTS[2] + " ", PROMPTS[3], "\n"]
    CONTINUATIONS = [" He eats 3 of them.", " He", " mother", "Tom", " and and and", "dog", " The box", "One day"]

    def test_equals_a_plain_run(self, engine, reference):
        """Shared and single contexts, short and long continuations, in one call: each is what one plain run says."""
        pairs = engine.tokenizer.encode_pairs(self.CONTEXTS, self.CONTINUATIONS)
        scored = engine.loglikelihood(self.CONTEXTS, self.CONTINUATIONS)
        for (context, continuation), one in zip(pairs, scored, strict=True):
            assert_scores(reference, context, continuation, one)
            assert one.prompt_tokens == len(context)

    def test_greedy_continuations_are_told(self, engine):
        """What the model generates greedily is a greedy continuation; with another last word it is not."""
        (result,) = engine.generate(PROMPTS[3:4], SamplingParams(temperature=0, max_tokens=8))
        text = result.completions[0].text
        yes, no = engine.loglikelihood(PROMPTS[3:4] * 2, [text, text[:-1] + "@"])
        assert (yes.is_greedy, no.is_greedy) == (True, False)

    def test_small_batches(self, engine):
        """How questions are batched does not matter."""
        together = engine.loglikelihood(self.CONTEXTS, self.CONTINUATIONS)
        engine.batch_size = 1
        apart = engine.loglikelihood(self.CONTEXTS, self.CONTINUATIONS)
        for one, other in zip(together, apart, strict=True):
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)

    def test_chat(self, engine, reference):
        """A chat as a context is rendered first."""
        scored = engine.loglikelihood([CHAT], ["He"])
        context, continuation = [0, *engine.tokenizer.tokenizer("Tom has 12 apples.").input_ids], "\nHe"
        assert_scores(reference, context, engine.tokenizer.tokenizer(continuation).input_ids, scored[0])

    def test_too_long(self, engine, shapes):
        """What does not fit the window is refused before anything runs; the last token need not fit."""
        (context, continuation), *_ = engine.tokenizer.encode_pairs([PROMPTS[0]], [" He eats"])
        engine._window = len(context) + len(continuation) - 1
        engine.loglikelihood([PROMPTS[0]], [" He eats"])
        engine._window -= 1
        shapes.clear()
        with pytest.raises(ValueError, match="context and continuation 1 have"):
            engine.loglikelihood(["The", PROMPTS[0]], [" dog", " He eats"])
        assert shapes == []

    @pytest.mark.parametrize(
        ("contexts", "continuations", "message"),
        [(["a", "b"], ["c"], r"as contexts \(2\), got 1"), (["a"], [""], "continuation 0 adds no token")],
    )
    def test_bad_pairs(self, engine, contexts, continuations, message):
        """Lists of different lengths and empty continuations are errors."""
        with pytest.raises(ValueError, match=message):
            engine.loglikelihood(contexts, continuations)


class TestArchitectures:
    """Models whose positions or windows show a mistake in padding, that rotary positions would hide."""

    SHARED = {"vocab_size": 1024, "initializer_range": 0.4, "bos_token_id": 0, "eos_token_id": 0}
    CONFIGS = {
        "absolute positions": GPT2Config(n_positions=128, n_embd=32, n_layer=2, n_head=2, **SHARED),
        "sliding window": MistralConfig(
            max_position_embeddings=128, sliding_window=8, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, **SHARED,
        ),
    }  # fmt: skip

    @pytest.fixture(params=CONFIGS)
    def other(self, request, folder, tmp_path: Path) -> TransformersEngine:
        torch.manual_seed(0)  # transformers draws initial weights from the global generator
        AutoModelForCausalLM.from_config(self.CONFIGS[request.param]).save_pretrained(tmp_path)
        AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
        return TransformersEngine(str(tmp_path), device="cpu")

    def test_generation(self, other):
        """Every greedy token is the most likely one in a plain run of the model."""
        other.batch_size = 3
        params = [SamplingParams(temperature=0, max_tokens=length, ignore_eos=True) for length in (20, 3, 9, 4, 12)]
        reference = AutoModelForCausalLM.from_pretrained(other.name)
        for ids, result in zip(other.tokenizer.encode(PROMPTS), other.generate(PROMPTS, params), strict=True):
            (generated,) = token_ids(result)
            assert logprobs(reference, ids + generated, len(ids)).argmax(-1).tolist() == generated

    def test_loglikelihood(self, other):
        """Log-likelihoods are those of a plain run, for continuations that share a context too."""
        contexts, continuations = [PROMPTS[0], *PROMPTS] * 2, [" a dog", " is here", " and", ".", " not so", "!"] * 2
        reference = AutoModelForCausalLM.from_pretrained(other.name)
        pairs = other.tokenizer.encode_pairs(contexts, continuations)
        for (context, continuation), one in zip(pairs, other.loglikelihood(contexts, continuations), strict=True):
            assert_scores(reference, context, continuation, one)


class TestPrompts:
    def test_start_token_once(self, engine):
        """Plain texts get the start token; texts that begin with it, as a template writes them, do not again."""
        plain, started = engine.tokenizer.encode(["Tom has", "<|endoftext|>Tom has"])
        assert plain == started == [0, *engine.tokenizer.tokenizer("Tom has").input_ids]
        (chat,) = engine.tokenizer.encode([engine.tokenizer.render(CHAT)])
        assert chat == [0, *engine.tokenizer.tokenizer("Tom has 12 apples.\n").input_ids]
        assert engine.tokenizer.encode([""]) == [[0]]

    def test_chat_and_its_text_are_one_prompt(self, engine):
        """A chat gives what its rendered text gives."""
        chat, text = engine.generate([CHAT, engine.tokenizer.render(CHAT)], GREEDY)
        assert (token_ids(chat), chat.prompt_tokens) == (token_ids(text), text.prompt_tokens)

    def test_no_template(self, engine):
        """A chat for a tokenizer without a template is an error that names the model; the engine tells before."""
        assert engine.has_chat_template
        engine.tokenizer.tokenizer.chat_template = None
        assert not engine.has_chat_template
        with pytest.raises(ValueError, match="course-small has no chat template"):
            engine.generate([CHAT], GREEDY)

    def test_a_template_that_refuses(self, engine):
        """What a template says against a chat reaches the user."""
        engine.tokenizer.tokenizer.chat_template = "{{ raise_exception('no system messages') }}"
        with pytest.raises(ValueError, match="no system messages"):
            engine.generate([CHAT], GREEDY)

    def test_pairs_split_where_the_contexts_tokens_end(self, engine):
        """Context and continuation together have the tokens of the whole text; spaces go over to the continuation."""
        encode = engine.tokenizer.tokenizer
        ((context, continuation),) = engine.tokenizer.encode_pairs(["Tom has "], ["apples"])
        assert context == [0, *encode("Tom has").input_ids]
        assert continuation == encode(" apples").input_ids
        ((context, continuation),) = engine.tokenizer.encode_pairs(["Tom ha"], ["s apples"])
        whole = encode("Tom has apples").input_ids
        assert continuation == whole[len(context) - 1 :]

    def test_empty_context(self, engine):
        """Nothing is conditioned on the start token, also where only spaces stand before the continuation."""
        pairs = engine.tokenizer.encode_pairs(["", " "], ["Tom", "Tom"])
        assert pairs == [([0], engine.tokenizer.tokenizer(text).input_ids) for text in ("Tom", " Tom")]


class TestProgress:
    def test_results_come_as_they_are_ready(self, engine):
        """on_done gets each result once, the short ones before the long one, and they are those that are returned."""
        seen: list[tuple[int, Any]] = []
        params = [SamplingParams(seed=0, max_tokens=length, ignore_eos=True) for length in (30, 2, 2)]
        results = engine.generate(PROMPTS[:1] * 3, params, lambda i, result: seen.append((i, result)))
        assert [i for i, _ in seen][-1] == 0
        assert dict(seen) == dict(enumerate(results))
        seen.clear()
        scored = engine.loglikelihood(["a", "b", "a"], [" c", " d", " e"], lambda i, result: seen.append((i, result)))
        assert dict(seen) == dict(enumerate(scored))
        assert len(seen) == 3

    def test_interrupted(self, engine):
        """An interrupt comes through, with what is ready already delivered, and the engine goes on working."""
        seen: list[int] = []

        def interrupt(i: int, _: Any) -> None:
            seen.append(i)
            if len(seen) == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            engine.generate(PROMPTS, GREEDY, interrupt)
        assert len(seen) == 2
        assert len(engine.generate(PROMPTS, GREEDY)) == 5

    def test_nothing_to_do(self, engine):
        """No prompts give no results."""
        assert engine.generate([], GREEDY) == []
        assert engine.loglikelihood([], []) == []


class TestModel:
    def test_fingerprint_follows_content(self, engine, folder):
        """The same files have the same fingerprint; another weight, chat template or token does not."""
        mark = engine.fingerprint()
        assert TransformersEngine(str(folder), device="cpu", name="other name").fingerprint() == mark
        other = TransformersEngine(str(folder), device="cpu")
        with torch.no_grad():
            other.model.get_input_embeddings().weight[3, 3] += 1e-3
        assert other.fingerprint() != mark
        other = TransformersEngine(str(folder), device="cpu")
        other.tokenizer.tokenizer.chat_template += " "
        assert other.fingerprint() != mark
        other = TransformersEngine(str(folder), device="cpu")
        other.tokenizer.tokenizer.add_tokens(["<|new|>"])
        assert other.fingerprint() != mark

    def test_load_engine(self):
        """Engines come by name: a course model is an Engine, other names of engines are an error that lists them."""
        engine = load_engine("course-small")
        assert isinstance(engine, Engine)
        assert engine.name == "course-small"
        with pytest.raises(ValueError, match="no engine 'abacus'; there are: transformers, vllm, endpoint"):
            load_engine("course-small", "abacus")
        with pytest.raises(ValueError, match="no course model"):
            load_engine("course-huge")
