"""How long stages take on this device: by measured rates where the store has them, else by counted work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from pipeline.cost.fitting import check_fit
from pipeline.cost.flops import Work
from pipeline.cost.image_shape import data_of, image_shape
from pipeline.cost.part import Part
from pipeline.cost.parts import REST, parts
from pipeline.cost.rates import Rates
from pipeline.cost.speeds import Speed, device_name, gpu_speed, speed_of
from pipeline.engine.dag import Node
from pipeline.engine.plan import Step
from pipeline.recipe.sections import Compute
from pipeline.runtime.job import Saved, read_saved
from pipeline.runtime.timings import Timings
from storage.checksummed_json import cached, json_digest
from storage.required import required
from storage.store import Store

WORK_VERSION = 2  # of the counting of work; raise it when `pipeline.cost.work` counts otherwise


@dataclass(frozen=True)
class PartTime:
    """The time of a part of a stage; `rate` in its unit per second where that was measured, else None."""

    part: Part
    seconds: float
    rate: float | None


@dataclass(frozen=True)
class StageTime:
    """The time of a stage that is ahead, or of what is left of one that resumes.

    Attributes:
        parts: their times, the rest last.
    """

    parts: tuple[PartTime, ...]

    @property
    def seconds(self) -> float:
        return sum(part.seconds for part in self.parts)

    @property
    def measured(self) -> float:
        """The share of the time that comes from measured rates, 0 to 1."""
        return measured_share([(part.seconds, part.rate is not None) for part in self.parts])

    def facts(self) -> dict[str, Any]:
        """As plain data, for a plan's record: the time, its measured share, and the time of the training alone."""
        training = sum(part.seconds for part in self.parts if part.part.name == "training")
        return {"seconds": self.seconds, "measured": self.measured, "training_seconds": training}


def measured_share(times: Sequence[tuple[float, float]]) -> float:
    """The share of the time that is measured, of (seconds, measured share of them); 0 for no time."""
    total = sum(seconds for seconds, _ in times)
    return sum(seconds * share for seconds, share in times) / total if total > 0 else 0.0


class Forecast:
    """Times of the stages of a recipe.

    Args:
        compute: where they run.
        home: of the store whose rates count.
        measured: the metrics of the data's artifact, where that is there already.
        speed: of the device; measured or looked up unless given.
        gpu: a GPU that is not at hand, by a name of the table in `devices`; the recipe's device unless given.
    """

    def __init__(
        self,
        compute: Compute,
        home: Path,
        measured: Mapping[str, Any] | None = None,
        speed: Speed | None = None,
        gpu: str | None = None,
    ) -> None:
        self.compute, self.home, self.measured, self.rates = compute, home, measured, Rates(home)
        self._speed = gpu_speed(gpu) if gpu else speed
        self._gpu = gpu

    @cached_property
    def where(self) -> dict[str, Any]:
        """The part of every rate's key that names the device."""
        processes = self.compute.world
        return {"device": self._gpu or device_name(self.compute), "threads": self.compute.cores, "processes": processes}

    @cached_property
    def speed(self) -> Speed:
        return self._speed or speed_of(self.compute, self.home)

    def of_plan(self, steps: Sequence[Step], store: Store) -> dict[str, StageTime | None]:
        """The time of each stage that has no result yet, by fingerprint; None where its images are not yet counted.

        Raises InputError where a stage does not fit the images.
        """
        ahead = [step for step in steps if step.action in ("run", "resume")]
        saved = [read_saved(store.work(step.node.name, step.node.fingerprint)) for step in ahead]
        return {
            step.node.fingerprint: self.of_stage(step.node, there if step.action == "resume" else None)
            for step, there in zip(ahead, saved, strict=True)
        }

    def of_stage(self, node: Node, saved: Saved | None = None) -> StageTime | None:
        """The time of one stage, from what is saved of it on; None where its images are not yet counted."""
        every = self.parts(node)
        if every is None:
            return None
        return StageTime(tuple(self._time(part, left(part, saved)) for part in every))

    def learn(self, node: Node, timings: Timings, seconds: float, resumed: bool = False) -> None:
        """Store the rates of a stage that ended after `seconds`: of its parts, and of the rest unless it resumed."""
        planned = {part.name: part for part in self.parts(node) or ()}
        rest = seconds
        for name, (amount, spent) in timings.parts.items():
            if name in planned:
                self.rates.put(self._key(planned[name]), planned[name].counted * amount, spent)
                rest -= spent
        if REST in planned and not resumed:
            self.rates.put(self._key(planned[REST]), 1, rest)

    def parts(self, node: Node) -> list[Part] | None:
        """The parts of a stage; None where its images are not yet counted. Raises InputError where it cannot fit."""
        shape = image_shape(data_of(node), None if node.name == "source" else self.measured)
        if shape is None:
            return None
        check_fit(node, shape)
        return parts(node, shape, self.compute)

    def rate(self, part: Part) -> float | None:
        """The measured rate of exactly this work on this device, if there is one."""
        return self.rates.get(self._key(part))

    def _key(self, part: Part) -> dict[str, Any]:
        return self.where | dict(part.facts)

    def _time(self, part: Part, share: float) -> PartTime:
        rate = self.rate(part)
        if rate is not None:
            return PartTime(part, share * part.amount / rate, rate)
        counted = 0.0
        if part.work is not None and part.amount:
            counted = self.speed.seconds(self._work(part) * part.amount, part.precision)
        return PartTime(part, share * (part.seconds + counted / self.compute.world), None)

    def _work(self, part: Part) -> Work:
        """The counted work of one unit, which takes a second or more and is read from the store's cache afterwards."""
        key = [WORK_VERSION, torch.__version__, dict(part.facts)]
        path = self.home / "cache" / f"work-{json_digest(key)[:24]}.json"
        return Work(**cached(path, lambda: asdict(required(part.work, "the counted work")())))


def left(part: Part, saved: Saved | None) -> float:
    """The share of a part that is left: a training saves images, a bank shards, an evaluation scores, then figures."""
    if saved is None or not saved.total:
        return 1.0
    if saved.unit == "figures":
        return 1 - saved.done / saved.total if part.name == REST else 0.0
    return 1.0 if part.name == REST else 1 - saved.done / saved.total
