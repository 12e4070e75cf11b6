"""The DSCA network in torch. Only training and export need it; a robot does not."""
