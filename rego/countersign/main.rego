# METADATA
# title: Countersign's decision
# description: >-
#   Combines every package under `data.policies` into one answer. Any deny wins; else a hold with
#   at least one permit; else a permit; else a deny. Nothing here knows a tool or a company.
#
#   Data: `data.authority.policies` says which servers a package may permit (`"*"` is all of them);
#   `data.applies_to` what a package concerns, built from the packages' own annotations. A package
#   is not heard about anything else.
# scope: package
package countersign

reasons_max := 32

default_approval := {
	"stages": [{"any_of": [{"approve": 1, "deny": 1, "who": {"groups": ["approver"]}}]}],
	"ttl": "15m",
	"execute": "on_approval",
}

unit_seconds := {"s": 1, "m": 60, "h": 3600, "d": 86400}

# --- which packages are heard -------------------------------------------------------------------

# Without `data.applies_to` everything loaded is heard: an embedded engine is built for one call.
heard := data.policies if {
	not data.applies_to
} else := {name: pkg | some name, pkg in data.policies; not elsewhere(name)}

# A package that names tools, servers, effects or phases is not heard about others, nor about an
# input that has none. The engines differ in `not f(x)` where `x` is undefined: every argument in
# this file is bound before.
elsewhere(name) if {
	phases := data.applies_to[name].phases
	not has_phase(phases)
}

elsewhere(name) if {
	servers := data.applies_to[name].servers
	not has_server(servers)
}

elsewhere(name) if {
	effects := data.applies_to[name].effects
	not has_effect(effects)
}

# Globs are compiled into regular expressions when the bundle is built.
elsewhere(name) if {
	patterns := data.applies_to[name].tools
	not has_tool(patterns)
}

has_phase(phases) if input.phase in phases

has_server(servers) if input.resource.server in servers

has_effect(effects) if input.resource.effect in effects

has_tool(patterns) if {
	some pattern in patterns
	regex.match(pattern, input.resource.id)
}

# --- what they say ------------------------------------------------------------------------------

# One rule, not four: in the embedded engine each rule evaluated costs microseconds of every call.
said := {
	"deny": {[name, item] | some name, pkg in heard; some item in pkg.deny},
	"hold": {[name, item] | some name, pkg in heard; some item in pkg.hold},
	"permit": {[name, item] | some name, pkg in heard; some item in pkg.permit; owns(name)},
	"obligation": {item | some _, pkg in heard; some item in pkg.obligation},
}

# INVARIANT: a package permits only on servers that the bundle's authority.json gives it.
owns(name) if "*" in data.authority.policies[name]

owns(name) if input.resource.server in data.authority.policies[name]

# A hold whose conditions cannot be read would be a hold that nobody knows how to lift.
hold_faults contains {"code": "approval_invalid", "policy": name} if {
	some [name, item] in said.hold
	not approval(item)
}

# A result is released or withheld at once; nobody is asked.
hold_faults contains {"code": "result_held", "policy": name} if {
	input.phase == "result"
	some [name, _] in said.hold
}

# Tells an author why a permit did not count.
overreach contains {"code": "permit_without_authority", "policy": name} if {
	some name, pkg in heard
	count(pkg.permit) > 0
	not owns(name)
}

# --- reasons ------------------------------------------------------------------------------------

# Total: whatever an author put into a set is a reason. What a code may look like is checked by
# the reader of the answer, which denies what it does not understand.
reason(name, item) := {"code": item.code, "message": message, "policy": name} if {
	is_string(item.code)
	message := clipped(item.message)
} else := {"code": item.code, "policy": name} if {
	is_string(item.code)
} else := {"code": "reason_invalid", "policy": name}

# At most 256 bytes of UTF-8, whatever the characters: 344 base64 characters hold 256 bytes.
clipped(text) := text if {
	is_string(text)
	count(text) <= 64
} else := fitting[0] if {
	is_string(text)
	fitting := [short |
		some length in [256, 128, 85, 64]
		short := substring(text, 0, length)
		count(base64.encode(short)) <= 344
	]
}

listed(pairs) := array.slice([reason(name, item) | some [name, item] in pairs], 0, reasons_max)

# --- approval -----------------------------------------------------------------------------------

