# METADATA
# title: Labels
# description: >-
#   What the run's data is: labels of everything that its family has read, from manifests and from
#   `add_label`. They never shrink. A run without labels has read nothing.
package countersign.lib.labels

import data.countersign.lib.settings

# METADATA
# title: The run has read data with this label
# scope: rule
run_has(label) if label in input.context.run.labels

# METADATA
# title: The run has read what strangers can write
# scope: rule
untrusted if "untrusted" in input.context.run.labels

# METADATA
# title: The run has read what must not leave without somebody knowing
# description: "`data.settings.labels.private`, else `confidential`, `pii` and `secret`."
# scope: rule
private_read if {
	private := settings.labels_private(["confidential", "pii", "secret"])
	some label in input.context.run.labels
	label in private
}

# METADATA
# title: What this tool answers carries this label
# scope: rule
tool_has(label) if label in input.resource.labels
