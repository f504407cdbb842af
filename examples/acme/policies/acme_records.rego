# METADATA
# title: Acme's own records
# description: Agents keep customer files and cancel orders that have not left the warehouse.
# custom:
#   applies_to:
#     tools: [acme.notes_add, acme.orders_cancel]
#     phases: [list, call, resume]
package policies.acme_records

permit contains {"code": "own_records", "message": "agents keep Acme's own records"} if {
	input.phase in {"list", "call", "resume"}
	input.resource.id in {"acme.notes_add", "acme.orders_cancel"}
}
