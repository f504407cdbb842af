"""A gateway for people: apps that they consent to, and somebody who may become its first admin.

    python -m tests.conformance.interactive FOLDER UPSTREAM_URL REDIRECT_URI...

The first line on stdout is its public URL, the second the claim that makes the first admin. All
tools of the upstream are reviewed, pinned and permitted (deployment.py); nothing is put on any
request. The app `app` is public and has the redirect URIs given; apps that describe themselves at
a URL on this machine are served, too.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import socket
import sys
from pathlib import Path
from typing import Final

import uvicorn
import uvloop

from gateway.logs import configure_logging
from gateway.wiring.gateway import Gateway
from tests.conformance.deployment import AGENT, deploy
from tests.conformance.listener import SERVER, Server

APP: Final = "app"


async def serve(folder: Path, upstream: str, redirect_uris: list[str]) -> None:
    """Serve until SIGTERM."""
    listener = socket.create_server(("127.0.0.1", 0))
    grants = [{"server": SERVER}]
    app = {
        "kind": "app",
        "id": APP,
        "name": "The app under test",
        "agent": AGENT,
        "redirect_uris": redirect_uris,
        "grants": grants,
    }
    documents = {"enabled": True, "allowed_hosts": ["*"], "agent": AGENT, "grants": grants}
    made = await deploy(
        folder,
        listener.getsockname()[1],
        {SERVER: upstream},
        prefix=False,
        apps=[app],
        oauth={"client_id_metadata_documents": documents, "dynamic_registration": True},
    )
    gateway, said = Gateway(made.config), io.StringIO()
    with contextlib.redirect_stderr(said):
        await gateway.start()
    try:
        claim = re.search(r"https?://[^\s\"]+/claim\?code=[\w-]+", said.getvalue())
        assert claim is not None, said.getvalue()
        sys.stdout.write(f"{made.config.public_url}\n{claim[0]}\n")
        sys.stdout.flush()
        settings = uvicorn.Config(
            gateway.app,  # type: ignore[arg-type]  # the same protocol under another name
            http="httptools",
            lifespan="off",
            log_level="error",
            timeout_graceful_shutdown=1,
        )
        await Server(settings).serve(sockets=[listener])
    finally:
        await gateway.stop()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("upstream")
    parser.add_argument("redirect_uris", nargs="+")
    options = parser.parse_args()
    configure_logging("console", "error")
    uvloop.run(serve(options.folder, options.upstream, options.redirect_uris))


if __name__ == "__main__":
    main()
