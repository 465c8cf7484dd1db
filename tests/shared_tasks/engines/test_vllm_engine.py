"""What only the engine on vLLM has: forms of outputs, shared prefixes, many callers, an end that leaves nothing."""

import importlib.util
import json
import re
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from shared_tasks.models.engine import Engine, Generation, SamplingParams
from shared_tasks.models.registry import load_engine
from shared_tasks.models.vllm_engine import VllmEngine
from shared_tasks.models.vllm_thread import VllmStopped

PROMPT = "In the garden there was a green box. Nobody knew whose box it was. Ada asked her"
SHORT = SamplingParams(seed=0, max_tokens=12)


def token_ids(generation: Generation) -> list[list[int]]:
    return [completion.token_ids for completion in generation.completions]


def test_without_vllm_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where vLLM is not installed, loading the engine is an error that names what to do."""
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "vllm" else found(name, *more))
    with pytest.raises(ValueError, match="not installed here: see `make setup-vllm`"):
        load_engine("course-small", "vllm")


def test_a_model_that_does_not_fit(vllm: VllmEngine, folder: Path, tmp_path: Path) -> None:
    """A window that needs more memory than there is for keys and values is an error of one line, and harms no other."""
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 1 << 21}))
    with pytest.raises(ValueError, match=r"vLLM cannot run huge here: .*KV cache") as error:
        VllmEngine(str(tmp_path), name="huge")
    assert "\n" not in str(error.value)
    assert vllm.generate([PROMPT], SHORT)[0].generated_tokens > 0


def test_is_an_engine(vllm: VllmEngine, folder: Path) -> None:
    """It has what every engine has, and its fingerprint changes with the model's files."""
    assert isinstance(vllm, Engine)
    assert vllm.has_chat_template
    mark, vllm._fingerprint = vllm.fingerprint(), None
    assert vllm.fingerprint() == mark
    vllm._fingerprint = None
    config = folder / "generation_config.json"
    text = config.read_text()
    config.write_text(text.replace("{", "{ ", 1))
    try:
        assert vllm.fingerprint() != mark
    finally:
        config.write_text(text)
        vllm._fingerprint = mark


class TestForms:
    @pytest.mark.parametrize(
        ("form", "pattern"),
        [
            ({"regex": "(yes|no), [0-9]{3}!"}, "(yes|no), [0-9]{3}!"),
            ({"choice": ["red", "green"]}, "red|green"),
            ({"grammar": 'root ::= "<" [a-c]{2} ">"'}, "<[a-c]{2}>"),
        ],
    )
    def test_completions_have_the_form(self, vllm, form, pattern):
        """Every completion matches the regular expression, is one of the choices, or a sentence of the grammar."""
        (result,) = vllm.generate([PROMPT], SamplingParams(n=8, seed=1, max_tokens=40), structured=form)
        for completion in result.completions:
            assert re.fullmatch(pattern, completion.text), completion.text

    def test_json(self, vllm):
        """A JSON schema holds a completion to objects that it describes."""
        schema = {
            "type": "object",
            "properties": {"colour": {"enum": ["red", "green"]}, "count": {"enum": [1, 2, 3]}},
            "required": ["colour", "count"],
            "additionalProperties": False,
        }
        tokens = vllm.tokenizer.tokenizer.get_vocab()
        blank = [token for token in tokens.values() if not vllm.tokenizer.decode([token]).strip() and token]
        (result,) = vllm.generate(
            [PROMPT],
            # Between the parts of an object any number of spaces is allowed.
            SamplingParams(n=4, seed=1, max_tokens=60, logit_bias=dict.fromkeys(blank, -100.0)),
            structured={"json": schema},
        )
        for completion in result.completions:
            value = json.loads(completion.text)
            assert set(value) == {"colour", "count"}
            assert value["colour"] in ("red", "green")

    def test_a_form_that_is_none_harms_nobody(self, vllm):
        """A broken regular expression is the request's error, and the engine runs on."""
        with pytest.raises(ValueError, match="vLLM refuses the request"):
            vllm.generate([PROMPT], SHORT, structured={"regex": "[0-9"})
        assert vllm.generate([PROMPT], SHORT)[0].generated_tokens > 0


