"""Bags in, bags out: recordings through the network, offline."""
