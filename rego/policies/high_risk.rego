# METADATA
# title: What cannot be taken back
# description: >-
#   Moving money, deleting, changing privileges and sending things outside wait for a human. An
#   agent whose token reaches such a tool may ask for it; one approver decides within 15 minutes.
#   To ask more of some tool, add a package that holds it too: all conditions are then needed.
#   Switched by `data.settings.high_risk`. A tool whose id is in `except` is no business of this
#   package: it neither permits nor holds it, so a package of yours must permit it, or nobody may.
#   Other packages (`egress`, `money_limits`, …) still have their say.
# custom:
#   applies_to:
#     effects: [money, delete, privilege, external_send]
#     phases: [list, call, resume]
#   settings:
#     high_risk:
#       named: [external_send, money, privilege, delete]
#       looked_up: [external_send]
#       except: []
#     approval:
#       groups: [approver]
#       ttl: 15m
package policies.high_risk

import data.countersign.lib.approvals
import data.countersign.lib.money
import data.countersign.lib.settings
import data.countersign.lib.sinks

scope := {"list": "tools:list", "call": "tools:call", "resume": "tools:call"}

asked if {
	input.resource.effect in {"money", "delete", "privilege", "external_send"}
	scope[input.phase] in input.context.token.scopes
	not excepted
}

# A list of ids, written out: a pattern could take out a tool that nobody has thought of.
excepted if {
	tools := data.settings.high_risk.except
	is_array(tools)
	input.resource.id in tools
}

# All recipients, accounts and targets are known, and there is one. Money needs an amount too, or no
# cap could hold it (`policies.money_limits`).
released if {
	input.resource.effect in settings.high_risk_named(["external_send", "money", "privilege", "delete"])
	sinks.classes == {"allowed"}
	money.measured
}

released if {
	input.resource.effect in settings.high_risk_looked_up(["external_send"])
	sinks.all_known
	money.measured
}

# METADATA
# title: An agent may ask for what is granted
# scope: rule
# custom:
#   rationale: >-
#     The grant is the launcher's word that the task may need this. Whether it happens is for the
#     rules below and for other packages.
#   owasp: [LLM06]
permit contains {"code": "allowed_once_approved"} if {
	asked
	not released
}

# METADATA
# title: A recipient that the launcher has named
# description: >-
#   Goes without a question when each sink of the call is among the run's allowed values (effects in
#   `named`), or is internal or comes from a trusted output (effects in `looked_up`). A tool without
#   declared sinks is never released. Constraints of the token release nothing.
# scope: rule
# custom:
#   rationale: >-
#     Asking about what somebody has just named teaches approvers to click. Their attention is for
#     the rest.
#   owasp: [ASI09]
permit contains {"code": "recipient_known", "message": "all recipients are known"} if {
	released
	asked
}

# METADATA
# title: Money, deletion, privileges and messages to others
# scope: rule
# custom:
#   rationale: What cannot be undone is worth a minute of somebody's time.
#   owasp: [ASI02, LLM06]
hold contains {
	"code": sprintf("%s_needs_approval", [input.resource.effect]),
	"message": "this cannot be taken back, so a human decides",
	"approval": approvals.standard,
} if {
	asked
	not released
}
