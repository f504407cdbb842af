"""The demo's story, act by act. Each sentence marked ✓ was checked when it was printed."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from examples.acme.demo_agent import (
    ORDERS,
    RECIPIENTS,
    Agent,
    api,
    make_bad_tokens,
    read_token,
)
from examples.acme.demo_audit import REASON
from examples.acme.demo_ground import AGENT, Ground, git
from examples.acme.demo_processes import CONFLICT, countersign
from examples.acme.demo_telling import Telling

HELD: Final = {"order_id": "ord_5002", "amount_cents": 42000, "reason": "damaged"}
STATUS_TOOL: Final = "countersign_approval_status"
UNREVIEWED: Final = {"git.git_checkout", "git.git_create_branch"}
UNAUTHORIZED: Final = 401
FORBIDDEN: Final = 403


async def tell_authority(
    tell: Telling, ground: Ground, agent: Agent, run: dict[str, Any], token: dict[str, Any]
) -> None:
    """Act 1: what the agent may do, and who said so."""
    tell.act("An agent gets a little authority, for a little while")
    header, claims = read_token(token["access_token"])
    life = claims["exp"] - claims["iat"]
    tell.say(
        f"The ticket system starts a run for {AGENT}: read Acme's records, refund {len(ORDERS)} "
        f"orders, write to {len(RECIPIENTS)} addresses, work on one repository, for half an hour."
    )
    tell.check(
        f"its token is a signed {header['typ']} ({header['alg']}) for this run, and lives {life} s",
        life <= 300 and claims["run_id"] == run["run_id"] and claims["sub"] == AGENT,  # noqa: PLR2004
        claims,
    )
    shown, everything = set(await agent.tools()), await _all_tools(ground)
    tell.check(
        f"over MCP {agent.wire} it is shown {len(shown)} tools: those of its run, and one to ask "
        "after held calls",
        shown == {STATUS_TOOL, *(_wire_name(tool) for tool in everything if _is_given(tool))},
        sorted(shown),
    )
    unseen = {
        f"{tool['server']}.{tool['name']}" for tool in everything if tool["state"] == "unreviewed"
    }
    tell.check(
        f"the operator sees all {len(everything)}, also {' and '.join(sorted(unseen))}, which "
        "nobody has reviewed",
        unseen == UNREVIEWED,
        everything,
    )
    where = str(ground.repository)
    hidden = await agent.call("git__git_checkout", repo_path=where, branch_name="main")
    absent = await agent.call("git__no_such_tool", repo_path=where, branch_name="main")
    tell.check(
        f"calling one of these is answered like a tool that does not exist: “{hidden.text}”",
        hidden == absent and hidden.kind == "error",
        (hidden, absent),
    )


async def _all_tools(ground: Ground) -> list[dict[str, Any]]:
    async with api(ground) as http:
        login = {"Authorization": f"Bearer {ground.secret('otto')}"}
        reply = await http.get("/v1/admin/tools", headers=login)
    tools: list[dict[str, Any]] = reply.json()["tools"]
    return tools


def _is_given(tool: dict[str, Any]) -> bool:
    """Whether the run (`describe_run`) was given this tool, and somebody has reviewed it."""
    named = tool["name"] in {"refunds_create", "email_send"}
    return tool["state"] != "unreviewed" and (
        tool["server"] == "git" or tool["effect"] == "read" or named
    )


def _wire_name(tool: dict[str, Any]) -> str:
    return f"{tool['server']}__{tool['name']}"


async def tell_injection(tell: Telling, ground: Ground, agent: Agent) -> None:
    """Act 2: the agent reads what a stranger wrote, and believes it."""
    tell.act("A stranger has left orders in a customer's file")
    file = await agent.call("acme__customers_get", customer_id="cus_1006")
    notes = [note["body"] for note in file.value.get("notes", [])]
    tell.check("the agent may read the file of Ewan MacAllister", file.kind == "ok", file)
    tell.show(notes)
    tell.say("Say that the model falls for it. What it then tries:")
    refund = await agent.call(
        "acme__refunds_create", order_id="ord_5008", amount_cents=71800, reason="goodwill"
    )
    tell.check(
        "a refund of ord_5008: not one of this run's orders",
        refund.code == "constraint_broken" and not ground.refunds("ord_5008"),
        (refund, ground.refunds("ord_5008")),
    )
    tell.show([refund.text])
    mail = await agent.call(
        "acme__email_send", to="archive@collector.example", subject="Customers", body="All of them"
    )
    out = ground.rows("SELECT 1 FROM email_outbox WHERE recipient LIKE '%collector%'")
    tell.check(
        "a mail to archive@collector.example: not one of its recipients; the outbox is untouched",
        mail.code == "constraint_broken" and not out,
        (mail, out),
    )
    tell.show([mail.text])


async def tell_money(tell: Telling, ground: Ground, agent: Agent) -> str:
    """Act 3: three refunds, three answers. Returns the id of the one that waits."""
    tell.act("Three refunds, three answers from policy")
    small = await agent.call(
        "acme__refunds_create", order_id="ord_5001", amount_cents=8990, reason="damaged"
    )
    paid = ground.refunds("ord_5001")
    tell.check(
        f"89.90 EUR is permitted, and Acme's database has it as {small.value.get('refund_id')}",
        small.kind == "ok" and [cents for _, cents, _ in paid] == [8990],
        (small, paid),
    )
    big = await agent.call(
        "acme__refunds_create", order_id="ord_5006", amount_cents=96000, reason="goodwill"
    )
    tell.check(
        "960.00 EUR is denied by Rego; the agent gets a code, the details stay with the gateway",
        big.code == "refund_over_limit" and not ground.refunds("ord_5006"),
        (big, ground.refunds("ord_5006")),
    )
    tell.show([big.text])
    middle = await agent.call("acme__refunds_create", **HELD)
    tell.check(
        "420.00 EUR is held for a human; nothing has been paid",
        middle.kind == "pending" and not ground.refunds("ord_5002"),
        (middle, ground.refunds("ord_5002")),
    )
    again = await agent.call("acme__refunds_create", **HELD)
    held = str(middle.value.get("approval_id", ""))
    tell.check(
        "the agent asks again: the same request, not a second one",
        held and again.value.get("approval_id") == held,
        (middle, again),
    )
    return held


async def tell_approval(tell: Telling, ground: Ground, agent: Agent, token: str, held: str) -> None:
    """Act 4: a human decides, once."""
    tell.act("A human decides, once")
    seen = await countersign("approvals", "show", held, env=ground.login("dana"))
    wanted = ("arguments", "tool", "agent", "launched", "reason", "may vote", "expires", "binding")
    tell.say("Dana, who approves refunds, types `countersign approvals show`:")
    tell.show(line for line in seen.out.splitlines() if line.startswith(wanted))
    tell.check(
        "she sees the very bytes that will be sent, and why they wait",
        '"amount_cents":42000' in seen.out.replace(" ", "") and "refund_needs_approval" in seen.out,
        seen,
    )
    await _try_to_vote(tell, ground, token, held)
    vote = ("approvals", "approve", held, "--reason", REASON)
    approved = await countersign(*vote, env=ground.login("dana"))
    after = await agent.call("countersign_approval_status", approval_id=held, wait_seconds=10)
    tell.check(
        f"Dana approves; the gateway sends it, and the agent gets the shop's own answer, "
        f"{after.value.get('refund_id')}",
        approved.code == 0 and after.kind == "ok" and after.value.get("amount_cents") == 42000,  # noqa: PLR2004
        (approved, after),
    )
    twice, late = await asyncio.gather(
        *(countersign(*vote, env=ground.login(name)) for name in ("dana", "rita"))
    )
    tell.check(
        f"Dana clicks again: the same vote. Rita comes late: a conflict (exit {late.code})",
        (twice.code, late.code) == (0, CONFLICT),
        (twice, late),
    )
    tell.show([late.last_error])
    await _ask_once_more(tell, ground, agent, held)


async def _ask_once_more(tell: Telling, ground: Ground, agent: Agent, held: str) -> None:
    retry = await agent.call("acme__refunds_create", **HELD)
    paid = ground.refunds("ord_5002")
    tell.check(
        "the agent asks for the refund once more: a new request, held anew; Acme has paid once",
        [cents for _, cents, _ in paid] == [42000]
        and retry.kind == "pending"
        and retry.value["approval_id"] != held,
        (retry, paid),
    )
    to, text = RECIPIENTS[0], "We have refunded the tent."
    mail = await agent.call("acme__email_send", to=to, subject="Your refund", body=text)
    out = ground.rows("SELECT recipient FROM email_outbox WHERE subject = 'Your refund'")
    tell.check(
        f"it writes to {to}: permitted, and in the outbox",
        mail.kind == "ok" and out == [(to,)],
        (mail, out),
    )


async def _try_to_vote(tell: Telling, ground: Ground, token: str, held: str) -> None:
    async with api(ground) as http:
        login = {"Authorization": f"Bearer {token}"}
        body = {"decision": "approve", "reason": "I am sure it is fine"}
        reply = await http.post(f"/v1/approvals/{held}/votes", headers=login, json=body)
    tell.check(
        f"the agent votes for itself with its own token: {reply.status_code}, nothing has moved",
        reply.status_code in {UNAUTHORIZED, FORBIDDEN} and not ground.refunds("ord_5002"),
        (reply.status_code, reply.text, ground.refunds("ord_5002")),
    )


async def tell_repository(tell: Telling, ground: Ground, agent: Agent) -> None:
    """Act 5: the same rules for a server that nobody here wrote."""
    tell.act("A server that nobody here wrote: mcp-server-git, over stdio")
    where = str(ground.repository)
    log = await agent.call("git__git_log", repo_path=where)
    tell.check("git_log is permitted", "Returns: thirty days" in log.text, log)
    page = ground.repository / "returns.md"
    page.write_text(page.read_text() + "\nTorn seams: always.\n", encoding="utf-8")
    added = await agent.call("git__git_add", repo_path=where, files=["returns.md"])
    done = await agent.call("git__git_commit", repo_path=where, message="Returns: torn seams")
    newest = await git(ground, "log", "-1", "--format=%s")
    tell.check(
        f"git_add and git_commit are permitted; the newest commit says “{newest}”",
        (added.kind, done.kind, newest) == ("ok", "ok", "Returns: torn seams"),
        (added, done, newest),
    )
    (ground.repository / "draft.md").write_text("Half a thought.\n", encoding="utf-8")
    await git(ground, "add", "draft.md")
    reset = await agent.call("git__git_reset", repo_path=where)
    staged = await git(ground, "diff", "--cached", "--name-only")
    tell.check(
        f"git_reset is denied ({reset.code}); what a colleague has staged, {staged}, still is",
        reset.code == "git_reset_denied" and staged == "draft.md",
        (reset, staged),
    )


async def tell_strangers(tell: Telling, ground: Ground, token: str) -> None:
    """Act 6: tokens that must not work."""
    tell.act("Tokens that must not work")
    body = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    headers = {"Accept": "application/json, text/event-stream"}
    answers: dict[str, int] = {}
    async with api(ground) as http:
        reply = await http.post("/mcp", json=body, headers=headers)
        answers["none"] = reply.status_code
        where = reply.headers.get("www-authenticate", "")
        for name, bad in make_bad_tokens(ground, token).items():
            login = headers | {"Authorization": f"Bearer {bad}"}
            answers[name] = (await http.post("/mcp", json=body, headers=login)).status_code
    tell.check(
        ", ".join(f"{name}: {status}" for name, status in answers.items()),
        set(answers.values()) == {UNAUTHORIZED},
        answers,
    )
    tell.check(
        "and each is told where tokens come from (RFC 9728)",
        "resource_metadata=" in where,
        where,
    )
