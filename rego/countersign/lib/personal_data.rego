# METADATA
# title: Personal data
# description: Who may have it.
package countersign.lib.personal_data

# METADATA
# title: The server is one of these
# scope: rule
receives(servers) if input.resource.server in servers

# METADATA
# title: The call gives data away
# description: It changes something, or it looks something up at an address.
# scope: document
gives if input.resource.effect != "read"

gives if count(input.resource.sinks) > 0

# METADATA
# title: The agent has one of these roles
# scope: rule
sees(roles) if {
	some role in input.subject.roles
	role in roles
}
