"""What the command line can do: every command reads its arguments, calls one function and prints. No logic."""