class TestCost:
    def test_a_prefix_is_not_run_again(self, vllm):
        """A prompt that was seen before costs at most its last block; a log-likelihood of one token likewise."""
        prompt = "Once there was an old clock. " * 12
        params = SamplingParams(temperature=0, max_tokens=1)
        (first,), (again,) = vllm.generate([prompt], params), vllm.generate([prompt], params)
        assert token_ids(first) == token_ids(again)
        assert first.forward_positions == first.prompt_tokens
        assert again.forward_positions < 40 < first.prompt_tokens
        (scored,) = vllm.loglikelihood([prompt.strip()], [" It"])
        assert scored.forward_positions < 40

    def test_usage_adds_up(self, vllm):
        """Requests, tokens, positions and seconds are running totals over all kinds of calls."""
        before = vllm.usage.requests, vllm.usage.prompt_tokens, vllm.usage.generated_tokens, vllm.usage.seconds
        results = vllm.generate([PROMPT, "Tom has"], SamplingParams(n=2, seed=0, max_tokens=9))
        scored = vllm.loglikelihood([PROMPT] * 2, [" and", " but"])
        assert vllm.usage.requests == before[0] + 4
        assert vllm.usage.prompt_tokens == before[1] + sum(one.prompt_tokens for one in [*results, *scored])
        assert vllm.usage.generated_tokens == before[2] + sum(result.generated_tokens for result in results)
        assert vllm.usage.seconds > before[3]
        assert all(result.latency > 0 for result in results)


