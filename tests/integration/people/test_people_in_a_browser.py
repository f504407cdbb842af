"""People, in a real browser: one story, told in the order of its tests."""

from __future__ import annotations

import json
import re
import shutil
import stat
import subprocess
from typing import Final

import pytest

from tests.integration.people.chromium import Chromium
from tests.integration.people.conftest import House

PASSWORD: Final = "correct horse battery"

pytestmark = pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Debian's chromium")


def read_until(process: subprocess.Popen[str], pattern: str) -> str:
    """Return what a command says up to a line that fits; its first group."""
    assert process.stderr is not None
    for line in process.stderr:
        found = re.search(pattern, line)
        if found is not None:
            return found[1]
    raise AssertionError(f"it never said `{pattern}`")


@pytest.mark.req("TOK-08")
def test_the_first_admin_claims_an_account_and_adds_a_passkey(
    house: House, chromium: Chromium
) -> None:
    chromium.open(house.claim)
    chromium.wait_for("Claim your account")
    chromium.fill(person="root", password=PASSWORD)
    chromium.click("Set up my account")
    chromium.wait_for("You are root.")
    chromium.add_authenticator()
    chromium.fill(label="Test key")
    chromium.click("Add a passkey")
    chromium.wait_for("The passkey was added.")
    chromium.wait_for("Test key, since")
    assert house.claim.rpartition("=")[2] not in str(house.records("human.change"))


@pytest.mark.req("TOK-08")
def test_the_claim_is_spent(house: House, chromium: Chromium) -> None:
    chromium.open(house.claim)
    chromium.wait_for("Claim your account")
    chromium.fill(person="root2", password=PASSWORD)
    chromium.click("Set up my account")
    chromium.wait_for("this claim is not good")


@pytest.mark.req("TOK-08")
def test_a_passkey_signs_in_after_a_sign_out(house: House, chromium: Chromium) -> None:
    chromium.open(f"{house.url}/account")
    chromium.wait_for("You are root.")
    chromium.click("Sign out")
    chromium.wait_for("Sign in with a passkey")
    chromium.click("Sign in with a passkey")
    chromium.wait_for("You are root.")
    last = house.records("human.sign_in")[-1]
    assert (last["method"], last["acr"]) == ("passkey", "strong")


@pytest.mark.req("TOK-08")
def test_the_session_s_cookie_is_out_of_reach_of_scripts_and_other_sites(
    house: House, chromium: Chromium
) -> None:
    assert chromium.run("document.cookie") == ""
    cookies = chromium.call("Network.getCookies", urls=[house.url])["cookies"]
    [session] = [one for one in cookies if one["name"] == "countersign"]
    assert session["httpOnly"]
    assert session["sameSite"] == "Strict"


@pytest.mark.req("TOK-08")
def test_a_command_line_signs_in_by_the_browser(house: House, chromium: Chromium) -> None:
    refused = house.cli("users", "list")
    assert (refused.returncode, "countersign login" in refused.stderr) == (4, True)
    with house.login() as login:
        chromium.open(read_until(login, r"(http://\S+/signin/cli\S+)"))
        chromium.wait_for("wants to act as root")
        chromium.click("Allow")
        chromium.wait_for("Go back to your command line.")
        assert read_until(login, r"signed in as (\S+) for") == "root"
        assert login.wait(10) == 0
    kept = house.folder / "home" / "countersign" / "credentials.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    listed = house.cli("users", "list", "-o", "json")
    assert listed.returncode == 0, listed.stderr
    assert "root" in listed.stdout


@pytest.mark.req("TOK-08")
def test_signing_out_ends_the_credential_at_the_gateway(house: House) -> None:
    path = house.folder / "home" / "countersign" / "credentials.json"
    before = path.read_text()
    assert house.cli("logout").returncode == 0
    assert json.loads(path.read_text()) == {}
    path.write_text(before)  # somebody kept a copy
    assert house.cli("users", "list").returncode == 4
    path.chmod(0o644)  # and one that others can read is not even tried
    assert "countersign login" in house.cli("users", "list").stderr
    path.unlink()


