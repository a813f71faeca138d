"""Whatever the environment, a run ends well and writes nothing outside the store (property-based)."""

import json
import sqlite3
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.environment.test_packages import write_foreign
from tests.environment.test_prefect import PROXIES, THEIRS, write_their_settings
from tests.environment.test_streams import NO_ACCOUNT

STORES = st.text(st.characters(min_codepoint=1, exclude_characters="/", exclude_categories=["Cs"]), min_size=1).filter(
    lambda name: name not in (".", "..", "cwd", "home", "tmp") and len(name.encode()) < 100
)
ENVIRONMENTS = st.fixed_dictionaries(
    {
        "store": STORES,
        "closed": st.sets(st.sampled_from([0, 1, 2])),
        "proxies": st.booleans(),
        "prefect": st.booleans(),
        "foreign": st.booleans(),
        "account": st.booleans(),
        "home": st.sampled_from(["home", None, "/nonexistent", "/proc"]),
        "variables": st.dictionaries(
            st.sampled_from(["OMP_NUM_THREADS", "LC_ALL", "PYTHONIOENCODING", "TERM", "COLUMNS", "NO_PROXY", "USER"]),
            st.sampled_from(["", "1", "C", "ascii", "*", "dumb"]),
        ),
    }
)
PRINTABLE = "".join(chr(code) for code in range(32, 127) if chr(code) != "/")
WORST = {
    "store": f"50%25\n é{PRINTABLE}",
    "closed": {0, 1, 2},
    "proxies": True,
    "prefect": True,
    "foreign": True,
    "account": False,
    "home": None,
    "variables": {"LC_ALL": "C", "COLUMNS": "1", "NO_PROXY": "intranet", "PYTHONWARNINGS": "error"},
}
SETTINGS = {
    "deadline": None,
    "derandomize": True,
    "phases": [Phase.generate],
    "suppress_health_check": list(HealthCheck),
}


def check(places, environment: dict, prepare=lambda store: None) -> None:
    place = places(store=environment["store"])
    prepare(place.store)
    cwd = place.folder / "cwd"
    variables = dict(environment["variables"])
    if variables.get("PYTHONIOENCODING") != "ascii":
        variables.pop("PYTHONIOENCODING", None)  # Python itself refuses the other values
    if environment["home"] != "home":
        variables["HOME"] = environment["home"]
    if environment["proxies"]:
        variables = PROXIES | variables
    if environment["prefect"]:
        variables |= THEIRS
        write_their_settings(cwd)
    if environment["foreign"]:
        write_foreign(cwd)
        variables["PYTHONPATH"] = str(cwd)
    if not environment["account"]:
        (cwd / "sitecustomize.py").write_text(NO_ACCOUNT)
        variables["PYTHONPATH"] = str(cwd)
    before = place.outside()
    done = place.flowctl(
        "run",
        "tiny.yaml",
        "--until",
        "data",
        closed=sorted(environment["closed"]),
        PYTHONDONTWRITEBYTECODE="1",
        **variables,
    )
    log = place.store / "prefect" / "server.log"
    assert done.returncode == 0, (done.stderr, log.read_text() if log.exists() else "")
    assert place.outside() == before
    assert not Path("/nonexistent").exists()
    (record,) = (json.loads(file.read_text()) for file in (place.store / "runs").glob("run-*.json"))
    assert record["flow_run"] is not None and record["outcome"].startswith("1 run")
    with sqlite3.connect(place.store / "prefect" / "prefect.db") as database:
        assert database.execute("select state_name from flow_run").fetchall() == [("Completed",)]


def test_a_run_in_the_worst_environment_ends_well_and_writes_in_the_store_alone(places, migrated):
    check(places, WORST, migrated)


@pytest.mark.slow
@settings(max_examples=60, **SETTINGS)
@given(environment=ENVIRONMENTS)
def test_a_run_in_any_environment_ends_well_and_writes_in_the_store_alone(places, environment):
    check(places, environment)
