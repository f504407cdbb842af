# METADATA
# title: Refunds
# description: >-
#   Up to 100.00 EUR an agent refunds alone; up to 500.00 EUR a human agrees first; above that
#   nobody refunds through an agent. A human also agrees before the refunds of one token family
#   add up to more than 500.00 EUR: ten small refunds are not small. Amounts are whole cents.
# custom:
#   applies_to:
#     tools: [acme.refunds_create]
#     phases: [list, call, resume]
package policies.acme_refunds

alone_cents := 10000

limit_cents := 50000

listing if {
	input.phase == "list"
	input.resource.id == "acme.refunds_create"
}

refunding if {
	input.phase in {"call", "resume"}
	input.resource.id == "acme.refunds_create"
}

# Undefined unless the amount is a positive whole number: every comparison below stands on it,
# because Rego orders values of any type (`null` is below each number).
amount := input.context.args.amount_cents if {
	refunding
	is_number(input.context.args.amount_cents)
	input.context.args.amount_cents > 0
	input.context.args.amount_cents == round(input.context.args.amount_cents)
}

# What this token family has refunded so far; when a held refund resumes, that may count itself,
# which asks for the same approval again and so changes nothing.
refunded := object.get(input.context.family.sums, "acme.refunds_create#/amount_cents", 0)

# A rule of its own: OPA looks up what a `not` compares before it negates, so `not f(x)` is
# undefined, not true, where `x` is.
refunded_known if is_number(refunded)

approval := {
	"stages": [{"any_of": [{"approve": 1, "deny": 1, "who": {"groups": ["approver"]}}]}],
	"ttl": "15m",
	"execute": "on_approval",
}

permit contains {"code": "refunds_offered", "message": "how much is judged when it is asked for"} if listing

permit contains {"code": "refund_within_limit", "message": "an agent may refund this much"} if amount <= limit_cents

hold contains {
	"code": "refund_needs_approval",
	"message": sprintf("%d cents is more than the %d an agent refunds alone", [amount, alone_cents]),
	"approval": approval,
} if {
	amount > alone_cents
	amount <= limit_cents
}

hold contains {
	"code": "refunds_add_up",
	"message": sprintf("with %d cents before, this passes %d in all", [refunded, limit_cents]),
	"approval": approval,
} if {
	amount <= limit_cents
	refunded_known
	refunded + amount > limit_cents
}

# The gateway always says what was refunded; without it nothing can be added up.
deny contains {
	"code": "refunded_so_far_unknown",
	"message": "context.family.sums is missing",
} if {
	amount
	not refunded_known
}

deny contains {
	"code": "refund_over_limit",
	"message": sprintf("%d cents is more than the limit of %d", [amount, limit_cents]),
} if {
	amount > limit_cents
}

deny contains {
	"code": "refund_amount_unclear",
	"message": "amount_cents is not a positive whole number",
} if {
	refunding
	not amount
}
