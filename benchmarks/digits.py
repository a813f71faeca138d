"""What the couplings are worth on digits, and what the teacher's noise eta does: the tables of README and results.

    python -m benchmarks.digits

runs the shipped recipes, reusing what the store has, and writes benchmarks/results/digits.json and .md. One seed each.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.timing import processor
from pipeline.compare import compare
from pipeline.dag import Node, build
from pipeline.load import load
from storage.artifact import Artifact
from storage.store import Store

TABLES = {"Couplings": ("nfm-digits", "fm-digits", "ot-digits"),
          "The teacher's noise": ("nfm-digits-eta005", "nfm-digits-eta01", "nfm-digits-eta02", "nfm-digits-eta04")}
OUT = Path("benchmarks/results")


def main() -> None:
    store, page, facts = Store(), ["# Digits", "", f"`python -m benchmarks.digits` on {processor()}, 2 threads."], {}
    for title, recipes in TABLES.items():
        made = {}
        for recipe in recipes:
            subprocess.run([sys.executable, "-m", "flows.cli", "run", recipe], check=True)
            made[recipe] = {name: store.find(name, node.fingerprint) for name, node in nodes(recipe, store).items()}
        comparison = compare({recipe: artifacts["evaluation"] for recipe, artifacts in made.items()})
        page += ["", f"## {title}", "", comparison.markdown(), "", *stages(made)]
        facts[title] = comparison.to_json() | {"stages": {recipe: figures(parts) for recipe, parts in made.items()}}
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "digits.json").write_text(json.dumps(facts, indent=2) + "\n")
    (OUT / "digits.md").write_text("\n".join(page) + "\n")


def nodes(recipe: str, store: Store) -> dict[str, Node]:
    return build(load(recipe), store.home / "cache")


def figures(artifacts: dict[str, Artifact]) -> dict[str, object]:
    """Of one recipe: seconds by stage, the teacher's bits, how Gaussian its noise is, how far it carries."""
    found: dict[str, object] = {"seconds": {name: part.provenance.wall_seconds for name, part in artifacts.items()}}
    if "teacher" in artifacts:
        teacher, noise = artifacts["teacher"].metrics, artifacts["couplings"].metrics
        found |= {"bits_per_dim": teacher["bits_per_dim"], "bits_per_dim_train": teacher["bits_per_dim_train"],
                  "sigma_f": noise["sigma_f"], "sliced_w2_train": noise["gaussianity"]["train"]["sliced_w2"],
                  "sliced_w2_held_out": noise["gaussianity"]["held_out"]["sliced_w2"], "warnings": noise["warnings"]}
    return found | {"transport_cost": artifacts["student"].metrics["transport_cost"],
                    "curvature": artifacts["evaluation"].metrics["curvature"],
                    "teacher": next((score["value"] for score in artifacts["evaluation"].metrics["scores"]
                                     if score["model"] == "teacher"), None)}


def stages(made: dict[str, dict[str, Artifact]]) -> list[str]:
    """A table of the figures beside the scores, and of the seconds that each stage took."""
    columns = {"teacher": "teacher's FD", "bits_per_dim": "held-out bits/dim", "bits_per_dim_train": "training",
               "sliced_w2_train": "sliced W2, training", "sliced_w2_held_out": "sliced W2, held-out",
               "transport_cost": "transport cost/dim", "curvature": "curvature (32 steps)"}
    lines = [f"| recipe | {' | '.join(columns.values())} | seconds by stage |", f"|---|{'---:|' * len(columns)}---|"]
    for recipe, artifacts in made.items():
        found = figures(artifacts)
        numbers = [f"{found[key]:.3g}" if found.get(key) is not None else "–" for key in columns]
        seconds = ", ".join(f"{name} {spent:.0f}" for name, spent in found["seconds"].items() if spent >= 1)
        lines.append(f"| {recipe} | " + " | ".join(numbers) + f" | {seconds} |")
    return lines


if __name__ == "__main__":
    main()
