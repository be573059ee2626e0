"""Forwarding over real sockets: in-process nodes, and scripted ones that misbehave."""
