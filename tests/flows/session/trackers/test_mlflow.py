"""MLflow against its own server on loopback."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from tests.flows.session.trackers.conftest import LAST

mlflow = pytest.importorskip("mlflow", reason="the extra flowctl[mlflow] is not installed")
pytest.importorskip("flask", reason="mlflow-skinny has no server")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
         "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "artifacts")],
        cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_mlflow_has_a_run_for_each_stage(run, server, monkeypatch):
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    run(until="student", fail_at=30)
    session = run()
    assert not session.lost_trackers
    client = MlflowClient(server)
    runs = client.search_runs([client.get_experiment_by_name("flowctl").experiment_id])
    by_stage = {item.data.tags["stage"]: item for item in runs}
    assert len(runs) == len(by_stage) == len(session.nodes)  # the resumed student is one run
    assert {item.info.status for item in runs} == {"FINISHED"}
    student = by_stage["student"]
    assert student.info.run_name == "tiny student" and student.data.tags["seed"] == "0"
    assert student.data.params["student.training.lr"] == "0.1"
    curve = client.get_metric_history(student.info.run_id, "loss")
    assert [(point.step, point.value) for point in curve if point.step] == [
        (images, 1.0 / images) for images in range(10, LAST + 1, 10)
    ]
    files = client.list_artifacts(student.info.run_id, "samples")
    assert [file.path for file in files] == [f"samples/images-{LAST:012d}.png"]
    evaluation = by_stage["evaluation"]
    (score,) = client.get_metric_history(evaluation.info.run_id, "FD-classifier/student/euler quadratic grid")
    assert (score.step, score.value) == (2, 4.5)
    assert client.list_artifacts(evaluation.info.run_id, "samples")[0].path == "samples/samples.png"
    assert client.list_artifacts(by_stage["report"].info.run_id, "report")[0].path == "report/report.html"


def test_a_server_that_is_gone_ends_no_run(run, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as free:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free.getsockname()[1]}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    session = run()
    assert session.lost_trackers == {"mlflow"} and session.outcomes.keys() == session.nodes.keys()
