"""A bundle as OPA takes it: moved below a root of its own, or packed."""

from __future__ import annotations

import gzip
import io
import tarfile

import orjson
import pytest

from gateway.adapters.opa.opa_bundle import (
    ANSWER_PATH,
    ANSWERS_PATH,
    build_archive,
    build_pushed,
    list_modules,
    name_root,
)
from gateway.adapters.opa.opa_routes import Routes
from gateway.adapters.opa.opa_shelf import Shelf
from gateway.adapters.policy.policy_bundle import MAIN_PATH, Bundle, build_bundle, default_pack
from gateway.adapters.policy.policy_bundle import load_bundle_dir as load
from gateway.core.errors import ConfigurationError

pytestmark = pytest.mark.req("POL-05")

BASE = """package policies.base

f(x) := x if data.limits[x]
"""
USER = """# METADATA
# description: reads data.limits and "data.policies"
package policies.user

import data.policies.base as b

deny contains {"code": "no", "message": "data.limits says no"} if {
	b.f(input.context.args.data) == data.limits.most
	data["limits"]
}
"""


def make() -> Bundle:
    return build_bundle({"user.rego": USER, "base.rego": BASE}, {"limits": {"most": 3}})


def test_a_pushed_bundle_stands_below_a_root_that_its_revision_names() -> None:
    bundle = make()
    pushed = build_pushed(bundle)
    name = name_root(bundle.revision)
    assert name == "r" + bundle.revision[7:23]
    assert pushed.root == f"countersign_bundles/{name}"
    assert orjson.loads(pushed.data) == {"limits": {"most": 3}}
    text = dict(pushed.modules)["policies/user.rego"]
    root = f"data.countersign_bundles.{name}"
    assert text == (
        USER.replace("package policies", f"package countersign_bundles.{name}.policies")
        .replace("import data", f"import {root}")
        .replace("== data.limits", f"== {root}.limits")
        .replace('data["limits"]', f'{root}["limits"]')
    )


def test_what_is_read_comes_before_what_reads_it_and_what_answers_comes_last() -> None:
    paths = [path for path, _ in list_modules(make())]
    assert paths == [
        "policies/base.rego",
        "policies/user.rego",
        MAIN_PATH,
        ANSWERS_PATH,
        ANSWER_PATH,
    ]


def test_every_module_of_the_default_pack_can_be_moved() -> None:
    bundle = load(default_pack())
    pushed = build_pushed(bundle)
    assert all(" data.policies" not in text.split("package", 1)[1] for _, text in pushed.modules)


def test_a_line_that_would_become_too_long_is_told() -> None:
    long = "package policies.long\n\nx := data.limits." + "a" * 1000 + "\n"
    with pytest.raises(ConfigurationError, match=r"policies/long\.rego: .*`policy\.opa\.bundles"):
        build_pushed(build_bundle({"long.rego": long}, {"limits": {}}))


def test_an_archive_is_a_bundle_of_opas_the_same_bytes_each_time() -> None:
    bundle = make()
    packed = build_archive(bundle)
    assert packed == build_archive(make())
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(packed))) as archive:
        files = {
            entry.name: archive.extractfile(entry).read()  # type: ignore[union-attr]
            for entry in archive.getmembers()
        }
    manifest = orjson.loads(files["/.manifest"])
    assert manifest == {
        "revision": bundle.revision,
        "rego_version": 1,
        "roots": ["applies_to", "authority", "countersign", "limits", "policies"],
    }
    assert files["/policies/user.rego"].decode() == USER
    assert bundle.revision in files[f"/{ANSWER_PATH}"].decode()
    assert set(files) == {f"/{path}" for path, _ in bundle.files} | {
        "/.manifest",
        f"/{ANSWER_PATH}",
        f"/{ANSWERS_PATH}",
    }


async def test_a_shelf_offers_one_bundle_and_wakes_who_waits_for_the_next() -> None:
    shelf = Shelf()
    assert shelf.etag == ""
    await shelf.put(make())
    assert shelf.etag == make().revision
    await shelf.wait("another", 60)  # there is one already
    await shelf.wait(shelf.etag, 0)


SCOPED = """# METADATA
# custom:
#   applies_to: {{servers: [shop], phases: [{phases}]}}
package policies.{name}

deny contains {{"code": "x"}} if {condition}
"""


def test_routes_say_who_is_concerned_and_who_reads_what_was_spent() -> None:
    sources = {
        "calls.rego": SCOPED.format(name="calls", phases="call", condition="input.action"),
        "sums.rego": SCOPED.format(
            name="sums", phases="result", condition="input.context.run.calls"
        ),
    }
    packages = build_bundle(sources, {}).packages
    routes = Routes(packages, {"shop.pay": ("shop", "money"), "bank.pay": ("bank", "money")})
    assert routes.concerns("shop.pay", "call")
    assert not routes.reads_ledger("shop.pay", "call")
    assert routes.reads_ledger("shop.pay", "result")
    assert not routes.concerns("bank.pay", "result")
    assert not routes.concerns("shop.pay", "list")
    # Of a tool that nobody told of, everything that its phase concerns.
    assert routes.concerns("new.tool", "result")
    assert not routes.concerns("new.tool", "list")
