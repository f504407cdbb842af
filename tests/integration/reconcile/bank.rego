# METADATA
# title: The bank of the reconciliation tests
# custom:
#   applies_to:
#     servers: [bank]
#     phases: [list, call, resume]
package policies.bank

at_bank if {
	input.phase in {"list", "call", "resume"}
	input.resource.server == "bank"
}

amount := input.context.args.amount_cents

permit contains {"code": "bank_tool"} if at_bank

counted if is_number(amount)

deny contains {"code": "amount_unclear"} if {
	at_bank
	amount != 0
	not counted
}

deny contains {"code": "too_much"} if {
	at_bank
	is_number(amount)
	amount > 100000
}

hold contains {"code": "a_lot", "approval": {
	"stages": [{"any_of": [{"approve": 1, "deny": 1, "who": {"groups": ["approver"]}}]}],
	"ttl": "1h",
	"execute": "on_approval",
}} if {
	at_bank
	input.phase in {"call", "resume"}
	is_number(amount)
	amount > 50000
}
