package policies.git_repository_test

import data.policies.git_repository

ask(phase, tool, effect) := {
	"phase": phase,
	"resource": {"id": tool, "server": "git", "effect": effect},
	"context": {"args": {"repo_path": "/srv/repository"}},
}

codes(reasons) := {r.code | some r in reasons}

test_reads_are_permitted if {
	every phase in ["list", "call", "resume"] {
		codes(git_repository.permit) == {"read_only"} with input as ask(phase, "git.git_log", "read")
	}
}

test_staging_and_committing_are_permitted if {
	codes(git_repository.permit) == {"commit_allowed"} with input as ask("call", "git.git_add", "update")
	codes(git_repository.permit) == {"commit_allowed"} with input as ask("call", "git.git_commit", "create")
}

test_a_reset_is_denied_and_says_why if {
	every phase in ["call", "resume"] {
		count(git_repository.permit) == 0 with input as ask(phase, "git.git_reset", "delete")
		codes(git_repository.deny) == {"git_reset_denied"} with input as ask(phase, "git.git_reset", "delete")
	}
}

test_a_reset_is_denied_even_if_a_manifest_calls_it_a_read if {
	codes(git_repository.deny) == {"git_reset_denied"} with input as ask("call", "git.git_reset", "read")
}

test_tools_nobody_reviewed_are_not_permitted if {
	every tool in ["git.git_checkout", "git.git_create_branch"] {
		count(git_repository.permit) == 0 with input as ask("call", tool, "unreviewed")
	}
}
