"""Scripts behind every speed claim: each prints a table and writes a JSON under results/."""
