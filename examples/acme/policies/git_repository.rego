# METADATA
# title: The team's repository
# description: >-
#   Agents read, stage and commit. They do not reset the index: that throws away what a colleague
#   has staged.
# custom:
#   applies_to:
#     servers: [git]
#     phases: [list, call, resume]
package policies.git_repository

writes := {"git.git_add", "git.git_commit"}

here if {
	input.phase in {"list", "call", "resume"}
	input.resource.server == "git"
}

permit contains {"code": "read_only", "message": "reading changes nothing"} if {
	here
	input.resource.effect == "read"
}

permit contains {"code": "commit_allowed", "message": "agents stage and commit"} if {
	here
	input.resource.id in writes
}

# Listed, so that an agent which tries it is told why instead of looking for another way.
permit contains {"code": "reset_listed", "message": "listed so that a refusal can say why"} if {
	here
	input.phase == "list"
	input.resource.id == "git.git_reset"
}

deny contains {
	"code": "git_reset_denied",
	"message": "resetting the index discards staged work of others",
} if {
	input.phase in {"call", "resume"}
	input.resource.id == "git.git_reset"
}
