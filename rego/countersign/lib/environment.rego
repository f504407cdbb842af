# METADATA
# title: Environments
# description: >-
#   A tool belongs to an environment by a label of its manifest (`env-prod`), a server by
#   `data.settings.environment.servers` (`{"billing": ["prod"]}`). What names none belongs to all.
package countersign.lib.environment

# METADATA
# title: The tool belongs to other environments than this deployment
# scope: document
foreign if {
	some label in input.resource.labels
	startswith(label, "env-")
	not here
}

foreign if {
	names := data.settings.environment.servers[input.resource.server]
	not belongs(names)
}

# An environment that the input does not tell is none of them.
belongs(names) if input.environment in names

here if concat("-", ["env", input.environment]) in input.resource.labels
