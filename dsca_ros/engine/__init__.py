"""Engines: what runs an exported graph on a machine. All of them give the same result."""
