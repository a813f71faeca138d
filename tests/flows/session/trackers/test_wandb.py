"""Weights & Biases offline: what lies in its files."""

import json
import struct

import pytest

from tests.flows.session.trackers.conftest import LAST

wandb = pytest.importorskip("wandb", reason="the extra flowctl[wandb] is not installed")


BLOCK, HEADER = 32768, 7  # of a .wandb file, which is a LevelDB log after 7 bytes


def records(folder):
    """The records of an offline run, in their order."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob("*.wandb")
    data, at, parts = path.read_bytes(), HEADER, b""
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:  # padding
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + HEADER])
        parts += data[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def history(folder):
    return [
        {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for record in records(folder)
        if record.WhichOneof("record_type") == "history"
    ]


def test_wandb_has_a_run_for_each_stage(run, home, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    run(until="student", fail_at=30)
    session = run()
    assert not session.lost_trackers
    folders = sorted((home / "wandb").glob("offline-run-*"))
    starts = [next(r.run for r in records(folder) if r.WhichOneof("record_type") == "run") for folder in folders]
    students = [i for i, start in enumerate(starts) if start.display_name == "tiny student"]
    assert len(starts) == len(session.nodes) + 1 and len(students) == 2
    assert len({starts[i].run_id for i in students}) == 1  # resumed: offline, W&B writes a second file of one run
    first = starts[students[0]]
    assert (first.project, first.run_group, first.job_type, list(first.tags)) == (
        "flowctl", "tiny", "student", ["seed 0"],
    )  # fmt: skip
    lines = [line for i in students for line in history(folders[i])]
    curve = [(line["images"], line["loss"]) for line in lines if "loss" in line]
    assert curve == [(images, 1.0 / images) for images in range(10, LAST + 1, 10)]
    assert any("samples" in line or "samples._type" in line for line in lines)
    names = {start.display_name: folders[i] for i, start in enumerate(starts)}
    scores = [line for line in history(names["tiny evaluation"]) if "nfe" in line]
    assert [(line["nfe"], line.get("FD-classifier/student/euler quadratic grid")) for line in scores] == [
        (1, None),
        (2, 4.5),
    ]
    assert any(r.WhichOneof("record_type") == "artifact" or r.request.HasField("log_artifact")
               for r in records(names["tiny report"]))  # fmt: skip
