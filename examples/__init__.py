"""Worked examples that run beside the gateway; nothing in `gateway` imports them."""
