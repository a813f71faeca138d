"""Curves are for people: what a crash or a disk leaves of them stops no training."""

import errno
import json
import os

import pytest
from PIL import Image

from pipeline.training._monitor import Monitor


def test_a_monitor_forgets_what_came_after_the_checkpoint(tmp_path):
    monitor = Monitor(tmp_path, 0)
    for images in (32, 64, 96):
        monitor.line({"images": images, "loss": 1.0})
    monitor.close()
    with open(tmp_path / "metrics.jsonl", "a") as stream:
        stream.write('{"images": 128, "lo')  # cut short by a crash
    Monitor(tmp_path, 64).close()
    assert [json.loads(line)["images"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [32, 64]


@pytest.mark.parametrize(
    "damage",
    [
        b"\0" * 40 + b"\n",
        b'{"images": 6\xff, "loss": 1.0}\n',
        b'{"image3": 64}\n',
        b"5\n",
        b'{"images": "64"}\n',
        b'{"images": 32, "lo',
    ],
)
def test_damaged_lines_of_a_monitor_are_dropped_and_stop_no_training(tmp_path, damage):
    lines = [b'{"images": 32, "loss": 1.0}\n', b'{"images": 64, "loss": 1.0}\n']
    (tmp_path / "metrics.jsonl").write_bytes(lines[0] + damage + b"\n" + lines[1])
    (tmp_path / "events.out.tfevents.1.here").write_bytes(damage)  # TensorBoard's, which are only written
    monitor = Monitor(tmp_path, 64)
    assert (tmp_path / "metrics.jsonl").read_bytes() == b"".join(lines)
    monitor.line({"images": 96, "loss": 1.0})
    monitor.close()
    assert len((tmp_path / "metrics.jsonl").read_bytes().splitlines()) == 3


def test_a_disk_that_is_full_for_a_moment_costs_a_line_and_a_picture(tmp_path, monkeypatch):
    monitor = Monitor(tmp_path, 0)

    def full(*given, **words):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", full)
        monitor.line({"images": 32, "loss": 1.0})
        monitor.picture(32, Image.new("L", (8, 8)))
    monitor.line({"images": 64, "loss": 1.0})
    monitor.close()
    assert [json.loads(line)["images"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [64]


def test_a_monitor_beyond_reading_begins_anew(tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    monitor = Monitor(tmp_path, 64)
    monitor.line({"images": 96, "loss": 1.0})
    monitor.close()
    assert json.loads((tmp_path / "metrics.jsonl").read_bytes())["images"] == 96
