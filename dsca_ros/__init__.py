"""Sharper depth for ROS 2 depth cameras, by deeply supervised cross-scale attention (DSCA)."""

__version__ = "0.1.0"
