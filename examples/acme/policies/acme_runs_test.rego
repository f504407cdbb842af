package policies.acme_runs_test

import data.policies.acme_runs

test_only_the_issue_of_authority_is_permitted if {
	count(acme_runs.permit) == 1 with input as {"phase": "issue"}
	every phase in ["list", "call", "result", "resume"] {
		count(acme_runs.permit) == 0 with input as {"phase": phase}
	}
}
