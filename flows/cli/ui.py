"""`ui`: Prefect's server and its pages, and the reports of the store, on this machine only."""

from __future__ import annotations

from typing import Annotated

import typer


def ui(
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Where to listen on 127.0.0.1.")] = 4200,
) -> None:
    """Serve Prefect's UI and the reports on 127.0.0.1 until Ctrl-C. It shows the runs of this store, past and present.

    Reports are served on the next port, or on a free one where that is taken.
    """
    import os
    import socket
    import sys

    from flows.orchestration import reports, server
    from flows.session.settings import configure, confine
    from storage.errors import UsageError
    from storage.store import Store

    store = Store()
    store.prepare()
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        raise UsageError("--port must be free on 127.0.0.1", port, f"{error.strerror}: choose another") from None
    os.environ.pop("PREFECT_API_URL", None)  # of another server
    configure()
    home, database = server.claim_database(store.home / "prefect")
    confine(home)
    url = f"http://127.0.0.1:{port}"
    os.environ |= {
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(port),  # --port alone does not reach the pages
        "PREFECT_UI_API_URL": f"{url}/api",
        "PREFECT_SERVER_UI_V2_ENABLED": "false",  # its pages call a tracker whatever the settings say
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    }
    os.set_inheritable(database.fileno(), True)  # the server keeps the claim
    typer.echo(
        f"Prefect's UI: {url}   (Ctrl-C ends it)\nReports: {reports.start(store.home, port + 1)}\n"
        f"To have runs shown there, in another terminal:\n  export PREFECT_API_URL={url}/api"
    )
    sys.stdout.flush()
    os.chdir(home)  # the database is named relative to it, and no file of the user's is read there
    os.execve(sys.executable, [sys.executable, "-P", "-m", "prefect", "server", "start"], server.environment())
