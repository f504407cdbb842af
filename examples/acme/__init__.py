"""Acme Outfitters: a small company's back office as an MCP server over a SQLite database."""
