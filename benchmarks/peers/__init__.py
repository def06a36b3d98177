"""What ours is compared with: the same networks in PyTorch, and other people's packages."""
