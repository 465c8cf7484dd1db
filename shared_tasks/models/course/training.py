"""Training a course model: `python -m shared_tasks.models.course.training course-base --out DIR`.

The tokenizer, the data and the run follow from the recipe. Interrupted training goes on where its last checkpoint was
when the same command is started again. The matrices are trained by Muon (Jordan et al., 2024,
https://kellerjordan.github.io/posts/muon/), the embedding and the vectors by AdamW.
"""

import itertools
import json
import math
import os
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tokenizers
import torch
import typer
from jaxtyping import Int
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tokenizers import decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from shared_tasks.models.course.text import Document, documents

END, USER, ASSISTANT = "<|endoftext|>", "<|user|>", "<|assistant|>"  # END also starts a text
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message.role == 'assistant' %}<|assistant|>{{ message.content }}{{ eos_token }}"
    "{% elif loop.first or loop.previtem.role != 'system' %}<|user|>{{ message.content }}"
    "{% else %}{{ '\\n' + message.content }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
IGNORED = -100  # the label of a token that is not learnt
HELD_OUT_SEED, HELD_OUT_DOCUMENTS = "held out", 500
CHUNK_STEPS = 20  # documents are drawn and packed for so many steps at a time
CHECKPOINT_STEPS = 100


@dataclass(frozen=True)
class Phase:
    """Some steps on one mix of documents; the learning rates rise to a share of the recipe's, stay, fall to zero."""

    mix: str
    steps: int
    peak: float = 1.0
    warmup_steps: int = 40
    decay_share: float = 0.5  # of the steps, at the end, over which the rates fall


