# METADATA
# title: Environments stay apart
# description: >-
#   A tool that is labelled `env-prod`, or whose server `data.settings.environment.servers` gives to
#   certain environments, is neither listed nor called from another deployment.
# custom:
#   applies_to:
#     phases: [list, call, resume]
#   settings:
#     environment:
#       servers: {}
package policies.environments

import data.countersign.lib.environment

# METADATA
# title: A tool of another environment
# scope: rule
# custom:
#   rationale: >-
#     A test agent with a production URL in its configuration is how test data reaches customers.
#   owasp: [ASI03]
deny contains {
	"code": "other_environment",
	"message": "this tool belongs to another environment",
} if {
	some label in input.resource.labels
	startswith(label, "env-")
	not environment.here
}

# METADATA
# title: A server of another environment
# scope: rule
# custom:
#   rationale: The same, where whole servers belong to one environment.
#   owasp: [ASI03]
deny contains {
	"code": "other_environment",
	"message": "this server belongs to another environment",
} if {
	names := data.settings.environment.servers[input.resource.server]
	not environment.belongs(names)
}
