"""`ui`: Prefect's server and its pages, on this machine only."""

from __future__ import annotations

from typing import Annotated

import typer


def ui(
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Where to listen on 127.0.0.1.")] = 4200,
) -> None:
    """Serve Prefect's UI on 127.0.0.1 until Ctrl-C. It shows the runs of this store, past and present."""
    import os
    import socket
    import sys

    from flows.session.settings import configure, confine
    from storage.errors import InputError
    from storage.store import Store

    store = Store()
    store.prepare()
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        raise InputError("--port must be free on 127.0.0.1", port, f"{error.strerror}: choose another") from None
    configure()
    confine(store.home / "prefect")
    url = f"http://127.0.0.1:{port}"
    os.environ |= {
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(port),  # --port alone does not reach the pages
        "PREFECT_UI_API_URL": f"{url}/api",
        "PREFECT_SERVER_UI_V2_ENABLED": "false",  # its pages call a tracker whatever the settings say
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    }
    typer.echo(
        f"Prefect's UI: {url}   (Ctrl-C ends it)\nTo have runs shown there, in another terminal:\n"
        f"  export PREFECT_API_URL={url}/api",
        err=False,
    )
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "prefect", "server", "start"])