@pytest.mark.req("TOK-08")
def test_a_command_line_elsewhere_signs_in_by_a_code(house: House, chromium: Chromium) -> None:
    with house.login("--device") as login:
        read_until(login, r"(open) ")
        code = read_until(login, r"([B-Z]{4}-[B-Z]{4})")
        chromium.open(f"{house.url}/device")
        chromium.wait_for("Code on your command line's screen")
        chromium.fill(user_code=code)
        chromium.click("Go on")
        chromium.wait_for(code)
        chromium.click("Allow")
        chromium.wait_for("It is signed in")
        assert read_until(login, r"signed in as (\S+) for") == "root"
        assert login.wait(10) == 0
    assert house.cli("users", "list").returncode == 0
    assert house.records("human.sign_in")[-1]["method"] == "device"


@pytest.mark.req("TOK-08")
def test_an_identity_provider_signs_in_and_the_strict_cookie_survives_the_way_back(
    house: House, chromium: Chromium
) -> None:
    chromium.open(f"{house.url}/account")
    chromium.wait_for("You are root.")
    chromium.click("Sign out")
    chromium.wait_for("Sign in with Corp")
    chromium.click("Sign in with Corp")
    chromium.wait_for("login")
    chromium.run("document.querySelector('[name=login]').value = 'olga'")
    chromium.run("document.querySelector('form').submit()")
    chromium.wait_for("You are olga.")
    record = house.records("human.sign_in")[-1]
    assert (record["method"], record["provider"]) == ("oidc", "corp")
    assert [one["change"] for one in house.records("human.change")][-1] == "provisioned"


@pytest.mark.req("TOK-08")
def test_a_step_up_goes_back_to_the_provider_and_comes_back_strong(
    house: House, chromium: Chromium
) -> None:
    chromium.open(f"{house.url}/signin?next=/account&acr=strong")
    chromium.wait_for("Sign in with Corp")
    chromium.click("Sign in with Corp")
    chromium.wait_for("login")
    chromium.run("document.querySelector('[name=login]').value = 'olga'")
    chromium.run("document.querySelector('[name=acr]').value = 'urn:test:passkey'")
    chromium.run("document.querySelector('form').submit()")
    chromium.wait_for("You are olga.")
    assert house.records("human.sign_in")[-1]["acr"] == "strong"


@pytest.mark.req("TOK-08", "TOK-06")
def test_the_kill_switch_ends_a_session_at_once(house: House, chromium: Chromium) -> None:
    killed = house.cli("kill", "on", "--human", "olga", "--reason", "left the company")
    assert killed.returncode == 0, killed.stderr
    chromium.open(f"{house.url}/account")
    chromium.wait_for("Sign in with a passkey")
    chromium.click("Sign in with Corp")  # she is signed in there still
    chromium.wait_for("the provider knows you and this gateway does not")


@pytest.mark.req("TOK-08")
def test_an_admin_lets_somebody_else_in(house: House, chromium: Chromium) -> None:
    assert house.cli("users", "create", "petra").returncode == 0
    made = house.cli("users", "claim", "petra", "-o", "json")
    assert made.returncode == 0, made.stderr
    chromium.open(json.loads(made.stdout)["url"])
    chromium.wait_for("Claim your account")
    chromium.fill(password=PASSWORD)
    chromium.click("Set up my account")
    chromium.wait_for("You are petra.")
    refused = house.cli("users", "claim", "root2")
    assert refused.returncode == 5, refused.stderr
    own = house.cli("users", "claim", "root")
    assert (own.returncode, "account page" in own.stderr) == (3, True)
    assert house.cli("users", "create", "quentin").returncode == 0
    assert "open once, until" in house.cli("users", "claim", "quentin").stdout
    assert house.cli("logout").returncode == 0
    assert "nobody was signed in" in house.cli("logout").stderr
