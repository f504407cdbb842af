# METADATA
# title: What leaves
# description: >-
#   What `policies.egress` asks about a call that has sinks. `data.settings.egress` switches it:
#   `untrusted`, `unknown` and `links` are `deny`, `hold` or `off`. A word that is none of these is taken
#   for `deny`.
package countersign.lib.egress

import data.countersign.lib.grants
import data.countersign.lib.settings

# METADATA
# title: A person can be asked about a stranger's recipient
# description: >-
#   The grant counts calls, the settings say so, or people are agreeing just now: what was fixed
#   before they agreed cannot carry what was read after.
# scope: document
askable if grants.counted

askable if settings.egress_untrusted("deny") == "hold"

askable if input.phase == "resume"

# METADATA
# title: Nobody is asked about links
# scope: rule
links_refused if {
	input.phase == "call"
	not settings.egress_links("hold") == "hold"
}

# METADATA
# title: Nobody is asked about unknown recipients
# scope: rule
unknown_refused if {
	input.phase == "call"
	not settings.egress_unknown("hold") == "hold"
}
