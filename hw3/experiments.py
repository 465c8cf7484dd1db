"""The experiments of homework 3, on your own functions: `python -m hw3.experiments --out runs/hw3`.

Measures this CPU, then cached decoding on it against what your `costs.py` predicts. Uses your `costs`, `benchmarking`
and `ContiguousCache`; writes `table.md`, `results.json` and a plot.
"""

import json
import os
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, NamedTuple

import matplotlib as mpl
import torch
import typer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from hw3.benchmarking import Clock, Latency, Request, latency, summarize, sweep, throughput, time_generation
from hw3.costs import Hardware, ModelShape, decode_seconds, prefill_seconds, weight_bytes
from hw3.kv_cache import ContiguousCache
from hw3.transformer import Config, Transformer, load_transformer

FLOAT32 = {"weight_bits": 32, "kv_bits": 32}
MATRIX = 1024  # rows and columns of the product that is timed


class Setting(NamedTuple):
    """What is generated at once."""

    batch_size: int
    prompt_tokens: int
    output_tokens: int


SWEEPS = {
    "input length": [Setting(1, length, 8) for length in (16, 64, 128, 256, 512)],
    "output length": [Setting(1, 16, length) for length in (2, 8, 32, 128)],
    "batch size": [Setting(size, 16, 8) for size in (1, 2, 4, 8, 16, 32)],
}


class Row(NamedTuple):
    """A setting of a model: medians, in seconds, and what the roofline predicts."""

    model: str
    sweep: str
    setting: Setting
    ttft: float
    tpot: float
    end_to_end: float
    predicted_ttft: float
    predicted_tpot: float
    tokens_per_second: float


def models() -> dict[str, Callable[[], Transformer]]:
    """Return a model that fits into a processor's caches, and one that does not; its weights are random."""
    return {"course-base": lambda: load_transformer("course-base"), "random-64M": random_model}


def random_model() -> Transformer:
    """Return three layers of Qwen3-0.6B with a smaller vocabulary and random weights: 256 MB in float32."""
    config = Config(
        vocab_size=16_384, hidden_size=1024, intermediate_size=3072, num_hidden_layers=3, num_attention_heads=16,
        num_key_value_heads=8, head_dim=128, rms_norm_eps=1e-6, rope_theta=1e6, tie_word_embeddings=True,
        max_position_embeddings=1024, eos_token_id=0,
    )  # fmt: skip
    with torch.device("meta"):
        model = Transformer(config)
    model = model.to_empty(device="cpu").requires_grad_(False).eval()
    model.lm_head.weight = model.embed_tokens.weight
    for weight in model.parameters():
        weight.normal_(1.0 if weight.ndim == 1 else 0.0, 0.02)
    return model


def shape_of(config: Config) -> ModelShape:
    """Return what the cost model asks of a configuration."""
    names = [name for name in ModelShape.__dataclass_fields__ if name != "qk_norm"]
    return ModelShape(**{name: getattr(config, name) for name in names}, qk_norm=True)


