"""Measured against attacks: AgentDojo's four suites behind a real gateway (docs/agentdojo.md).

`suite_server` and `attacks` run where the package `agentdojo` is installed; everything else runs
in the project's own environment and meets them over MCP and a side socket.
"""
