"""ROS glue. The only place that imports ROS; no arithmetic on depth happens here."""
