# METADATA
# title: What was earned in September nobody is told
# custom:
#   applies_to:
#     tools: [acme.reports_export]
#     phases: [call, resume]
package policies.house_reports

obligation contains {"type": "redact", "pointers": ["/revenue_cents"]} if {
	input.phase in {"call", "resume"}
	input.resource.id == "acme.reports_export"
	input.context.args.month == "2026-09"
}
