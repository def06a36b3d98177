"""Studies of decisions rather than of speed: drifts, classifier, agreement, line, registration."""
