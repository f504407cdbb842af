# METADATA
# title: Environments
# description: >-
#   A tool belongs to an environment by a label of its manifest (`env-prod`), a server by
#   `data.settings.environment.servers` (`{"billing": ["prod"]}`). What names none belongs to all.
package countersign.lib.environment

# METADATA
# title: The tool is labelled with this deployment's environment
# scope: rule
here if concat("-", ["env", input.environment]) in input.resource.labels

# METADATA
# title: This deployment is one of these environments
# description: An environment that the input does not tell is none of them.
# scope: rule
belongs(names) if input.environment in names
