"""Scripts behind every speed claim. Each prints a table and writes a JSON file to results/."""