def measure_cpu(size: int, rounds: int, clock: Clock) -> Hardware:
    """Measure this CPU's arithmetic by a product of matrices, and how fast it reads `size` bytes again and again.

    What fits into the processor's caches is read faster than what does not, so it matters how much is read.
    """
    left, right = torch.randn(2, MATRIX, MATRIX)
    numbers = torch.ones(size // 4)
    work: dict[str, Callable[[], object]] = {"multiply": lambda: left @ right, "read": numbers.sum}
    measured = {"warmup": 3, "repeats": 5 * rounds}
    multiply, read = sweep(work.__getitem__, list(work), clock=clock, synchronize=nothing, **measured)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Hardware("this CPU", 2 * MATRIX**3 / multiply.median, size / read.median, memory)


def nothing() -> None:
    """Wait for a CPU, which has done its work when a call returns."""


def generate_once(model: Transformer, setting: Setting, clock: Clock) -> Request:
    """Generate greedily with a fresh cache and fresh tokens, all rows alike in length; note when tokens come."""
    config, (batch_size, prompt_tokens, output_tokens) = model.config, setting
    heads, length = (config.num_key_value_heads, config.head_dim), prompt_tokens + output_tokens
    cache = ContiguousCache(config.num_hidden_layers, batch_size, length, *heads)
    tokens = torch.randint(1, config.vocab_size, (batch_size, prompt_tokens))
    done = 0

    def step() -> None:
        nonlocal tokens, done
        new = tokens.shape[1]
        positions = torch.arange(done, done + new).expand(batch_size, -1)
        last = torch.full((batch_size,), new - 1)
        tokens = model(tokens, positions, cache, logits_at=last).argmax(-1)
        done += new

    return time_generation(
        step, step, prompt_tokens=prompt_tokens, num_tokens=output_tokens, clock=clock, synchronize=nothing
    )


def measure_settings(
    name: str, model: Transformer, cpu: Hardware, rounds: int, clock: Clock, advance: Callable[[], object]
) -> list[Row]:
    """Measure all settings of all sweeps in turns, after a round that does not count."""
    settings = [(kind, setting) for kind, row in SWEEPS.items() for setting in row]
    requests: list[list[Request]] = [[] for _ in settings]
    for _ in range(1 + rounds):
        for (_, setting), own in zip(settings, requests, strict=True):
            own.append(generate_once(model, setting, clock))
            advance()
    shape = shape_of(model.config)
    return [
        row_of(name, kind, setting, own[1:], shape, cpu)
        for (kind, setting), own in zip(settings, requests, strict=True)
    ]


def row_of(
    name: str, kind: str, setting: Setting, requests: Sequence[Request], shape: ModelShape, cpu: Hardware
) -> Row:
    """Summarise the repetitions of a setting, and predict it."""
    found: list[Latency] = [latency(request) for request in requests]
    batch = {"batch_size": setting.batch_size, **FLOAT32}
    steps = range(setting.prompt_tokens, setting.prompt_tokens + setting.output_tokens - 1)
    rates = [throughput([request] * setting.batch_size).output_tokens_per_second for request in requests]
    return Row(
        name,
        kind,
        setting,
        ttft=summarize([own.ttft for own in found]).median,
        tpot=summarize([own.tpot for own in found if own.tpot is not None]).median,
        end_to_end=summarize([own.end_to_end for own in found]).median,
        predicted_ttft=prefill_seconds(shape, cpu, setting.prompt_tokens, **batch),
        predicted_tpot=fmean(decode_seconds(shape, cpu, past, **batch) for past in steps),
        tokens_per_second=summarize(rates).median,
    )


def write_table(rows: Sequence[Row], devices: dict[str, Hardware], out: Path) -> None:
    """Write what was measured and what was predicted as Markdown."""
    lines = ["| model | GFLOP/s | GB/s, reading as much as its weights |", "| --- | ---: | ---: |"]
    lines += [
        f"| {name} | {cpu.flops_per_second / 1e9:.0f} | {cpu.bytes_per_second / 1e9:.1f} |"
        for name, cpu in devices.items()
    ]
    lines += [
        "",
        "| model | swept | batch | input | output | TTFT | predicted | ratio | TPOT | predicted | ratio | tokens/s |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        pairs = [(row.ttft, row.predicted_ttft), (row.tpot, row.predicted_tpot)]
        cells = " | ".join(f"{1e3 * t:.2f} ms | {1e3 * p:.2f} ms | {t / p:.1f}" for t, p in pairs)
        lengths = " | ".join(map(str, row.setting))
        lines.append(f"| {row.model} | {row.sweep} | {lengths} | {cells} | {row.tokens_per_second:,.0f} |")
    (out / "table.md").write_text("\n".join(lines) + "\n")


def plot(rows: Sequence[Row], out: Path) -> None:
    """Draw what each sweep is about: measured as points, predicted as dashed lines."""
    with mpl.rc_context({"font.size": 10, "axes.grid": True, "grid.alpha": 0.3}):
        figure = Figure(figsize=(12, 4), layout="constrained")
        ttft, end, step = figure.subplots(1, 3)
        draw(ttft, rows, "input length", lambda s: s.prompt_tokens, lambda r: (r.ttft, r.predicted_ttft))
        ttft.set(xlabel="tokens of the prompt", ylabel="TTFT in ms")
        draw(end, rows, "output length", lambda s: s.output_tokens, end_to_end)
        end.set(xlabel="tokens generated", ylabel="end to end in ms")
        draw(step, rows, "batch size", lambda s: s.batch_size, lambda r: (r.tpot, r.predicted_tpot))
        step.set(xlabel="batch size", ylabel="TPOT in ms")
        ttft.legend(fontsize=8)
        figure.savefig(out / "latency.svg", facecolor="white")


def end_to_end(row: Row) -> tuple[float, float]:
    """Return the time of a whole request, measured and predicted."""
    return row.end_to_end, row.predicted_ttft + (row.setting.output_tokens - 1) * row.predicted_tpot


def draw(
    panel: Axes,
    rows: Sequence[Row],
    kind: str,
    place: Callable[[Setting], int],
    values: Callable[[Row], tuple[float, float]],
) -> None:
    """Draw one sweep of every model."""
    for number, name in enumerate(dict.fromkeys(row.model for row in rows)):
        line = [row for row in rows if (row.model, row.sweep) == (name, kind)]
        places, colour = [place(row.setting) for row in line], f"C{number}"
        panel.plot(places, [1e3 * values(row)[0] for row in line], "o-", color=colour, label=name)
        panel.plot(places, [1e3 * values(row)[1] for row in line], "--", color=colour, label=f"{name}, roofline")
        panel.set_xscale("log", base=2)
        panel.set_xticks(places, map(str, places))
    panel.set(title=f"by {kind}", yscale="log")
    panel.xaxis.minorticks_off()


def main(
    out: Annotated[Path, typer.Option(help="Where table, results and plot go.")],
    rounds: Annotated[int, typer.Option(min=1, help="Repetitions of every setting.")] = 3,
    threads: Annotated[int, typer.Option(min=1, help="Of torch. More of them share one memory.")] = 1,
    cpu_time: Annotated[
        bool, typer.Option("--cpu-time", help="Leave out when others had the processor. For one thread only.")
    ] = False,
) -> None:
    """Run the experiments of homework 3."""
    if cpu_time and threads > 1:
        raise typer.BadParameter("expected one thread with --cpu-time, which adds the times of all threads up")
    clock = time.process_time if cpu_time else time.perf_counter
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    devices: dict[str, Hardware] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    total = len(models()) * (1 + rounds) * sum(map(len, SWEEPS.values()))
    try:
        with Progress(*columns) as progress:
            running = progress.add_task("", total=total)
            for name, load in models().items():
                progress.update(running, description=name)
                model = load()
                devices[name] = measure_cpu(weight_bytes(shape_of(model.config), 32), rounds, clock)
                rows += measure_settings(name, model, devices[name], rounds, clock, lambda: progress.advance(running))
    except NotImplementedError as error:
        lacking = traceback.extract_tb(error.__traceback__)[-1].name
        raise SystemExit(f"{lacking} is not implemented yet: this needs costs, benchmarking and kv_cache") from error
    write_table(rows, devices, out)
    plot(rows, out)
    results: dict[str, Any] = {
        "threads": threads,
        "rounds": rounds,
        "cpu_time": cpu_time,
        "rows": [row._asdict() for row in rows],
    }
    results["devices"] = {name: vars(device) for name, device in devices.items()}
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    print((out / "table.md").read_text())
    print(f"plot and results are in {out}")


if __name__ == "__main__":
    typer.run(main)
