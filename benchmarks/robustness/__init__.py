"""What damaged and hostile input does to the package, and what killed commands lose."""
