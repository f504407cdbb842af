# METADATA
# title: Runs
# description: >-
#   Phase `issue`: a launcher starts a run, or an agent asks for a token. Which launcher may start
#   what is set in countersign.yaml and checked before; nothing here adds to it.
# custom:
#   applies_to:
#     phases: [issue]
package policies.acme_runs

permit contains {"code": "launcher_configured", "message": "countersign.yaml says who may launch what"} if input.phase == "issue"
