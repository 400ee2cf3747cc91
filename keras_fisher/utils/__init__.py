"""What every room may use: argument checks, labels, masks, messages, stateless variables."""
