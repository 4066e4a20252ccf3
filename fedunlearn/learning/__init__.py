"""What a hospital computes: networks, the one training loop, and what strategies put into it."""
