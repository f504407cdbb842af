"""The library that policies import: in every bundle, loaded where it is read, never replaced."""

from __future__ import annotations

import pytest

from gateway.adapters.policy.bundle_store import load_bundle, save_bundle
from gateway.adapters.policy.gate.policy_gate import (
    _module_faults,
    _uncertain,
    _undefined_faults,
)
from gateway.adapters.policy.gate.policy_rules import Definitions
from gateway.adapters.policy.policy_bundle import (
    Bundle,
    build_bundle,
    find_rego_root,
    load_library,
    restore_bundle,
)
from gateway.adapters.policy.policy_faults import Mistake
from gateway.adapters.policy.policy_library import parse_library
from gateway.adapters.regorus.regorus_index import describe_subset
from gateway.core.errors import ConfigurationError

pytestmark = pytest.mark.req("POL-03")

OWNED = {"authority": {"policies": {"a": ["*"]}}}
HEAD = "package policies.a\n\nimport data.countersign.lib.args\n\n"
READS = HEAD + 'permit contains {"code": "ok"} if args.number("n") < 5\n'


def build(source: str, **more: str) -> Bundle:
    others = {f"{name}.rego": text for name, text in more.items()}
    return build_bundle({"a.rego": source, **others}, OWNED)


def fault(source: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        build(source)
    assert caught.value.code == "policy_invalid"
    (line,) = str(caught.value).splitlines()
    return line


def test_every_bundle_holds_the_library_in_its_revision() -> None:
    bundle = build('package policies.a\npermit contains {"code": "ok"} if input.x == 1\n')
    files = dict(bundle.files)
    library = load_library(find_rego_root())
    assert library
    assert {path: files[path].decode() for path in library} == library
    assert bundle.library == {}
    other = build_bundle(
        {"a.rego": files["policies/a.rego"].decode()},
        OWNED,
        library=library | {"countersign/lib/args.rego": "package countersign.lib.args\n"},
    )
    assert other.revision != bundle.revision


def test_an_engine_holds_only_the_modules_that_are_read() -> None:
    bundle = build(READS, b='package policies.b\ndeny contains {"code": "no"} if input.x == 1\n')
    assert set(bundle.library) == {"countersign.lib.args"}
    assert set(bundle.modules()) == {"", "a", "b", "countersign.lib.args"}
    subset = describe_subset(bundle, frozenset({"a"}))
    assert subset["packages"] == ["a", "countersign.lib.args"]
    assert subset["applies_to"] == {}
    assert ("context", "args") in subset["paths"]
    assert describe_subset(bundle, frozenset({"b"}))["packages"] == ["b"]


def test_what_a_module_reads_counts_as_read_by_the_package() -> None:
    assert not build(READS).packages["a"].reads_ledger
    sums = (
        "package policies.a\nimport data.countersign.lib.sums\n"
        'deny contains {"code": "no"} if sums.run("shop.pay#/n") > 5\n'
    )
    assert build(sums).packages["a"].reads_ledger
    sinks = (
        "package policies.a\nimport data.countersign.lib.sinks\n"
        'deny contains {"code": "no"} if "unseen" in sinks.classes\n'
    )
    package = build(sinks).packages["a"]
    assert not package.reads_ledger  # where values come from needs no turn
    assert package.requires == {"countersign.lib.sinks", "countersign.lib.args"}


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("x := data.countersign.decision", "reads `data.countersign`, which decides about it"),
        ("x := data.countersign.lib", "reads all of the library; import the module"),
        ("x := data.countersign.lib[input.x]", "reads all of the library; import the module"),
        ("x := data.countersign.lib.nope.y", "unknown library `countersign.lib.nope`; there is"),
        ("import data.countersign.lib.nope", "unknown library `countersign.lib.nope`; there is"),
        ('x := data.countersign.lib.args.nope("a")', "`countersign.lib.args` has no `nope`; it"),
        ("import data.countersign", "reads `data.countersign`, which decides about it"),
    ],
)
def test_nothing_but_the_library_may_be_read(source: str, text: str) -> None:
    found = fault(f"package policies.a\n{source}\n")
    assert found.startswith("a.rego:")
    assert text in found


def test_an_author_cannot_write_a_module_of_the_library() -> None:
    found = fault('package countersign.lib.args\n\nnumber(_) := 1 if input.x == "y"\n')
    assert "is not `policies.<name>`; rename it" in found


def test_an_author_cannot_put_data_below_the_library() -> None:
    with pytest.raises(ConfigurationError, match="`countersign` is reserved"):
        build_bundle({"a.rego": READS}, {**OWNED, "countersign": {"lib": {}}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("package countersign.lib.sums\n", "is not package `countersign.lib.args`; rename it"),
        ("package policies.a\n", "is not package `countersign.lib.args`; rename it"),
        ("package {", "countersign/lib/args.rego:1:9: "),
    ],
)
def test_a_module_in_a_foreign_file_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        build_bundle({"a.rego": READS}, OWNED, library={"countersign/lib/args.rego": text})
    assert message in str(caught.value)


def test_a_bundle_is_restored_with_its_own_library(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    own = {"countersign/lib/args.rego": "package countersign.lib.args\n\nnumber(_) := 1\n"}
    bundle = build_bundle({"a.rego": READS}, OWNED, library=own)
    store = tmp_path_factory.mktemp("bundles")
    save_bundle(store, bundle)
    assert load_bundle(store, bundle.revision) == bundle
    # One that was kept before there was a library.
    plain = build_bundle({"a.rego": READS.replace("args.number", "abs")}, OWNED, library=own)
    assert restore_bundle(dict(plain.files)) == plain
    old = build_bundle(
        {"a.rego": "package policies.a\ndeny contains 1 if input.x\n"}, {}, library={}
    )
    assert restore_bundle(dict(old.files)) == old


def test_the_library_itself_keeps_to_what_engines_agree_on() -> None:
    found: list[Mistake] = []
    library = parse_library(load_library(find_rego_root()), found)
    sources = list(library.values())
    uncertain = _uncertain(sources)
    faults = [
        (source.path, fault)
        for source in sources
        for fault in (
            *_undefined_faults(source, uncertain),
            *_module_faults(source, Definitions(sources), library),
        )
    ]
    assert (found, faults) == ([], [])
