"""What Python programs and notebooks use: ``from fedunlearn import simulate, load_run, Scenario``."""
