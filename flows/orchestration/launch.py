"""Run a recipe: plan it, and let Prefect orchestrate if a stage has to run or a server is to show the run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress

from flows.orchestration.server import EmbeddedServer, check_server
from flows.orchestration.server_errors import explained
from flows.session import forecasts, reruns, settings
from flows.session.interrupts import graceful_shutdown
from flows.session.joining import join
from flows.session.recording import record_reused, recording, run_stages
from flows.session.remotes import Unsent
from flows.session.session import Session, current
from pipeline.engine.dag import IMAGES
from pipeline.engine.outside import check_files
from pipeline.engine.plan import Step, plan
from pipeline.engine.stage_errors import failure
from storage.errors import Interrupted, StageFailed


def launch(session: Session, debug: bool = False) -> list[Step]:
    """Run every stage that has no result yet; the plan that was followed. Raises FlowctlError, or KeyboardInterrupt.

    If all stages are reused and there is no server, neither torch nor Prefect is imported.
    """
    session.store.prepare()
    if session.recipe.compute.node_rank:  # the first machine plans, records and sends
        join(session)
        return plan(session.nodes, session.store)
    steps = plan(session.nodes, session.store, reruns.not_yet_rerun([session]), session.remote)
    for step in steps:
        if step.node.name in session.force and step.action == "reuse":
            session.display.note(f"{step.node.name}: rerun already by this command, which was interrupted later")
    server, actions = settings.server_url(), {step.action for step in steps}
    if server is None and actions <= {"reuse", "fetch"}:
        if "fetch" in actions or session.remote is not None:
            with recording(session, steps), graceful_shutdown(session.stop, session.display.note):
                run_stages(session)
        else:
            record_reused(session, steps)
        return steps
    check_ahead([(session, steps)])
    for step in steps:
        if step.action != "reuse":
            session.store.prepare_stage(step.node.name)
    _connect(session, steps, debug)
    reruns.request([session])
    with recording(session, steps, server):
        _orchestrate(session, server)
    return steps


def check_ahead(runs: Iterable[tuple[Session, Sequence[Step]]]) -> None:
    """Before the images are read, which takes a while. Raises RecipeError for devices that this machine lacks,
    DataError for weights that a stage could not read."""
    configs = []
    for session, steps in runs:
        ahead = [step.node for step in steps if step.action in forecasts.AHEAD and step.node.name not in IMAGES]
        if ahead:
            from pipeline.runtime.device import check_asked

            check_asked(session.recipe.compute)
        configs += [node.config for node in ahead]
    check_files(configs)


def _connect(session: Session, steps: list[Step], debug: bool) -> None:
    """Wait for a server: the one that the user named, or an embedded one."""
    settings.configure(debug)
    if settings.server_url() is not None:
        check_server()
        return
    server = EmbeddedServer(session.store.home / "prefect")
    import flows.orchestration.pipeline_flow  # noqa: F401 - slow, while the server starts

    forecasts.stage_times_if_known(session, steps)  # slow too; the record of the run then has the times at once
    server.wait()


def _orchestrate(session: Session, server: str | None) -> None:
    from prefect import tags
    from prefect.exceptions import Abort

    from flows.orchestration.pipeline_flow import pipeline, seed_tag
    from flows.orchestration.stale_runs import close_dead_runs

    close_dead_runs(session.store.home, server)
    recipe, error = session.recipe.model_dump(mode="json"), None
    try:
        with current(session), tags(session.running_record.id, seed_tag(recipe)):
            state = pipeline(recipe, list(session.force), session.until, return_state=True)
    except (Exception, Abort) as raised:  # errors of stages come as states
        error = raised
    else:
        if state.is_completed():
            return
        with suppress(Exception):  # it says what ended the flow itself, if it has that
            found = state.result(raise_on_failure=False)
            error = found if isinstance(found, Exception) else None
    if session.error is not None:  # a full disk, say, ends a stage together with the server
        raise failure(next(name for name in session.nodes if name not in session.outcomes), session.error)
    if error is not None:
        raise _of_prefect(error, server)
    if session.unsent and session.outcomes.keys() == session.nodes.keys():
        raise Unsent(session)
    raise StageFailed(state.message)


def _of_prefect(error: BaseException, server: str | None) -> BaseException:
    """What ended a run outside its stages, as it is to be raised."""
    log = "its log" if server else f"{os.environ['PREFECT_HOME']}/server.log"
    known = explained(error, "during the run, whose finished stages and saved work stay,", log)
    if known is None and not isinstance(error, Exception):  # Prefect's Abort: it was cancelled before its first stage
        known = Interrupted(f"Stopped in Prefect ({error})")
    if known is None or known is error:
        return error
    known.__cause__ = error
    return known