@dataclass(frozen=True)
class Recipe:
    """Everything that a course model follows from."""

    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    phases: tuple[Phase, ...]
    vocab_size: int = 1_024
    context: int = 384
    batch: int = 24
    matrix_rate: float = 0.02
    vector_rate: float = 0.004
    weight_decay: float = 0.05
    seed: int = 1

    @property
    def steps(self) -> int:
        """The steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def phase(self, step: int) -> tuple[Phase, int]:
        """Return the phase that a step belongs to, and the place of the step in it."""
        for phase in self.phases:
            if step < phase.steps:
                return phase, step
            step -= phase.steps
        raise ValueError(f"expected a step below {self.steps}, got one {step} beyond")


RECIPES = {
    "course-small": Recipe(
        hidden_size=128,
        layers=4,
        heads=4,
        kv_heads=2,
        head_dim=32,
        intermediate_size=320,
        phases=(Phase("course", 900),),
    ),
    "course-base": Recipe(
        hidden_size=256,
        layers=5,
        heads=4,
        kv_heads=2,
        head_dim=64,
        intermediate_size=640,
        phases=(Phase("foundation", 2_600), Phase("course", 400, peak=0.4, decay_share=0.9)),
    ),
}


def train_tokenizer(vocab_size: int) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer: digits, operators, parentheses and option letters are tokens of their own."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Split(tokenizers.Regex(r"[-+*/=()]|(?<=\()[A-Z](?=\))"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END, USER, ASSISTANT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (text for document in documents("tokenizer", "foundation") for text in (document.user or "", document.text))
    tokenizer.train_from_iterator(itertools.islice(texts, 10_000), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        pad_token=END,
        additional_special_tokens=[USER, ASSISTANT],
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def new_model(recipe: Recipe) -> Qwen3ForCausalLM:
    """Return an untrained model of the recipe's shape."""
    torch.manual_seed(recipe.seed)
    config = Qwen3Config(
        vocab_size=recipe.vocab_size,
        hidden_size=recipe.hidden_size,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.kv_heads,
        head_dim=recipe.head_dim,
        intermediate_size=recipe.intermediate_size,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    return Qwen3ForCausalLM(config)


def encode(tokenizer: PreTrainedTokenizerFast, batch: list[Document]) -> list[tuple[list[int], list[int]]]:
    """Return the tokens of each document, as the chat template writes it, and its labels: the question's ignored."""
    end, user, assistant = tokenizer.convert_tokens_to_ids([END, USER, ASSISTANT])
    questions = tokenizer([document.user or "" for document in batch], add_special_tokens=False).input_ids
    texts = tokenizer([document.text for document in batch], add_special_tokens=False).input_ids
    encoded = []
    for document, question, text in zip(batch, questions, texts, strict=True):
        before = [end] if document.user is None else [end, user, *question, assistant]
        encoded.append((before + text, [IGNORED] * len(before) + text))
    return encoded


def packed_rows(
    tokenizer: PreTrainedTokenizerFast, recipe: Recipe, chunk: int
) -> tuple[Int[Tensor, "rows context"], Int[Tensor, "rows context"]]:
    """Return the tokens and labels of a chunk of training: whole documents, packed so that little room is left.

    Each document begins with the end token that closes the one before, and each row ends with one.
    """
    phase, _ = recipe.phase(chunk * CHUNK_STEPS)
    count, source = CHUNK_STEPS * recipe.batch, documents(f"{recipe.seed}/{chunk}", phase.mix)
    room = recipe.context - 1
    drawn: list[tuple[list[int], list[int]]] = []
    while sum(len(tokens) for tokens, _ in drawn) < count * room:
        drawn += [pair for pair in encode(tokenizer, list(itertools.islice(source, 500))) if len(pair[0]) <= room]
    rows: list[tuple[list[int], list[int]]] = []
    with_room: list[list[int]] = [[] for _ in range(room + 1)]  # indices of rows, by the room left in them
    for tokens, labels in sorted(drawn, key=lambda pair: -len(pair[0])):
        left = next((r for r in range(len(tokens), room + 1) if with_room[r]), None)
        if left is None:
            rows.append(([], []))
            index, left = len(rows) - 1, room
        else:
            index = with_room[left].pop()
        row_tokens, row_labels = rows[index]
        row_labels.extend([0 if row_tokens else IGNORED, *labels[1:]])  # the end of the document before is learnt
        row_tokens.extend(tokens)
        with_room[left - len(tokens)].append(index)
    random.Random(f"{recipe.seed}/{chunk}/order").shuffle(rows)
    tokens_, labels_ = (
        torch.zeros(count, recipe.context, dtype=torch.long),
        torch.full((count, recipe.context), IGNORED),
    )
    for i, (row_tokens, row_labels) in enumerate(rows[:count]):
        tokens_[i, : len(row_tokens)] = torch.tensor(row_tokens)
        labels_[i, : len(row_labels) + 1] = torch.tensor([*row_labels, 0])
    return tokens_, labels_


def rate(recipe: Recipe, step: int) -> float:
    """Return the factor of the learning rates at a step: in each phase a linear rise, a plateau, a linear fall."""
    phase, place = recipe.phase(step)
    rising = (place + 1) / phase.warmup_steps
    falling = (phase.steps - place) / (phase.steps * phase.decay_share)
    return phase.peak * min(1.0, rising, falling)


def held_out_perplexity(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast) -> float:
    """Return the perplexity per token of the answers and plain texts of a stream apart, end tokens included."""
    losses, count = 0.0, 0
    batch = list(itertools.islice(documents(HELD_OUT_SEED, "course"), HELD_OUT_DOCUMENTS))
    for tokens, labels in encode(tokenizer, batch):
        ids, learnt = torch.tensor([[*tokens, 0]]), torch.tensor([[*labels, 0]])
        number = int((learnt != IGNORED).sum())
        with torch.inference_mode():
            losses += float(model(ids, labels=learnt).loss) * number
        count += number
    return math.exp(losses / count)


def optimizers(model: Qwen3ForCausalLM, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices of the layers, and AdamW for the embedding and the vectors."""
    embedding = model.get_input_embeddings().weight
    matrices = [p for p in model.parameters() if p.ndim == 2 and p is not embedding]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    muon = torch.optim.Muon(matrices, lr=recipe.matrix_rate, weight_decay=recipe.weight_decay, adjust_lr_fn="original")
    groups = [{"params": [embedding], "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=recipe.vector_rate, betas=(0.9, 0.95))
    return [muon, adam]


def batches(
    tokenizer: PreTrainedTokenizerFast, recipe: Recipe, first: int
) -> Iterator[tuple[Int[Tensor, "batch context"], Int[Tensor, "batch context"]]]:
    """Yield the tokens and labels of every step from `first` on."""
    for chunk in range(first // CHUNK_STEPS, math.ceil(recipe.steps / CHUNK_STEPS)):
        tokens, labels = packed_rows(tokenizer, recipe, chunk)
        steps = range(chunk * CHUNK_STEPS, min((chunk + 1) * CHUNK_STEPS, recipe.steps))
        for step, ids, learnt in zip(
            steps, torch.split(tokens, recipe.batch), torch.split(labels, recipe.batch), strict=False
        ):
            if step >= first:
                yield ids, learnt


def train(recipe: Recipe, out: Path) -> float:
    """Train a model, save it with its tokenizer in `out`, and return its held-out perplexity."""
    out.mkdir(parents=True, exist_ok=True)
    tokenizer, model = train_tokenizer(recipe.vocab_size), new_model(recipe)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device).train()
    if device == "cpu":
        model.set_attn_implementation("eager")  # the same values, in less time than fused attention at this length
    optimizing = optimizers(model, recipe)
    rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizing]
    checkpoint = out / "checkpoint.pt"
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        if state["recipe"] != asdict(recipe):
            raise SystemExit(f"{checkpoint} is of another recipe; remove it to start anew")
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizing, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        first = state["step"]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("training", total=recipe.steps, completed=first)
        began = time.monotonic()
        for step, (tokens, labels) in enumerate(batches(tokenizer, recipe, first), first):
            for optimizer, base_rates in zip(optimizing, rates, strict=True):
                for group, base_rate in zip(optimizer.param_groups, base_rates, strict=True):
                    group["lr"] = base_rate * rate(recipe, step)
            with torch.autocast(device, torch.bfloat16):
                loss = model(tokens.to(device), labels=labels.to(device)).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizing:
                optimizer.step()
                optimizer.zero_grad()
            speed = (step + 1 - first) * tokens.numel() / (time.monotonic() - began)
            progress.update(task, advance=1, description=f"loss {loss.item():.3f}, {speed:,.0f} tokens/s")
            if not progress.console.is_terminal and (step + 1) % 20 == 0:
                progress.console.print(
                    f"step {step + 1} of {recipe.steps}, loss {loss.item():.3f}, {speed:,.0f} tokens/s"
                )
            if (step + 1) % CHECKPOINT_STEPS == 0:
                state = {"model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizing]}
                unfinished = checkpoint.with_suffix(".new")  # renamed when whole, so that a kill leaves the last one
                torch.save(state | {"step": step + 1, "recipe": asdict(recipe)}, unfinished)
                os.replace(unfinished, checkpoint)
    model.to("cpu", torch.bfloat16).eval()
    model.save_pretrained(out)
    tokenizer.save_pretrained(out, save_jinja_files=False)  # the chat template stands in tokenizer_config.json
    perplexity = held_out_perplexity(model.to(torch.float32), tokenizer)
    record = {
        "recipe": asdict(recipe),
        "parameters": model.num_parameters(),
        "window": model.config.max_position_embeddings,
        "held_out_perplexity": round(perplexity, 3),
    }
    (out / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    checkpoint.unlink(missing_ok=True)
    return perplexity


def main(
    name: Annotated[str, typer.Argument(help=f"The model to train: {', '.join(RECIPES)}.")],
    out: Annotated[Path, typer.Option(help="Where the model goes.")],
) -> None:
    """Train a course model, or go on training it."""
    if name not in RECIPES:
        raise typer.BadParameter(f"no course model {name!r}; there are: {', '.join(RECIPES)}")
    print(f"held-out perplexity {train(RECIPES[name], out):.3f}")


if __name__ == "__main__":
    typer.run(main)
