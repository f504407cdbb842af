# METADATA
# title: Labels
# description: >-
#   What the run's data is: labels of everything that its family has read, from manifests and from
#   `add_label`. They never shrink. A run without labels has read nothing.
package countersign.lib.labels

# METADATA
# title: What must not leave without somebody knowing
# description: "`data.settings.labels.private`, else the three names that manifests use."
# scope: document
default private := ["confidential", "pii", "secret"]

private := data.settings.labels.private

# METADATA
# title: The run has read data with this label
# scope: rule
run_has(label) if label in input.context.run.labels

# METADATA
# title: The run has read what strangers can write
# scope: rule
untrusted if "untrusted" in input.context.run.labels

# METADATA
# title: The run has read private data
# scope: rule
private_read if {
	some label in input.context.run.labels
	label in private
}

# METADATA
# title: What this tool answers carries this label
# scope: rule
tool_has(label) if label in input.resource.labels
