"""Slots that are kept through what happens to a server: silence, a lease that ends, another that is given the slot."""

import os
import time

import pytest

from tests.flows.worker import Workshop


@pytest.fixture
def client(prefect_server, monkeypatch):
    from prefect.client.orchestration import get_client

    monkeypatch.setenv("PREFECT_API_URL", prefect_server)
    monkeypatch.setattr("flows.orchestration.slots.EVERY", 0.1)
    with get_client(sync_client=True) as client:
        yield client


def _used(client) -> int:
    return client.read_global_concurrency_limit_by_name("slots").active_slots


def _until(found, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def slots(client):
    from flows.orchestration.slots import Slots

    made = Slots(["slots"])
    assert made.take() and not Slots(["slots"]).take() and _used(client) == 1
    with made:
        yield made
    assert _used(client) == 0


def test_a_slot_whose_lease_has_ended_is_taken_anew(slots, client):
    before = slots._lease
    client.release_concurrency_slots_with_lease(before)  # as the server does, a minute after it last heard of it
    _until(lambda: slots._lease not in (None, before))
    assert _used(client) == 1


def test_any_number_of_renewals_may_fail(slots, client, monkeypatch):
    tried, renew = [], type(client).renew_concurrency_lease

    def broken(*_):
        tried.append("failed")
        raise ConnectionError("refused")

    monkeypatch.setattr(type(client), "renew_concurrency_lease", broken)
    _until(lambda: len(tried) > 4)
    monkeypatch.setattr(
        type(client), "renew_concurrency_lease", lambda *words: (tried.append("renewed"), renew(*words))
    )
    _until(lambda: tried[-1] == "renewed")
    assert _used(client) == 1


def test_a_slot_that_was_given_to_another_is_taken_when_that_ends(slots, client, caplog):
    from flows.orchestration.slots import Slots

    other = Slots(["slots"])
    slots.take = lambda: 1 / 0  # not before the other
    client.release_concurrency_slots_with_lease(slots._lease)
    assert other.take()
    del slots.take
    _until(lambda: "has given it to another" in caplog.text)
    time.sleep(0.5)  # said once, however often it is tried
    client.release_concurrency_slots_with_lease(other._lease)
    _until(lambda: _used(client) == 1)
    assert caplog.text.count("given it to another") == 1


def test_a_server_that_failed_at_first_is_asked_again(client):
    from flows.orchestration.slots import Slots

    with Slots(["slots"]) as slots:  # `take` has raised
        _until(lambda: slots._lease is not None)
    assert _used(client) == 0


def test_leases_of_our_servers_are_on_the_disk(tmp_path, monkeypatch):
    from flows.session import settings

    monkeypatch.setattr(settings, "_must_be_early", lambda: None)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    settings.confine(tmp_path)
    assert os.environ["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"].endswith("lease_storage.filesystem")


@pytest.mark.slow
def test_a_slot_outlives_its_server(tmp_path):
    """`flowctl ui` dies while a stage holds the GPU: the next one still knows the lease, and takes the slot back."""
    shop = Workshop(tmp_path)
    try:
        shop.serve()
        shop.api("v2/concurrency_limits/", {"name": "gpu", "limit": 1})
        lease = shop.api(
            "v2/concurrency_limits/increment-with-lease",
            {"names": ["gpu"], "slots": 1, "mode": "concurrency", "lease_duration": 60},
        )["lease_id"]
        shop.processes[-1].kill()
        shop.processes[-1].wait()
        shop.serve()
        assert shop.api("v2/concurrency_limits/gpu")["active_slots"] == 1
        shop.api(f"v2/concurrency_limits/leases/{lease}/renew", {"lease_duration": 60})
        shop.api("v2/concurrency_limits/decrement-with-lease", {"lease_id": lease})
        assert shop.api("v2/concurrency_limits/gpu")["active_slots"] == 0
    finally:
        shop.close()
