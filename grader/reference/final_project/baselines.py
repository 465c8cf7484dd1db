"""The baselines: batches that are put together once and run to their end, with transformers.

A batch of one is the simple baseline, which answers one request at a time. The improved baseline waits a moment for
others to come, and runs those of similar length together; who comes later waits until the last of the batch has ended.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import DynamicCache

from final_project.interface import Output, Request, Stats
from grader.reference.final_project.engine import tell
from shared_tasks.models.folders import model_folder
from shared_tasks.models.next_token import choose, uniforms
from shared_tasks.models.transformers_model import load_pretrained

NAP = 0.001  # seconds of a step that waits for a batch to fill


@dataclass(eq=False)
class _Row:
    """A sequence of the batch."""

    request: Request
    uniforms: list[float]  # its draws
    generated: int = 0
    ended: bool = False


class StaticBatchingEngine:
    """Runs batches of up to `max_batch_size` sequences; one that is not full begins `window` seconds after its first.

    Rows that have ended leave the batch, and nobody takes their places until the last has ended.
    """

    def __init__(
        self,
        model: str,
        max_batch_size: int = 1,
        window: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ):
        """Load a course model or a folder. Raises ValueError where there is none."""
        self.max_batch_size, self.window = max_batch_size, window
        self.clock, self.sleep = clock, sleep
        tokenizer, self.model = load_pretrained(str(model_folder(model)), "cpu", torch.float32)
        self.eos_token_id: int = tokenizer.eos_token_id
        self.waiting: dict[int, tuple[Request, float]] = {}  # with the time of arrival
        self.batch: list[_Row] = []
        self.mask: torch.Tensor  # of the batch, with its last tokens and its keys and values
        self.tokens: torch.Tensor
        self.cache: DynamicCache

    def add(self, request: Request) -> None:
        """Take a sequence in; it begins with one of the next batches."""
        self.waiting[request.id] = request, self.clock()

    def abort(self, request_id: int) -> None:
        """Forget a sequence; one that runs leaves the batch before the next step."""
        self.waiting.pop(request_id, None)
        for row in self.batch:
            row.ended |= row.request.id == request_id

    def stats(self) -> Stats:
        """Return how many wait, and how many of the batch have not ended."""
        return Stats(len(self.waiting), sum(not row.ended for row in self.batch))

    @torch.inference_mode()
    def step(self) -> list[Output]:
        """Run the prompts of a new batch, or one token of each row; wait a moment where a batch may yet fill up."""
        self._drop_ended()
        if not self.batch:
            if not self._begins():
                if self.waiting:
                    self.sleep(NAP)
                return []
            return self._begin()
        self.mask = torch.nn.functional.pad(self.mask, (0, 1), value=1)
        return self._forward(self.tokens[:, None])

    def _begins(self) -> bool:
        """Return whether the next batch is full, or its first sequence has waited long enough."""
        arrived = min((time for _, time in self.waiting.values()), default=self.clock())
        return len(self.waiting) >= self.max_batch_size or (
            bool(self.waiting) and self.clock() - arrived >= self.window
        )

    def _begin(self) -> list[Output]:
        """Run the prompts of a new batch, padded on the left: the oldest, and those nearest to it in length."""
        lengths = {request_id: len(request.prompt) for request_id, (request, _) in self.waiting.items()}
        oldest = next(iter(lengths.values()))
        chosen = sorted(lengths, key=lambda request_id: abs(lengths[request_id] - oldest))[: self.max_batch_size]
        requests = [self.waiting.pop(request_id)[0] for request_id in chosen]
        self.batch = [_Row(request, uniforms(request.params, request.params.max_tokens)) for request in requests]
        length = max(len(request.prompt) for request in requests)
        ids = torch.zeros(len(requests), length, dtype=torch.long)
        self.mask = torch.zeros_like(ids)
        for row, request in enumerate(requests):
            ids[row, length - len(request.prompt) :] = torch.tensor(request.prompt)
            self.mask[row, length - len(request.prompt) :] = 1
        self.cache = DynamicCache()
        return self._forward(ids)

    def _drop_ended(self) -> None:
        """Take the rows that have ended out of the batch."""
        kept = [place for place, row in enumerate(self.batch) if not row.ended]
        if len(kept) < len(self.batch):
            self.batch = [self.batch[place] for place in kept]
            if kept:
                rows = torch.tensor(kept)
                self.mask, self.tokens = self.mask[rows], self.tokens[rows]
                self.cache.batch_select_indices(rows)

    def _forward(self, ids: torch.Tensor) -> list[Output]:
        """Run new columns of the batch and draw the next token of every row."""
        positions = (self.mask.cumsum(-1) - 1).clamp_min(0)[:, -ids.shape[1] :]
        scores = any(row.request.score_prompt and row.generated == 0 for row in self.batch)
        logits = self.model(
            ids,
            attention_mask=self.mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=0 if scores else 1,
        ).logits
        params = [row.request.params for row in self.batch]
        self.tokens = choose(logits[:, -1], params, [row.uniforms[row.generated] for row in self.batch])
        told = tell(self.tokens.tolist(), logits[:, -1], [p.logprobs for p in params])
        outputs = []
        for row, token, of_row in zip(self.batch, told, logits, strict=True):
            request, tokens = row.request, [token]
            if request.score_prompt and row.generated == 0:
                following = request.prompt[1:]
                places = slice(len(of_row) - len(request.prompt), len(of_row) - 1)
                scored = tell(following, of_row[places], [request.params.logprobs] * len(following))
                tokens = [tell(request.prompt[:1], of_row[:1], [None])[0], *scored, token]
            row.generated += 1
            stops = token.id == self.eos_token_id and not request.params.ignore_eos
            row.ended = stops or row.generated == request.params.max_tokens
            reason = "stop" if stops else "length"
            outputs.append(Output(request.id, tokens, reason if row.ended else None))  # type: ignore[arg-type]
        return outputs
