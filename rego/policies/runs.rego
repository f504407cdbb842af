# METADATA
# title: Handing out authority
# description: >-
#   Phase `issue`: a launcher creates a run, or an agent asks for a token. Who may launch what is
#   set in countersign.yaml and checked by the gateway first, so it is permitted here unless some
#   package denies it. Deny it in a package of your own: `input.resource.id` is the agent,
#   `input.resource.server` the server it would reach.
# custom:
#   applies_to:
#     phases: [issue]
package policies.runs

# METADATA
# title: What the configuration allows
# scope: rule
# custom:
#   rationale: >-
#     Who may launch what is decided by those who answer for the configuration, not by the agent.
#   owasp: [ASI03]
permit contains {"code": "grants_configured"} if input.phase == "issue"
