"""Studies of decisions rather than speed, such as drifts, agreement and false-positive rates."""
