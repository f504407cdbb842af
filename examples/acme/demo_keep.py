"""How to play with the demo once it is left up: commands to paste, with this run's places in them.

Secrets stay in their files; the commands read them from there.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Final

from examples.acme.demo_agent import DEADLINE_S
from examples.acme.demo_ground import AGENT, LAUNCHER, Ground
from examples.acme.demo_processes import command
from examples.acme.demo_telling import Telling

WIRE: Final = "2026-07-28"

TEXT: Final = """\
# A fresh token, good for 300 s, from the run of the demo. The run ends at {deadline}.
TOKEN=$(curl -s -u "$(cat {secrets}/run)" -d grant_type=client_credentials \\
  {url}/oauth/token | sed 's/.*"access_token":"\\([^"]*\\)".*/\\1/')

# REST: read an order; then ask for more money than an agent may give.
curl -s -H "Authorization: Bearer $TOKEN" {url}/v1/tools/acme__orders_get/call \\
  -d '{{"arguments":{{"order_id":"ord_5001"}}}}'; echo
curl -s -H "Authorization: Bearer $TOKEN" {url}/v1/tools/acme__refunds_create/call \\
  -d '{{"arguments":{{"order_id":"ord_5006","amount_cents":96000,"reason":"late"}}}}'; echo

# MCP ({wire}), one request without a session.
curl -s -H "Authorization: Bearer $TOKEN" {url}/mcp \\
  -H 'Content-Type: application/json' -H 'Accept: application/json, text/event-stream' \\
  -H 'MCP-Protocol-Version: {wire}' -H 'Mcp-Method: tools/call' -H 'Mcp-Name: acme__orders_get' \\
  -d '{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"acme__orders_get",
       "arguments":{{"order_id":"ord_5002"}},
       "_meta":{{"io.modelcontextprotocol/protocolVersion":"{wire}",
                "io.modelcontextprotocol/clientCapabilities":{{}}}}}}}}'; echo

# MCP, with the official client. Even 25 EUR wait for Dana now: this run has refunded 509.90.
TOKEN=$TOKEN {python} - <<'END'
import asyncio, os, httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

async def main():
    headers = {{"Authorization": "Bearer " + os.environ["TOKEN"]}}
    async with httpx2.AsyncClient(headers=headers, trust_env=False) as http:
        async with Client(streamable_http_client("{url}/mcp", http_client=http)) as client:
            refund = {{"order_id": "ord_5006", "amount_cents": 2500, "reason": "late"}}
            result = await client.call_tool("acme__refunds_create", refund)
            print(result.content[0].text)

asyncio.run(main())
END

# Be Dana, who approves: show ID, approve ID --reason WHY, deny ID --reason WHY.
export COUNTERSIGN_URL={url} COUNTERSIGN_TOKEN=$(cat {secrets}/dana)
{countersign} approvals list

# Be Otto, the operator: every tool, also those that no agent sees.
curl -s -H "Authorization: Bearer $(cat {secrets}/otto)" {url}/v1/admin/tools; echo

# Be the auditor.
{countersign} audit tail {folder}/audit
{countersign} audit verify {folder}/audit --vkey {vkey}

# Be the ticket system: a new run with clean sums. Then fetch a token as above.
curl -s -u "{launcher}:$(cat {secrets}/{launcher})" {url}/v1/runs \\
  -d '{{"agent":"{agent}","grants":[{{"server":"acme"}}],"deadline_s":3600}}' |
  sed 's/.*"run_id":"\\([^"]*\\)","run_credential":"\\([^"]*\\)".*/\\1:\\2/' > {secrets}/run
"""


def tell_how_to_play(tell: Telling, ground: Ground) -> None:
    """Print commands that work as they stand, in a shell in this folder."""
    tell.title(
        "\nLeft up until Ctrl-C. Policies reload when you change them. To paste elsewhere:\n"
    )
    deadline = time.strftime("%H:%M", time.localtime(time.time() + DEADLINE_S))
    text = TEXT.format(
        deadline=deadline,
        url=ground.url,
        wire=WIRE,
        folder=_near(ground.folder),
        secrets=_near(ground.secret_file("")),
        vkey=_near(ground.vkey),
        launcher=LAUNCHER,
        agent=AGENT,
        python=_near(Path(sys.executable)),
        countersign=_near(Path(command("countersign"))),
    )
    tell.commands(text)


def _near(path: Path) -> str:
    """Return the path as one would type it here."""
    near = os.path.relpath(path)
    return str(path) if near.startswith("..") else near
