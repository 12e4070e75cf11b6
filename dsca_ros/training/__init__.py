"""Training of DSCA networks on synthetic scenes."""