class TestTogether:
    def test_many_callers(self, vllm):
        """Ten threads that ask at once get what each gets alone, by generation and by score."""
        prompts = [f"Number {i} of the {i + 3} boxes" for i in range(10)]
        settings = [SamplingParams(n=1 + i % 3, seed=i, max_tokens=5 + 4 * i) for i in range(10)]
        found: dict[int, Any] = {}

        def ask(i: int) -> None:
            found[i] = vllm.generate([prompts[i]] * 2, settings[i]), vllm.loglikelihood([prompts[i]], [" were green"])

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for i, (generations, (scored,)) in found.items():
            (alone,) = vllm.generate([prompts[i]], settings[i])
            assert [token_ids(one) for one in generations] == [token_ids(alone)] * 2
            (expected,) = vllm.loglikelihood([prompts[i]], [" were green"])
            assert scored.logprobs == pytest.approx(expected.logprobs, abs=1e-4)

    def test_beam_search_waits_for_the_others(self, vllm):
        """A search that runs alone and requests that come meanwhile both end, with what they give alone."""
        (alone,) = vllm.generate([PROMPT], SHORT)
        (beams,) = vllm.beam_search([PROMPT], 3, 6)
        found: list[Any] = []
        threads = [
            threading.Thread(target=lambda: found.append(token_ids(vllm.generate([PROMPT], SHORT)[0])))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        assert vllm.beam_search([PROMPT], 3, 6) == [beams]
        for thread in threads:
            thread.join()
        assert found == [token_ids(alone)] * 4

    def test_requests_join_and_leave_a_running_batch(self, vllm):
        """Requests that join at any step get the tokens that they get alone; aborted ones never end."""
        batch = vllm.open_batch()
        settings = [SamplingParams(n=1 + i % 2, max_tokens=5 + 4 * i, seed=i, ignore_eos=True) for i in range(4)]
        ended: dict[int, Generation] = {}
        for i, params in enumerate(settings):
            batch.add(i, PROMPT, params)
            batch.add(100 + i, PROMPT, SamplingParams(n=2, max_tokens=500, ignore_eos=True))
            ended |= dict(batch.step())
        batch.abort(range(100, 104))
        while len(ended) < len(settings):
            ended |= dict(batch.step())
        assert batch.step() == []
        for i, params in enumerate(settings):
            (alone,) = vllm.generate([PROMPT], params)
            assert token_ids(ended[i]) == token_ids(alone)

    @pytest.mark.parametrize("params", [SamplingParams(seed=1 << 62), SamplingParams(logit_bias={10**6: 1.0})])
    def test_parameters_that_cannot_run_are_refused(self, vllm, params):
        """What would break a step is refused before it joins."""
        with pytest.raises(ValueError, match="expected"):
            vllm.open_batch().add(0, "Once", params)

    def test_more_prompts_than_a_step_takes(self, vllm):
        """Seeded requests with more tokens in their prompts than vLLM runs in a step give what each gives alone."""
        prompts = [f"Number {i}. " + "Ben went to the garden and found a box. " * 20 for i in range(60)]
        params = SamplingParams(n=2, seed=3, max_tokens=4)
        together = vllm.generate(prompts, params)
        assert sum(result.prompt_tokens for result in together) > 8192
        (alone,) = vllm.generate(prompts[-1:], params)
        assert token_ids(together[-1]) == token_ids(alone)

    def test_nothing_runs_where_one_prompt_is_too_long(self, vllm):
        """A prompt that fills the window is refused, with its number, before anything runs."""
        before = vllm.usage.requests
        with pytest.raises(ValueError, match=r"prompt 1 has .* tokens, course-small takes 1024"):
            vllm.generate(["The", " the" * 2000], SHORT)
        with pytest.raises(ValueError, match="context and continuation 0 have"):
            vllm.loglikelihood([" the" * 2000], [" end"])
        assert vllm.usage.requests == before


class TestProgress:
    def test_results_come_as_they_are_ready(self, vllm):
        """on_done gets each result once, the short ones before the long one."""
        seen: list[tuple[int, Any]] = []
        params = [SamplingParams(seed=0, max_tokens=length, ignore_eos=True) for length in (60, 2, 2)]
        results = vllm.generate([PROMPT] * 3, params, lambda i, result: seen.append((i, result)))
        assert [i for i, _ in seen][-1] == 0
        assert dict(seen) == dict(enumerate(results))

    def test_interrupted(self, vllm):
        """An interrupt comes through, the other requests are dropped, and the engine goes on working."""

        def interrupt(i: int, _: Any) -> None:
            raise KeyboardInterrupt

        params = [SamplingParams(max_tokens=length, ignore_eos=True) for length in (2, 900)]
        with pytest.raises(KeyboardInterrupt):
            vllm.generate([PROMPT] * 2, params, interrupt)
        assert vllm._thread._requests == {}
        assert len(vllm.generate([PROMPT] * 2, SHORT)) == 2

    def test_nothing_to_do(self, vllm):
        """No prompts give no results."""
        assert vllm.generate([], SHORT) == []
        assert vllm.loglikelihood([], []) == []


def test_an_end_that_leaves_nothing(vllm: VllmEngine, folder: Path) -> None:
    """A closed engine has no thread and no process, who waits is told, who asks later too, and others run on."""
    threads, family = set(threading.enumerate()), psutil.Process().children(recursive=True)
    engine = VllmEngine(str(folder), dtype=torch.float32)
    told: list[BaseException] = []
    long = SamplingParams(n=64, max_tokens=900, ignore_eos=True)
    running = threading.Event()

    def wait() -> None:
        try:
            engine.generate([PROMPT] * 65, [SamplingParams(max_tokens=1), *[long] * 64], lambda *_: running.set())
        except VllmStopped as stopped:
            told.append(stopped)

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert running.wait(60)
    engine.close()
    waiting.join(60)
    assert len(told) == 1
    with pytest.raises(VllmStopped, match="was closed"):
        engine.generate([PROMPT], SHORT)
    left = [thread.name for thread in set(threading.enumerate()) - threads if "tqdm" not in type(thread).__module__]
    assert left == []
    assert psutil.Process().children(recursive=True) == family
    assert vllm.generate([PROMPT], SHORT)[0].generated_tokens > 0
