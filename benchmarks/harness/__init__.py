"""How benchmarks measure: in turns, medians with quartiles, hardware and versions beside them."""
