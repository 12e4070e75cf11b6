"""How good and how fast it is: measures on frames, tables and pictures."""
