"""The figures of homework 3, from your own `costs.py`: `python -m hw3.figures --out runs/hw3`.

Writes three SVG files. A figure whose functions you have not implemented yet is left out and named.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import matplotlib as mpl
import numpy as np
import typer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from hw3.configurations import HARDWARE, MODELS
from hw3.costs import arithmetic_intensity, crossover_length, forward_flops, kv_cache_bytes, layer_flops, weight_bytes

LLAMAS = ("Llama-3.1-8B", "Llama-3.1-70B", "Llama-3.1-405B")
LENGTHS = tuple(2**i for i in range(9, 18))  # 512 to 131,072 tokens
COLOURS = ("#1b6ca8", "#c2571a", "#3a7d34", "#8a4fa3", "#b0392f", "#6b6b6b")
ROOFLINE_MODEL = "Llama-3.1-8B"
LOWEST_TFLOPS = 0.02  # leaves room for names below the lines


def draw_flops() -> Figure:
    """Draw FLOPs of a prompt against its length, the shares of a layer's parts, and where attention overtakes."""
    figure = Figure(figsize=(11, 7), layout="constrained")
    total, *shares = figure.subplots(2, 2).flat
    lengths = np.geomspace(LENGTHS[0], LENGTHS[-1], 65).astype(int).tolist()
    for name, colour in zip(LLAMAS, COLOURS, strict=False):
        model = MODELS[name]
        total.plot(lengths, [forward_flops(model, length) for length in lengths], color=colour, label=name)
        crossover = crossover_length(model)
        total.plot([crossover], [forward_flops(model, crossover)], "o", color=colour)
    total.set(title="a prompt, logits everywhere (dots: crossing)", xlabel="tokens", ylabel="FLOPs", yscale="log")
    total.legend()
    for name, panel in zip(LLAMAS, shares, strict=True):
        parts = [layer_flops(MODELS[name], length) for length in lengths]
        stacked = np.array([[part.attention, part.mlp, part.projections] for part in parts], dtype=float).T
        colours = (COLOURS[1], COLOURS[0], "#9fb8c8")
        labels = ("attention", "MLP", "projections")
        panel.stackplot(lengths, 100 * stacked / stacked.sum(axis=0), colors=colours, labels=labels)
        crossover = crossover_length(MODELS[name])
        panel.axvline(crossover, color="black", linestyle="--", linewidth=1)
        panel.annotate(
            f"half at {crossover:,}",
            (crossover, 62),
            textcoords="offset points",
            xytext=(-5, 0),
            ha="right",
            color="white",
            weight="bold",
        )
        panel.set(title=name, xlabel="tokens", ylabel="share of a layer's FLOPs in %", ylim=(0, 100))
        panel.margins(x=0)
    shares[0].legend(loc="upper left", reverse=True)
    for panel in (total, *shares):
        length_axis(panel)
    return figure


def draw_rooflines() -> Figure:
    """Draw what each device attains against arithmetic intensity, and where prefill and decoding of a model are."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    panel = figure.subplots()
    model = MODELS[ROOFLINE_MODEL]
    intensities = np.geomspace(0.3, 20_000, 300)
    for device, colour in zip(HARDWARE.values(), COLOURS, strict=True):
        attained = np.minimum(intensities * device.bytes_per_second, device.flops_per_second)
        ridge = device.flops_per_second / device.bytes_per_second
        panel.plot(intensities, attained / 1e12, color=colour, label=f"{device.name}, ridge at {ridge:.0f}")
    marks = [
        ("decode, batch 1", arithmetic_intensity(model, 1, 1024)),
        ("decode, batch 16", arithmetic_intensity(model, 1, 1024, batch_size=16)),
        ("decode, batch 256", arithmetic_intensity(model, 1, 1024, batch_size=256)),
        ("prefill, 128 tokens", arithmetic_intensity(model, 128)),
        ("prefill, 2,048 tokens", arithmetic_intensity(model, 2048)),
    ]
    for name, intensity in marks:
        panel.axvline(intensity, color="black", linestyle=":", linewidth=1)
        for device, colour in zip(HARDWARE.values(), COLOURS, strict=True):
            here = min(intensity * device.bytes_per_second, device.flops_per_second)
            panel.plot([intensity], [here / 1e12], "o", color=colour, markersize=5)
        place = (intensity, LOWEST_TFLOPS * 1.2)
        panel.annotate(name, place, textcoords="offset points", xytext=(-4, 0), rotation=90, ha="right", va="bottom")
    panel.set(
        title=f"rooflines, and {ROOFLINE_MODEL} in bfloat16 (decoding after 1,024 tokens)",
        xlabel="arithmetic intensity in FLOPs a byte",
        ylabel="attainable TFLOP/s",
        xscale="log",
        yscale="log",
        xlim=(0.3, 20_000),
        ylim=(LOWEST_TFLOPS, 4000),
    )
    panel.xaxis.set_major_formatter(FuncFormatter(plain))
    panel.yaxis.set_major_formatter(FuncFormatter(plain))
    panel.legend(loc="upper left")
    return figure


def draw_caches() -> Figure:
    """Draw the bytes of one sequence's cache against its length, and the weights of the models beside it."""
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    panel = figure.subplots()
    names = ("Qwen3-0.6B", "Qwen3-8B", "Qwen3-32B", *LLAMAS)
    for name, colour in zip(names, COLOURS, strict=True):
        style = "--" if name.startswith("Qwen3") else "-"
        caches = [kv_cache_bytes(MODELS[name], length) / 2**30 for length in LENGTHS]
        label = f"{name} (weights: {weight_bytes(MODELS[name]) / 2**30:,.1f} GiB)"
        panel.plot(LENGTHS, caches, style, color=colour, marker=".", label=label)
    panel.set(title="the cache of one sequence in bfloat16", xlabel="tokens", ylabel="GiB", yscale="log")
    panel.yaxis.set_major_formatter(FuncFormatter(plain))
    length_axis(panel)
    panel.legend(loc="upper left")
    return figure


def length_axis(panel: Axes) -> None:
    """Label lengths by powers of two, every second one."""
    panel.set_xscale("log", base=2)
    panel.set_xticks(LENGTHS[::2], [f"{length:,}" for length in LENGTHS[::2]])
    panel.minorticks_off()


def plain(value: float, place: int) -> str:
    """Write a tick's value without powers of ten."""
    return f"{value:,g}"


FIGURES: dict[str, Callable[[], Figure]] = {
    "flops.svg": draw_flops,
    "rooflines.svg": draw_rooflines,
    "kv_cache.svg": draw_caches,
}


def main(out: Annotated[Path, typer.Option(help="Where the figures go.")]) -> None:
    """Draw the figures of homework 3."""
    out.mkdir(parents=True, exist_ok=True)
    missing = []
    # A background of their own keeps them legible on dark pages; a fixed salt makes equal figures equal files.
    with mpl.rc_context({"font.size": 10, "axes.grid": True, "grid.alpha": 0.3, "svg.hashsalt": "hw3"}):
        for name, draw in FIGURES.items():
            try:
                draw().savefig(out / name, facecolor="white", metadata={"Date": None})
            except NotImplementedError:
                missing.append(name)
            else:
                print(out / name)
    if missing:
        print(f"not implemented yet, so left out: {', '.join(missing)}")


if __name__ == "__main__":
    typer.run(main)
