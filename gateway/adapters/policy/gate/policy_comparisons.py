"""Reads one body of a rule: what it compares, what that is made of, and what it then says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from gateway.adapters.policy.gate.policy_checks import establish
from gateway.adapters.policy.gate.policy_kinds import (
    CHECKS,
    CONVERTING,
    COUNTING,
    NUMBER,
    OPEN,
    ORDERING,
    TEXTS,
    instead_of,
    order_fault,
)
from gateway.adapters.policy.gate.policy_made import (
    ANY,
    MIXED,
    UNNAMED,
    Checks,
    Key,
    Token,
    Value,
    covers,
    is_raw,
    lasts,
    narrowed,
    parts,
    widened,
)
from gateway.adapters.policy.gate.policy_uses import (
    BELOW,
    DEFINED,
    FALSE,
    MEMBER,
    TRUE,
    Summary,
    Use,
    Word,
    asks_for_anything,
    given_in,
    silence_of,
    spoken_of,
    uses_in,
    word_of,
)
from gateway.adapters.policy.gate.policy_values import Context, Locals
from gateway.adapters.policy.policy_faults import Mistake
from gateway.adapters.policy.policy_syntax import (
    CLOSURES,
    REFERENCES,
    Alternative,
    Node,
    can_stand_alone,
    place,
    source_of,
    start_of,
    unwrap,
)

_WHY: Final = "null is below every number, a text above"
_TEXTS: Final = ("String", "RawString")
_ORDERS: Final = {"Lt": "<", "Le": "<=", "Gt": ">", "Ge": ">="}
_NO_VALUES: Final = frozenset({"span", "fcn", "field"})
_NEVER: Final = (
    "this never holds: it asks of one value to be of two types",
    "leave out one of the checks, or the function that asks for another type",
)


class Body:
    """One body of a rule."""

    def __init__(
        self,
        context: Context,
        patterns: list[Node],
        alternative: Alternative,
        *,
        counts: bool = False,
    ) -> None:
        """Read it. `counts`: only that it gives a value counts, not which, as in `permit`."""
        self._context = context
        self._alternative = alternative
        self.patterns = patterns
        self._uses: dict[int, Use] = {}
        self._asked: dict[Key, list[Use]] = {}
        self._called: dict[int, Key] = {}
        self._locals = Locals(context)
        self._locals.take(patterns)
        self._faults: list[tuple[Node, str, str, str]] = []
        self._negated = False
        self._closed = False
        self._limited: set[Key] = set()
        self._limited_apart: set[Key] = set()
        self._inside: dict[Key, int] = {}
        self._needs: list[Checks] = []
        self._mute: list[Checks] = []
        self._lax: list[Checks] = []
        self._speaks: list[Checks] = []
        self.compared: set[int] = set()
        self.checked: set[int] = set()
        self._read(list(alternative.whole), self._locals)
        if counts:
            given = (each for value in alternative.values for each in given_in(value))
            self._uses |= {id(unwrap(each)[1]): DEFINED for each in given}
        self._visit(list(alternative.values), self._locals)
        self._conclude()

    def _conclude(self) -> None:
        if self._locals.never:
            self._fault(self._alternative.whole[0]["span"], "limit_silenced", *_NEVER)
        needs = narrowed([self._locals.established(), *self._needs])
        known = {**self._inside, **needs}
        limited = {key: known.get(key, NUMBER) for key in self._limited}
        apart = {key: known.get(key, NUMBER) for key in self._limited_apart if key not in needs}
        lax = widened([apart, *self._lax])
        # What needs a type says nothing without it, whatever stands below.
        bound = {key: needs[key] for key in lax if key in needs}
        self.needs: Checks = needs
        self.mute: Checks = widened([limited, bound, *self._mute])
        self.lax: Checks = {
            key: kinds for key, kinds in lax.items() if not covers(needs, key, kinds)
        }
        spoken = narrowed(self._speaks)
        self.speaks: Checks = {key: spoken[key] for key in spoken if key not in needs}

    @property
    def text(self) -> bytes:
        """The module that it stands in."""
        return self._context.text

    def values(self) -> list[Value]:
        """Return what the values in the head are made of."""
        return [self._locals.value(node) for node in self._alternative.values]

    def alias(self) -> Key | None:
        """Return the part of the input that this is another name of, if it is nothing else."""
        if self._alternative.whole or len(self._alternative.values) != 1:
            return None
        key = self._locals.key(self._alternative.values[0])
        return key if key is not None and key[0] == "input" and "[" not in str(key) else None

    def left_out(self) -> frozenset[Token]:
        """Return what is not in the head because of a check in this body, as it is mixed."""
        return self._locals.left_out(self._alternative.values, self.values())

    @property
    def rule(self) -> Node:
        """The rule that it is a body of."""
        return self._alternative.node

    @property
    def is_default(self) -> bool:
        """Whether it is what a rule is where no other body gives it a value."""
        return self._alternative.default

    def is_always(self) -> bool:
        """Whether it gives a value in any case: a default, or an `else` without a body."""
        plain = all(unwrap(each)[0] == "Var" for each in self.patterns)
        return plain and not self._alternative.whole and self.word() is not None

    def word(self) -> Word | None:
        """Return the value that it gives, if that is written out."""
        values = self._alternative.values
        return word_of(values[-1]) if values else TRUE

    def is_false(self) -> bool:
        """Whether this gives the rule the value false, written out."""
        values = self._alternative.values
        kind, body = unwrap(values[-1]) if values else ("", {})
        return kind == "Bool" and not body["value"]

    def lasting(self) -> dict[Key, int]:
        """Return what it establishes that means something to others: input, data, parameters."""
        return {key: kinds for key, kinds in self._locals.guarded.items() if lasts(key)}

    def mistakes(self, path: str) -> Iterator[Mistake]:
        """Yield what is wrong in it."""
        for at, code, message, hint in self._faults:
            yield Mistake(path, *place(self._context.text, at), code, message, hint)

    # --- reading --------------------------------------------------------------------------------

    def _read(self, statements: list[Node], scope: Locals) -> None:
        establish(statements, scope)
        for statement in statements:
            self._note_uses(statement, scope)
        for statement in statements:
            changes = statement.get("with_mods") or ()
            was, self._closed = self._closed, self._closed or bool(changes)
            self._visit_statement(*unwrap(statement["literal"]), scope)
            self._closed = was
            for change in changes:
                self._visit_with(change, scope)

    def _note_uses(self, statement: Node, scope: Locals) -> None:
        """Note what a statement asks of the rules in it; if nothing negates it, of their names."""
        kind, body = unwrap(statement["literal"])
        if kind == "SomeIn":
            self._uses[id(unwrap(body["collection"])[1])] = MEMBER
        if kind not in {"Expr", "NotExpr"}:
            return
        plain = kind == "Expr" and scope is self._locals and not statement.get("with_mods")
        for node, use in uses_in(body["expr"]):
            self._uses[id(unwrap(node)[1])] = use
            key = scope.key(node) if plain and unwrap(node)[0] in REFERENCES else None
            if key is not None:
                self._asked.setdefault(key, []).append(use)
        kind, body = unwrap(body["expr"])
        if plain and kind == "AssignExpr" and {"Var", "Call"} == {*body["lhs"], *body["rhs"]}:
            name, call = (body["lhs"], body["rhs"])[:: 1 if "Var" in body["lhs"] else -1]
            key = scope.key(name)
            if key is not None:
                self._called[id(unwrap(call)[1])] = key

    def _visit_statement(self, kind: str, body: Any, scope: Locals) -> None:  # noqa: ANN401
        if kind == "Every":
            self._visit(body["domain"], scope)
            inner = Locals(self._context, scope)
            scope.give_every(body, inner)
            self._read(body["query"]["stmts"], inner)
            self._inside |= inner.established()
        elif kind == "SomeIn":
            self._visit(body["collection"], scope)
        elif kind == "NotExpr":
            self._not_checked(body["expr"], scope)
            self._negated = not self._negated
            self._visit(body, scope)
            self._negated = not self._negated
        else:
            self._visit(body, scope)

    def _not_checked(self, expression: Node, scope: Locals) -> None:
        """Note `not is_number(x)`: it speaks where the type is another one."""
        kind, body = unwrap(expression)
        if kind == "Call" and scope.function(expression) in CHECKS:
            key = scope.origin(body["params"][0]) or UNNAMED
            self._speaks.append({key: CHECKS[scope.function(expression)]})

    def _visit(self, node: object, scope: Locals) -> None:
        """Look at every expression below a node; what a comprehension binds is its own."""
        if isinstance(node, list):
            for item in node:
                self._visit(item, scope)
        elif isinstance(node, dict):
            for kind, body in node.items():
                if kind in CLOSURES:
                    self._visit_closure(body, scope)
                    continue
                if kind == "BoolExpr" and body["op"] in _ORDERS:
                    self._compare(body, scope)
                elif kind == "Call":
                    self._call({kind: body}, scope)
                elif kind in REFERENCES:
                    self._refer(kind, body, scope)
                if kind not in _NO_VALUES:
                    self._visit(body, scope)

    def _refer(self, kind: str, body: Node, scope: Locals) -> None:
        self._mention(scope.key({kind: body}), {kind: body}, scope)
        if kind != "Var":
            self._uses[id(unwrap(body["refr"])[1])] = BELOW

    def _visit_closure(self, body: Node, scope: Locals) -> None:
        inner = Locals(self._context, scope)
        was, self._closed = self._closed, True
        self._read(body["query"]["stmts"], inner)
        for part in ("term", "key", "value"):
            if part in body:
                self._visit(body[part], inner)
        self._inside |= inner.established()
        self._closed = was

    def _visit_with(self, change: Node, scope: Locals) -> None:
        self._visit(change["as"], scope)
        value, key = scope.value(change["as"]), scope.key(change["refr"])
        text = self._written(change["refr"])
        if key is None or key[0] not in {"input", "data"}:
            message = f"`with {text}` puts another function in the place of `{text}`"
            hint = "call the function that you mean; `with` on functions is for tests"
            self._fault(change["refr"], "with_untyped", message, hint)
        elif value.own or value.inner:
            message = f"`with {text}` puts what may be of any type where rules expect a known one"
            hint = "give what is compared to a function, and check its type there"
            self._fault(change["refr"], "with_untyped", message, hint)

    # --- comparing ------------------------------------------------------------------------------

    def _compare(self, body: Node, scope: Locals) -> None:
        sides = (body["lhs"], body["rhs"])
        for one, other in (sides, sides[::-1]):
            called = unwrap(one)[0] == "Call" and scope.function(one)
            if called == (COUNTING,) and asks_for_anything(other):
                return
        values = [scope.value(side) for side in sides]
        at = start_of({"BoolExpr": body})
        wrong = [
            self._take(value.own, side, body, at) for value, side in zip(values, sides, strict=True)
        ]
        if any(wrong):
            return
        fault = order_fault(values[0].kinds, values[1].kinds)
        if fault:
            text = self._written({"BoolExpr": body})
            self._fault(
                at,
                "order_untyped",
                f"`{text}` limits nothing: {fault}",
                instead_of(values[0].kinds | values[1].kinds),
            )

    def _take(self, tokens: frozenset[Token], side: Node, body: Node, at: Node) -> bool:
        """Note what an operand is made of; return whether that is a mistake."""
        # Of what was mixed it is enough to be told once.
        told = MIXED in tokens
        self._note(frozenset(each for each in tokens if not (told and isinstance(each, tuple))))
        if ANY in tokens:
            self._unguarded(side, body, at)
        elif MIXED in tokens:
            text, shown = self._written(side), self._shown(side, body)
            message = (
                f"`{shown}` compares what was made of any type: a function, a default or a filter "
                "gave what is no number the look of one"
            )
            self._fault(at, "unguarded_comparison", message, self._before(side, text))
        return ANY in tokens or MIXED in tokens

    def _unguarded(self, side: Node, body: Node, at: Node) -> None:
        text = self._written(side)
        other = body["rhs" if side is body["lhs"] else "lhs"]
        check = "is_string" if unwrap(other)[0] in _TEXTS else "is_number"
        self._fault(
            at,
            "unguarded_comparison",
            f"`{self._shown(side, body)}` compares what may be of any type: {_WHY}",
            f"write `{check}({text})` in the same body"
            if can_stand_alone(side)
            else f"bind it first: `x := {text}`, then `{check}(x)`, and compare `x`",
        )

    def _before(self, side: Node, text: str) -> str:
        kind, body = unwrap(side)
        if kind == "Call" and unwrap(body["fcn"])[1].get("value") == COUNTING:
            given = body["params"][0]
            if self._is_partial(given):
                rule = self._written(given)
                return (
                    f"write `{rule} := {{x | some x in xs}} if is_array(xs)`, which is undefined "
                    f"otherwise; `{rule} contains x` is empty then"
                )
            if can_stand_alone(given):
                return f"write `is_array({self._written(given)})` in the same body"
        return (
            f"check the type of what `{text}` is made of, in the body where it is made: "
            "`is_number(x)`, of a list that is iterated `is_array(xs)`, or "
            "`every x in xs { is_number(x) }`, and leave it undefined otherwise"
        )

    def _is_partial(self, node: Node) -> bool:
        """Whether this is a set or object that rules fill."""
        key = self._locals.key(node)
        found = self._context.find(key) if key is not None and key[0] == "data" else None
        return found is not None and found[0].partial and not found[1]

    def _shown(self, side: Node, body: Node) -> str:
        text, sign = self._written(side), _ORDERS[body["op"]]
        return f"{text} {sign} …" if side is body["lhs"] else f"… {sign} {text}"

    def _call(self, node: Node, scope: Locals) -> None:
        name, given = scope.function(node), unwrap(node)[1]["params"]
        if name in ORDERING and given:
            self._order(name[0], given[0], scope)
        elif name == CONVERTING and given:
            self._convert(given[0], scope)
        elif name[0] == "data" and (found := self._mention(name, node, scope)):
            for token in found.compared:
                tokens = scope.translate(frozenset({token}), node)
                self._note(tokens)
                if tokens & {ANY, MIXED}:
                    self._handed_on(node, given[parts(token)[0]])
                    break
            self._pass_on(found, node, scope)

    def _pass_on(self, function: Summary, node: Node, scope: Locals) -> None:
        """Look at what is given to a function that checks it, and so cannot see how it was made."""
        for number, given in enumerate(unwrap(node)[1]["params"]):
            if number not in function.checked:
                continue
            tokens = scope.value(given).own
            self._note(frozenset(token for token in tokens if not is_raw(token)))
            if any(is_raw(token) and token != ANY for token in tokens):
                self.checked |= {
                    parts(token)[0] for token in tokens if isinstance(token, int) and token >= 0
                }
            if MIXED in tokens:
                self._handed_on(node, given)

    def _note(self, tokens: frozenset[Token]) -> None:
        """Note the parameters and checked keys among what is compared."""
        self.compared |= {token for token in tokens if isinstance(token, int) and token >= 0}
        keys = {token for token in tokens if isinstance(token, tuple)}
        self._limited |= keys
        if self._closed or self._negated:
            self._limited_apart |= keys
        self.checked |= {int(key[0][1:]) for key in keys if key[0][1:].isdigit()}

    def _order(self, name: str, given: Node, scope: Locals) -> None:
        each, text = scope.members_of(given), self._written(given)
        tokens = each.own
        self._note(tokens)
        if tokens & {ANY, MIXED}:
            message = f"`{name}({text})` compares what may be of any type: {_WHY}"
            hint = f"write `every x in {text} {{ is_number(x) }}` in the same body"
            self._fault(given, "unguarded_comparison", message, hint)

    def _convert(self, given: Node, scope: Locals) -> None:
        value, text = scope.value(given), self._written(given)
        self.compared |= {
            token for token in value.own if isinstance(token, int) and token >= 0 and is_raw(token)
        }
        other = value.kinds & ~(NUMBER | TEXTS | OPEN)
        if ANY in value.own or other:
            message = f"`to_number({text})` makes numbers of what is none: of null 0, of true 1"
            hint = f"write `is_string({text})` in the same body; what is a number needs no change"
            if not can_stand_alone(given):
                hint = f"bind it first: `x := {text}`, then `is_string(x)`, and `to_number(x)`"
            self._fault(given, "unguarded_conversion", message, hint)

    def _mention(self, key: Key | None, node: Node, scope: Locals) -> Summary | None:
        """Note what a rule or function that is used here says of its limits."""
        found = self._context.find(key) if key is not None and key[0] == "data" else None
        if key is None or found is None:
            return None
        said = found[0]
        if not (said.needs or said.mute or said.lax or said.speaks):
            return said

        call = node if "Call" in node else None
        here, known = self._asked_of(key, node, below=found[1])
        mute, lax = (_translated(keys, call, scope) for keys in silence_of(said, here, known))
        true = any(use.admits(FALSE) is False for use in (here, *known) if use)
        needs = _translated(said.needs if true else said.sure, call, scope)
        if self._negated:
            mute, lax = lax, mute
            self._speaks.append(needs)
        else:
            # `known == false` says what `not known` says, where it is one of the two.
            false = said.total and here is not None and here.admits(FALSE) and not here.admits(TRUE)
            unknown = _translated(said.needs, call, scope) if false else {}
            spoken = spoken_of(said, [here, *known])
            self._speaks += [_translated(spoken, call, scope), unknown]
            if not self._closed:
                self._needs.append(needs)
        self._mute += [mute, lax] if self._closed else [mute]
        self._lax += [mute, lax] if self._closed else [lax]
        return said

    def _asked_of(self, key: Key, node: Node, *, below: bool) -> tuple[Use | None, list[Use]]:
        """Return what is asked of a rule's value: here, and in other statements of the body."""
        at = id(unwrap(node)[1])
        if below:
            return BELOW, []
        if self._negated or self._closed:
            return self._uses.get(at), []
        return self._uses.get(at), self._asked.get(self._called.get(at, key), [])

    # --- telling --------------------------------------------------------------------------------

    def _handed_on(self, node: Node, operand: Node) -> None:
        text, function = self._written(operand), self._written(unwrap(node)[1]["fcn"])
        self._fault(
            operand,
            "unguarded_comparison",
            f"`{function}` compares `{text}`, which may be of any type: {_WHY}",
            f"write `is_number({text})` in the same body, or check its type in `{function}`",
        )

    def _fault(self, node: Node, code: str, message: str, hint: str) -> None:
        at = node if "start" in node else start_of(node)
        self._faults.append((at, code, message, hint))

    def _written(self, node: Node) -> str:
        return " ".join(source_of(self._context.text, node).split())


def _translated(keys: Checks, call: Node | None, scope: Locals) -> Checks:
    """Return keys of a function in terms of what it is given."""
    if call is None or not keys:
        return keys
    return widened(
        {token: kinds}
        for key, kinds in keys.items()
        for token in scope.translate(frozenset({key}), call)
        if isinstance(token, tuple)
    )
