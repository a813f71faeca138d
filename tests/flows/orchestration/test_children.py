"""`flowctl` in a child process: from any thread, and with our packages."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from flows.orchestration import children
from flows.orchestration.children import Child, run_children
from tests.environment.test_packages import write_foreign


def test_any_thread_may_start_a_child(monkeypatch):
    monkeypatch.setattr(children, "PROGRAM", (sys.executable, "-c", "import sys; sys.exit(3)"))
    child = Child("a", ())
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(run_children, [child], print).result() == {child: 3}


def test_the_child_is_our_program_wherever_it_is_started(tmp_path):
    write_foreign(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([*children.PROGRAM, "--help"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "restartable DAG" in done.stdout, done.stderr
