"""A real Prefect server and worker for tests that need both: `flowctl ui`, `flowctl deploy`, `prefect worker start`."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.flows.conftest import ROOT
from tests.shared import HANGS

# A worker's flow processes have the fake stages, too: Python runs this file first in each.
SITE = """
import os
if "PREFECT__FLOW_ENTRYPOINT" in os.environ:
    from tests.flows import fakes
    fakes.install()
"""


class Workshop:
    """One store, one server; workers come and go."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "store"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.ui = f"http://127.0.0.1:{self.port}"
        self.processes: list[subprocess.Popen] = []
        (folder / "site").mkdir()
        (folder / "site" / "sitecustomize.py").write_text(SITE)
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
        self.environment = clean | {
            "FLOWCTL_HOME": str(self.home),
            "PREFECT_API_URL": f"{self.ui}/api",
            "PREFECT_HOME": str(folder / "prefect"),
            "DO_NOT_TRACK": "1",
            "PYTHONPATH": f"{folder / 'site'}:{ROOT}",
        }

    def serve(self) -> None:
        self._start("ui.log", [sys.executable, "-m", "tests.flows.fakes", "ui", "--port", str(self.port)], cwd=ROOT)
        self.until(self._answers)

    def deploy(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "tests.flows.fakes", "deploy", *words],
            cwd=ROOT,
            text=True,
            env=self.environment,
            capture_output=True,
            timeout=HANGS,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def work(self, **environment: str) -> subprocess.Popen:
        """A worker as the documentation starts it, in a directory that has nothing to do with the project."""
        program = Path(sys.executable).with_name("prefect")
        return self._start(
            "worker.log", [str(program), "worker", "start", "--pool", "flowctl"], cwd=self.folder, **environment
        )

    def worker_said(self) -> str:
        """All that workers have logged."""
        return (self.folder / "worker.log").read_text()

    def _start(self, log: str, words: list[str], cwd: Path, **environment: str) -> subprocess.Popen:
        with open(self.folder / log, "ab") as output:
            process = subprocess.Popen(
                words,
                cwd=cwd,
                env=self.environment | environment,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )
        self.processes.append(process)
        return process

    def close(self) -> None:
        for process in reversed(self.processes):
            if process.poll() is None:
                process.kill()
            process.wait()

    # -- the API, as the UI uses it --------------------------------------------------------------------------------

    def api(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.ui}/api/{path}", data, {"Content-Type": "application/json"})
        for _ in range(20):
            try:
                with urllib.request.urlopen(request, timeout=30) as reply:
                    return json.loads(reply.read() or b"null")
            except urllib.error.HTTPError as error:
                if error.code != 503:  # SQLite is busy
                    raise
            time.sleep(1)
        raise AssertionError(f"{path}: the server is busy")

    def start(self, deployment: str) -> str:
        """The id of a new flow run."""
        found = self.api(f"deployments/name/flowctl/{deployment}")
        return self.api(f"deployments/{found['id']}/create_flow_run", {})["id"]

    def state(self, run: str) -> str:
        return self.api(f"flow_runs/{run}")["state"]["name"]

    def message(self, run: str) -> str:
        return self.api(f"flow_runs/{run}")["state"]["message"]

    def set_state(self, run: str, state: dict[str, Any], force: bool = True) -> None:
        self.api(f"flow_runs/{run}/set_state", {"state": state, "force": force})

    def retry(self, run: str) -> None:
        """What the button does."""
        self.set_state(run, {"type": "SCHEDULED", "name": "AwaitingRetry", "message": "Retry from the UI"}, False)

    def tasks(self, run: str) -> list[tuple[str, str]]:
        """Names and states of the tasks of the last attempt, in order."""
        found = self.api("task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}, "sort": "EXPECTED_START_TIME_ASC"})
        last = max(task["flow_run_run_count"] for task in found)
        return [(task["name"], task["state"]["name"]) for task in found if task["flow_run_run_count"] == last]

    def logs(self, run: str) -> str:
        wanted = {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_ASC"}
        return "\n".join(line["message"] for line in self.api("logs/filter", wanted))

    def artifacts(self, run: str) -> dict[str, Any]:
        """By key; of a run that was retried, those of its last attempt."""
        found = self.api("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run]}}})
        return {artifact["key"]: artifact for artifact in sorted(found, key=lambda artifact: artifact["created"])}

    # -- the store -------------------------------------------------------------------------------------------------

    def saved(self, stage: str) -> int:
        """How far the unfinished stage would go on from; 0 if there is nothing."""
        for path in (self.home / "work" / stage).glob("*/saved.json"):
            try:
                return json.loads(path.read_bytes())["done"]
            except (OSError, ValueError):
                continue
        return 0

    def pid(self) -> int:
        """The process of the latest run."""
        return json.loads(max((self.home / "runs").glob("run-*.json"), key=os.path.getmtime).read_bytes())["pid"]

    @staticmethod
    def until(condition) -> None:
        deadline = time.monotonic() + HANGS
        while not condition():
            assert time.monotonic() < deadline, condition
            time.sleep(0.5)

    def reaches(self, run: str, *states: str) -> None:
        deadline = time.monotonic() + HANGS
        while self.state(run) not in states:
            assert time.monotonic() < deadline, (self.state(run), self.message(run))
            time.sleep(0.5)

    def _answers(self) -> bool:
        try:
            return self.api("health") is True
        except OSError:
            return False


@contextmanager
def workshop(folder: Path) -> Iterator[Workshop]:
    """A server that answers, for the length of the block."""
    made = Workshop(folder)
    try:
        made.serve()
        yield made
    finally:
        made.close()