# The conditions of one hold; undefined when they cannot be read.
approval(item) := default_approval if not given(item)

approval(item) := spec if {
	given(item)
	is_object(item.approval)
	object.keys(item.approval) - object.keys(default_approval) == set()
	spec := object.union(default_approval, item.approval)
	is_array(spec.stages)
	count(spec.stages) > 0
	ttl_seconds(spec.ttl)
	spec.execute in {"on_approval", "on_redeem"}
}

given(item) if {
	is_object(item)
	"approval" in object.keys(item)
}

ttl_seconds(ttl) := to_number(substring(ttl, 0, count(ttl) - 1)) * unit_seconds[unit] if {
	is_string(ttl)
	regex.match(`^[1-9][0-9]{0,6}[smhd]$`, ttl)
	unit := substring(ttl, count(ttl) - 1, 1)
}

# Specs in order of package name; what several packages ask for in the same words is asked once.
specs := [spec |
	some name in sort(object.keys(heard))
	some item in heard[name].hold
	spec := approval(item)
]

stage_lists := [spec.stages |
	some i, spec in specs
	not spec.stages in [earlier.stages | some earlier in array.slice(specs, 0, i)]
]

# The strictest of all: every stage, the least time, and redeemed by the agent if anyone says so.
merged_approval := {
	"stages": [stage | some stages in stage_lists; some stage in stages],
	"ttl": sprintf("%ds", [min([ttl_seconds(spec.ttl) | some spec in specs])]),
	"execute": execute,
}

execute := "on_redeem" if {
	some spec in specs
	spec.execute == "on_redeem"
} else := "on_approval"

# --- the answer ---------------------------------------------------------------------------------

# INVARIANT: what an agent says about itself never loosens. An input with claims is judged twice,
# once as if nothing had been claimed, and the stricter answer counts.
decision := judged if not claiming

decision := stricter(judged, unclaimed) if claiming

claiming if input.context.claimed != {}

unclaimed := answer if {
	answer := judged with input.context.claimed as {}
}

stricter(a, b) := a if {
	a.outcome == "deny"
} else := b if {
	b.outcome == "deny"
} else := held_by_both(a, b) if {
	a.outcome == "hold"
	b.outcome == "hold"
} else := obliged(a, b) if {
	a.outcome == "hold"
} else := obliged(b, a) if {
	b.outcome == "hold"
} else := obliged(a, b)

# One of the answers, with the obligations of both.
obliged(a, b) := object.union(a, {"obligations": together(a.obligations, b.obligations)})

held_by_both(a, b) := obliged(a, b) if {
	a.approval == b.approval
} else := object.union(obliged(a, b), {"approval": {
	"stages": together(b.approval.stages, a.approval.stages),
	"ttl": sprintf("%ds", [min([ttl_seconds(a.approval.ttl), ttl_seconds(b.approval.ttl)])]),
	"execute": max([a.approval.execute, b.approval.execute]),
}})

together(first, second) := array.concat(first, [each | some each in second; not each in first])

judged := denied([{"code": "input_unknown"}]) if {
	not input_known
} else := denied(listed(said.deny)) if {
	count(said.deny) > 0
} else := denied(array.slice([fault | some fault in hold_faults], 0, reasons_max)) if {
	count(said.hold) > 0
	count(hold_faults) > 0
} else := held if {
	count(said.hold) > 0
	count(said.permit) > 0
} else := permitted if {
	# INVARIANT: what is held is never permitted, not even where a value above is undefined.
	count(said.hold) == 0
	to_permit
} else := denied(not_permitted)

to_permit if count(said.permit) > 0

to_permit if input.phase == "result"

input_known if {
	input.version == 1
	input.phase in {"issue", "list", "call", "result", "resume"}
}

denied(reasons) := {"outcome": "deny", "reasons": reasons, "obligations": []}

permitted := {
	"outcome": "permit",
	"reasons": listed(said.permit),
	"obligations": [item | some item in said.obligation],
}

held := {
	"outcome": "hold",
	"reasons": listed(said.hold),
	"obligations": [item | some item in said.obligation],
	"approval": merged_approval,
}

not_permitted := array.concat(
	[{"code": "no_policy_permits"}],
	array.slice([item | some item in overreach], 0, reasons_max - 1),
)
