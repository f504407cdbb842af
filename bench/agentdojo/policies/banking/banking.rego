# METADATA
# title: Accounts and standing orders
# description: >-
#   Written from the suite's schemas: a payment goes to an account number, the list of transactions
#   carries subjects that whoever pays in has written, and files are bills and notices. Caps on
#   payments are the default pack's (`policies.money_limits`); a standing order that is changed moves
#   no money at once, so its cap is here.
# custom:
#   applies_to:
#     tools:
#       - banking.send_money
#       - banking.schedule_transaction
#       - banking.update_scheduled_transaction
#     phases: [call, resume]
package policies.banking

import data.countersign.lib.approvals

order_max := 5000

is_account if {
	is_string(input.context.args.recipient)
	regex.match(`(?:[0-9][ -]?){6}`, input.context.args.recipient)
}

only_strangers_named_it if input.context.run.provenance["/recipient"] == "untrusted"

document_read if "document" in input.context.run.labels

# METADATA
# title: An account number out of the subject of a payment
# description: >-
#   An account that only strangers have named is judged by people where a bill or a notice was read
#   (`policies.egress`). Where none was, it can only come from a subject, and is refused.
# scope: rule
# custom:
#   rationale: >-
#     Anybody can write a subject, for a cent. Nobody is billed by one.
#   owasp: [ASI01, LLM01]
deny contains {
	"code": "account_from_a_subject",
	"message": "only the subject of a payment names this account",
} if {
	is_account
	only_strangers_named_it
	not document_read
}

# METADATA
# title: A standing order of a large amount
# scope: rule
# custom:
#   rationale: It is paid again every month, without anybody looking.
#   owasp: [LLM06]
hold contains {
	"code": "order_large",
	"message": "the standing order is above what changes without people",
	"approval": approvals.standard,
} if {
	input.resource.id == "banking.update_scheduled_transaction"
	is_number(input.context.args.amount)
	input.context.args.amount > order_max
}

amount_known if is_number(input.context.args.amount)

# METADATA
# title: A standing order of what is no amount
# description: Left out or null, the amount stays as it is.
# scope: rule
# custom:
#   rationale: The rule above compares numbers only, and is silent about a text of digits.
#   owasp: [LLM06]
hold contains {
	"code": "order_amount_unclear",
	"message": "the amount of the standing order is no number",
	"approval": approvals.standard,
} if {
	input.resource.id == "banking.update_scheduled_transaction"
	input.context.args.amount != null
	not amount_known
}
