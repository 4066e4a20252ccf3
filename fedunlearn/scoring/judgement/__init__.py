"""From measures to what is said of a strategy: differences from retraining, bands, verdicts, unequal treatment."""
