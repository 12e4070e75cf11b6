"""Depth images as numpy arrays: units, geometry, sensors, scenes and measures.

Nothing here knows ROS or a neural network. Depth is ``float32`` metres along the
optical axis with 0 for invalid, unless a name says otherwise.
"""
