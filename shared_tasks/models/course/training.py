"""Training a course model: `python -m shared_tasks.models.course.training course-small --out DIR`.

The tokenizer, the data and the run follow from the seed. Interrupted training goes on where its last checkpoint was
when the same command is started again.
"""

import itertools
import json
import math
import time
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

from shared_tasks.models.course.text import documents

END = "<|endoftext|>"  # between documents, before the first token and after the last
HELD_OUT_SEED = 1_000_003  # a stream of documents apart from every training seed
HELD_OUT_DOCUMENTS = 500
CHECKPOINT_STEPS = 100


@dataclass(frozen=True)
class Recipe:
    """Everything that a course model follows from."""

    vocab_size: int = 512
    hidden_size: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 32
    intermediate_size: int = 384
    context: int = 256
    batch: int = 32
    steps: int = 600
    warmup_steps: int = 30
    learning_rate: float = 4e-3
    weight_decay: float = 0.1
    seed: int = 1


RECIPES = {"course-small": Recipe()}


def train_tokenizer(recipe: Recipe) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer: every byte is a token, and so is every digit."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    digits, bytes_ = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, bytes_])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocab_size,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(itertools.islice(documents(recipe.seed), 5_000), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=END, eos_token=END)


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
    )
    return Qwen3ForCausalLM(config)


def token_stream(tokenizer: PreTrainedTokenizerFast, seed: int, count: int) -> Int[Tensor, "count"]:
    """Return the first `count` tokens of a seed's documents, each after an end token."""
    stream: list[int] = []
    source = documents(seed)
    end = tokenizer.eos_token_id
    while len(stream) < count:
        for text in tokenizer(list(itertools.islice(source, 1_000))).input_ids:
            stream.append(end)
            stream.extend(text)
    return torch.tensor(stream[:count], dtype=torch.long)


def learning_rate(recipe: Recipe, step: int) -> float:
    """Return the rate of a step: a linear warm-up, then a cosine down to a tenth."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    done = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return recipe.learning_rate * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))


def held_out_perplexity(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast) -> float:
    """Return the perplexity per token on documents of a seed apart, end tokens included."""
    losses, count = 0.0, 0
    for text in itertools.islice(documents(HELD_OUT_SEED), HELD_OUT_DOCUMENTS):
        ids = torch.tensor([[tokenizer.eos_token_id, *tokenizer(text).input_ids, tokenizer.eos_token_id]])
        with torch.inference_mode():
            losses += float(model(ids, labels=ids).loss) * (ids.shape[1] - 1)
        count += ids.shape[1] - 1
    return math.exp(losses / count)


def train(recipe: Recipe, out: Path) -> float:
    """Train a model, save it with its tokenizer in `out`, and return its held-out perplexity."""
    out.mkdir(parents=True, exist_ok=True)
    tokenizer, model = train_tokenizer(recipe), new_model(recipe)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device).train()
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim != 2]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.95))
    checkpoint = out / "checkpoint.pt"
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        if state["recipe"] != asdict(recipe):
            raise SystemExit(f"{checkpoint} is of another recipe; remove it to start anew")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    tokens = token_stream(tokenizer, recipe.seed, recipe.steps * recipe.batch * recipe.context + 1)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("training", total=recipe.steps, completed=first)
        began = time.monotonic()
        for step in range(first, recipe.steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(recipe, step)
            start = step * recipe.batch * recipe.context
            window = tokens[start : start + recipe.batch * recipe.context].view(recipe.batch, recipe.context).to(device)
            loss = model(window, labels=window).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            rate = (step + 1 - first) * recipe.batch * recipe.context / (time.monotonic() - began)
            progress.update(task, advance=1, description=f"loss {loss.item():.3f}, {rate:,.0f} tokens/s")
            if (step + 1) % CHECKPOINT_STEPS == 0:
                state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
                torch.save(state | {"recipe": asdict(recipe)}, checkpoint)
    model.to("cpu", torch.bfloat16).eval()
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
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
