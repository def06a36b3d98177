"""What several tests share: small configs, generated data, commands, independent references."""
