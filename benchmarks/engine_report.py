"""The page of `python -m benchmarks.engine`."""

from __future__ import annotations

from typing import Any

from benchmarks.engine_sides import COUNTS, INSTALL


def markdown(result: dict[str, Any]) -> str:
    machine = result["machine"]
    lines = [
        f"# Training and sampling on {machine['device']}",
        "",
        f"`{result['command']}` on {machine['processor']}, {machine['threads']} threads, Python {machine['python']}, "
        f"torch {machine['torch']}; {result['seconds'] / 60:.0f} minutes.",
        "",
        *_comparison(result),
        *_throughput(result),
        *_waiting(result),
    ]
    return "\n".join(lines) + "\n"


def _comparison(result: dict[str, Any]) -> list[str]:
    if not result["peer"]:
        return ["## Against torchcfm", "", f"Left out: it is not installed (`{INSTALL}`).", ""]
    lines = [
        f"## Against torchcfm {result['peer']}",
        "",
        f"Both sides: the U-Net of {COUNTS['cifar10']:,} weights (cifar10), or one of a quarter of its width (narrow, "
        f"{COUNTS['narrow']:,} weights), dropout 0.1. With the weights carried over, outputs differ by "
        f"{result['largest_difference']:.0e} of the largest. Best of the rounds, the sides taking turns; in brackets "
        "the lowest and highest ratio of a round. CPU: the ratio by CPU time, which other work on the machine disturbs "
        "less.",
        "",
        "| what | network | batch | precision | torchcfm, s | ours, s | ratio | median | CPU |",
        "|---|---|---:|---|---:|---:|---:|---:|---:|",
    ]
    for row in result["speed"]:
        lines.append(
            f"| {row['what']} | {row['network']} | {row['batch']} | {_precision(row)} | {row['peer_s']:.3f} "
            f"| {row['ours_s']:.3f} | **{row['ratio']:.2f}** ({row['ratio_lowest']:.2f} to {row['ratio_highest']:.2f}) "
            f"| {row['ratio_median']:.2f} | {row['ratio_cpu']:.2f} |"
        )
    return [*lines, ""]


def _throughput(result: dict[str, Any]) -> list[str]:
    lines = [
        "## Training: images per second and memory by batch",
        "",
        "Memory in MiB: as `flowctl plan` estimates it, and as measured over building the network and two steps (of a "
        "GPU its allocations at their peak; else the growth of a fresh process, kernels and allocator included).",
        "",
        "| network | precision | batch | images/s | torchcfm | estimate | measured | torchcfm |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    names = ("ours_images_per_second", "peer_images_per_second", "estimate_mib", "ours_mib", "peer_mib")
    for row in result["speed"]:
        if row["what"] == "training step":
            cells = " | ".join(_number(row.get(name)) for name in names)
            lines.append(f"| {row['network']} | {_precision(row)} | {row['batch']} | {cells} |")
    return [*lines, ""]


def _waiting(result: dict[str, Any]) -> list[str]:
    checkpoint = result["checkpoint"]
    lines = [
        "## What training waits for",
        "",
        "Shares of the time of real trainings (`pipeline.training.fit`), as they report them while they run: digits "
        "with a checkpoint every five seconds, the others with one a minute. The last column is the data path by "
        "itself: an image with its noise, coupled, as a tensor.",
        "",
        "| data | coupling | batch | precision | images/s | waiting for data | checkpoints | data path, images/s |",
        "|---|---|---:|---|---:|---:|---:|---:|",
    ]
    for row in result["waiting"]:
        lines.append(
            f"| {row['case']} | {row['coupling']} | {row['batch']} | {row['precision']} "
            f"| {_number(row['images_per_second'])} | {row['data_wait']:.2%} | {row['saving']:.2%} "
            f"| {_number(row['data_images_per_second'])} |"
        )
    return [
        *lines,
        "",
        f"A checkpoint of the last network of the first table, {checkpoint['mib']:.0f} MiB, takes "
        f"{checkpoint['seconds']:.2f} s: with one every {checkpoint['interval']:.0f} s, {checkpoint['share']:.1%} of a "
        "long training.",
    ]


def _precision(row: dict[str, Any]) -> str:
    return row["precision"] + (", compiled" if row["compiled"] else "")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
